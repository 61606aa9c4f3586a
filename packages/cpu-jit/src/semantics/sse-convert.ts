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

/** Integral `x` to a `size`-byte integer; out of range and NaN give the integer indefinite (only the sign bit set). */
function toInteger(e: Emitter, type: FloatType, x: Val, size: number): Val {
  const bound = e.let(x);
  // Saturation already gives the indefinite below the range.
  const inRange = e.op(`${type}.lt`, 'i32', bound, constant(e, type, size === 8 ? TWO_63 : TWO_31));
  const to = size === 8 ? 'i64' : 'i32';
  return e.select(inRange, convert(e, to, 'trunc_s_sat', type, bound), size === 8 ? e.i64(0, -0x8000_0000) : e.i32(-0x8000_0000));
}
/** CVTSx2SI, CVTTSx2SI. */
const scalarToInteger = (type: FloatType, truncate: boolean): Semantics => (e) => {
  const x = scalar(e, type, 1);
  e.write(0, e.let(toInteger(e, type, truncate ? x : roundByMxcsr(e, type, x), e.size(0))));
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
