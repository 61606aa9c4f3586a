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
test('counted entries decide over loops: one that hardly runs counts less than straight code that runs often', () => {
  // The first block is a loop: INC of ten registers; JMP to its start.
  const { blocks, ...rest } = region({ 0: [...all(...TEN), 0xeb, 0xe7], 128: all(11, 12) });
  const counted = (rates: Record<number, number>) => ({ ...rest, blocks: new Map([...blocks].map(([at, block]) => [at, { ...block, rate: rates[at] }])) });
  expect(registersInMemory(counted({}))).toBe((1 << 11) | (1 << 12));
  expect(registersInMemory(counted({ 0: 0.001, 128: 0.1 }))).toBe((1 << 9) | (1 << 10));
});
test('a block runs as often as the one that runs into it as well', () => {
  // INC r11d, at 4, is only come to from the block before it.
  const { blocks, ...rest } = region({ 0: all(1, 2), 4: all(11, 12), 128: all(...TEN) });
  const rates: Record<number, number> = { 0: 0.1, 128: 0.05 };
  const counted = { ...rest, blocks: new Map([...blocks].map(([at, block]) => [at, { ...block, rate: rates[at] }])) };
  expect(registersInMemory(counted)).toBe((1 << 9) | (1 << 10));
});
test('second versions of loops make no loop of the code behind them', () => {
  const { blocks, ...rest } = region({ 0: all(...TEN, 11, 11), 256: [...all(12), 0xeb, 0xfb], 512: all(13) });
  const header = blocks.get(256);
  if (header === undefined) throw new Error('the loop is missing');
  const loop = { header: 256, copies: new Map([[256, 1 << 20]]), windows: [], turnInsns: 2 };
  const copy = { ...header, start: 1 << 20, copy: { of: 256, loop } };
  const found = registersInMemory({ ...rest, blocks: new Map([...blocks, [copy.start, copy]]) });
  expect(found).toBe((1 << 9) | (1 << 10) | (1 << 13));
});
