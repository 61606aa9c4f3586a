/** SSE..SSE4.1 conversions and rounding. */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { S_MXCSR } from '../layout.ts';
import { zeroExtended } from './sse-move.ts';
import {
  aligned, convert, type FloatType, imm8, lowVector, mergeLow, scalar, scalarVector, shapeOf, shuffleLanes, v, writeLow,
} from './sse-operands.ts';

const TWO_31 = 2 ** 31;
const TWO_63 = 2 ** 63;
/** MXCSR.RC (bits 14:13): 0 nearest even, 1 down, 2 up, 3 toward zero. */
const RC_SHIFT = 13;
const RC_MASK = 3 << RC_SHIFT;

const constant = (e: Emitter, type: FloatType, n: number): Val => (type === 'f32' ? e.f32(n) : e.f64(n));

/** Round to an integral value of the same type by a rounding-control value known at run time (bits 1:0 of `rc`). */
function roundBy(e: Emitter, prefix: string, type: Val['type'], x: Val, rc: Val): Val {
  const op = (name: string) => e.op(`${prefix}.${name}`, type, x);
  const low = () => e.and(rc, e.i32(1));
  return e.select(e.and(rc, e.i32(2)), e.select(low(), op('trunc'), op('ceil')), e.select(low(), op('floor'), op('nearest')));
}
/** Round as MXCSR says; nearest even, the common case, is straight-line. `prefix` is f32, f64, f32x4 or f64x2. */
function roundByMxcsr(e: Emitter, prefix: string, x: Val): Val {
  const bound = e.let(x);
  const result = e.variable(e.op(`${prefix}.nearest`, bound.type, bound));
  const mxcsr = e.state(S_MXCSR, 4);
  e.if(e.and(mxcsr, e.i32(RC_MASK)), () => result.set(roundBy(e, prefix, bound.type, bound, e.let(e.shrU(mxcsr, e.i32(RC_SHIFT))))));
  return result.get();
}

/** 1.5 * 2^52: adding it to a double below 2^51 in magnitude leaves the nearest integer in the low bits. */
const MAGIC = 3 * 2 ** 51;
/** High half of MAGIC's bits; the low half is 0. */
const MAGIC_HIGH = 0x4338_0000;
/** Sign and exponent of doubles from 2^52 to 2^53. */
const MAGIC_EXPONENT = 0x433;

/** `x`, rounded already when MXCSR asks for something else than to nearest. */
function directed(e: Emitter, x: Val): Val {
  const result = e.variable(x);
  const mxcsr = e.state(S_MXCSR, 4);
  e.if(e.and(mxcsr, e.i32(RC_MASK)), () => result.set(roundBy(e, 'f64', 'f64', x, e.let(e.shrU(mxcsr, e.i32(RC_SHIFT))))));
  return result.get();
}
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
    const integral = e.op('f64.nearest', 'f64', x);
    const saturated = convert(e, 'i64', 'trunc_s_sat', 'f64', integral);
    result.set(e.select(e.op('f64.lt', 'i32', x, e.f64(TWO_63)), saturated, e.i64(0, -0x8000_0000)));
  });
  return result.get();
}
/** CVTSx2SI, CVTTSx2SI. */
const scalarToInteger = (type: FloatType, truncate: boolean): Semantics => (e) => {
  const source = scalar(e, type, 1);
  const x = e.let(type === 'f32' ? e.op('f64.promote', 'f64', source) : source);
  const rounded = truncate ? e.let(e.op('f64.trunc', 'f64', x)) : directed(e, x);
  e.write(0, e.let(e.size(0) === 8 ? toQword(e, rounded) : toDword(e, rounded)));
};
/** CVTSI2Sx. */
const integerToScalar = (type: FloatType): Semantics => (e) => {
  const x = e.read(1);
  writeLow(e, type, convert(e, type, 'convert_s', x.type, x));
};

/** Lanes that would not fit a doubleword replaced by -2^31, which then truncates to the integer indefinite. */
function clampLanes(e: Emitter, type: FloatType, x: Val): Val {
  const bound = e.let(x);
  const shape = shapeOf(type);
  const limit = (n: number) => v(e, `${shape}.splat`, constant(e, type, n));
  return v(e, 'v128.bitselect', bound, limit(-TWO_31), v(e, `${shape}.lt`, bound, limit(TWO_31)));
}
function singlesToDwords(e: Emitter, x: Val): Val {
  return v(e, 'i32x4.trunc_sat_f32x4_s', clampLanes(e, 'f32', x));
}
function doublesToDwords(e: Emitter, x: Val): Val {
  return v(e, 'i32x4.trunc_sat_f64x2_s_zero', clampLanes(e, 'f64', x));
}

