/**
 * SSE..SSE4.1 floating-point arithmetic and comparison.
 *
 * Arithmetic is the Wasm instruction, which V8 on x86-64 compiles to the SSE instruction itself, so signed zeros,
 * denormals, infinities and NaNs are the hardware's, first operand first. Wasm leaves to the engine which payload a
 * NaN result has, and the sign of a generated one: on a host other than x86-64 those bits may differ. MXCSR's controls
 * other than the default ones take the way of sse-soft.ts.
 */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import * as watch from './float-watch.ts';
import { dwords4, type FloatType, imm8, lowLane, merged, shapeOf, shuffleLanes, splat, v, zero } from './sse-operands.ts';
import { allLanes, orSoft, type SingleOperation, softArith, softCall } from './sse-soft.ts';
import { eachHalf, first, packed, scalarSecond, second, unary, writeHalves, writeMerged, writeVector } from './vector.ts';

/** Wasm's name of an operation; MINx and MAXx return src when the operands are equal, both zero or unordered: pmin/pmax, src first. */
function vectorOperation(e: Emitter, type: FloatType, op: SingleOperation, a: Val, b: Val): Val {
  const shape = shapeOf(type);
  if (op === 'min' || op === 'max') return v(e, `${shape}.p${op}`, b, a);
  return op === 'sqrt' ? v(e, `${shape}.sqrt`, b) : v(e, `${shape}.${op}`, a, b);
}
/** What may be exceptional about an operation on the lanes in the bit set `lanes`. */
function watchOf(type: FloatType, op: SingleOperation, lanes: number, a: Val, b: Val): watch.Watch {
  if (op === 'min' || op === 'max') return watch.exact(type, lanes, a, b);
  return op === 'sqrt' ? watch.arithmetic(type, lanes, b) : watch.arithmetic(type, lanes, a, b);
}
/** Like `vectorOperation` for all lanes, under any controls. */
function compute(e: Emitter, type: FloatType, op: SingleOperation, a: Val, b: Val): Val {
  const lanes = allLanes(type);
  return orSoft(e, vectorOperation(e, type, op, a, b), watchOf(type, op, lanes, a, b), () => softArith(e, op, type, lanes, a, b));
}

/** A square root has one source. */
const packedArithmetic = (type: FloatType, op: SingleOperation): Semantics =>
  op === 'sqrt' ? unary((e, b) => compute(e, type, op, b, b)) : packed((e, a, b) => compute(e, type, op, a, b));
/** Subtraction, division and square root are scalar Wasm. The others are vector operations whose upper lanes are thrown away:
 *  TurboFan swaps the operands of scalar sums and products when that saves a register, and with them the payloads of two NaNs. */
const scalarArithmetic =
  (type: FloatType, op: SingleOperation): Semantics =>
  (e) => {
    const b = scalarSecond(e, type);
    const a = first(e);
    let fast: Val;
    if (op === 'sub' || op === 'div' || op === 'sqrt') {
      const y = lowLane(e, type, b);
      const low = op === 'sqrt' ? e.op(`${type}.sqrt`, type, y) : e.op(`${type}.${op}`, type, lowLane(e, type, a), y);
      fast = v(e, `${shapeOf(type)}.replace_lane`, a, 0, low);
    } else fast = merged(e, type, a, e.let(vectorOperation(e, type, op, a, b)));
    writeVector(
      e,
      orSoft(e, fast, watchOf(type, op, 1, a, b), () => softArith(e, op, type, 1, a, b)),
    );
  };

/** HADDx, HSUBx: neighbours of dst, then of src. */
const horizontal = (type: FloatType, op: 'add' | 'sub'): Semantics =>
  packed((e, a, b) => {
    const [bytes, even] = type === 'f32' ? [4, [0, 2, 4, 6]] : [8, [0, 2]];
    const odd = even.map((i) => i + 1);
    return compute(e, type, op, e.let(shuffleLanes(e, a, b, bytes, even)), e.let(shuffleLanes(e, a, b, bytes, odd)));
  });
/** ADDSUBx: subtract in even lanes, add in odd ones. */
const addSub = (type: FloatType): Semantics =>
  packed((e, a, b) => {
    const difference = e.let(vectorOperation(e, type, 'sub', a, b));
    const sum = e.let(vectorOperation(e, type, 'add', a, b));
    const fast = type === 'f32' ? shuffleLanes(e, difference, sum, 4, [0, 5, 2, 7]) : shuffleLanes(e, difference, sum, 8, [0, 3]);
    return orSoft(e, fast, watchOf(type, 'add', allLanes(type), a, b), () => softArith(e, 'addsub', type, allLanes(type), a, b));
  });

