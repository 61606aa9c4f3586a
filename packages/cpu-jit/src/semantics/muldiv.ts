import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { RAX, RDX, VECTOR } from './common.ts';

/** Bits 64..127 of the unsigned product, by 32-bit halves: Wasm has no widening 64-bit multiplication. */
export function mulHighUnsigned(e: Emitter, a: Val, b: Val): Val {
  const low = (v: Val) => e.let(e.and(v, e.i64(-1, 0)));
  const high = (v: Val) => e.let(e.shrU(v, e.i64(32)));
  const [a0, a1, b0, b1] = [low(a), high(a), low(b), high(b)];
  const t = e.let(e.add(e.mul(a1, b0), e.shrU(e.mul(a0, b0), e.i64(32))));
  const u = e.add(e.mul(a0, b1), e.and(t, e.i64(-1, 0)));
  return e.let(e.add(e.add(e.mul(a1, b1), e.shrU(t, e.i64(32))), e.shrU(u, e.i64(32))));
}
/** The same of the signed product: each negative factor counted 2^64 times the other too much. */
function mulHighSigned(e: Emitter, a: Val, b: Val): Val {
  const excess = e.add(e.and(e.shrS(a, e.i64(63)), b), e.and(e.shrS(b, e.i64(63)), a));
  return e.let(e.sub(mulHighUnsigned(e, a, b), excess));
}

/**
 * CF = OF = `overflow`. The SDM leaves the rest undefined; Intel's cores give SF and PF of the low half, AF = 0 and always
 * ZF = 0: a bit above the parity byte keeps the result of the lazy flags from being zero.
 */
function setProductFlags(e: Emitter, size: number, low: Val, inputs: readonly Val[], overflow: () => Val): void {
  if (e.flagsAreDead()) return;
  const of = e.later('i32', inputs, overflow);
  const result = e.later('i64', [low], () => e.or(e.sext64(low, size), e.i64(0x100)));
  e.setFlagsExplicit({ cf: of, of, result, size: 8 });
}

interface Product {
  readonly low: Val;
  /** The high half. What is not asked for costs nothing. */
  readonly high: () => Val;
  /** i32: is the high half significant? Given that half, if it is there already. */
  readonly overflow: (high?: Val) => Val;
  /** What `overflow` computes from. */
  readonly inputs: readonly Val[];
}

/** Product of two `size`-byte factors. */
function product(e: Emitter, a: Val, b: Val, size: number, signed: boolean): Product {
  if (size === 8) {
    const low = e.let(e.mul(a, b));
    const high = () => (signed ? mulHighSigned(e, a, b) : mulHighUnsigned(e, a, b));
    return { low, high, overflow: (known = high()) => e.ne(known, signed ? e.shrS(low, e.i64(63)) : e.i64(0)), inputs: [low, a, b] };
  }
  const wide = (v: Val) => (signed ? e.sext64(v, size) : e.zext64(v));
  const p = e.let(e.mul(wide(a), wide(b)));
  const low = e.let(e.trunc(e.wrap(p), size));
  return { low, high: () => e.let(e.trunc(e.wrap(e.shrU(p, e.i64(size * 8))), size)), overflow: () => e.ne(p, wide(low)), inputs: [low, p] };
}

/** MUL and one-operand IMUL: AX = AL * r/m8, else rDX:rAX = rAX * r/m. */
function multiply(signed: boolean): Semantics {
  return (e) => {
    const last = e.form.operands.length - 1;
    const size = e.size(last);
    const { low, high, overflow, inputs } = product(e, e.reg(RAX, size), e.read(last), size, signed);
    const upper = high();
    writePair(e, size, low, upper);
    setProductFlags(e, size, low, [...inputs, upper], () => overflow(upper));
  };
}
/** Low and high halves to AX (8-bit) or rDX:rAX. */
function writePair(e: Emitter, size: number, low: Val, high: Val): void {
  if (size === 1) {
    e.setReg(RAX, 2, e.let(e.or(low, e.shl(high, e.i32(8)))));
    return;
  }
  e.setReg(RAX, size, low);
  e.setReg(RDX, size, high);
}

/** Two- and three-operand IMUL: the product truncated to the operand size. */
function imulTruncated(e: Emitter): void {
  const size = e.size(0);
  const [a, b] = e.form.operands.length === 3 ? [e.read(1), e.read(2)] : [e.read(0), e.read(1)];
  const { low, overflow, inputs } = product(e, a, b, size, true);
  e.write(0, low);
  setProductFlags(e, size, low, inputs, overflow);
}
function divideError(e: Emitter, when: Val): void {
  e.if(when, () => e.raise(VECTOR.DE));
}

