import { setFlagsFromString } from 'node:v8';
import { describe, expect, test } from 'vitest';
import { type AvxExecutor, avxDifferences, compiledAvx, interpretedAvx } from '../../tests/avx-replay.ts';
import { AVX_MODES_VECTORS, AVX_VECTORS, type AvxEncoding, readAvxVectors } from '../../tests/avx-vectors.ts';
import { kindOf } from '../../tests/random-instruction.ts';
import { formKey, forms } from '../decoder/index.ts';
import { MXCSR_DEFAULT, MXCSR_ROUNDING_MASKS } from '../layout.ts';

// Hot code is TurboFan's, which unlike Liftoff may swap operands.
setFlagsFromString('--no-liftoff');
const encodings = readAvxVectors(AVX_VECTORS);
/** Under other controls compiled code hands over to the interpreter. */
const modes = readAvxVectors(AVX_MODES_VECTORS);
/** Estimates of 12 bits, which differ from one processor to the next: see sse.test.ts. */
const isEstimate = ({ insn }: AvxEncoding) => /^vr(cp|sqrt)/.test(insn.row.name);

function replay(execute: AvxExecutor, list: readonly AvxEncoding[]): string[] {
  const found: string[] = [];
  for (const encoding of list) {
    if (isEstimate(encoding)) continue;
    for (const c of encoding.cases) found.push(...avxDifferences(encoding, c, execute(encoding, c.before)));
    if (found.length > 20) break;
  }
  return found;
}

describe('AVX instructions recorded on silicon', () => {
  test('cover every form of the tables', () => {
    const covered = new Set(encodings.map((e) => formKey(e.insn)));
    const missing = [...forms(64)].filter((f) => kindOf(f) === 'avx' && !covered.has(formKey(f)));
    expect(missing.map((f) => `${f.row.name} ${f.row.operands.join()} ${f.vl}`)).toEqual([]);
  });
  test('give the same results interpreted, under all controls of MXCSR', async () => {
    const execute = await interpretedAvx(false);
    expect(replay(execute, encodings)).toEqual([]);
    expect(replay(execute, modes)).toEqual([]);
  });
  test('give the same results compiled', async () => {
    expect(replay(await compiledAvx(encodings, false), encodings)).toEqual([]);
  });
  test('note the same exceptions in MXCSR, interpreted and compiled', async () => {
    const floating = encodings.filter((e) => e.cases.some(({ before, after }) => before.mxcsr !== after.mxcsr));
    expect(floating.length).toBeGreaterThan(400);
    expect(replay(await interpretedAvx(true), floating)).toEqual([]);
    const compilable = [...floating, ...modes.filter((e) => (e.mxcsr & MXCSR_ROUNDING_MASKS) === MXCSR_DEFAULT)];
    expect(replay(await compiledAvx(compilable, true), compilable)).toEqual([]);
  });
});