/** Relations of two numbers, and for each CMPx predicate 0..15 the set of those that satisfy it, in a nibble (SDM vol. 2, table 3-1).
 *  Predicates 16..31 differ in the exceptions only. */
const LESS = 1;
const EQUAL = 2;
const GREATER = 4;
const UNORDERED = 8;
const RELATIONS = [0x7ced_8312, 0xf465_0b9a] as const;

/** Lane masks of the relations in a set known now. */
function relationMask(e: Emitter, shape: string, relations: number, a: Val, b: Val): Val {
  const test = (name: string) => v(e, `${shape}.${name}`, a, b);
  switch (relations) {
    case 0:
      return zero(e);
    case LESS:
      return test('lt');
    case EQUAL:
      return test('eq');
    case LESS | EQUAL:
      return test('le');
    case GREATER:
      return test('gt');
    case GREATER | EQUAL:
      return test('ge');
    case LESS | GREATER:
      return v(e, 'v128.or', test('lt'), test('gt'));
    case LESS | GREATER | UNORDERED:
      return test('ne');
    case UNORDERED:
      return v(e, 'v128.or', v(e, `${shape}.ne`, a, a), v(e, `${shape}.ne`, b, b));
    default:
      return v(e, 'v128.not', relationMask(e, shape, relations ^ 15, a, b));
  }
}
/** Lane masks of CMPx; `predicate` is 0..31. */
function compareBy(e: Emitter, type: FloatType, predicate: Val, a: Val, b: Val): Val {
  const shape = shapeOf(type);
  const p = predicate.constant;
  if (p !== undefined) return relationMask(e, shape, (RELATIONS[(p >> 3) & 1 ? 1 : 0] >>> ((p & 7) * 4)) & 15, a, b);
  const nibble = e.zext64(e.shl(e.and(predicate, e.i32(15)), e.i32(2)));
  const relations = e.let(e.wrap(e.shrU(e.i64(RELATIONS[0], RELATIONS[1]), nibble)));
  /** The mask of one relation, kept when the predicate has it. */
  const kept = (relation: number) => {
    const has = e.sub(e.i32(0), e.and(e.shrU(relations, e.i32(Math.log2(relation))), e.i32(1)));
    return v(e, 'v128.and', relationMask(e, shape, relation, a, b), v(e, 'i32x4.splat', has));
  };
  return v(e, 'v128.or', v(e, 'v128.or', kept(LESS), kept(EQUAL)), v(e, 'v128.or', kept(GREATER), kept(UNORDERED)));
}
/** The predicate: VEX forms have four times as many. */
function predicate(e: Emitter): Val {
  const imm = imm8(e);
  const mask = e.form.row.vex === true ? 31 : 7;
  return imm.constant === undefined ? e.let(e.and(imm, e.i32(mask))) : e.i32(imm.constant & mask);
}
const comparePacked = (type: FloatType): Semantics =>
  packed((e, a, b) => {
    const p = predicate(e);
    const lanes = allLanes(type);
    return orSoft(e, compareBy(e, type, p, a, b), watch.exact(type, lanes, a, b), () =>
      softCall(e, 'sse_compare', 'v128', p, type === 'f64' ? 1 : 0, lanes, a, b),
    );
  });
const compareScalar =
  (type: FloatType): Semantics =>
  (e) => {
    const b = scalarSecond(e, type);
    const a = first(e);
    const p = predicate(e);
    const fast = merged(e, type, a, e.let(compareBy(e, type, p, a, b)));
    writeVector(
      e,
      orSoft(e, fast, watch.exact(type, 1, a, b), () => softCall(e, 'sse_compare', 'v128', p, type === 'f64' ? 1 : 0, 1, a, b)),
    );
  };

