import { describe, expect, it } from 'vitest';
import { RandomGuest, type RunOptions } from './testing/random-guest.ts';
import { shrink } from './testing/shrink.ts';

/** Replay one run: MMU_SEED=n, and MMU_STEPS=n for its length. */
const FIXED_SEED = process.env.MMU_SEED;
const SEEDS = FIXED_SEED === undefined ? [1, 2] : [Number(FIXED_SEED)];
const SCALE = Number(process.env.MMU_STEPS ?? 0);

const RUNS: readonly { options: Omit<RunOptions, 'seed'>; steps: number }[] = [
  { options: { tables: 'guest' }, steps: 150_000 },
  { options: { tables: 'second-level' }, steps: 150_000 },
  { options: { tables: 'pvm' }, steps: 150_000 },
  { options: { tables: 'kvm', poolFrames: 64, cachedRoots: 4 }, steps: 150_000 },
  { options: { tables: 'kvm', poolFrames: 400, prefetch: 1 }, steps: 150_000 },
  { options: { tables: 'kvm-unsync', poolFrames: 400, cachedRoots: 4 }, steps: 150_000 },
  { options: { tables: 'kvm-unsync', poolFrames: 64, largePages: false }, steps: 150_000 },
];

async function run(options: RunOptions, steps: Iterable<number>): Promise<RandomGuest> {
  const guest = await RandomGuest.create(options);
  let step = -1;
  try {
    for (step of steps) guest.step(step);
  } catch (cause) {
    throw new Error(`step ${step}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  return guest;
}

/** Fails with the shortest sequence of steps found. */
async function explain(options: RunOptions, failed: unknown): Promise<never> {
  const message = String(failed);
  const last = Number(/step (\d+)/.exec(message)?.[1] ?? -1);
  const all = Array.from({ length: last + 1 }, (_, i) => i);
  const fails = (steps: readonly number[]) =>
    run(options, steps).then(
      () => false,
      () => true,
    );
  const steps = await shrink(all, fails, 150);
  const shortest = await run(options, steps).then(() => 'does not fail when repeated', String);
  throw new Error(`MMU_SEED=${options.seed}: ${message}\n  ${steps.length} steps are enough (${steps.slice(-40).join(' ')}): ${shortest}`, { cause: failed });
}

const TOTAL = RUNS.reduce((sum, { steps }) => sum + steps, 0);

describe(`no access is allowed that tables and TLB rules forbid, none refused that they allow, in ${TOTAL} random steps`, () => {
  for (const { options, steps, seed } of RUNS.flatMap((run) => SEEDS.map((seed) => ({ ...run, seed, steps: run.steps / SEEDS.length })))) {
    it(`${JSON.stringify(options)} (MMU_SEED=${seed})`, { timeout: 120_000 }, async () => {
      const length = SCALE > 0 ? SCALE : steps;
      const full = { ...options, seed };
      const guest = await run(full, Array(length).keys()).catch((failed: unknown) => explain(full, failed));
      expect(guest.counts.ram).toBeGreaterThan(length / 10);
      expect(guest.counts.fault).toBeGreaterThan(length / 20);
      const mayBeStale = options.tables !== 'pvm' && options.tables !== 'kvm';
      expect(guest.counts.stale > 0).toBe(mayBeStale);
    });
  }
});
