/** SSE..SSE4.1 conversions and rounding. Wasm converts to nearest, as MXCSR's default controls ask; see sse-soft.ts for the others. */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import * as watch from './float-watch.ts';
import { enterMmx, guard } from './mmx.ts';
import { mmxSource, zeroExtended } from './sse-move.ts';
import { convert, type FloatType, imm8, lowLane, merged, shapeOf, shuffleLanes, v } from './sse-operands.ts';
import { allLanes, orSoft, softCall } from './sse-soft.ts';
import { eachHalf, first, lowSecond, scalarSecond, second, second128, secondIndex, unary, writeVector } from './vector.ts';

const TWO_31 = 2 ** 31;
const TWO_63 = 2 ** 63;
const constant = (e: Emitter, type: FloatType, n: number): Val => (type === 'f32' ? e.f32(n) : e.f64(n));
const wide = (type: FloatType): number => (type === 'f64' ? 1 : 0);

// ------------------------------------------------------------------ to integers
/** 1.5 * 2^52: adding it to a double below 2^51 in magnitude leaves the nearest integer in the low bits. */
const MAGIC = 3 * 2 ** 51;
/** High half of MAGIC's bits; the low half is 0. */
const MAGIC_HIGH = 0x4338_0000;
/** Sign and exponent of doubles from 2^52 to 2^53. */
const MAGIC_EXPONENT = 0x433;

/** Double to 4-byte integer, to nearest; out of range and NaN give the integer indefinite 8000_0000h. */
function toDword(e: Emitter, x: Val): Val {
  const bits = e.let(e.op('i64.reinterpret', 'i64', e.op('f64.add', 'f64', x, e.f64(MAGIC))));
  const fromLeast = e.sub(bits, e.i64(-0x8000_0000, MAGIC_HIGH - 1));
  return e.select(e.eqz(e.shrU(fromLeast, e.i64(32))), e.wrap(bits), e.i32(-0x8000_0000));
}
/** Double to 8-byte integer, to nearest. Wasm's own conversion, which saturates and has a NaN case, is several times slower. */
function toQword(e: Emitter, x: Val): Val {
  const bits = e.let(e.op('i64.reinterpret', 'i64', e.op('f64.add', 'f64', x, e.f64(MAGIC))));
  const result = e.variable(e.sub(bits, e.i64(0, MAGIC_HIGH)));
  e.if(e.ne(e.shrU(bits, e.i64(52)), e.i64(MAGIC_EXPONENT)), () => {
    // From 2^51 on. Saturation gives the indefinite below the range; it would be wrong above and for NaN.
    const saturated = convert(e, 'i64', 'trunc_s_sat', 'f64', e.op('f64.nearest', 'f64', x));
    result.set(e.select(e.op('f64.lt', 'i32', x, e.f64(TWO_63)), saturated, e.i64(0, -0x8000_0000)));
  });
  return result.get();
}
/** CVTSx2SI, CVTTSx2SI. */
const scalarToInteger =
  (type: FloatType, truncate: boolean): Semantics =>
  (e) => {
    const size = e.size(0);
    const vector = scalarSecond(e, type);
    const low = lowLane(e, type, vector);
    const x = type === 'f32' ? e.op('f64.promote', 'f64', low) : low;
    const rounded = e.let(truncate ? e.op('f64.trunc', 'f64', x) : x);
    const integer = orSoft(e, size === 8 ? toQword(e, rounded) : toDword(e, rounded), watch.toInteger(size === 8 ? 8 : 4), () => {
      const soft = softCall(e, 'sse_to_integer', 'i64', wide(type), size, truncate ? 1 : 0, vector);
      return size === 8 ? soft : e.wrap(soft);
    });
    e.write(0, integer);
  };