/** COMISx (`ordered`), UCOMISx: unordered sets ZF, PF and CF; OF, SF, AF are cleared. Two comparisons, both false when unordered, tell all. */
const compareFlags =
  (type: FloatType, ordered: boolean): Semantics =>
  (e) => {
    const source = scalarSecond(e, type);
    const b = e.let(lowLane(e, type, source));
    const destination = first(e);
    const a = e.let(lowLane(e, type, destination));
    let ge = e.let(e.op(`${type}.ge`, 'i32', a, b));
    let le = e.let(e.op(`${type}.le`, 'i32', a, b));
    if (e.softFloat() !== undefined || e.tracksFloat) {
      const relation = orSoft(e, e.or(ge, e.shl(le, e.i32(1))), watch.exact(type, 1, destination, source), () =>
        softCall(e, 'sse_comis', 'i32', ordered ? 1 : 0, type === 'f64' ? 1 : 0, destination, source),
      );
      ge = e.let(e.and(relation, e.i32(1)));
      le = e.let(e.shrU(relation, e.i32(1)));
    }
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
const scalarEstimate =
  (f: (e: Emitter, x: Val) => Val): Semantics =>
  (e) =>
    writeMerged(e, 'f32', e.let(f(e, scalarSecond(e, 'f32'))));

/** DPPS, DPPD: imm[7:4] chooses the products summed, imm[3:0] the lanes that receive the sum. Exceptions are signalled after each step. */
const dotProduct =
  (type: FloatType): Semantics =>
  (e) => {
    const sources = second(e).map((b, half) => ({ a: first(e, half), b }));
    const imm = imm8(e);
    const bits = (from: number) => e.v128(type === 'f32' ? dwords4([0, 1, 2, 3].map((i) => from << i)) : dwords4([from, from, from << 1, from << 1]));
    const chosen = (from: number) => v(e, 'i32x4.ne', v(e, 'v128.and', v(e, 'i32x4.splat', imm), bits(from)), zero(e));
    const lanes = e.let(e.and(e.shrU(imm, e.i32(4)), e.i32(allLanes(type))));
    const multiply = ({ a, b }: { a: Val; b: Val }) =>
      orSoft(e, vectorOperation(e, type, 'mul', a, b), watchOf(type, 'mul', allLanes(type), a, b), () => softArith(e, 'mul', type, lanes, a, b));
    const products = eachHalf(e, sources, (source) => e.let(v(e, 'v128.and', multiply(source), chosen(16))));
    // Every lane adds in its own order, which tells when several products are NaN. The orders are those of Intel cores.
    const swapped = (x: Val, bytes: number, order: readonly number[]) => e.let(shuffleLanes(e, x, x, bytes, order));
    const sums =
      type === 'f64'
        ? eachHalf(e, products, (x) => compute(e, type, 'add', x, swapped(x, 8, [1, 0])))
        : eachHalf(
            e,
            eachHalf(e, products, (x) => compute(e, type, 'add', swapped(x, 4, [1, 0, 3, 2]), x)),
            (x) => compute(e, type, 'add', x, swapped(x, 4, [2, 3, 0, 1])),
          );
    writeHalves(
      e,
      sums.map((x) => e.let(v(e, 'v128.and', x, chosen(1)))),
    );
  };

const four = (op: SingleOperation): Record<string, Semantics> => ({
  [`${op}ps`]: packedArithmetic('f32', op),
  [`${op}pd`]: packedArithmetic('f64', op),
  [`${op}ss`]: scalarArithmetic('f32', op),
  [`${op}sd`]: scalarArithmetic('f64', op),
});

export const sseFp: Record<string, Semantics> = {
  ...four('add'),
  ...four('sub'),
  ...four('mul'),
  ...four('div'),
  ...four('sqrt'),
  ...four('min'),
  ...four('max'),
  haddps: horizontal('f32', 'add'),
  haddpd: horizontal('f64', 'add'),
  hsubps: horizontal('f32', 'sub'),
  hsubpd: horizontal('f64', 'sub'),
  addsubps: addSub('f32'),
  addsubpd: addSub('f64'),
  cmpps: comparePacked('f32'),
  cmppd: comparePacked('f64'),
  cmpss: compareScalar('f32'),
  cmpsd: compareScalar('f64'),
  comiss: compareFlags('f32', true),
  comisd: compareFlags('f64', true),
  ucomiss: compareFlags('f32', false),
  ucomisd: compareFlags('f64', false),
  rcpps: unary(reciprocal),
  rcpss: scalarEstimate(reciprocal),
  rsqrtps: unary(reciprocalRoot),
  rsqrtss: scalarEstimate(reciprocalRoot),
  dpps: dotProduct('f32'),
  dppd: dotProduct('f64'),
};
