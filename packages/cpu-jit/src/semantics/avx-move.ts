/** AVX data movement that SSE has no counterpart of: broadcasts, 128-bit halves, masked moves, clearing of registers. */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { requireSpan } from './masked-store.ts';
import { imm8, shuffleLanes, v, zero } from './sse-operands.ts';
import { first, halves, lowSecond, registerHalves, second, secondIndex, writeVector } from './vector.ts';

/** VZEROALL: all of the registers that the mode has; VZEROUPPER: bits 255:128 of them. */
const vzeroall: Semantics = (e) => {
  for (let n = 0; n < (e.codeSize === 64 ? 16 : 8); n++) e.setXmm(n, zero(e));
  e.zeroUpper();
};

/** The low lane of the source in all lanes. */
const broadcast =
  (laneBytes: 1 | 2 | 4 | 8): Semantics =>
  (e) => {
    // What comes from memory is in all lanes already.
    const source = lowSecond(e);
    const lanes = new Array<number>(16 / laneBytes).fill(0);
    const all = e.isMem(1) ? source : e.let(shuffleLanes(e, source, source, laneBytes, lanes));
    writeVector(e, all, e.form.vl === 32 ? all : undefined);
  };
const broadcastHalf: Semantics = (e) => {
  const [half = zero(e)] = halves(e, 1);
  writeVector(e, half, half);
};

/** `yes` where bit `n` of the immediate is set, else `no`. */
function byBit(e: Emitter, imm: Val, n: number, yes: Val, no: Val): Val {
  if (imm.constant !== undefined) return (imm.constant >> n) & 1 ? yes : no;
  return e.let(e.select(e.and(imm, e.i32(1 << n)), yes, no));
}
const insertHalf: Semantics = (e) => {
  const [inserted = zero(e)] = second(e);
  const imm = imm8(e);
  const [low, high] = [first(e, 0), first(e, 1)];
  writeVector(e, byBit(e, imm, 0, low, inserted), byBit(e, imm, 0, inserted, high));
};
const extractHalf: Semantics = (e) => {
  const [low = zero(e), high = zero(e)] = registerHalves(e, 1);
  const chosen = byBit(e, imm8(e), 0, high, low);
  if (e.isMem(0)) e.store(e.address(0, { write: true }), 16, chosen);
  else writeVector(e, chosen);
};
/** VPERM2F128, VPERM2I128: each half is one of four, by two bits, or zero by bit 3 of its nibble. */
const permuteHalves: Semantics = (e) => {
  const [c = zero(e), d = zero(e)] = second(e);
  const [a, b] = [first(e, 0), first(e, 1)];
  const imm = imm8(e);
  const chosen = (bit: number) => {
    const source = byBit(e, imm, bit + 1, byBit(e, imm, bit, d, c), byBit(e, imm, bit, b, a));
    return byBit(e, imm, bit + 3, zero(e), source);
  };
  writeVector(e, chosen(0), chosen(4));
};

/**
 * VMASKMOVPx, VPMASKMOVx: lanes whose sign in the mask (VEX.vvvv) is set are moved, the others not accessed.
 */
const maskedMove =
  (laneBytes: 4 | 8): Semantics =>
  (e) => {
    const shape = laneBytes === 4 ? 'i32x4' : 'i64x2';
    const type = laneBytes === 4 ? 'i32' : 'i64';
    const isStore = e.isMem(0);
    const masks = registerHalves(e, 1).map((mask) => e.let(e.op(`${shape}.bitmask`, 'i32', mask)));
    const stored = isStore ? registerHalves(e, 2) : [];
    const loaded = masks.map(() => e.variable(zero(e)));
    const move = (address: Val, half: number, lane: number) => {
      const at = e.let(e.add(address, e.i64(half * 16 + lane * laneBytes)));
      const source = stored[half];
      if (source !== undefined) return e.store(at, laneBytes, e.op(`${shape}.extract_lane`, type, source, lane));
      const value = e.load(at, laneBytes);
      const target = loaded[half];
      target?.set(v(e, `${shape}.replace_lane`, target.get(), lane, value));
    };
    // With an empty mask not even the segment is looked at.
    const [anyLow = e.i32(0), anyHigh] = masks;
    e.if(anyHigh === undefined ? anyLow : e.or(anyLow, anyHigh), () => {
      const address = e.let(e.address(isStore ? 0 : secondIndex(e), { write: isStore }));
      const all = () => e.let(masks.reduceRight((high, low) => e.or(e.shl(high, e.i32(16 / laneBytes)), low)));
      if (isStore) requireSpan(e, address, all(), laneBytes);
      for (const [half, mask] of masks.entries()) {
        for (let lane = 0; lane < 16 / laneBytes; lane++) e.if(e.and(mask, e.i32(1 << lane)), () => move(address, half, lane));
      }
    });
    const [low, high] = loaded.map((x) => x.get());
    if (!isStore && low !== undefined) writeVector(e, low, high);
  };

export const avxMove: Record<string, Semantics> = {
  vzeroupper: (e) => e.zeroUpper(),
  vzeroall,
  vbroadcastss: broadcast(4),
  vbroadcastsd: broadcast(8),
  vpbroadcastb: broadcast(1),
  vpbroadcastw: broadcast(2),
  vpbroadcastd: broadcast(4),
  vpbroadcastq: broadcast(8),
  vbroadcastf128: broadcastHalf,
  vbroadcasti128: broadcastHalf,
  vinsertf128: insertHalf,
  vinserti128: insertHalf,
  vextractf128: extractHalf,
  vextracti128: extractHalf,
  vperm2f128: permuteHalves,
  vperm2i128: permuteHalves,
  vmaskmovps: maskedMove(4),
  vmaskmovpd: maskedMove(8),
  vpmaskmovd: maskedMove(4),
  vpmaskmovq: maskedMove(8),
};