const cvtps2dq = (truncate: boolean): Semantics => (e) => {
  const x = aligned(e, 1);
  e.writeXmm(0, singlesToDwords(e, truncate ? x : roundByMxcsr(e, 'f32x4', x)));
};
const cvtpd2dq = (truncate: boolean): Semantics => (e) => {
  const x = aligned(e, 1);
  e.writeXmm(0, doublesToDwords(e, truncate ? x : roundByMxcsr(e, 'f64x2', x)));
};

/** CVT(T)PS2PI, CVT(T)PD2PI: two doublewords to an MMX register. */
const toMmx = (type: FloatType, truncate: boolean): Semantics => (e) => {
  const x = type === 'f32' ? lowVector(e, 1) : aligned(e, 1);
  const rounded = truncate ? x : roundByMxcsr(e, shapeOf(type), x);
  e.write(0, e.let(e.op('i64x2.extract_lane', 'i64', type === 'f32' ? singlesToDwords(e, rounded) : doublesToDwords(e, rounded), 0)));
};
/** CVTPI2PS keeps the upper half of its destination, CVTPI2PD fills it. */
const cvtpi2ps: Semantics = (e) => {
  const converted = e.let(v(e, 'f32x4.convert_i32x4_s', zeroExtended(e, e.read(1))));
  e.writeXmm(0, shuffleLanes(e, converted, e.readXmm(0), 8, [0, 3]));
};
const cvtpi2pd: Semantics = (e) => e.writeXmm(0, v(e, 'f64x2.convert_low_i32x4_s', zeroExtended(e, e.read(1))));

const cvtss2sd: Semantics = (e) => writeLow(e, 'f64', e.op('f64.promote', 'f64', scalar(e, 'f32', 1)));
const cvtsd2ss: Semantics = (e) => writeLow(e, 'f32', e.op('f32.demote', 'f32', scalar(e, 'f64', 1)));
/** Vector conversions that are one Wasm instruction; `half` reads 8 bytes at any alignment. */
const half = (name: string): Semantics => (e) => e.writeXmm(0, v(e, name, lowVector(e, 1)));
const whole = (name: string): Semantics => (e) => e.writeXmm(0, v(e, name, aligned(e, 1)));

/** ROUNDx: imm[2] set: as MXCSR says, else imm[1:0] is the rounding control. */
function roundVector(e: Emitter, type: FloatType, x: Val): Val {
  const shape = shapeOf(type);
  const imm = imm8(e);
  if (imm.constant !== undefined) {
    if (imm.constant & 4) return roundByMxcsr(e, shape, x);
    return v(e, `${shape}.${['nearest', 'floor', 'ceil', 'trunc'][imm.constant & 3] ?? ''}`, x);
  }
  const fromMxcsr = e.shrU(e.state(S_MXCSR, 4), e.i32(RC_SHIFT));
  return roundBy(e, shape, 'v128', e.let(x), e.let(e.select(e.and(imm, e.i32(4)), fromMxcsr, imm)));
}
const roundPacked = (type: FloatType): Semantics => (e) => e.writeXmm(0, roundVector(e, type, aligned(e, 1)));
const roundScalar = (type: FloatType): Semantics => (e) => mergeLow(e, type, e.let(roundVector(e, type, scalarVector(e, type, 1))));

export const sseConvert: Record<string, Semantics> = {
  cvtsi2ss: integerToScalar('f32'), cvtsi2sd: integerToScalar('f64'),
  cvtss2si: scalarToInteger('f32', false), cvtsd2si: scalarToInteger('f64', false),
  cvttss2si: scalarToInteger('f32', true), cvttsd2si: scalarToInteger('f64', true),
  cvtss2sd, cvtsd2ss,
  cvtps2pd: half('f64x2.promote_low_f32x4'), cvtpd2ps: whole('f32x4.demote_f64x2_zero'),
  cvtdq2ps: whole('f32x4.convert_i32x4_s'), cvtdq2pd: half('f64x2.convert_low_i32x4_s'),
  cvtps2dq: cvtps2dq(false), cvttps2dq: cvtps2dq(true), cvtpd2dq: cvtpd2dq(false), cvttpd2dq: cvtpd2dq(true),
  cvtps2pi: toMmx('f32', false), cvttps2pi: toMmx('f32', true), cvtpd2pi: toMmx('f64', false), cvttpd2pi: toMmx('f64', true),
  cvtpi2ps, cvtpi2pd,
  roundps: roundPacked('f32'), roundpd: roundPacked('f64'), roundss: roundScalar('f32'), roundsd: roundScalar('f64'),
};