/** Lanes that would not fit a doubleword replaced by -2^31, which then truncates to the integer indefinite. */
function clampLanes(e: Emitter, type: FloatType, x: Val): Val {
  const bound = e.let(x);
  const shape = shapeOf(type);
  const limit = (n: number) => v(e, `${shape}.splat`, constant(e, type, n));
  return v(e, 'v128.bitselect', bound, limit(-TWO_31), v(e, `${shape}.lt`, bound, limit(TWO_31)));
}
/** Doublewords of `count` lanes, zeros above. */
function toDwords(e: Emitter, type: FloatType, truncate: boolean, x: Val, count: number): Val {
  const integral = clampLanes(e, type, truncate ? x : v(e, `${shapeOf(type)}.nearest`, x));
  const fast = v(e, type === 'f32' ? 'i32x4.trunc_sat_f32x4_s' : 'i32x4.trunc_sat_f64x2_s_zero', integral);
  return orSoft(e, fast, watch.toIntegers, () => softCall(e, 'sse_to_dwords', 'v128', wide(type), count, truncate ? 1 : 0, x));
}
const singlesToDwords = (truncate: boolean): Semantics => unary((e, x) => toDwords(e, 'f32', truncate, x, 4));
const doublesToDwords = (truncate: boolean): Semantics => narrow((e, x) => toDwords(e, 'f64', truncate, x, 2));
/** Halves of doubles, each to two lanes of 4 bytes with zeros above, side by side. */
function narrow(f: (e: Emitter, x: Val) => Val): Semantics {
  return (e) => {
    const [low, high] = eachHalf(e, second(e), (x) => e.let(f(e, x)));
    if (low !== undefined) writeVector(e, high === undefined ? low : shuffleLanes(e, low, high, 8, [0, 2]));
  };
}
/** Two lanes of 4 bytes, at the bottom of what `f` gets, widened; for the high half of a ymm register those above them. */
function widen(f: (e: Emitter, x: Val) => Val): Semantics {
  return (e) => {
    const source = lowSecond(e);
    if (e.form.vl === 16) return writeVector(e, f(e, source));
    const upper = e.let(shuffleLanes(e, source, source, 8, [1, 1]));
    const [low = source, high] = eachHalf(e, [source, upper], (x) => f(e, x));
    writeVector(e, low, high);
  };
}
/** CVT(T)PS2PI, CVT(T)PD2PI: two doublewords to an MMX register. */
const toMmx =
  (type: FloatType, truncate: boolean): Semantics =>
  (e) => {
    guard(e);
    const x = type === 'f32' ? lowSecond(e) : second128(e);
    const dwords = toDwords(e, type, truncate, x, 2);
    enterMmx(e);
    e.write(0, e.let(e.op('i64x2.extract_lane', 'i64', dwords, 0)));
  };

// ------------------------------------------------------------------ from integers
/** CVTSI2Sx. A doubleword always fits a double. */
const integerToScalar =
  (type: FloatType): Semantics =>
  (e) => {
    const x = e.let(e.read(secondIndex(e)));
    const a = first(e);
    const fast = v(e, `${shapeOf(type)}.replace_lane`, a, 0, convert(e, type, 'convert_s', x.type, x));
    if (type === 'f64' && x.type === 'i32') return writeVector(e, fast);
    writeVector(
      e,
      orSoft(e, fast, watch.fromInteger, () => merged(e, type, a, softCall(e, 'sse_from_integer', 'v128', wide(type), e.sext64(x, 4)))),
    );
  };
function dwordsToSingles(e: Emitter, x: Val, count: number): Val {
  return orSoft(e, v(e, 'f32x4.convert_i32x4_s', x), watch.fromInteger, () => softCall(e, 'sse_from_dwords', 'v128', count, x));
}
const cvtdq2ps = unary((e, x) => dwordsToSingles(e, x, 4));
const cvtdq2pd = widen((e, x) => v(e, 'f64x2.convert_low_i32x4_s', x));
/** CVTPI2PS keeps the upper half of its destination, CVTPI2PD fills it. */
const cvtpi2ps: Semantics = (e) => {
  const converted = dwordsToSingles(e, e.let(zeroExtended(e, mmxSource(e))), 2);
  writeVector(e, shuffleLanes(e, converted, first(e), 8, [0, 3]));
};
const cvtpi2pd: Semantics = (e) => writeVector(e, v(e, 'f64x2.convert_low_i32x4_s', zeroExtended(e, mmxSource(e))));

