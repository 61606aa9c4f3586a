/**
 * Lane permutations: PSHUFx, SHUFPx, PUNPCKx, PACKx, PALIGNR, BLENDx, PMOVSX/ZX.
 *
 * Compiled code knows the immediate and gets one i8x16.shuffle. The interpreter's handlers take it from the record: they
 * compute the byte indexes of a swizzle with a few vector instructions.
 */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { dwords4, IOTA, imm8, immOfHalf, laneMask, shuffle, shuffleLanes, splat, swizzle, v, words8, zero } from './sse-operands.ts';
import { direct, lowSecond, packed, unary, writeVector } from './vector.ts';

const twoBits = (imm: number): [number, number, number, number] => [imm & 3, (imm >> 2) & 3, (imm >> 4) & 3, (imm >> 6) & 3];

/** Byte indexes that select, for each doubleword, the doubleword named by two bits of `imm` (all four fields). */
function dwordIndexes(e: Emitter, imm: Val): Val {
  const fields = v(e, 'i32x4.mul', v(e, 'i32x4.splat', imm), e.v128(dwords4([64, 16, 4, 1])));
  const lanes = v(e, 'v128.and', v(e, 'i32x4.shr_u', fields, e.i32(6)), splat(e, 4, 3));
  return v(e, 'i32x4.add', v(e, 'i32x4.mul', lanes, splat(e, 4, 0x0404_0404)), splat(e, 4, 0x0302_0100));
}
/** The same for the four words of one half; the other half stays. */
function wordIndexes(e: Emitter, imm: Val, high: boolean): Val {
  const scale = [64, 16, 4, 1];
  const base = high ? [0x0100, 0x0302, 0x0504, 0x0706, 0x0908, 0x0908, 0x0908, 0x0908] : [0x0100, 0x0100, 0x0100, 0x0100, 0x0908, 0x0b0a, 0x0d0c, 0x0f0e];
  const fields = v(e, 'i16x8.mul', v(e, 'i16x8.splat', imm), e.v128(words8(high ? [0, 0, 0, 0, ...scale] : [...scale, 0, 0, 0, 0])));
  const lanes = v(e, 'v128.and', v(e, 'i16x8.shr_u', fields, e.i32(6)), splat(e, 2, 3));
  return v(e, 'i16x8.add', v(e, 'i16x8.mul', lanes, splat(e, 2, 0x0202)), e.v128(words8(base)));
}

/** Doublewords by the fields of `imm`; also VPERMILPS. */
export function shuffleDwords(e: Emitter, a: Val, imm: Val): Val {
  return imm.constant !== undefined ? shuffleLanes(e, a, a, 4, twoBits(imm.constant)) : swizzle(e, a, dwordIndexes(e, imm));
}
const pshufd = unary((e, a) => shuffleDwords(e, a, imm8(e)));
const shuffleWords = (high: boolean): Semantics =>
  unary((e, a) => {
    const imm = imm8(e);
    if (imm.constant === undefined) return swizzle(e, a, wordIndexes(e, imm, high));
    const chosen = twoBits(imm.constant);
    return shuffleLanes(e, a, a, 2, high ? [0, 1, 2, 3, ...chosen.map((i) => i + 4)] : [...chosen, 4, 5, 6, 7]);
  });

/** SHUFPS: lanes 0, 1 from the first source, lanes 2, 3 from the second. */
const shufps = packed((e, a, b) => {
  const imm = imm8(e);
  if (imm.constant !== undefined) {
    const [x, y, z, w] = twoBits(imm.constant);
    return shuffleLanes(e, a, b, 4, [x, y, 4 + z, 4 + w]);
  }
  const index = e.let(dwordIndexes(e, imm));
  return shuffleLanes(e, swizzle(e, a, index), swizzle(e, b, index), 8, [0, 3]);
});
/** Lane 0 from `a`, lane 1 from `b`, each by a bit of `imm`: SHUFPD; with a = b VPERMILPD. */
export function shuffleQwords(e: Emitter, a: Val, b: Val, imm: Val): Val {
  if (imm.constant !== undefined) return shuffleLanes(e, a, b, 8, [imm.constant & 1, 2 + ((imm.constant >> 1) & 1)]);
  const lane = (vector: Val, chosen: Val) =>
    e.select(e.and(chosen, e.i32(1)), e.op('i64x2.extract_lane', 'i64', vector, 1), e.op('i64x2.extract_lane', 'i64', vector, 0));
  return v(e, 'i64x2.replace_lane', v(e, 'i64x2.splat', lane(a, imm)), 1, lane(b, e.shrU(imm, e.i32(1))));
}
const shufpd = packed((e, a, b, half) => shuffleQwords(e, a, b, immOfHalf(e, imm8(e), 2, half)));

/** PSHUFB: bit 7 of an index gives 0, bits 6:4 are ignored. */
const pshufb = packed((e, a, b) => swizzle(e, a, v(e, 'v128.and', b, splat(e, 1, 0x8f))));

