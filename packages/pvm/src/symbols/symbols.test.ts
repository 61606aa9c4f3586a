import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { parseSymbols, SymbolTable } from './symbol-table.ts';
import { Symboliser } from './symboliser.ts';

const kernel = readFileSync(new URL('../../../../guests/kernel/kernel.elf', import.meta.url));
const text = (lines: string) => new TextEncoder().encode(lines);
const MAP = `ffffffff81000000 T _stext
ffffffff81000040 T entry_SYSCALL_64
ffffffff81000100 t do_work
ffffffff81000100 T do_work_alias
ffffffff81000200 D some_data
ffffffff81000300 t helper	[ext4]
`;

it('names an address by the symbol before it, from System.map and kallsyms text', () => {
  const table = parseSymbols(text(MAP), 'System.map');
  expect(table.find(0xffff_ffff_8100_0104n)).toBe('do_work+0x4');
  expect(table.find(0xffff_ffff_8100_0040n)).toBe('entry_SYSCALL_64');
  expect(table.find(0xffff_ffff_8100_0310n)).toBe('helper+0x10');
  expect(table.find(0xffff_ffff_80ff_ffffn)).toBeUndefined();
  expect(table.find(0xffff_ffff_9100_0000n)).toBeUndefined();
});

it('undoes the move of a relocated kernel with the help of MSR LSTAR', () => {
  const names = new Symboliser();
  names.add(parseSymbols(text(MAP), 'System.map'));
  const rip = 0xffff_ffff_a300_0108n;
  expect(names.find(rip, { syscallEntry: 0xffff_ffff_a300_0040n })).toBe('do_work+0x8');
  expect(names.find(rip, { syscallEntry: 0n })).toBeUndefined();
});

it('reads the functions of an ELF, each no further than its size', () => {
  const table = parseSymbols(kernel, 'kernel');
  const entry = table.address('pvm_v2_syscall_entry') ?? 0n;
  expect(entry).toBeGreaterThan(0n);
  expect(table.find(entry)).toBe('pvm_v2_syscall_entry');
  expect(table.find(entry + 1n)).toBe('pvm_v2_syscall_entry+0x1');
  expect(table.find(0x10n)).toBeUndefined();
});

it('finds a position-independent program where the guest kernel puts it', () => {
  const names = new Symboliser();
  names.add(new SymbolTable([{ address: 0x1000n, size: 8n, name: 'start' }], true));
  expect(names.find(0x5555_5555_5004n, { syscallEntry: 0n })).toBe('start+0x4');
});

it.each([
  ['text that is no symbol list', text('hello\n'), /expected System.map/],
  ['kallsyms without privileges', text('0000000000000000 T _stext\n'), /no symbols/],
  ['a truncated ELF', kernel.subarray(0, 3000), /no symbol table/],
])('refuses %s', (_, file, message) => {
  expect(() => parseSymbols(file, 'x')).toThrow(message);
});
