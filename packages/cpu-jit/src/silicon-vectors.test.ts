import { describe, expect, test } from 'vitest';
import { SLOT } from '../tests/form-state.ts';
import type { Instance } from '../tests/instance.ts';
import { SILICON_FILES } from '../tests/silicon-parts.ts';
import { compiled, differences, type Executor, interpreted } from '../tests/silicon-replay.ts';
import { readSiliconVectors, type SiliconCase, vectorFile } from '../tests/silicon-vectors.ts';
import { isTruncating } from './jit/region.ts';

/** Rounding control of MXCSR. */
const ROUNDING = 0x6000n;

interface Tried {
  readonly execute: Executor;
  /** Up to twenty differences as text. */
  readonly found: string[];
  /** Cases that compiled code left to the interpreter. */
  readonly declined: { instance: Instance; c: SiliconCase }[];
}
const tried = (execute: Executor): Tried => ({ execute, found: [], declined: [] });

function run(t: Tried, instance: Instance, c: SiliconCase): void {
  if (t.found.length > 20) return;
  const got = t.execute(instance, c.before);
  if (got === undefined) t.declined.push({ instance, c });
  else t.found.push(...differences(instance, c, got));
}

describe.each(SILICON_FILES)('instructions recorded on silicon: $part.file', ({ mode, part }) => {
  // The region compiler takes 64-bit code and flat 32-bit code.
  const isCompiled = mode.codeSize === 64 || mode.name === 'flat32';
  test(`give the same results interpreted${isCompiled ? ' and compiled' : ''}, faults and flags that the manual leaves undefined included`, async () => {
    const encodings = readSiliconVectors(mode, vectorFile(part.file));
    const instances = encodings.map((e) => e.instance);
    const tiers = [tried(await interpreted(mode)), ...(isCompiled ? [tried(await compiled(mode, instances))] : [])];
    for (const { instance, cases } of encodings) for (const c of cases()) for (const t of tiers) run(t, instance, c);
    expect(tiers.map((t) => t.found)).toEqual(tiers.map(() => []));
    // Only floating-point code with another rounding mode, and branches that clear the upper half of EIP, are left to the interpreter.
    const [first, second] = tiers.map((t) => t.declined);
    expect(first).toEqual([]);
    for (const { instance, c } of second ?? []) expect(isTruncating(instance.insn) || ((c.before[SLOT.mxcsr] ?? 0n) & ROUNDING) !== 0n).toBe(true);
    expect(second?.length ?? 0).toBeLessThan(1500);
  }, 300_000);
});
