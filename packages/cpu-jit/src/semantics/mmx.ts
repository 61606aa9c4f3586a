/**
 * MMX, with its SSE and SSSE3 additions. Registers are the significands of the x87 registers; every instruction but EMMS
 * sets TOP to 0 and all tags to valid (SDM vol. 1, 9.5.1), once its memory operand can no longer fault.
 * Quadwords are computed in the low half of a vector; what the high half holds does not matter.
 */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { S_CR0, S_X87_SW, S_X87_TAGS, S_X87_TOP } from '../layout.ts';
import { RDI } from './common.ts';
import { requireBytes } from './masked-store.ts';
import { IOTA, imm8, laneMask, shuffle, shuffleLanes, splat, swizzle, v, zero } from './sse-operands.ts';

const UD = 6;
const NM = 7;
const MF = 16;
const CR0_EM = 1 << 2;
const CR0_TS = 1 << 3;
const ES = 1 << 7;

/** #UD under emulation, #NM after a task switch, #MF for a pending x87 exception. */
export function guard(e: Emitter): void {
  const absent = e.let(e.and(e.state(S_CR0, 4), e.i32(CR0_EM | CR0_TS)));
  e.if(e.or(absent, e.and(e.state(S_X87_SW, 4), e.i32(ES))), () => {
    e.if(e.and(absent, e.i32(CR0_EM)), () => e.raise(UD));
    e.if(absent, () => e.raise(NM));
    e.raise(MF);
  });
}
/** The x87 unit turns into the MMX unit. */
export function enterMmx(e: Emitter): void {
  e.setState(S_X87_TOP, 4, e.i32(0));
  e.setState(S_X87_TAGS, 4, e.i32(0xff));
}

const wide = (e: Emitter, quadword: Val): Val => e.let(v(e, 'i64x2.splat', quadword));
const low = (e: Emitter, vector: Val): Val => e.op('i64x2.extract_lane', 'i64', vector, 0);
/** Register or memory operand as i64; doublewords are zero-extended. */
const quadword = (e: Emitter, i: number): Val => e.let(e.zext64(e.read(i)));

/** dst = f(dst, src) on i64 values that may be used many times. */
function scalar(f: (e: Emitter, a: Val, b: Val) => Val): Semantics {
  return (e) => {
    guard(e);
    const source = quadword(e, 1);
    const result = e.let(f(e, quadword(e, 0), source));
    enterMmx(e);
    e.write(0, result);
  };
}
/** The same on vectors. */
const packed = (f: (e: Emitter, a: Val, b: Val) => Val): Semantics => scalar((e, a, b) => low(e, f(e, wide(e, a), wide(e, b))));
/** The same for one Wasm instruction. */
const direct = (name: string): Semantics => packed((e, a, b) => v(e, name, a, b));
/** dst and src as one vector, dst low. */
const joined = (e: Emitter, a: Val, b: Val): Val => e.let(shuffleLanes(e, a, b, 8, [0, 2]));

const narrow = (name: string): Semantics =>
  packed((e, a, b) => {
    const both = joined(e, a, b);
    return v(e, name, both, both);
  });
