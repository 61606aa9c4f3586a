import { expect, test } from 'vitest';
import { EXIT_HLT } from './layout.ts';
import { HLT, KernelMachine } from './testing/kernel-machine.ts';

const TURNS = 200;
/** An address of 4 bytes. */
const at = (address: number) => [address & 255, (address >> 8) & 255, (address >> 16) & 255, address >>> 24];
const DATA = 0x10_0000;

/** What an instruction looks up: once, or for each page that it touches; an operand that is read and written counts twice. */
const CASES: readonly (readonly [what: string, code: readonly number[], lookups: number])[] = [
  ['MOV from memory', [0x8b, 0x04, 0x25, ...at(DATA)], 1],
  ['MOV to memory', [0x89, 0x04, 0x25, ...at(DATA)], 1],
  [
    'a group of accesses',
    [
      [0x8b, 0x04, 0x25, ...at(DATA)],
      [0x89, 0x04, 0x25, ...at(DATA + 8)],
      [0x8b, 0x14, 0x25, ...at(DATA + 16)],
    ].flat(),
    3,
  ],
  ['PUSH and POP', [0x50, 0x58], 2],
  ['INC of memory', [0xff, 0x04, 0x25, ...at(DATA)], 2],
  ['an access to two pages', [0x48, 0x8b, 0x04, 0x25, ...at(DATA + 0xffc)], 2],
  ['no access', [0x90], 0],
];

test.each(CASES)('%s', async (_, body, lookups) => {
  const counts = [];
  for (const jit of ['off', 'sync'] as const) {
    const m = await KernelMachine.create([0xb9, ...at(TURNS), ...body, 0xff, 0xc9, 0x75, 0x100 - 4 - body.length, HLT], jit);
    m.core.countTlbHits(true);
    expect(m.core.run(0)).toBe(EXIT_HLT);
    const { tlbHits = 0, tlbMisses, compiledEntries } = m.core.stats(0);
    expect(compiledEntries > 0).toBe(jit === 'sync');
    counts.push({ tlbHits, tlbMisses });
    m.core.countTlbHits(false);
    expect(m.core.stats(0).tlbHits).toBeUndefined();
    await m.core.dispose();
  }
  const [interpreted, compiled] = counts;
  expect(compiled).toEqual(interpreted);
  // What missed was looked up as well; the first fetch misses too.
  const misses = (interpreted?.tlbMisses ?? 0) - 1;
  expect((interpreted?.tlbHits ?? 0) + misses).toBe(lookups * TURNS);
});
