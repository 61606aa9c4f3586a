import { CpuCore } from '@pvm/cpu-jit';
import { TLB_BASE, TLB_READ } from '@pvm/cpu-jit/layout';
import { expect, it } from 'vitest';
import { violations } from './testing/hostile/invariants.ts';
import { MACHINES, runHostile, tierDifferences } from './testing/hostile/run.ts';

/** A seed for each machine; `scripts/fuzz-guest.ts` goes on as long as wanted. */
const CASES = Object.entries(MACHINES).map(([name, machine], i) => ({ name, machine, seed: 2 + i }));
const INSTRUCTIONS = 6000;

it.each(CASES)('a kernel that does everything wrong under $name ends as a guest may, harms no memory but its own, and does the same compiled', async (one) => {
  expect(await tierDifferences(one.seed, one.machine, { instructions: INSTRUCTIONS, checkMmu: 100 }), `seed ${one.seed}`).toEqual([]);
});

it('a guest that stores another translation of the page it runs in is compared up to there: this one goes two ways after it', async () => {
  const machine = MACHINES['kvm-spt'];
  if (machine === undefined) throw new Error('no such machine');
  const run = { instructions: 30_000 };
  expect((await runHostile(309, machine, { ...run, jit: 'off' })).sureUntil).toSatisfy((count: number) => count > 0 && count < run.instructions);
  expect(await tierDifferences(309, machine, run)).toEqual([]);
});

it('a write beyond guest RAM and a translation that leads there are found', async () => {
  const core = await CpuCore.create({ ramBytes: 8 << 20, jit: 'off' });
  expect(violations(core)).toEqual([]);
  core.u8[core.ramBase + core.ramBytes] = 1;
  core.view.setBigUint64(TLB_BASE + TLB_READ, 0x1000n, true);
  expect(violations(core)).toEqual(['memory above guest RAM was written', 'vCPU 0: 0x1000 is translated to 0xfff, which is not guest RAM']);
  await core.dispose();
});