// ------------------------------------------------------------------ between formats
const cvtss2sd: Semantics = (e) => {
  const b = scalarSecond(e, 'f32');
  const a = first(e);
  const fast = v(e, 'f64x2.replace_lane', a, 0, e.op('f64.promote', 'f64', lowLane(e, 'f32', b)));
  writeVector(
    e,
    orSoft(e, fast, watch.exact('f32', 1, b), () => merged(e, 'f64', a, softCall(e, 'sse_widen', 'v128', 1, b))),
  );
};
const cvtsd2ss: Semantics = (e) => {
  const b = scalarSecond(e, 'f64');
  const a = first(e);
  const fast = v(e, 'f32x4.replace_lane', a, 0, e.op('f32.demote', 'f32', lowLane(e, 'f64', b)));
  writeVector(
    e,
    orSoft(e, fast, watch.narrowing(1), () => merged(e, 'f32', a, softCall(e, 'sse_narrow', 'v128', 1, b))),
  );
};
const cvtps2pd = widen((e, b) => orSoft(e, v(e, 'f64x2.promote_low_f32x4', b), watch.exact('f32', 3, b), () => softCall(e, 'sse_widen', 'v128', 2, b)));
const cvtpd2ps = narrow((e, b) => orSoft(e, v(e, 'f32x4.demote_f64x2_zero', b), watch.narrowing(2), () => softCall(e, 'sse_narrow', 'v128', 2, b)));

// ------------------------------------------------------------------ to integral values
const ROUNDINGS = ['nearest', 'floor', 'ceil', 'trunc'] as const;
/** ROUNDx: imm[2] set: as MXCSR says, by default to nearest; else imm[1:0] is the rounding control. */
function rounding(e: Emitter, type: FloatType, imm: Val, x: Val): Val {
  const op = (name: string) => v(e, `${shapeOf(type)}.${name}`, x);
  if (imm.constant !== undefined) return op(imm.constant & 4 ? 'nearest' : (ROUNDINGS[imm.constant & 3] ?? 'nearest'));
  const low = () => e.and(imm, e.i32(1));
  const chosen = e.select(e.and(imm, e.i32(2)), e.select(low(), op('trunc'), op('ceil')), e.select(low(), op('floor'), op('nearest')));
  return e.select(e.and(imm, e.i32(4)), op('nearest'), chosen);
}
const roundPacked = (type: FloatType): Semantics =>
  unary((e, b) => {
    const imm = imm8(e);
    return orSoft(e, rounding(e, type, imm, b), watch.integral(type, allLanes(type), imm, b), () =>
      softCall(e, 'sse_round', 'v128', imm, wide(type), allLanes(type), b, b),
    );
  });
const roundScalar =
  (type: FloatType): Semantics =>
  (e) => {
    const b = scalarSecond(e, type);
    const a = first(e);
    const imm = imm8(e);
    const fast = merged(e, type, a, e.let(rounding(e, type, imm, b)));
    writeVector(
      e,
      orSoft(e, fast, watch.integral(type, 1, imm, b), () => softCall(e, 'sse_round', 'v128', imm, wide(type), 1, a, b)),
    );
  };

export const sseConvert: Record<string, Semantics> = {
  cvtsi2ss: integerToScalar('f32'),
  cvtsi2sd: integerToScalar('f64'),
  cvtss2si: scalarToInteger('f32', false),
  cvtsd2si: scalarToInteger('f64', false),
  cvttss2si: scalarToInteger('f32', true),
  cvttsd2si: scalarToInteger('f64', true),
  cvtss2sd,
  cvtsd2ss,
  cvtps2pd,
  cvtpd2ps,
  cvtdq2ps,
  cvtdq2pd,
  cvtps2dq: singlesToDwords(false),
  cvttps2dq: singlesToDwords(true),
  cvtpd2dq: doublesToDwords(false),
  cvttpd2dq: doublesToDwords(true),
  cvtps2pi: toMmx('f32', false),
  cvttps2pi: toMmx('f32', true),
  cvtpd2pi: toMmx('f64', false),
  cvttpd2pi: toMmx('f64', true),
  cvtpi2ps,
  cvtpi2pd,
  roundps: roundPacked('f32'),
  roundpd: roundPacked('f64'),
  roundss: roundScalar('f32'),
  roundsd: roundScalar('f64'),
};
