/**
 * SSE..SSE4.1 floating-point arithmetic and comparison.
 *
 * Arithmetic is the Wasm instruction, which V8 on x86-64 compiles to the SSE instruction itself, so signed zeros,
 * denormals, infinities and NaNs are the hardware's, first operand first. Wasm leaves to the engine which payload a
 * NaN result has, and the sign of a generated one: on a host other than x86-64 those bits may differ.
 *
 * MXCSR's rounding mode is honoured by conversions to integer and ROUNDx; its rounding mode for arithmetic, FTZ, DAZ,
 * unmasked exceptions and sticky exception flags are not modelled.
 */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import {
  aligned, dwords4, type FloatType, imm8, lowLane, mergeLow, scalar, scalarVector, shapeOf, shuffleLanes, splat, v,
  writeLow, zero,
} from './sse-operands.ts';

const packedArithmetic = (type: FloatType, op: string): Semantics => (e) => {
  const b = aligned(e, 1);
  e.writeXmm(0, v(e, `${shapeOf(type)}.${op}`, e.readXmm(0), b));
};
const scalarArithmetic = (type: FloatType, op: string): Semantics => (e) => {
  const b = scalar(e, type, 1);
  writeLow(e, type, e.op(`${type}.${op}`, type, lowLane(e, type, e.readXmm(0)), b));
};
/** Sums and products of scalars as vectors, since TurboFan swaps the operands of a scalar one when that saves a register, and with it the
 *  payloads of two NaNs. The upper lanes are computed for nothing, in the same instruction. */
const scalarCommutative = (type: FloatType, op: 'add' | 'mul'): Semantics => (e) => {
  const b = scalarVector(e, type, 1);
  mergeLow(e, type, e.let(v(e, `${shapeOf(type)}.${op}`, e.readXmm(0), b)));
};
const packedRoot = (type: FloatType): Semantics => (e) => e.writeXmm(0, v(e, `${shapeOf(type)}.sqrt`, aligned(e, 1)));
const scalarRoot = (type: FloatType): Semantics => (e) => writeLow(e, type, e.op(`${type}.sqrt`, type, scalar(e, type, 1)));

/** MINx, MAXx return src when the operands are equal, both zero or unordered: pmin/pmax with src first. */
const packedExtreme = (type: FloatType, op: 'pmin' | 'pmax'): Semantics => (e) => {
  const b = aligned(e, 1);
  e.writeXmm(0, v(e, `${shapeOf(type)}.${op}`, b, e.readXmm(0)));
};
const scalarExtreme = (type: FloatType, op: 'pmin' | 'pmax'): Semantics => (e) => {
  const b = scalarVector(e, type, 1);
  mergeLow(e, type, e.let(v(e, `${shapeOf(type)}.${op}`, b, e.readXmm(0))));
};

/** HADDx, HSUBx: neighbours of dst, then of src. */
const horizontal = (type: FloatType, op: 'add' | 'sub'): Semantics => (e) => {
  const b = aligned(e, 1);
  const a = e.let(e.readXmm(0));
  const [bytes, even] = type === 'f32' ? [4, [0, 2, 4, 6]] : [8, [0, 2]];
  const odd = even.map((i) => i + 1);
  e.writeXmm(0, v(e, `${shapeOf(type)}.${op}`, shuffleLanes(e, a, b, bytes, even), shuffleLanes(e, a, b, bytes, odd)));
};
/** ADDSUBx: subtract in even lanes, add in odd ones. */
const addSub = (type: FloatType): Semantics => (e) => {
  const b = aligned(e, 1);
  const a = e.let(e.readXmm(0));
  const shape = shapeOf(type);
  const lanes = type === 'f32' ? [0, 5, 2, 7] : [0, 3];
  e.writeXmm(0, shuffleLanes(e, e.let(v(e, `${shape}.sub`, a, b)), e.let(v(e, `${shape}.add`, a, b)), type === 'f32' ? 4 : 8, lanes));
};