/** PUNPCKx: lanes of dst and src alternately, from the low or the high half of the quadwords. */
function interleave(laneBytes: 1 | 2 | 4, high: boolean): Semantics {
  const half = 4 / laneBytes;
  const lanes = Array.from({ length: 16 / laneBytes }, (_, i) => ((i >> 1) % half) + (high ? half : 0) + (i & 1 ? 16 / laneBytes : 0));
  return packed((e, a, b) => shuffle(e, a, b, laneMask(laneBytes, lanes)));
}
/** PHADDx, PHSUBx. */
function horizontal(name: string, laneBytes: 2 | 4): Semantics {
  const even = Array.from({ length: 16 / laneBytes }, (_, i) => (2 * i) % (16 / laneBytes));
  return packed((e, a, b) => {
    const both = joined(e, a, b);
    const odd = even.map((i) => i + 1);
    return v(e, name, shuffleLanes(e, both, both, laneBytes, even), shuffleLanes(e, both, both, laneBytes, odd));
  });
}
const ODD_WORDS = [1, 3, 5, 7, 1, 3, 5, 7];
function multiplyHigh(sign: 's' | 'u'): Semantics {
  return packed((e, a, b) => {
    const products = e.let(v(e, `i32x4.extmul_low_i16x8_${sign}`, a, b));
    return shuffleLanes(e, products, products, 2, ODD_WORDS);
  });
}
/** PMULHRSW; Wasm saturates 8000h * 8000h where x86 wraps to 8000h. */
const multiplyRound = packed((e, a, b) => {
  const wrapped = v(e, 'i16x8.eq', v(e, 'v128.and', a, v(e, 'i16x8.eq', a, b)), splat(e, 2, 0x8000));
  return v(e, 'v128.xor', v(e, 'i16x8.q15mulr_sat_s', a, b), wrapped);
});
/** PMADDUBSW: unsigned bytes of dst by signed bytes of src. */
const multiplyAddBytes = packed((e, a, b) => {
  const even = v(e, 'i16x8.mul', v(e, 'v128.and', a, splat(e, 2, 0xff)), v(e, 'i16x8.shr_s', v(e, 'i16x8.shl', b, e.i32(8)), e.i32(8)));
  const odd = v(e, 'i16x8.mul', v(e, 'i16x8.shr_u', a, e.i32(8)), v(e, 'i16x8.shr_s', b, e.i32(8)));
  return v(e, 'i16x8.add_saturate_s', even, odd);
});
/** PSADBW. */
const sumOfDifferences = packed((e, a, b) => {
  const difference = v(e, 'i8x16.sub', v(e, 'i8x16.max_u', a, b), v(e, 'i8x16.min_u', a, b));
  const sums = e.let(v(e, 'i32x4.extadd_pairwise_i16x8_u', v(e, 'i16x8.extadd_pairwise_i8x16_u', difference)));
  const total = v(e, 'i64x2.add', sums, v(e, 'i64x2.shr_u', sums, e.i32(32)));
  return v(e, 'v128.and', total, e.v128(IOTA.map((i) => (i % 8 < 4 ? 0xff : 0))));
});
/** PSIGNx: dst where src > 0, 0 where it is 0, -dst where it is negative. */
const sign = (shape: string): Semantics =>
  packed((e, a, b) => {
    const negative = e.let(v(e, `${shape}.lt_s`, b, zero(e)));
    const signed = v(e, `${shape}.sub`, v(e, 'v128.xor', a, negative), negative);
    return v(e, 'v128.andnot', signed, v(e, `${shape}.eq`, b, zero(e)));
  });
const absolute = (shape: string): Semantics => packed((e, _a, b) => v(e, `${shape}.abs`, b));
/** PSHUFB: the low three bits of an index count, its top bit clears. */
const shuffleBytes = packed((e, a, b) => swizzle(e, a, v(e, 'v128.and', b, splat(e, 1, 0x87))));
/** PALIGNR: bytes from src:dst starting at the immediate. */
const alignRight = packed((e, a, b) => {
  const both = joined(e, b, a);
  return swizzle(e, both, v(e, 'i8x16.add_saturate_u', e.v128(IOTA), v(e, 'i8x16.splat', imm8(e))));
});

/** Shifts of every lane by an immediate or the whole source quadword; counts past the lane give 0 or the sign. */
function shift(shape: 'i16x8' | 'i32x4' | 'i64x2', op: 'shl' | 'shr_u' | 'shr_s'): Semantics {
  const bits = shape === 'i16x8' ? 16 : shape === 'i32x4' ? 32 : 64;
  return (e) => {
    guard(e);
    const count = e.form.operands[1]?.kind === 'imm' ? e.let(e.zext64(imm8(e))) : quadword(e, 1);
    const inside = e.let(e.ltU(count, e.i64(bits)));
    const clamped = e.let(e.select(inside, e.wrap(count), e.i32(bits - 1)));
    const shifted = low(e, v(e, `${shape}.${op}`, wide(e, e.read(0)), clamped));
    const result = e.let(op === 'shr_s' ? shifted : e.select(inside, shifted, e.i64(0)));
    enterMmx(e);
    e.write(0, result);
  };
}

/** Bit position of the word the immediate selects. */
const wordPosition = (e: Emitter): Val => e.let(e.zext64(e.shl(e.and(imm8(e), e.i32(3)), e.i32(4))));
const pinsrw: Semantics = (e) => {
  guard(e);
  const word = e.and(e.zext64(e.read(1)), e.i64(0xffff));
  const at = wordPosition(e);
  const result = e.let(e.or(e.and(e.read(0), e.not(e.shl(e.i64(0xffff), at))), e.shl(word, at)));
  enterMmx(e);
  e.write(0, result);
};
const pextrw: Semantics = (e) => {
  guard(e);
  const word = e.let(e.and(e.wrap(e.shrU(e.read(1), wordPosition(e))), e.i32(0xffff)));
  enterMmx(e);
  e.write(0, word);
};
/** PSHUFW: four 2-bit word numbers. */
const pshufw: Semantics = (e) => {
  guard(e);
  const source = quadword(e, 1);
  const imm = imm8(e);
  let result: Val = e.i64(0);
  for (let i = 0; i < 4; i++) {
    const from = e.zext64(e.shl(e.and(e.shrU(imm, e.i32(2 * i)), e.i32(3)), e.i32(4)));
    result = e.or(result, e.shl(e.and(e.shrU(source, from), e.i64(0xffff)), e.i64(16 * i)));
  }
  const bound = e.let(result);
  enterMmx(e);
  e.write(0, bound);
};
const pmovmskb: Semantics = (e) => {
  guard(e);
  const mask = e.let(e.and(e.op('i8x16.bitmask', 'i32', wide(e, e.read(1))), e.i32(0xff)));
  enterMmx(e);
  e.write(0, mask);
};

