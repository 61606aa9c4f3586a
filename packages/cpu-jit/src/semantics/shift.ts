import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { amount, bit, RCX, signBit, update } from './common.ts';

/**
 * Shifts and rotates. What the SDM leaves undefined follows Intel's cores (measured): AF is cleared by every shift; OF of a
 * count other than 1 is the OF that the first of the one-bit steps gives, except that ROL and ROR of a register by an
 * immediate other than 1 keep it.
 */

/** Count operand `i`: the immediate, the constant 1 or CL, masked to 5 bits (6 for 64-bit operands). */
function countOperand(e: Emitter, i: number): Val {
  const mask = e.size(0) === 8 ? 63 : 31;
  const o = e.form.operands[i];
  const fixed = o?.kind === 'imm' && o.field === 'fixed' ? (o.fixed ?? 1) : o?.kind === 'imm' ? e.imm(4).constant : undefined;
  if (fixed !== undefined) return e.i32(fixed & mask);
  const raw = o === undefined || o.kind === 'gpr' ? e.reg(RCX, 1) : e.imm(4);
  return e.let(e.and(raw, e.i32(mask)));
}

/** Run `then` when the count is not zero; a constant count decides now. */
function unlessZero(e: Emitter, count: Val, then: () => void): void {
  if (count.constant === undefined) e.if(count, then);
  else if (count.constant !== 0) then();
}

/** The flags are computed only if something may see them. */
interface Shifted {
  readonly stored: Val;
  readonly cf: () => Val;
  readonly of: () => Val;
  /** What they are computed from. */
  readonly inputs: readonly Val[];
}

/**
 * Common frame of the shifts: a zero count writes the old value (which clears the upper half of a 32-bit register and
 * checks memory for write permission) and leaves the flags.
 */
function shift(compute: (e: Emitter, a: Val, count: Val, size: number) => Shifted): Semantics {
  return (e) => {
    const size = e.size(0);
    const count = countOperand(e, e.form.operands.length - 1);
    const r = update(e, 0, (a) => compute(e, a, count, size));
    setShiftFlags(e, count, r, size);
  };
}
function setShiftFlags(e: Emitter, count: Val, r: Shifted, size: number): void {
  if (e.flagsAreDead()) return;
  const [cf, of] = [e.later('i32', [...r.inputs, count], r.cf), e.later('i32', [...r.inputs, count], r.of)];
  unlessZero(e, count, () => e.setFlagsExplicit({ cf, of, result: r.stored, size }));
}

/** Bit `count - 1` of `v`: the last bit shifted out to the right. Only meaningful when the count is not zero. */
function lastOut(e: Emitter, v: Val, count: Val, size: number, signed = false): Val {
  const by = amount(e, size, e.sub(count, e.i32(1)));
  return bit(e, signed ? e.shrS(v, by) : e.shrU(v, by), 0);
}

const shl = shift((e, a, count, size) => {
  const bits = size * 8;
  // Sub-word values have room above them for the bit shifted out; others look it up from the right.
  const wide = e.let(e.shl(a, amount(e, size, count)));
  return {
    stored: size < 4 ? e.let(e.trunc(wide, size)) : wide,
    cf: () => (size < 4 ? bit(e, wide, bits) : bit(e, e.shrU(a, amount(e, size, e.sub(e.i32(bits), count))), 0)),
    of: () => bit(e, e.xor(a, e.shl(a, e.k(size, 1))), bits - 1),
    inputs: [a, wide],
  };
});

const shr = shift((e, a, count, size) => ({
  stored: e.let(e.shrU(a, amount(e, size, count))),
  cf: () => lastOut(e, a, count, size),
  of: () => signBit(e, a, size),
  inputs: [a],
}));

const sar = shift((e, a, count, size) => {
  const s = size < 4 ? e.let(e.sext32(a, size)) : a;
  return {
    stored: e.let(e.trunc(e.shrS(s, amount(e, size, count)), size)),
    cf: () => lastOut(e, s, count, size, true),
    of: () => e.i32(0),
    inputs: [s],
  };
});

/** SHLD and SHRD: operand 1 shifts in. A 16-bit count above 16 goes on with the destination's own bits, as on Intel's cores. */
function doubleShift(left: boolean): Semantics {
  return (e) => {
    const size = e.size(0);
    const bits = size * 8;
    const b = e.read(1);
    const count = countOperand(e, 2);
    const r = update(e, 0, (a): Shifted => {
      const of = () => signBit(e, left ? e.xor(a, e.shl(a, e.k(size, 1))) : e.xor(a, e.shl(b, e.k(size, bits - 1))), size);
      const { stored, cf, inputs } = size === 2 ? doubleWord(e, a, b, count, left) : doubleWide(e, a, b, count, size, left);
      return { stored, cf, of, inputs: [...inputs, a, b] };
    });
    setShiftFlags(e, count, r, size);
  };
}
function doubleWord(e: Emitter, a: Val, b: Val, count: Val, left: boolean): Omit<Shifted, 'of'> {
  // a:b:a as 48 bits holds all that can come in.
  const a64 = e.let(e.zext64(a));
  const all = e.or(e.or(e.shl(a64, e.i64(32)), e.shl(e.zext64(b), e.i64(16))), a64);
  const n = e.let(e.zext64(count));
  if (!left) {
    const x = e.let(all);
    return { stored: e.let(e.trunc(e.wrap(e.shrU(x, n)), 2)), cf: () => bit(e, e.shrU(x, e.sub(n, e.i64(1))), 0), inputs: [x, n] };
  }
  const x = e.let(e.shl(all, n));
  return { stored: e.let(e.trunc(e.wrap(e.shrU(x, e.i64(32))), 2)), cf: () => bit(e, x, 48), inputs: [x] };
}
function doubleWide(e: Emitter, a: Val, b: Val, count: Val, size: number, left: boolean): Omit<Shifted, 'of'> {
  const bits = size * 8;
  const n = e.let(amount(e, size, count));
  const rest = e.let(e.sub(e.k(size, bits), n));
  const mixed = left ? e.or(e.shl(a, n), e.shrU(b, rest)) : e.or(e.shrU(a, n), e.shl(b, rest));
  // Wasm masks shift amounts, so a count of zero would let all of b in.
  const stored = count.constant !== undefined && count.constant !== 0 ? mixed : e.select(count, mixed, a);
  return { stored: e.let(stored), cf: () => (left ? bit(e, e.shrU(a, rest), 0) : lastOut(e, a, count, size)), inputs: [a, rest, count] };
}

