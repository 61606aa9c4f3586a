/** SSE..SSE4.1 data movement between registers, lanes and memory: no arithmetic, no flags. */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { MXCSR_TRACKED, MXCSR_VISIBLE, S_MXCSR } from '../layout.ts';
import { RDI } from './common.ts';
import { requireBytes } from './masked-store.ts';
import { enterMmx, guard } from './mmx.ts';
import { type FloatType, shuffleLanes, v, writeInteger, zero } from './sse-operands.ts';
import { alignedAddress, first, halves, lowSecond, registerHalves, secondIndex, unary, writeMerged, writeVector } from './vector.ts';

/** A whole vector; `aligned` (MOVAPS, MOVDQA, MOVNTPS...): memory must be, in VEX forms too. */
const moveVector =
  (alignment: 'aligned' | 'unaligned'): Semantics =>
  (e) => {
    if (e.isMem(0)) storeVector(e, alignment);
    else {
      const [low, high] = halves(e, 1, alignment);
      if (low !== undefined) writeVector(e, low, high);
    }
  };
function storeVector(e: Emitter, alignment: 'aligned' | 'unaligned'): void {
  const address = alignedAddress(e, 0, alignment, true);
  const [low, high] = registerHalves(e, 1);
  if (low === undefined) return;
  if (high === undefined) e.store(address, 16, low);
  else e.storePair(address, low, high);
}

/** Register with `bits` (i32 or i64) in its low lane, zero above. */
export function zeroExtended(e: Emitter, bits: Val): Val {
  return v(e, bits.type === 'i64' ? 'i64x2.replace_lane' : 'i32x4.replace_lane', zero(e), 0, bits);
}
/** Low `type` lane of a register as integer bits. */
function lowBits(e: Emitter, type: FloatType, i: number): Val {
  return type === 'f32' ? e.op('i32x4.extract_lane', 'i32', e.readXmm(i), 0) : e.op('i64x2.extract_lane', 'i64', e.readXmm(i), 0);
}

/** MOVSS, MOVSD: the register form keeps the upper lanes (of the first source), the load clears them. */
const moveScalar =
  (type: FloatType): Semantics =>
  (e) => {
    if (e.isMem(0)) e.write(0, lowBits(e, type, 1));
    else if (e.isMem(1)) writeVector(e, zeroExtended(e, e.read(1)));
    else writeMerged(e, type, e.readXmm(secondIndex(e)));
  };

/** MOVD, MOVQ between any two of general register, MMX, XMM and memory. An XMM destination is cleared above. */
const moveBits: Semantics = (e) => {
  const [to, from] = [e.form.operands[0], e.form.operands[1]];
  if (to?.kind !== 'xmm') {
    if (from?.kind !== 'xmm') return e.write(0, fitted(e, e.read(1), e.size(0)));
    return e.write(0, lowBits(e, e.size(0) === 8 ? 'f64' : 'f32', 1));
  }
  if (from?.kind === 'xmm') writeVector(e, shuffleLanes(e, e.readXmm(1), zero(e), 8, [0, 2]));
  else writeVector(e, zeroExtended(e, e.read(1)));
};
function fitted(e: Emitter, value: Val, size: number): Val {
  return size === 8 ? e.zext64(value) : e.wrap(value);
}

/** MOVLPS/MOVLPD (lane 0) and MOVHPS/MOVHPD (lane 1): 8 bytes between one half of a register and memory. */
const moveHalf =
  (lane: 0 | 1): Semantics =>
  (e) => {
    const source = secondIndex(e);
    if (e.isMem(0)) e.write(0, e.op('i64x2.extract_lane', 'i64', e.readXmm(1), lane));
    else if (e.isMem(source)) {
      const bits = e.read(source);
      writeVector(e, v(e, 'i64x2.replace_lane', first(e), lane, bits));
    } else writeVector(e, shuffleLanes(e, first(e), e.readXmm(source), 8, lane === 0 ? [3, 1] : [0, 2])); // MOVHLPS, MOVLHPS
  };

/** MOVSHDUP, MOVSLDUP, MOVDDUP: source lanes by number. */
const duplicate = (laneBytes: 4 | 8, lanes: readonly number[]): Semantics => unary((e, source) => shuffleLanes(e, source, source, laneBytes, lanes));
/** MOVDDUP of 16 bytes reads 8, anywhere. */
const movddup: Semantics = (e) => {
  const lanes = [0, 0];
  if (e.form.vl === 32) return duplicate(8, lanes)(e);
  const source = lowSecond(e);
  writeVector(e, shuffleLanes(e, source, source, 8, lanes));
};

