/** SSE2..SSE4.2 packed-integer arithmetic, comparison, logic and shifts. */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { IOTA, imm8, immOfHalf, shuffle, shuffleLanes, splat, swizzle, v, zero } from './sse-operands.ts';
import { type Binary, direct, halves, onFirst, packed, registerHalves, second128, type Unary, unary } from './vector.ts';

const EVEN_WORDS = [0, 2, 4, 6, 8, 10, 12, 14];
const ODD_WORDS = EVEN_WORDS.map((i) => i + 1);

/** High halves of the eight 32-bit products of words. */
const multiplyHigh =
  (sign: 's' | 'u'): Binary =>
  (e, a, b) => {
    const low = e.let(v(e, `i32x4.extmul_low_i16x8_${sign}`, a, b));
    const high = e.let(v(e, `i32x4.extmul_high_i16x8_${sign}`, a, b));
    return shuffleLanes(e, low, high, 2, ODD_WORDS);
  };

/** Even doublewords multiplied to quadwords. */
const multiplyEven =
  (sign: 's' | 'u'): Binary =>
  (e, a, b) =>
    v(e, `i64x2.extmul_low_i32x4_${sign}`, shuffleLanes(e, a, a, 4, [0, 2, 0, 2]), shuffleLanes(e, b, b, 4, [0, 2, 0, 2]));

/** PMADDUBSW: unsigned bytes of `a` times signed bytes of `b`, neighbours added with saturation. */
const multiplyAddBytes: Binary = (e, a, b) => {
  const even = v(e, 'i16x8.mul', v(e, 'v128.and', a, splat(e, 2, 0xff)), v(e, 'i16x8.shr_s', v(e, 'i16x8.shl', b, e.i32(8)), e.i32(8)));
  const odd = v(e, 'i16x8.mul', v(e, 'i16x8.shr_u', a, e.i32(8)), v(e, 'i16x8.shr_s', b, e.i32(8)));
  return v(e, 'i16x8.add_saturate_s', even, odd);
};

/** PMULHRSW. Wasm saturates 8000h * 8000h to 7FFFh where x86 wraps to 8000h. */
const multiplyRound: Binary = (e, a, b) => {
  const extreme = splat(e, 2, 0x8000);
  const wrapped = v(e, 'i16x8.eq', v(e, 'v128.and', a, v(e, 'i16x8.eq', a, b)), extreme);
  return v(e, 'v128.xor', v(e, 'i16x8.q15mulr_sat_s', a, b), wrapped);
};

/** PSADBW: sums of absolute differences of eight unsigned bytes each, as quadwords. */
const sumOfDifferences: Binary = (e, a, b) => {
  const difference = v(e, 'i8x16.sub', v(e, 'i8x16.max_u', a, b), v(e, 'i8x16.min_u', a, b));
  const sums = e.let(v(e, 'i32x4.extadd_pairwise_i16x8_u', v(e, 'i16x8.extadd_pairwise_i8x16_u', difference)));
  return v(e, 'v128.and', v(e, 'i64x2.add', sums, v(e, 'i64x2.shr_u', sums, e.i32(32))), e.v128([...IOTA].map((i) => (i % 8 < 4 ? 0xff : 0))));
};

/** PHADDx, PHSUBx: neighbours combined, results of dst then src. */
const horizontal = (name: string, laneBytes: 2 | 4): Semantics =>
  packed((e, a, b) => {
    const even = laneBytes === 2 ? EVEN_WORDS : [0, 2, 4, 6];
    const odd = even.map((i) => i + 1);
    return v(e, name, shuffleLanes(e, a, b, laneBytes, even), shuffleLanes(e, a, b, laneBytes, odd));
  });

/** PSIGNx: a where b > 0, 0 where b = 0, -a where b < 0. */
const sign = (shape: string): Semantics =>
  packed((e, a, b) => {
    const negative = e.let(v(e, `${shape}.lt_s`, b, zero(e)));
    const signed = v(e, `${shape}.sub`, v(e, 'v128.xor', a, negative), negative);
    return v(e, 'v128.andnot', signed, v(e, `${shape}.eq`, b, zero(e)));
  });
const absolute = (shape: string): Semantics => unary((e, b) => v(e, `${shape}.abs`, b));

/** Shift of every lane by one count: an immediate, or the low quadword of operand 1. Counts past the lane give 0 or the sign. */
const shift =
  (shape: 'i16x8' | 'i32x4' | 'i64x2', op: 'shl' | 'shr_u' | 'shr_s'): Semantics =>
  (e) => {
    const bits = shape === 'i16x8' ? 16 : shape === 'i32x4' ? 32 : 64;
    const name = `${shape}.${op}`;
    const fromImmediate = e.form.operands.at(-1)?.kind === 'imm';
    if (fromImmediate) return onFirst(shiftBy(e, name, bits, imm8(e)))(e);
    const quadword = e.let(e.op('i64x2.extract_lane', 'i64', second128(e), 0));
    onFirst(shiftBy(e, name, bits, e.let(e.wrap(e.select(e.ltU(quadword, e.i64(bits)), quadword, e.i64(bits))))))(e);
  };