/** OF of ROL and ROR changes unless they are of a register and by an immediate other than 1 (SDM: undefined; measured: kept). */
function rotateKeepsOverflow(e: Emitter, count: Val): Val | boolean {
  if (e.isMem(0) || e.form.operands[1]?.kind !== 'imm') return false;
  if (count.constant !== undefined) return count.constant !== 1;
  return e.let(e.ne(count, e.i32(1)));
}

function setRotateFlags(e: Emitter, cf: Val, of: Val, keep: Val | boolean): void {
  if (keep === true) {
    e.setCarry(cf);
    return;
  }
  e.setCarry(cf, keep === false ? of : e.select(keep, e.let(e.flag('o')), of));
}

/** ROL and ROR: CF and OF change when the masked count is not zero, even when it is a multiple of the size. */
function rotate(left: boolean): Semantics {
  return (e) => {
    const size = e.size(0);
    const bits = size * 8;
    const count = countOperand(e, 1);
    const keep = rotateKeepsOverflow(e, count);
    const r = update(e, 0, (a) => ({ a, stored: e.let(rotated(e, a, count, size, left)) }));
    unlessZero(e, count, () => {
      const { a, stored } = r;
      const cf = e.later('i32', [stored], () => (left ? bit(e, stored, 0) : signBit(e, stored, size)));
      const of = e.later('i32', [a], () => signBit(e, e.xor(a, e.shl(a, e.k(size, left ? 1 : bits - 1))), size));
      setRotateFlags(e, cf, of, keep);
    });
  };
}
function rotated(e: Emitter, a: Val, count: Val, size: number, left: boolean): Val {
  if (size >= 4) return left ? e.rotl(a, amount(e, size, count)) : e.rotr(a, amount(e, size, count));
  // Repeated to fill 32 bits, a byte or word rotates with its copies.
  const filled = e.mul(a, e.i32(size === 1 ? 0x01010101 : 0x00010001));
  return e.trunc(left ? e.rotl(filled, count) : e.rotr(filled, count), size);
}

/**
 * RCL and RCR rotate size + 1 bits, CF among them. The masked count is taken modulo that for 8 and 16 bits; when it comes
 * to zero the flags stay.
 */
function rotateThroughCarry(left: boolean): Semantics {
  return (e) => {
    const size = e.size(0);
    const bits = size * 8;
    const masked = countOperand(e, 1);
    const count = size >= 4 ? masked : modulo(e, masked, bits + 1);
    const carry = e.let(e.flag('c'));
    const n = e.let(amount(e, size, count));
    const c = e.let(amount(e, size, carry));
    const r = update(e, 0, (a): { stored: Val; cf: Val; of: Val } => {
      const top = e.let(signBit(e, left ? e.xor(a, e.shl(a, e.k(size, 1))) : e.xor(a, e.shl(c, e.k(size, bits - 1))), size));
      // Right by count is left by bits + 1 - count.
      const towards = left ? n : e.let(e.sub(e.k(size, bits + 1), n));
      const away = left ? e.let(e.sub(e.k(size, bits + 1), n)) : n;
      const high = e.or(shiftLeft(e, a, towards, size), shiftRight(e, a, away, size));
      const turned = e.trunc(e.or(high, e.shl(c, e.sub(towards, e.k(size, 1)))), size);
      const stored = e.let(e.select(count, turned, a));
      const last = left ? e.shrU(a, e.sub(e.k(size, bits), n)) : e.shrU(a, e.sub(n, e.k(size, 1)));
      const cf = e.let(bit(e, last, 0));
      return { stored, cf, of: top };
    });
    unlessZero(e, count, () => setRotateFlags(e, r.cf, r.of, false));
  };
}
function modulo(e: Emitter, v: Val, n: number): Val {
  if (v.constant !== undefined) return e.i32(v.constant % n);
  return e.let(e.op('i32.rem_u', 'i32', v, e.i32(n)));
}
/** Shifts whose amount may be the whole width, where Wasm would shift by zero. */
function shiftLeft(e: Emitter, a: Val, n: Val, size: number): Val {
  return size < 4 ? e.shl(a, n) : e.select(e.ltU(n, e.k(size, size * 8)), e.shl(a, n), e.k(size, 0));
}
function shiftRight(e: Emitter, a: Val, n: Val, size: number): Val {
  return size < 4 ? e.shrU(a, n) : e.select(e.ltU(n, e.k(size, size * 8)), e.shrU(a, n), e.k(size, 0));
}

/** Shifts and rotates (SDM vol. 2, by mnemonic). */
export const shifts: Record<string, Semantics> = {
  rol: rotate(true),
  ror: rotate(false),
  rcl: rotateThroughCarry(true),
  rcr: rotateThroughCarry(false),
  shl,
  shr,
  sar,
  shld: doubleShift(true),
  shrd: doubleShift(false),
};
