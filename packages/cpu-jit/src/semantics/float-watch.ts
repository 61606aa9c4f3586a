/**
 * What tracked compiled code looks at to find the floating-point instructions whose exceptions, or whose results under FTZ and DAZ, a
 * helper must work out (sse-soft.ts). Rounding is to nearest and every exception is masked. The tests may say yes too often.
 *
 * A number shifted left by one, which drops its sign, orders its class: 0, denormals, the least normal numbers, ..., infinity, NaN.
 */
import type { Emitter } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { MXCSR_PE, MXCSR_TRACKED, S_MXCSR } from '../layout.ts';
import { dwords4, type FloatType, shapeOf, v } from './sse-operands.ts';

/** i32, not 0 when the helper must be asked about an instruction with this result. */
export type Watch = (e: Emitter, result: Val) => Val;

/** No result was inexact yet since the flag was cleared. */
export function precisionIsOpen(e: Emitter): Val {
  return e.eq(e.and(e.state(S_MXCSR, 4), e.i32(MXCSR_TRACKED | MXCSR_PE)), e.i32(MXCSR_TRACKED));
}

/** Ranges of shifted numbers: [from, from + length). Those of doubles are the high halves; the low halves are 0. */
interface Range {
  readonly from: number;
  readonly length: number;
}
const RANGES = {
  /** Not 0 and below the normal numbers. From 1 on, in the last place. */
  denormal: { f32: { from: 1, length: 0x00ff_ffff }, f64: { from: 1, length: 0x001f_ffff } },
  /** Everything above the numbers that may come of rounding a tiny one, and below infinity. */
  usual: { f32: { from: 0x0200_0000, length: 0xfd00_0000 }, f64: { from: 0x0040_0000, length: 0xffa0_0000 } },
} as const satisfies Record<string, Record<FloatType, Range>>;
type Class = keyof typeof RANGES;

/** i32: is the low lane in the class? */
function laneIs(e: Emitter, name: Class, type: FloatType, x: Val): Val {
  const { from, length } = RANGES[name][type];
  if (type === 'f32') return e.ltU(e.sub(e.shl(e.op('i32x4.extract_lane', 'i32', x, 0), e.i32(1)), e.i32(from)), e.i32(length));
  const shifted = e.shl(e.op('i64x2.extract_lane', 'i64', x, 0), e.i64(1));
  return name === 'denormal' ? e.ltU(e.sub(shifted, e.i64(1)), e.i64(-1, length)) : e.ltU(e.sub(shifted, e.i64(0, from)), e.i64(0, length));
}

const I32_MIN = 0x8000_0000;
/** Which lanes are in the class. Wasm compares 64-bit lanes as signed numbers only, so those are moved down by 2^63. */
function lanesAre(e: Emitter, name: Class, type: FloatType, x: Val): Val {
  const { from, length } = RANGES[name][type];
  if (type === 'f32') {
    const offset = v(e, 'i32x4.sub', v(e, 'i32x4.shl', x, e.i32(1)), e.v128(dwords4([from, from, from, from])));
    return v(e, 'i32x4.lt_u', offset, e.v128(dwords4([length, length, length, length])));
  }
  const pair = (low: number, high: number) => e.v128(dwords4([low, high, low, high]));
  const isDenormal = name === 'denormal';
  const offset = v(e, 'i64x2.sub', v(e, 'i64x2.shl', x, e.i32(1)), isDenormal ? pair(1, I32_MIN) : pair(0, (from + I32_MIN) >>> 0));
  return v(e, 'i64x2.lt_s', offset, isDenormal ? pair(-1, (length + I32_MIN) >>> 0) : pair(0, (length + I32_MIN) >>> 0));
}

const isScalar = (lanes: number): boolean => lanes === 1;

/** i32: is a lane of an operand denormal? */
function hasDenormal(e: Emitter, type: FloatType, lanes: number, operands: readonly Val[]): Val {
  if (isScalar(lanes)) return operands.map((x) => laneIs(e, 'denormal', type, x)).reduce((a, b) => e.or(a, b));
  return e.op(
    'v128.any_true',
    'i32',
    operands.map((x) => lanesAre(e, 'denormal', type, x)).reduce((a, b) => v(e, 'v128.or', a, b)),
  );
}
/** i32: is a lane 0, tiny, infinite or no number? */
function isUnusual(e: Emitter, type: FloatType, lanes: number, x: Val): Val {
  if (isScalar(lanes)) return e.eqz(laneIs(e, 'usual', type, x));
  return e.eqz(e.op(type === 'f32' ? 'i32x4.all_true' : 'i64x2.all_true', 'i32', lanesAre(e, 'usual', type, x)));
}
function hasNaN(e: Emitter, type: FloatType, lanes: number, operands: readonly Val[]): Val {
  const shape = shapeOf(type);
  if (isScalar(lanes)) {
    const low = (x: Val) => e.let(e.op(`${shape}.extract_lane`, type, x, 0));
    return operands
      .map(low)
      .map((x) => e.op(`${type}.ne`, 'i32', x, x))
      .reduce((a, b) => e.or(a, b));
  }
  return e.op(
    'v128.any_true',
    'i32',
    operands.map((x) => v(e, `${shape}.ne`, x, x)).reduce((a, b) => v(e, 'v128.or', a, b)),
  );
}

/** Arithmetic that rounds: `lanes` 1 is the low lane, all others together are all. The operands are vectors that may be used many times. */
export const arithmetic =
  (type: FloatType, lanes: number, ...operands: readonly Val[]): Watch =>
  (e, result) =>
    e.or(e.or(precisionIsOpen(e), isUnusual(e, type, lanes, result)), hasDenormal(e, type, lanes, operands));
/** MINx, MAXx, comparisons and conversions to a wider format, which are exact. */
export const exact =
  (type: FloatType, lanes: number, ...operands: readonly Val[]): Watch =>
  (e) =>
    e.or(hasNaN(e, type, lanes, operands), hasDenormal(e, type, lanes, operands));
/** Conversions of the lowest `count` doubles to singles: tiny operands have tiny results. */
export const narrowing =
  (count: 1 | 2): Watch =>
  (e, result) => {
    const low = e.or(precisionIsOpen(e), isUnusual(e, 'f32', 1, result));
    return count === 1 ? low : e.or(low, isUnusual(e, 'f32', 1, e.let(v(e, 'i64x2.shr_u', result, e.i32(32)))));
  };
/** ROUNDx: imm[3] asks for no precision exceptions. */
export const integral =
  (type: FloatType, lanes: number, imm: Val, operand: Val): Watch =>
  (e, result) => {
    const other = exact(type, lanes, operand)(e, result);
    return imm.constant !== undefined && imm.constant & 8 ? other : e.or(precisionIsOpen(e), other);
  };
/** Conversions from integers. */
export const fromInteger: Watch = precisionIsOpen;
/** Conversions to integers of `size` bytes, one or a vector of doublewords. */
export const toInteger =
  (size: 4 | 8): Watch =>
  (e, result) =>
    e.or(precisionIsOpen(e), e.eq(result, size === 8 ? e.i64(0, -I32_MIN) : e.i32(-I32_MIN)));
export const toIntegers: Watch = (e, result) =>
  e.or(precisionIsOpen(e), e.op('v128.any_true', 'i32', v(e, 'i32x4.eq', result, e.v128(dwords4([I32_MIN, I32_MIN, I32_MIN, I32_MIN])))));