/** `count` is 0..2^31, reusable. */
function shiftBy(e: Emitter, name: string, bits: number, count: Val): Unary {
  const isArithmetic = name.endsWith('shr_s');
  if (count.constant !== undefined) {
    if (count.constant < bits) return (_, a) => v(e, name, a, count);
    return isArithmetic ? (_, a) => v(e, name, a, e.i32(bits - 1)) : () => zero(e);
  }
  const inside = e.let(e.ltU(count, e.i32(bits)));
  if (isArithmetic) {
    const limited = e.let(e.select(inside, count, e.i32(bits - 1)));
    return (_, a) => v(e, name, a, limited);
  }
  const keep = e.let(v(e, 'i32x4.splat', e.sub(e.i32(0), inside)));
  return (_, a) => v(e, 'v128.and', v(e, name, a, count), keep);
}

/** PSRLDQ (direction 1), PSLLDQ (-1): every half by bytes. */
const shiftBytes = (direction: 1 | -1): Semantics =>
  onFirst((e, a) => {
    const imm = imm8(e);
    if (imm.constant !== undefined) {
      const n = Math.min(imm.constant, 16);
      if (n === 16) return zero(e);
      const [low, high, from] = direction === 1 ? [a, zero(e), n] : [zero(e), a, 16 - n];
      return shuffle(
        e,
        low,
        high,
        IOTA.map((i) => i + from),
      );
    }
    if (direction === 1) return swizzle(e, a, v(e, 'i8x16.add_saturate_u', e.v128(IOTA), v(e, 'i8x16.splat', imm)));
    const n = e.select(e.ltU(imm, e.i32(16)), imm, e.i32(16));
    return swizzle(e, a, v(e, 'i8x16.sub', e.v128(IOTA), v(e, 'i8x16.splat', n)));
  });

/** PANDN: ~dst & src. */
const andNot = packed((e, a, b) => v(e, 'v128.andnot', b, a));

/** PTEST: ZF = (src & dst) is 0, CF = (src & ~dst) is 0. */
const ptest = testBits((e, bits) => e.op('v128.any_true', 'i32', bits));
/** PTEST, VTESTPx: `anyOf` tells whether any bit that counts is set. */
export function testBits(anyOf: (e: Emitter, bits: Val) => Val): Semantics {
  return (e) => {
    const b = halves(e, 1, e.form.row.vex === true ? 'unaligned' : 'aligned');
    const a = registerHalves(e, 0);
    const combined = (name: string) => {
      const [low, high] = b.map((y, half) => v(e, name, y, a[half] ?? zero(e)));
      if (low === undefined) throw new Error(`${e.form.row.name} has no source`);
      return e.let(e.eqz(anyOf(e, high === undefined ? low : v(e, 'v128.or', low, high))));
    };
    const zf = combined('v128.and');
    e.setFlagsExplicit({ zf, cf: combined('v128.andnot') });
  };
}

/** PHMINPOSUW: smallest unsigned word and the number of the first lane that holds it. */
const minimumPosition = unary((e, words) => {
  // value << 16 | lane as doublewords: their unsigned minimum names the first of equal values.
  const tag = (name: string, first: number) =>
    v(e, 'v128.or', v(e, 'i32x4.shl', v(e, name, words), e.i32(16)), e.v128([...IOTA].map((i) => (i % 4 === 0 ? first + i / 4 : 0))));
  let m = e.let(v(e, 'i32x4.min_u', tag('i32x4.extend_low_i16x8_u', 0), tag('i32x4.extend_high_i16x8_u', 4)));
  m = e.let(v(e, 'i32x4.min_u', m, shuffleLanes(e, m, m, 4, [2, 3, 0, 1])));
  m = e.let(v(e, 'i32x4.min_u', m, shuffleLanes(e, m, m, 4, [1, 0, 3, 2])));
  const least = e.rotl(e.op('i32x4.extract_lane', 'i32', m, 0), e.i32(16));
  return v(e, 'i32x4.replace_lane', zero(e), 0, least);
});