/** PUNPCKx, UNPCKx: interleave the low or high halves of dst and src. */
const unpack = (laneBytes: number, high: boolean): Semantics => {
  const half = 8 / laneBytes;
  const lanes = Array.from({ length: half }, (_, i) => i + (high ? half : 0)).flatMap((i) => [i, i + 2 * half]);
  return packed((e, a, b) => shuffle(e, a, b, laneMask(laneBytes, lanes)));
};

/** PALIGNR: bytes imm..imm+15 of first:second source, zeros beyond. */
const palignr = packed((e, high, low) => {
  const imm = imm8(e);
  if (imm.constant !== undefined) {
    const n = imm.constant;
    if (n >= 32) return zero(e);
    const [from, to, start] = n <= 16 ? [low, high, n] : [high, zero(e), n - 16];
    return shuffle(
      e,
      from,
      to,
      IOTA.map((i) => i + start),
    );
  }
  const index = e.let(v(e, 'i8x16.add_saturate_u', e.v128(IOTA), v(e, 'i8x16.splat', imm)));
  return v(e, 'v128.or', swizzle(e, low, index), swizzle(e, high, v(e, 'i8x16.sub', index, splat(e, 1, 16))));
});

/** BLENDPS, BLENDPD, PBLENDW: bit i of the immediate takes lane i from the second source. `shared`: both halves go by the same bits. */
export const blend = (laneBytes: 2 | 4 | 8, shared = false): Semantics =>
  packed((e, a, b, half) => {
    const count = 16 / laneBytes;
    const imm = immOfHalf(e, imm8(e), shared ? 0 : count, half);
    if (imm.constant !== undefined) {
      const n = imm.constant;
      const lanes = Array.from({ length: count }, (_, i) => i + ((n >> i) & 1) * count);
      return shuffleLanes(e, a, b, laneBytes, lanes);
    }
    const bit = e.v128(IOTA.map((i) => 1 << Math.floor(i / laneBytes)));
    const clear = v(e, 'i8x16.eq', v(e, 'v128.and', v(e, 'i8x16.splat', imm), bit), zero(e));
    return v(e, 'v128.bitselect', a, b, clear);
  });
/** PBLENDVB, BLENDVPS, BLENDVPD: the sign of each lane of the last operand (XMM0, or named by VEX forms) takes it from the second source. */
const blendVariable = (shape: string): Semantics =>
  packed((e, a, b, half) => {
    const mask = e.readXmm(e.form.operands.length - 1, half);
    return v(e, 'v128.bitselect', b, a, v(e, `${shape}.lt_s`, mask, zero(e)));
  });

/** PMOVSX, PMOVZX by successive doublings, each a Wasm extend_low. What the high half of a ymm register comes from is moved down first. */
const extend =
  (...steps: string[]): Semantics =>
  (e) => {
    const source = lowSecond(e);
    const widen = (from: Val) => steps.reduce((vector, step) => v(e, step, vector), from);
    if (e.form.vl === 16) return writeVector(e, widen(source));
    const used = 16 >> steps.length;
    const moved = shuffle(
      e,
      source,
      source,
      IOTA.map((i) => (i + used) & 15),
    );
    writeVector(e, e.let(widen(source)), widen(moved));
  };
const W = (s: string) => `i16x8.extend_low_i8x16_${s}`;
const D = (s: string) => `i32x4.extend_low_i16x8_${s}`;
const Q = (s: string) => `i64x2.extend_low_i32x4_${s}`;

export const sseShuffle: Record<string, Semantics> = {
  pshufd,
  pshuflw: shuffleWords(false),
  pshufhw: shuffleWords(true),
  pshufb,
  shufps,
  shufpd,
  palignr,
  punpcklbw: unpack(1, false),
  punpcklwd: unpack(2, false),
  punpckldq: unpack(4, false),
  punpcklqdq: unpack(8, false),
  punpckhbw: unpack(1, true),
  punpckhwd: unpack(2, true),
  punpckhdq: unpack(4, true),
  punpckhqdq: unpack(8, true),
  unpcklps: unpack(4, false),
  unpckhps: unpack(4, true),
  unpcklpd: unpack(8, false),
  unpckhpd: unpack(8, true),
  packsswb: direct('i8x16.narrow_i16x8_s'),
  packuswb: direct('i8x16.narrow_i16x8_u'),
  packssdw: direct('i16x8.narrow_i32x4_s'),
  packusdw: direct('i16x8.narrow_i32x4_u'),
  blendps: blend(4),
  blendpd: blend(8),
  pblendw: blend(2, true),
  pblendvb: blendVariable('i8x16'),
  blendvps: blendVariable('i32x4'),
  blendvpd: blendVariable('i64x2'),
  pmovsxbw: extend(W('s')),
  pmovsxbd: extend(W('s'), D('s')),
  pmovsxbq: extend(W('s'), D('s'), Q('s')),
  pmovsxwd: extend(D('s')),
  pmovsxwq: extend(D('s'), Q('s')),
  pmovsxdq: extend(Q('s')),
  pmovzxbw: extend(W('u')),
  pmovzxbd: extend(W('u'), D('u')),
  pmovzxbq: extend(W('u'), D('u'), Q('u')),
  pmovzxwd: extend(D('u')),
  pmovzxwq: extend(D('u'), Q('u')),
  pmovzxdq: extend(Q('u')),
};