/** Lane masks of CMPx predicate 0..3: EQ, LT, LE, UNORD. */
function predicate(e: Emitter, shape: string, n: number, a: Val, b: Val): Val {
  const unequalSelf = (x: Val) => v(e, `${shape}.ne`, x, x);
  if (n === 3) return v(e, 'v128.or', unequalSelf(a), unequalSelf(b));
  return v(e, `${shape}.${n === 0 ? 'eq' : n === 1 ? 'lt' : 'le'}`, a, b);
}
/** CMPx: predicates 4..7 are the complements of 0..3. */
function compare(e: Emitter, type: FloatType, a: Val, b: Val): Val {
  const shape = shapeOf(type);
  const imm = imm8(e);
  if (imm.constant !== undefined) {
    const n = imm.constant & 7;
    if (n === 4) return v(e, `${shape}.ne`, a, b);
    const mask = predicate(e, shape, n & 3, a, b);
    return n < 4 ? mask : v(e, 'v128.not', mask);
  }
  const all = [0, 1, 2, 3].map((n) => predicate(e, shape, n, a, b)) as [Val, Val, Val, Val];
  const low = () => e.and(imm, e.i32(1));
  const mask = e.select(e.and(imm, e.i32(2)), e.select(low(), all[3], all[2]), e.select(low(), all[1], all[0]));
  const flip = e.sub(e.i32(0), e.and(e.shrU(imm, e.i32(2)), e.i32(1)));
  return v(e, 'v128.xor', mask, v(e, 'i32x4.splat', flip));
}
const packedCompare = (type: FloatType): Semantics => (e) => {
  const b = aligned(e, 1);
  e.writeXmm(0, compare(e, type, e.let(e.readXmm(0)), b));
};
const scalarCompare = (type: FloatType): Semantics => (e) => {
  const b = scalarVector(e, type, 1);
  mergeLow(e, type, e.let(compare(e, type, e.let(e.readXmm(0)), b)));
};

/** COMISx, UCOMISx: unordered sets ZF, PF and CF; OF, SF, AF are cleared. Two comparisons, both false when unordered, tell all. */
const compareFlags = (type: FloatType): Semantics => (e) => {
  const b = scalar(e, type, 1);
  const a = e.let(lowLane(e, type, e.readXmm(0)));
  const ge = e.let(e.op(`${type}.ge`, 'i32', a, b));
  const le = e.let(e.op(`${type}.le`, 'i32', a, b));
  e.setFlagsExplicit({ zf: e.eq(ge, le), pf: e.eqz(e.or(ge, le)), cf: e.eqz(ge) });
};

/** 1 / x with denormals taken as zero and denormal results flushed. Real parts give 12 bits; here all 24 are right. */
function reciprocal(e: Emitter, x: Val): Val {
  return flushed(e, v(e, 'f32x4.div', v(e, 'f32x4.splat', e.f32(1)), flushed(e, x)));
}
function reciprocalRoot(e: Emitter, x: Val): Val {
  return v(e, 'f32x4.div', v(e, 'f32x4.splat', e.f32(1)), v(e, 'f32x4.sqrt', flushed(e, x)));
}
/** Denormals replaced by zero of the same sign. */
function flushed(e: Emitter, x: Val): Val {
  const bound = e.let(x);
  const tiny = v(e, 'i32x4.eq', v(e, 'v128.and', bound, splat(e, 4, 0x7f80_0000)), zero(e));
  return e.let(v(e, 'v128.bitselect', v(e, 'v128.and', bound, splat(e, 4, 0x8000_0000)), bound, tiny));
}
const packedEstimate = (f: (e: Emitter, x: Val) => Val): Semantics => (e) => e.writeXmm(0, f(e, aligned(e, 1)));
const scalarEstimate = (f: (e: Emitter, x: Val) => Val): Semantics => (e) => mergeLow(e, 'f32', e.let(f(e, scalarVector(e, 'f32', 1))));