/** MPSADBW: eight sums of four absolute byte differences, one fixed group of src against a window sliding over dst. */
const slidingDifferences = packed((e, a, source, half) => {
  const imm = immOfHalf(e, imm8(e), 3, half);
  const window = e.let(v(e, 'i8x16.splat', e.and(imm, e.i32(4))));
  const group = e.let(v(e, 'i8x16.splat', e.shl(e.and(imm, e.i32(3)), e.i32(2))));
  let sum: Val = zero(e);
  for (let j = 0; j < 4; j++) {
    const slid = swizzle(e, a, v(e, 'i8x16.add', window, e.v128(IOTA.map((i) => (i < 8 ? i + j : 0x80)))));
    const fixed = swizzle(e, source, v(e, 'i8x16.add', group, e.v128(IOTA.map((i) => (i % 2 === 0 ? j : 0x80)))));
    const difference = v(e, 'i16x8.abs', v(e, 'i16x8.sub', v(e, 'i16x8.extend_low_i8x16_u', slid), fixed));
    sum = j === 0 ? difference : v(e, 'i16x8.add', sum, difference);
  }
  return sum;
});

export const sseInt: Record<string, Semantics> = {
  paddb: direct('i8x16.add'),
  paddw: direct('i16x8.add'),
  paddd: direct('i32x4.add'),
  paddq: direct('i64x2.add'),
  psubb: direct('i8x16.sub'),
  psubw: direct('i16x8.sub'),
  psubd: direct('i32x4.sub'),
  psubq: direct('i64x2.sub'),
  paddsb: direct('i8x16.add_saturate_s'),
  paddsw: direct('i16x8.add_saturate_s'),
  paddusb: direct('i8x16.add_saturate_u'),
  paddusw: direct('i16x8.add_saturate_u'),
  psubsb: direct('i8x16.sub_saturate_s'),
  psubsw: direct('i16x8.sub_saturate_s'),
  psubusb: direct('i8x16.sub_saturate_u'),
  psubusw: direct('i16x8.sub_saturate_u'),
  pavgb: direct('i8x16.avgr_u'),
  pavgw: direct('i16x8.avgr_u'),
  pminub: direct('i8x16.min_u'),
  pmaxub: direct('i8x16.max_u'),
  pminsw: direct('i16x8.min_s'),
  pmaxsw: direct('i16x8.max_s'),
  pminsb: direct('i8x16.min_s'),
  pmaxsb: direct('i8x16.max_s'),
  pminuw: direct('i16x8.min_u'),
  pmaxuw: direct('i16x8.max_u'),
  pminsd: direct('i32x4.min_s'),
  pmaxsd: direct('i32x4.max_s'),
  pminud: direct('i32x4.min_u'),
  pmaxud: direct('i32x4.max_u'),
  pcmpeqb: direct('i8x16.eq'),
  pcmpeqw: direct('i16x8.eq'),
  pcmpeqd: direct('i32x4.eq'),
  pcmpeqq: direct('i64x2.eq'),
  pcmpgtb: direct('i8x16.gt_s'),
  pcmpgtw: direct('i16x8.gt_s'),
  pcmpgtd: direct('i32x4.gt_s'),
  pcmpgtq: direct('i64x2.gt_s'),
  pand: direct('v128.and'),
  por: direct('v128.or'),
  pxor: direct('v128.xor'),
  pandn: andNot,
  andps: direct('v128.and'),
  orps: direct('v128.or'),
  xorps: direct('v128.xor'),
  andnps: andNot,
  andpd: direct('v128.and'),
  orpd: direct('v128.or'),
  xorpd: direct('v128.xor'),
  andnpd: andNot,
  pmullw: direct('i16x8.mul'),
  pmulld: direct('i32x4.mul'),
  pmaddwd: direct('i32x4.dot_i16x8_s'),
  pmulhw: packed(multiplyHigh('s')),
  pmulhuw: packed(multiplyHigh('u')),
  pmuludq: packed(multiplyEven('u')),
  pmuldq: packed(multiplyEven('s')),
  pmulhrsw: packed(multiplyRound),
  pmaddubsw: packed(multiplyAddBytes),
  psadbw: packed(sumOfDifferences),
  phaddw: horizontal('i16x8.add', 2),
  phaddd: horizontal('i32x4.add', 4),
  phaddsw: horizontal('i16x8.add_saturate_s', 2),
  phsubw: horizontal('i16x8.sub', 2),
  phsubd: horizontal('i32x4.sub', 4),
  phsubsw: horizontal('i16x8.sub_saturate_s', 2),
  psignb: sign('i8x16'),
  psignw: sign('i16x8'),
  psignd: sign('i32x4'),
  pabsb: absolute('i8x16'),
  pabsw: absolute('i16x8'),
  pabsd: absolute('i32x4'),
  psllw: shift('i16x8', 'shl'),
  pslld: shift('i32x4', 'shl'),
  psllq: shift('i64x2', 'shl'),
  psrlw: shift('i16x8', 'shr_u'),
  psrld: shift('i32x4', 'shr_u'),
  psrlq: shift('i64x2', 'shr_u'),
  psraw: shift('i16x8', 'shr_s'),
  psrad: shift('i32x4', 'shr_s'),
  pslldq: shiftBytes(-1),
  psrldq: shiftBytes(1),
  ptest,
  phminposuw: minimumPosition,
  mpsadbw: slidingDifferences,
};
