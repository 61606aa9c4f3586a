import { describe, expect, it } from 'vitest';
import { ABI_REVISIONS } from './abi/revision.ts';
import { FailedEntry, TripleFault } from './designs/design.ts';
import { map, testGuest } from './testing/guest.ts';

/** Mulberry32: a small generator with a 32-bit seed. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b_79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

// Starts of instructions that reach the hypervisor; random bytes alone are mostly harmless.
const SPICE: readonly (readonly number[])[] = [
  [0x0f, 0x05],
  [0x0f, 0x30],
  [0x0f, 0x32],
  [0x0f, 0x22],
  [0x0f, 0x20],
  [0x0f, 0x01],
  [0x0f, 0x00],
  [0xee],
  [0xed],
  [0x6c],
  [0xf3, 0x6e],
  [0xcd],
  [0xcc],
  [0xf4],
  [0xfa],
  [0xfb],
  [0x8e],
  [0xcb],
  [0x48, 0xcf],
  [0x0f, 0x09],
  [0x0f, 0x38, 0x82],
  [0x9d],
  [0x0f, 0x07],
  [0x48, 0xa3],
  [0x48, 0xa1],
];
const VALUES: readonly bigint[] = [
  0n,
  1n,
  2n ** 64n - 1n,
  BigInt(map.pvcs),
  BigInt(map.pml4),
  BigInt(map.pageTable),
  BigInt(map.umodData),
  BigInt(map.umodCode),
  BigInt(map.retu),
  BigInt(map.rets),
  BigInt(map.userPml4),
  map.window,
  0x4b56_4df0n,
  0x4b56_4df1n,
  0x4b56_4df4n,
  0x4b56_4df2n,
  0x4b56_4df3n,
  0x4b56_4df5n,
  0x4b56_4df6n,
  0x4b56_4df7n,
  0xc000_0080n,
  0xc000_0101n,
  0xffff_8000_0000_0000n,
  1n << 60n,
  0x3ff_fff8n,
  ...Array.from({ length: 10 }, (_, i) => BigInt(0x1708_8200 + i)),
];

describe('random guest code', () => {
  it.each(Array.from({ length: 6 }, (_, i) => i + 1))('never does worse than end its own machine (seed %i)', async (seed) => {
    const random = generator(seed);
    const pick = <T>(list: readonly T[]): T => list[random() % list.length] as T;
    for (let round = 0; round < 30; round++) {
      const abi = pick(['auto', ...ABI_REVISIONS] as const);
      const coin = () => (random() & 1) === 0;
      const g = await testGuest({ abi, directSwitch: coin(), prefault: coin(), pcidMap: coin(), injectDirect: coin() });
      if (random() % 8 !== 0) abi === 'rfc-v1' ? g.attachRfcV1() : g.attach();
      for (const at of [map.smodCode, map.umodCode, map.umodEvent, map.smodException, map.smodEvent, map.lstar]) {
        const code = Array.from({ length: 200 }, () => (random() % 5 === 0 ? pick(SPICE) : [random() & 0xff])).flat();
        g.code(at, code.slice(0, 256));
      }
      if (random() % 2 === 0) g.umod([random() & 0xff]);
      for (let n = 0; n < 16; n++) g.vcpu.setReg(n, random() % 3 === 0 ? BigInt(random()) : pick(VALUES));
      for (let i = 0; i < 32; i++) g.pvcs32(4 * (random() % 32), Number(pick(VALUES) & 0xffff_ffffn));
      try {
        for (let slices = 0; slices < 20; slices++) {
          if (g.runSlice() === 'halted') break;
          if (random() % 4 === 0) g.design.injectInterrupt(0, 32 + (random() % 224));
        }
      } catch (e) {
        expect(e instanceof TripleFault || e instanceof FailedEntry, e instanceof Error ? e.stack : String(e)).toBe(true);
      }
      g.design.mmu.check();
    }
  });
});