/** Dividend of a division by fewer than 8 bytes, as a zero- or sign-extended i64: AX, DX:AX or EDX:EAX. */
function dividend(e: Emitter, size: number, signed: boolean): Val {
  if (size === 1) return signed ? e.sext64(e.reg(RAX, 2), 2) : e.zext64(e.reg(RAX, 2));
  const high = e.reg(RDX, size);
  const low = e.zext64(e.reg(RAX, size));
  return e.or(e.shl(signed ? e.sext64(high, size) : e.zext64(high), e.i64(size * 8)), low);
}

/** DIV and IDIV: #DE for a zero divisor or a quotient that does not fit. Flags, undefined in the SDM, stay (as on Intel's cores). */
function divide(signed: boolean): Semantics {
  return (e) => {
    const last = e.form.operands.length - 1;
    const size = e.size(last);
    const d = e.read(last);
    divideError(e, e.eqz(d));
    if (size === 8) {
      if (signed) divideSigned64(e, d);
      else divideUnsigned64(e, d);
      return;
    }
    const n = e.let(dividend(e, size, signed));
    const w = e.let(signed ? e.sext64(d, size) : e.zext64(d));
    // The one signed i64 division that traps in Wasm; only EDX:EAX is wide enough for it.
    if (signed && size === 4) divideError(e, e.and(e.eq(n, e.i64(0, -0x8000_0000)), e.eq(w, e.i64(-1))));
    const q = e.let(e.op(signed ? 'i64.div_s' : 'i64.div_u', 'i64', n, w));
    const r = e.sub(n, e.mul(q, w));
    const low = e.let(e.trunc(e.wrap(q), size));
    divideError(e, e.ne(q, signed ? e.sext64(low, size) : e.zext64(low)));
    writePair(e, size, low, e.let(e.trunc(e.wrap(r), size)));
  };
}

/** rDX:rAX by r64. Compilers clear or sign-fill RDX first, so the 128-bit division is the rare case and a helper. */
function divideUnsigned64(e: Emitter, d: Val): void {
  const low = e.reg(RAX, 8);
  const high = e.reg(RDX, 8);
  divideError(e, e.geU(high, d));
  const q = e.variable(e.i64(0));
  e.if(
    e.eqz(high),
    () => q.set(e.op('i64.div_u', 'i64', low, d)),
    () => q.set(e.call('div128_u', 'i64', [high, low, d], { pure: true })),
  );
  finish64(e, q.get(), low, d);
}

/** Magnitudes are divided without sign; the quotient then must fit the sign it gets. */
function divideSigned64(e: Emitter, d: Val): void {
  const low = e.reg(RAX, 8);
  const high = e.reg(RDX, 8);
  const sign = e.let(e.shrS(low, e.i64(63)));
  const q = e.variable(e.i64(0));
  // -2^63 / -1 traps in Wasm and overflows here: it takes the slow branch, which finds that out.
  const simple = e.let(e.and(e.eq(high, sign), e.ne(d, e.i64(-1))));
  e.if(
    simple,
    () => q.set(e.op('i64.div_s', 'i64', low, d)),
    () => {
      const negative = e.let(e.shrS(high, e.i64(63)));
      const flipped = e.let(e.shrS(d, e.i64(63)));
      // Two's complement negation of 128 bits by (x ^ sign) - sign.
      const l = e.let(e.sub(e.xor(low, negative), negative));
      const borrow = e.zext64(e.and(e.eqz(l), e.wrap(e.and(negative, e.i64(1)))));
      const h = e.let(e.add(e.xor(high, negative), borrow));
      const m = e.let(e.sub(e.xor(d, flipped), flipped));
      divideError(e, e.geU(h, m));
      const magnitude = e.call('div128_u', 'i64', [h, l, m], { pure: true });
      const opposite = e.let(e.xor(negative, flipped));
      // Largest magnitude: 2^63 - 1, or 2^63 when the quotient is negative.
      divideError(e, e.gtU(magnitude, e.sub(e.i64(-1, 0x7fff_ffff), opposite)));
      q.set(e.sub(e.xor(magnitude, opposite), opposite));
    },
  );
  finish64(e, q.get(), low, d);
}
/** The remainder follows from the quotient modulo 2^64. */
function finish64(e: Emitter, q: Val, low: Val, d: Val): void {
  const r = e.let(e.sub(low, e.mul(q, d)));
  e.setReg(RAX, 8, q);
  e.setReg(RDX, 8, r);
}

/** MULX: no flags; the high half wins when both destinations are the same register. */
function mulx(e: Emitter): void {
  const size = e.size(0);
  const { low, high } = product(e, e.reg(RDX, size), e.read(2), size, false);
  const top = high();
  e.write(1, low);
  e.write(0, top);
}

/** Multiplication and division (SDM vol. 2, by mnemonic). */
export const mulDiv: Record<string, Semantics> = {
  mul: multiply(false),
  imul1: multiply(true),
  imul2: imulTruncated,
  imul3: imulTruncated,
  div: divide(false),
  idiv: divide(true),
  mulx,
};
