import { expect, test } from 'vitest';
import { decode, type Insn } from '../decoder/index.ts';
import type { GuestBlock, RegionCode } from './region.ts';
import { registersInMemory } from './register-homes.ts';

/** A region of blocks, each the code at its offset. */
function region(code: Record<number, readonly number[]>): RegionCode {
  const blocks = new Map<number, GuestBlock>();
  for (const [key, list] of Object.entries(code)) {
    const bytes = Uint8Array.from([...list, ...new Uint8Array(16)]);
    const insns: Insn[] = [];
    for (let at = 0; at < list.length; at += insns.at(-1)?.length ?? 1) {
      const insn = decode(bytes, at, bytes.length - at, 64);
      if (typeof insn === 'string') throw new Error(insn);
      insns.push(insn);
    }
    blocks.set(Number(key), { start: Number(key), end: Number(key) + list.length, insns });
  }
  return { hpa: 0, codeSize: 64, tracked: false, blocks, entries: [], returnSites: [], targets: new Map() };
}
/** INC of registers r8d..r15d and of eax.. by number. */
const inc = (n: number) => (n >= 8 ? [0x41, 0xff, 0xc0 + n - 8] : [0xff, 0xc0 + n]);
const all = (...registers: number[]) => registers.flatMap(inc);
const TEN = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10];

test('ten registers stay in locals', () => {
  expect(registersInMemory(region({ 0: all(...TEN) }))).toBe(0);
});
test('of more registers those that are used least stay in the state block', () => {
  expect(registersInMemory(region({ 0: all(...TEN, ...TEN, 11, 12) }))).toBe((1 << 11) | (1 << 12));
});
test('a use in a loop counts as several outside', () => {
  // The second block is a loop: INC r11d; JMP to its start.
  const blocks = { 0: all(...TEN, ...TEN, 15, 15, 15), 128: [...all(11), 0xeb, 0xfb] };
  expect(registersInMemory(region(blocks))).toBe((1 << 9) | (1 << 10));
});
