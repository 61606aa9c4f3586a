/** AVX permutations within and across 128-bit halves, VPBLENDD, VTESTPx. */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { testBits } from './sse-int.ts';
import { imm8, immOfHalf, shuffleLanes, splat, swizzle, v } from './sse-operands.ts';
import { blend, shuffleDwords, shuffleQwords } from './sse-shuffle.ts';
import { first, packed, second, unary, writeVector } from './vector.ts';

/** Quadword constant in both lanes. */
const qwords = (e: Emitter, low: number, high: number): Val => v(e, 'i64x2.splat', e.i64(low, high));

/** Byte indexes of the doublewords whose numbers are in the doublewords of `lanes`. */
function bytesOfDwords(e: Emitter, lanes: Val): Val {
  return v(e, 'i32x4.add', v(e, 'i32x4.mul', lanes, splat(e, 4, 0x0404_0404)), splat(e, 4, 0x0302_0100));
}
/** The same of quadwords. */
function bytesOfQwords(e: Emitter, lanes: Val): Val {
  return v(e, 'i64x2.add', v(e, 'i64x2.mul', lanes, qwords(e, 0x0808_0808, 0x0808_0808)), qwords(e, 0x0302_0100, 0x0706_0504));
}
/** Bytes of 32 by their numbers 0..31. */
function swizzlePair(e: Emitter, [low, high]: readonly [Val, Val], bytes: Val): Val {
  const index = e.let(bytes);
  return v(e, 'v128.or', swizzle(e, low, index), swizzle(e, high, v(e, 'i8x16.sub', index, splat(e, 1, 16))));
}
function secondPair(e: Emitter): readonly [Val, Val] {
  const [low, high] = second(e);
  if (low === undefined || high === undefined) throw new Error(`${e.form.row.name} has no 256-bit source`);
  return [low, high];
}

/** VPERMILPS by a vector: bits 1:0 of each doubleword choose within the half. */
const permuteSingles = packed((e, a, b) => swizzle(e, a, bytesOfDwords(e, v(e, 'v128.and', b, splat(e, 4, 3)))));
/** VPERMILPD by a vector: bit 1 of each quadword. */
const permuteDoubles = packed((e, a, b) => {
  const lanes = v(e, 'v128.and', v(e, 'i64x2.shr_u', b, e.i32(1)), qwords(e, 1, 0));
  return swizzle(e, a, bytesOfQwords(e, lanes));
});
const hasImmediate = (e: Emitter): boolean => e.form.operands.at(-1)?.kind === 'imm';
const vpermilps: Semantics = (e) => (hasImmediate(e) ? unary((_, b) => shuffleDwords(e, b, imm8(e))) : permuteSingles)(e);
const vpermilpd: Semantics = (e) => (hasImmediate(e) ? unary((_, b, half) => shuffleQwords(e, b, b, immOfHalf(e, imm8(e), 2, half))) : permuteDoubles)(e);

/** VPERMD, VPERMPS: doublewords of the second source by the numbers in the first. */
const permuteDwords: Semantics = (e) => {
  const source = secondPair(e);
  const [low, high] = [0, 1].map((half) => e.let(swizzlePair(e, source, bytesOfDwords(e, v(e, 'v128.and', first(e, half), splat(e, 4, 7))))));
  if (low !== undefined) writeVector(e, low, high);
};
/** VPERMQ, VPERMPD: quadwords by fields of two bits. */
const permuteQwords: Semantics = (e) => {
  const source = secondPair(e);
  const imm = imm8(e);
  const [low, high] = [0, 4].map((bit) => {
    if (imm.constant !== undefined) return e.let(shuffleLanes(e, ...source, 8, [(imm.constant >> bit) & 3, (imm.constant >> (bit + 2)) & 3]));
    const field = (shift: number) => e.zext64(e.and(e.shrU(imm, e.i32(shift)), e.i32(3)));
    const lanes = v(e, 'i64x2.replace_lane', v(e, 'i64x2.splat', field(bit)), 1, field(bit + 2));
    return e.let(swizzlePair(e, source, bytesOfQwords(e, lanes)));
  });
  if (low !== undefined) writeVector(e, low, high);
};

export const avxPermute: Record<string, Semantics> = {
  vpermilps,
  vpermilpd,
  vpermd: permuteDwords,
  vpermps: permuteDwords,
  vpermq: permuteQwords,
  vpermpd: permuteQwords,
  vpblendd: blend(4),
  vtestps: testBits((e, bits) => e.op('i32x4.bitmask', 'i32', bits)),
  vtestpd: testBits((e, bits) => e.op('i64x2.bitmask', 'i32', bits)),
};
