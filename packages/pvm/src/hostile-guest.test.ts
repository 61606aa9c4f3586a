import { CpuCore } from '@pvm/cpu-jit';
import { TLB_BASE, TLB_READ } from '@pvm/cpu-jit/layout';
import { expect, it } from 'vitest';
import { violations } from './testing/hostile/invariants.ts';
import { differences, MACHINES, runHostile } from './testing/hostile/run.ts';

/** A seed for each machine; `scripts/fuzz-guest.ts` goes on as long as wanted. */
const CASES = Object.entries(MACHINES).map(([name, machine], i) => ({ name, machine, seed: 2 + i }));
const INSTRUCTIONS = 6000;

it.each(CASES)('a kernel that does everything wrong under $name ends as a guest may, harms no memory but its own, and does the same compiled', async (one) => {
  const run = { instructions: INSTRUCTIONS, checkMmu: 100 };
  const interpreted = await runHostile(one.seed, one.machine, { ...run, jit: 'off' });
  const compiled = await runHostile(one.seed, one.machine, { ...run, jit: 'sync' });
  expect(differences(interpreted, compiled), `seed ${one.seed}`).toEqual([]);
});

it('a write beyond guest RAM and a translation that leads there are found', async () => {
  const core = await CpuCore.create({ ramBytes: 8 << 20, jit: 'off' });
  expect(violations(core)).toEqual([]);
  core.u8[core.ramBase + core.ramBytes] = 1;
  core.view.setBigUint64(TLB_BASE + TLB_READ, 0x1000n, true);
  expect(violations(core)).toEqual(['memory above guest RAM was written', 'vCPU 0: 0x1000 is translated to 0xfff, which is not guest RAM']);
  await core.dispose();
});