/** MOVMSKPS, MOVMSKPD, PMOVMSKB: signs of all lanes. */
const mask =
  (shape: 'i8x16' | 'i32x4' | 'i64x2'): Semantics =>
  (e) => {
    const [low, high] = registerHalves(e, 1).map((half) => e.op(`${shape}.bitmask`, 'i32', half));
    if (low === undefined) return;
    const lanes = shape === 'i8x16' ? 16 : shape === 'i32x4' ? 4 : 2;
    writeInteger(e, 0, high === undefined ? low : e.or(low, e.shl(high, e.i32(lanes))));
  };

const ldmxcsr: Semantics = (e) => {
  const value = e.let(e.read(0));
  e.if(e.and(value, e.i32(~MXCSR_VISIBLE)), () => e.raise(13, 0));
  e.setState(S_MXCSR, 4, e.or(value, e.i32(MXCSR_TRACKED)));
  // Which compiled code may run depends on it (Emitter.softFloat).
  e.endBlock();
};
const stmxcsr: Semantics = (e) => e.write(0, e.let(e.and(e.state(S_MXCSR, 4), e.i32(MXCSR_VISIBLE))));

/** MASKMOVDQU: the bytes of operand 0 whose mask byte in operand 1 is negative, to DS:rDI. */
const maskmovdqu: Semantics = (e) => {
  const selected = e.let(e.op('i8x16.bitmask', 'i32', e.readXmm(1)));
  const bytes = e.let(e.readXmm(0));
  const start = e.linear(e.let(e.zext64(e.reg(RDI, e.form.addrSize))), 16, { write: true });
  requireBytes(e, start, 16);
  for (let i = 0; i < 16; i++) {
    e.if(e.and(selected, e.i32(1 << i)), () => {
      const at = e.add(start, e.i64(i));
      e.store(e.codeSize === 64 ? at : e.zext64(e.wrap(at)), 1, e.op('i8x16.extract_lane_u', 'i32', bytes, i));
    });
  }
};

/** Operand 1 as a quadword. An MMX register turns the x87 unit into the MMX unit, memory does not. */
export function mmxSource(e: Emitter): Val {
  if (e.isMem(1)) return e.read(1);
  guard(e);
  enterMmx(e);
  return e.read(1);
}
/** MOVQ2DQ, MOVDQ2Q. */
const movq2dq: Semantics = (e) => writeVector(e, zeroExtended(e, mmxSource(e)));
const movdq2q: Semantics = (e) => {
  guard(e);
  enterMmx(e);
  e.write(0, e.op('i64x2.extract_lane', 'i64', e.readXmm(1), 0));
};

/** PINSRx: replace one lane by an integer. The lane number is reduced modulo the number of lanes. */
const insert =
  (shape: 'i8x16' | 'i16x8' | 'i32x4' | 'i64x2', lanes: number): Semantics =>
  (e) => {
    const bits = e.let(e.read(secondIndex(e)));
    const value = shape === 'i64x2' ? e.zext64(bits) : e.wrap(bits);
    const imm = e.imm(1);
    if (imm.constant !== undefined) return writeVector(e, v(e, `${shape}.replace_lane`, first(e), imm.constant & (lanes - 1), value));
    const bytes = 16 / lanes;
    const numbers = e.v128(Array.from({ length: 16 }, (_, i) => Math.floor(i / bytes)));
    const chosen = v(e, 'i8x16.eq', numbers, v(e, 'i8x16.splat', e.and(imm, e.i32(lanes - 1))));
    writeVector(e, v(e, 'v128.bitselect', v(e, `${shape}.splat`, value), first(e), chosen));
  };

/** One lane, by a number known only at run time (already reduced), moved to lane 0. */
export function laneToLow(e: Emitter, vector: Val, laneBytes: 1 | 2 | 4 | 8, lane: Val): Val {
  const start = v(e, 'i8x16.splat', e.mul(lane, e.i32(laneBytes)));
  const index = v(e, 'i8x16.add', start, e.v128(Array.from({ length: 16 }, (_, i) => i % laneBytes)));
  return v(e, 'i8x16.swizzle', vector, index);
}

