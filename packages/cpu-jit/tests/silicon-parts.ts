/** Which forms are recorded in which file, and how often. */
import type { Form } from '../src/decoder/types.ts';
import { type CodeMode, LEGACY_MODES, LONG_MODE } from './code-modes.ts';
import { kindOf } from './random-instruction.ts';
import { WITHOUT_VECTORS } from './without-vectors.ts';

/** A file of tests/vectors. */
export interface Part {
  readonly file: string;
  has(form: Form): boolean;
  /** Encodings of a form, and states for each. */
  amount(form: Form): { readonly encodings: number; readonly states: number };
}

/** Results that differ between processors in the last bit; they have tests of their own (sse.test.ts, x87.test.ts). */
const ESTIMATES = /^(v?r(cp|sqrt)[ps]s|f2xm1|fyl2x|fyl2xp1|fptan|fpatan|fsincos|fsin|fcos)$/;
export const isEstimate = (name: string): boolean => ESTIMATES.test(name);

const isRecorded = (f: Form) => !(f.row.name in WITHOUT_VECTORS) && !isEstimate(f.row.name);
const isInteger = (f: Form) => kindOf(f) === 'integer';
const isAvx = (f: Form) => kindOf(f) === 'avx';

/** AVX in 64-bit code has vectors of its own (avx-vectors.ts). */
export function partsOf(mode: CodeMode): readonly Part[] {
  if (mode === LONG_MODE) {
    return [
      { file: 'long-integer', has: (f) => isRecorded(f) && isInteger(f), amount: () => ({ encodings: 8, states: 12 }) },
      { file: 'long-others', has: (f) => isRecorded(f) && !isInteger(f) && !isAvx(f), amount: () => ({ encodings: 2, states: 8 }) },
    ];
  }
  const only = (f: Form) => f.row.mode === 'i64';
  return [{ file: mode.name, has: isRecorded, amount: (f) => (only(f) ? { encodings: 4, states: 12 } : { encodings: 1, states: isInteger(f) ? 8 : 4 }) }];
}

/** Every file, with its mode. */
export const SILICON_FILES: readonly { readonly mode: CodeMode; readonly part: Part }[] = [LONG_MODE, ...LEGACY_MODES].flatMap((mode) =>
  partsOf(mode).map((part) => ({ mode, part })),
);