/** DPPS, DPPD: imm[7:4] chooses the products summed, imm[3:0] the lanes that receive the sum. */
const dotProduct = (type: FloatType): Semantics => (e) => {
  const b = aligned(e, 1);
  const imm = imm8(e);
  const shape = shapeOf(type);
  const bits = (first: number) => e.v128(type === 'f32' ? dwords4([0, 1, 2, 3].map((i) => first << i)) : dwords4([first, first, first << 1, first << 1]));
  const chosen = (first: number) => v(e, 'i32x4.ne', v(e, 'v128.and', v(e, 'i32x4.splat', imm), bits(first)), zero(e));
  const products = e.let(v(e, 'v128.and', v(e, `${shape}.mul`, e.readXmm(0), b), chosen(16)));
  // Every lane adds in its own order, which tells when several products are NaN. The orders are those of Intel cores.
  let sum: Val;
  if (type === 'f64') sum = v(e, 'f64x2.add', products, shuffleLanes(e, products, products, 8, [1, 0]));
  else {
    const pairs = e.let(v(e, 'f32x4.add', shuffleLanes(e, products, products, 4, [1, 0, 3, 2]), products));
    sum = v(e, 'f32x4.add', pairs, shuffleLanes(e, pairs, pairs, 4, [2, 3, 0, 1]));
  }
  e.writeXmm(0, v(e, 'v128.and', sum, chosen(1)));
};

export const sseFp: Record<string, Semantics> = {
  addps: packedArithmetic('f32', 'add'), addpd: packedArithmetic('f64', 'add'), addss: scalarCommutative('f32', 'add'), addsd: scalarCommutative('f64', 'add'),
  subps: packedArithmetic('f32', 'sub'), subpd: packedArithmetic('f64', 'sub'), subss: scalarArithmetic('f32', 'sub'), subsd: scalarArithmetic('f64', 'sub'),
  mulps: packedArithmetic('f32', 'mul'), mulpd: packedArithmetic('f64', 'mul'), mulss: scalarCommutative('f32', 'mul'), mulsd: scalarCommutative('f64', 'mul'),
  divps: packedArithmetic('f32', 'div'), divpd: packedArithmetic('f64', 'div'), divss: scalarArithmetic('f32', 'div'), divsd: scalarArithmetic('f64', 'div'),
  sqrtps: packedRoot('f32'), sqrtpd: packedRoot('f64'), sqrtss: scalarRoot('f32'), sqrtsd: scalarRoot('f64'),
  minps: packedExtreme('f32', 'pmin'), minpd: packedExtreme('f64', 'pmin'), minss: scalarExtreme('f32', 'pmin'), minsd: scalarExtreme('f64', 'pmin'),
  maxps: packedExtreme('f32', 'pmax'), maxpd: packedExtreme('f64', 'pmax'), maxss: scalarExtreme('f32', 'pmax'), maxsd: scalarExtreme('f64', 'pmax'),
  haddps: horizontal('f32', 'add'), haddpd: horizontal('f64', 'add'), hsubps: horizontal('f32', 'sub'), hsubpd: horizontal('f64', 'sub'),
  addsubps: addSub('f32'), addsubpd: addSub('f64'),
  cmpps: packedCompare('f32'), cmppd: packedCompare('f64'), cmpss: scalarCompare('f32'), cmpsd: scalarCompare('f64'),
  comiss: compareFlags('f32'), comisd: compareFlags('f64'), ucomiss: compareFlags('f32'), ucomisd: compareFlags('f64'),
  rcpps: packedEstimate(reciprocal), rcpss: scalarEstimate(reciprocal), rsqrtps: packedEstimate(reciprocalRoot), rsqrtss: scalarEstimate(reciprocalRoot),
  dpps: dotProduct('f32'), dppd: dotProduct('f64'),
};
