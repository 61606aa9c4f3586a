import { describe, expect, test } from 'vitest';
import { compiledForms, formDifferences, interpretedForms } from '../tests/form-replay.ts';
import { MXCSR_STICKY, SLOT } from '../tests/form-state.ts';
import { type FormCase, type FormEncoding, readFormVectors } from '../tests/form-vectors.ts';

const encodings = readFormVectors();

/** Up to twenty differences as text, and the cases that compiled code left to the interpreter. */
function replay(execute: Awaited<ReturnType<typeof interpretedForms>>): { found: string[]; declined: FormCase[] } {
  const found: string[] = [];
  const declined: FormCase[] = [];
  const run = (e: FormEncoding, c: FormCase) => {
    const got = execute(e, c.before);
    if (got === undefined) declined.push(c);
    else found.push(...formDifferences(e, c, got));
  };
  for (const e of encodings) {
    for (const c of e.cases) run(e, c);
    if (found.length > 20) break;
  }
  return { found, declined };
}

describe('SSE, MMX, x87, segment and system instructions recorded on silicon from whole states', () => {
  test('give the same results interpreted, faults included', async () => {
    expect(replay(await interpretedForms())).toEqual({ found: [], declined: [] });
  });
  test('give the same results compiled; only floating-point code with another rounding mode or unmasked exceptions is left to the interpreter', async () => {
    const { found, declined } = replay(await compiledForms(encodings));
    expect(found).toEqual([]);
    expect(declined.length).toBeLessThan(1000);
    for (const { before } of declined) expect(before[SLOT.mxcsr]).not.toBe(BigInt(MXCSR_STICKY));
  });
});