/** MOVD, MOVQ, MOVNTQ: zero-extending to a register, truncating from one. */
const move: Semantics = (e) => {
  guard(e);
  const value = quadword(e, 1);
  const toMmx = e.form.operands[0]?.kind === 'mmx';
  // A store that faults has put TOP to 0 already, as processors do.
  if (toMmx) enterMmx(e);
  else e.setState(S_X87_TOP, 4, e.i32(0));
  e.write(0, toMmx || e.size(0) === 8 ? value : e.wrap(value));
  if (!toMmx) enterMmx(e);
};
/** MASKMOVQ: the bytes of operand 0 whose mask byte in operand 1 is negative, to DS:rDI. */
const maskmovq: Semantics = (e) => {
  guard(e);
  const selected = e.let(e.op('i8x16.bitmask', 'i32', wide(e, e.read(1))));
  const bytes = quadword(e, 0);
  const start = e.linear(e.let(e.zext64(e.reg(RDI, e.form.addrSize))), 8, { write: true });
  requireBytes(e, start, 8);
  for (let i = 0; i < 8; i++) {
    e.if(e.and(selected, e.i32(1 << i)), () => {
      const at = e.add(start, e.i64(i));
      const byte = e.and(e.wrap(e.shrU(bytes, e.i64(8 * i))), e.i32(0xff));
      e.store(e.codeSize === 64 ? at : e.zext64(e.wrap(at)), 1, byte);
    });
  }
  enterMmx(e);
};
/** EMMS: all registers empty. */
const emms: Semantics = (e) => {
  guard(e);
  e.setState(S_X87_TOP, 4, e.i32(0));
  e.setState(S_X87_TAGS, 4, e.i32(0));
};

/** By mnemonic without the suffix `_mmx` that the tables add. */
const instructions: Record<string, Semantics> = {
  paddb: direct('i8x16.add'),
  paddw: direct('i16x8.add'),
  paddd: direct('i32x4.add'),
  paddq: scalar((e, a, b) => e.add(a, b)),
  psubb: direct('i8x16.sub'),
  psubw: direct('i16x8.sub'),
  psubd: direct('i32x4.sub'),
  psubq: scalar((e, a, b) => e.sub(a, b)),
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
  pcmpeqb: direct('i8x16.eq'),
  pcmpeqw: direct('i16x8.eq'),
  pcmpeqd: direct('i32x4.eq'),
  pcmpgtb: direct('i8x16.gt_s'),
  pcmpgtw: direct('i16x8.gt_s'),
  pcmpgtd: direct('i32x4.gt_s'),
  pand: scalar((e, a, b) => e.and(a, b)),
  por: scalar((e, a, b) => e.or(a, b)),
  pxor: scalar((e, a, b) => e.xor(a, b)),
  pandn: scalar((e, a, b) => e.and(e.not(a), b)),
  pmullw: direct('i16x8.mul'),
  pmaddwd: direct('i32x4.dot_i16x8_s'),
  pmulhw: multiplyHigh('s'),
  pmulhuw: multiplyHigh('u'),
  pmuludq: direct('i64x2.extmul_low_i32x4_u'),
  pmulhrsw: multiplyRound,
  pmaddubsw: multiplyAddBytes,
  psadbw: sumOfDifferences,
  packsswb: narrow('i8x16.narrow_i16x8_s'),
  packuswb: narrow('i8x16.narrow_i16x8_u'),
  packssdw: narrow('i16x8.narrow_i32x4_s'),
  punpcklbw: interleave(1, false),
  punpcklwd: interleave(2, false),
  punpckldq: interleave(4, false),
  punpckhbw: interleave(1, true),
  punpckhwd: interleave(2, true),
  punpckhdq: interleave(4, true),
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
  pshufb: shuffleBytes,
  palignr: alignRight,
  psllw: shift('i16x8', 'shl'),
  pslld: shift('i32x4', 'shl'),
  psllq: shift('i64x2', 'shl'),
  psrlw: shift('i16x8', 'shr_u'),
  psrld: shift('i32x4', 'shr_u'),
  psrlq: shift('i64x2', 'shr_u'),
  psraw: shift('i16x8', 'shr_s'),
  psrad: shift('i32x4', 'shr_s'),
  pinsrw,
  pextrw,
  pshufw,
  pmovmskb,
  movd: move,
  movq: move,
  movntq: move,
  maskmovq,
};

export const mmx: Record<string, Semantics> = {
  ...Object.fromEntries(Object.entries(instructions).map(([name, f]) => [`${name}_mmx`, f])),
  emms,
};