/** PEXTRx, EXTRACTPS: one lane, zero-extended. Operand 1 is the vector register. */
const extract =
  (shape: 'i8x16' | 'i16x8' | 'i32x4' | 'i64x2', lanes: number): Semantics =>
  (e) => {
    const name = `${shape}.extract_lane${lanes >= 8 ? '_u' : ''}`;
    const type = shape === 'i64x2' ? 'i64' : 'i32';
    const imm = e.imm(1);
    if (imm.constant !== undefined) return writeInteger(e, 0, e.op(name, type, e.readXmm(1), imm.constant & (lanes - 1)));
    const moved = laneToLow(e, e.readXmm(1), (16 / lanes) as 1 | 2 | 4 | 8, e.and(imm, e.i32(lanes - 1)));
    writeInteger(e, 0, e.op(name, type, moved, 0));
  };

/** INSERTPS: imm[7:6] source lane (register form), imm[5:4] destination lane, imm[3:0] lanes to clear. */
const insertps: Semantics = (e) => {
  const imm = e.imm(1);
  const fromMemory = e.isMem(secondIndex(e));
  const source = lowSecond(e);
  const target = first(e);
  if (imm.constant !== undefined) {
    const n = imm.constant & 0xff;
    const from = fromMemory ? 0 : n >> 6;
    const lanes = [0, 1, 2, 3].map((i) => (i === ((n >> 4) & 3) ? 4 + from : i));
    const inserted = e.let(shuffleLanes(e, target, source, 4, lanes));
    const kept = [0, 1, 2, 3].map((i) => ((n >> i) & 1 ? 4 : i));
    return writeVector(e, (n & 15) === 0 ? inserted : shuffleLanes(e, inserted, zero(e), 4, kept));
  }
  const n = e.let(imm);
  const from = fromMemory ? e.i32(0) : e.and(e.shrU(n, e.i32(6)), e.i32(3));
  const lane = e.op('i32x4.extract_lane', 'i32', laneToLow(e, source, 4, from), 0);
  const at = v(e, 'i32x4.splat', e.and(e.shrU(n, e.i32(4)), e.i32(3)));
  const chosen = v(e, 'i32x4.eq', at, e.v128([0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]));
  const inserted = v(e, 'v128.bitselect', v(e, 'i32x4.splat', lane), target, chosen);
  const bits = e.v128([1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0]);
  const keep = v(e, 'i32x4.eq', v(e, 'v128.and', v(e, 'i32x4.splat', n), bits), zero(e));
  writeVector(e, v(e, 'v128.and', inserted, keep));
};

export const sseMove: Record<string, Semantics> = {
  movaps: moveVector('aligned'),
  movapd: moveVector('aligned'),
  movdqa: moveVector('aligned'),
  movntps: moveVector('aligned'),
  movntpd: moveVector('aligned'),
  movntdq: moveVector('aligned'),
  movntdqa: moveVector('aligned'),
  movups: moveVector('unaligned'),
  movupd: moveVector('unaligned'),
  movdqu: moveVector('unaligned'),
  lddqu: moveVector('unaligned'),
  movss: moveScalar('f32'),
  movsd: moveScalar('f64'),
  movd: moveBits,
  movq: moveBits,
  movq2dq,
  movdq2q,
  movlps: moveHalf(0),
  movlpd: moveHalf(0),
  movhlps: moveHalf(0),
  movhps: moveHalf(1),
  movhpd: moveHalf(1),
  movlhps: moveHalf(1),
  movshdup: duplicate(4, [1, 1, 3, 3]),
  movsldup: duplicate(4, [0, 0, 2, 2]),
  movddup,
  movmskps: mask('i32x4'),
  movmskpd: mask('i64x2'),
  pmovmskb: mask('i8x16'),
  maskmovdqu,
  ldmxcsr,
  stmxcsr,
  pinsrb: insert('i8x16', 16),
  pinsrw: insert('i16x8', 8),
  pinsrd: insert('i32x4', 4),
  pinsrq: insert('i64x2', 2),
  pextrb: extract('i8x16', 16),
  pextrw: extract('i16x8', 8),
  pextrd: extract('i32x4', 4),
  pextrq: extract('i64x2', 2),
  extractps: extract('i32x4', 4),
  insertps,
};
