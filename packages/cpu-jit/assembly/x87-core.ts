/**
 * State of the x87 unit and the parts every operation shares: operand classes, rounding, exceptions, the stack.
 *
 * A number travels as two values: `s`, the sign (bit 15) and biased exponent, and `m`, the 64-bit significand with its
 * explicit integer bit. An operation calls `begin`, leaves its result in `zS`/`zM` and the exceptions it met in `fl`,
 * and calls `end`, which makes them architectural. SDM vol. 1, chapter 8.
 */
import { S_X87, S_X87_CW, S_X87_SW, S_X87_TAGS, S_X87_TOP } from '../src/layout';
import { shiftRightSticky, wideLow } from './x87-wide';

/** Exception flags: same positions in the status word and (as masks) in the control word. */
export const IE: u32 = 1;
export const DE: u32 = 2;
export const ZE: u32 = 4;
export const OE: u32 = 8;
export const UE: u32 = 16;
export const PE: u32 = 32;
/** Stack fault. */
export const SF: u32 = 64;
/** Error summary and its copy, busy. */
export const ES_B: u32 = 0x8080;
export const C0: u32 = 0x100;
export const C1: u32 = 0x200;
export const C2: u32 = 0x400;
export const C3: u32 = 0x4000;

export const INTEGER_BIT: u64 = 0x8000_0000_0000_0000;
export const QUIET_BIT: u64 = 0x4000_0000_0000_0000;
export const BIAS: i32 = 0x3fff;
/** Exponent adjustment of an unmasked overflow or underflow: 3 * 2^13. */
const WRAP: i32 = 0x6000;

/** Control word of the operation in progress. */
export let cw: u32 = 0;
/** Exceptions and C1 of the operation in progress. */
export let fl: u32 = 0;
/** Its result. */
export let zS: u32 = 0;
export let zM: u64 = 0;

@inline export function begin(cpu: u32): void {
  cw = load<u32>(cpu, S_X87_CW);
  fl = 0;
}
@inline export function flag(bits: u32): void { fl |= bits; }
@inline export function clearFlags(bits: u32): void { fl &= ~bits; }
@inline export function setZ(s: u32, m: u64): void {
  zS = s;
  zM = m;
}
/** The QNaN floating-point indefinite. */
@inline export function setIndefinite(): void { setZ(0xffff, INTEGER_BIT | QUIET_BIT); }
@inline export function setInvalid(): void {
  flag(IE);
  setIndefinite();
}
@inline export function setInfinity(sign: u32): void { setZ((sign << 15) | 0x7fff, INTEGER_BIT); }
@inline export function setZero(sign: u32): void { setZ(sign << 15, 0); }

/** Record the exceptions of the operation; returns those that are unmasked. C1 is as computed, others stay. */
export function end(cpu: u32): u32 {
  return record(cpu, fl);
}
export function record(cpu: u32, flags: u32): u32 {
  const unmasked = flags & 0x3f & ~load<u32>(cpu, S_X87_CW);
  let sw = (load<u32>(cpu, S_X87_SW) & ~C1) | (flags & (0x7f | C1));
  if (unmasked != 0) sw |= ES_B;
  store<u32>(cpu, sw, S_X87_SW);
  return unmasked;
}
/** Error summary from the flags and the masks. */
export function summarize(cpu: u32): void {
  const sw = load<u32>(cpu, S_X87_SW) & ~ES_B;
  const pending = sw & 0x3f & ~load<u32>(cpu, S_X87_CW);
  store<u32>(cpu, pending != 0 ? sw | ES_B : sw, S_X87_SW);
}
/** Unmasked exceptions found before computing: the destination stays and nothing is popped. */
export const BEFORE: u32 = 7;

// ------------------------------------------------------------------ stack
@inline export function topOf(cpu: u32): u32 { return load<u32>(cpu, S_X87_TOP); }
/** Address of ST(i), less S_X87. */
@inline export function at(cpu: u32, i: u32): u32 { return cpu + (((topOf(cpu) + i) & 7) << 4); }
@inline export function isEmpty(cpu: u32, i: u32): bool {
  return ((load<u32>(cpu, S_X87_TAGS) >> ((topOf(cpu) + i) & 7)) & 1) == 0;
}
@inline export function sOf(register: u32): u32 { return load<u16>(register, S_X87 + 8); }
@inline export function mOf(register: u32): u64 { return load<u64>(register, S_X87); }
@inline export function put(register: u32, s: u32, m: u64): void {
  store<u64>(register, m, S_X87);
  store<u64>(register, s, S_X87 + 8);
}
/** Write ST(i) and mark it in use. */
export function putSt(cpu: u32, i: u32, s: u32, m: u64): void {
  const n = (topOf(cpu) + i) & 7;
  put(cpu + (n << 4), s, m);
  store<u32>(cpu, load<u32>(cpu, S_X87_TAGS) | (1 << n), S_X87_TAGS);
}
export function pop(cpu: u32): void {
  const top = topOf(cpu);
  store<u32>(cpu, load<u32>(cpu, S_X87_TAGS) & ~(1 << top), S_X87_TAGS);
  store<u32>(cpu, (top + 1) & 7, S_X87_TOP);
}
/** End an operation by pushing its result; a full stack gives an invalid operation with C1 = 1 instead. */
export function endPush(cpu: u32, blocking: u32): void {
  if (!isEmpty(cpu, 7)) {
    fl = IE | SF | C1;
    setIndefinite();
  }
  push(cpu, blocking);
}
/** Push the result unless an exception in `blocking` is unmasked. */
export function push(cpu: u32, blocking: u32): void {
  if (end(cpu) & blocking) return;
  store<u32>(cpu, (topOf(cpu) + 7) & 7, S_X87_TOP);
  putSt(cpu, 0, zS, zM);
}
/** End an operation whose result replaces ST(i); then pop `pops` times. */
export function endPut(cpu: u32, i: u32, pops: u32): void {
  if (end(cpu) & BEFORE) return;
  putSt(cpu, i, zS, zM);
  for (; pops != 0; pops--) pop(cpu);
}
@inline export function setUnderflow(): void {
  flag(IE | SF);
  setIndefinite();
}
/** Replace the condition codes in `which` by `codes`. */
export function setCodes(cpu: u32, which: u32, codes: u32): void {
  store<u32>(cpu, (load<u32>(cpu, S_X87_SW) & ~which) | codes, S_X87_SW);
}

// ------------------------------------------------------------------ classes
@inline export function isNormal(s: u32, m: u64): bool { return <i64>m < 0 && (s & 0x7fff) - 1 < 0x7ffe; }
@inline export function isZero(s: u32, m: u64): bool { return (s & 0x7fff) == 0 && m == 0; }
/** Denormals and pseudo-denormals. */
@inline export function isDenormal(s: u32, m: u64): bool { return (s & 0x7fff) == 0 && m != 0; }
@inline export function isInfinity(s: u32, m: u64): bool { return (s & 0x7fff) == 0x7fff && m == INTEGER_BIT; }
@inline export function isNaN80(s: u32, m: u64): bool { return (s & 0x7fff) == 0x7fff && <i64>m < 0 && m << 1 != 0; }
@inline export function isSignaling(s: u32, m: u64): bool { return isNaN80(s, m) && (m & QUIET_BIT) == 0; }
/** Unnormals, pseudo-infinities, pseudo-NaNs: no longer supported, an invalid operation. */
@inline export function isUnsupported(s: u32, m: u64): bool { return (s & 0x7fff) != 0 && <i64>m >= 0; }

/** Exponent after `normalize`; may be below 1. */
export let nE: i32 = 0;
/** Significand of a finite non-zero number with its top bit set; the exponent goes to `nE`. */
export function normalize(s: u32, m: u64): u64 {
  nE = s & 0x7fff;
  if (nE == 0) nE = 1;
  const shift = i32(clz(m));
  nE -= shift;
  return m << shift;
}
/** Denormal-operand exception for up to two operands. Returns true when it is unmasked. */
export function denormals(aS: u32, aM: u64, bS: u32, bM: u64): bool {
  if (!isDenormal(aS, aM) && !isDenormal(bS, bM)) return false;
  flag(DE);
  return (cw & DE) == 0;
}
/** When an operand is a NaN or unsupported, set the result by SDM table 4-7 and return true. */
export function nans(aS: u32, aM: u64, bS: u32, bM: u64): bool {
  if (isUnsupported(aS, aM) || isUnsupported(bS, bM)) {
    setInvalid();
    return true;
  }
  const a = isNaN80(aS, aM), b = isNaN80(bS, bM);
  if (!a && !b) return false;
  const aSignals = a && (aM & QUIET_BIT) == 0, bSignals = b && (bM & QUIET_BIT) == 0;
  if (aSignals || bSignals) flag(IE);
  let first = a;
  if (a && b) {
    if (aSignals != bSignals) first = bSignals;
    else first = aM == bM ? aS < bS : aM > bM;
  }
  if (first) setZ(aS, aM | QUIET_BIT);
  else setZ(bS, bM | QUIET_BIT);
  return true;
}

// ------------------------------------------------------------------ rounding
/** Significand bits of the precision control field. */
@inline export function precision(): i32 {
  const pc = (cw >> 8) & 3;
  return pc == 0 ? 24 : pc == 2 ? 53 : 64;
}
@inline export function rounding(): u32 { return (cw >> 10) & 3; }

/** Whether a magnitude is rounded up: `odd` its last bit, `rest` the bits below left-aligned, `sticky` any beyond. */
export function roundsUp(sign: u32, odd: bool, rest: u64, sticky: bool): bool {
  switch (rounding()) {
    case 0: return rest > INTEGER_BIT || (rest == INTEGER_BIT && (sticky || odd));
    case 1: return sign != 0 && (rest != 0 || sticky);
    case 2: return sign == 0 && (rest != 0 || sticky);
    default: return false;
  }
}

/** Exponent after `roundBits`, and what happened. */
export let roundedE: i32 = 0;
export let roundedInexact: bool = false;
export let roundedUp: bool = false;
/** Round high:low (any alignment) to the upper `bits` bits of `high`; a carry out gives 2^63 and exponent + 1. */
export function roundBits(sign: u32, e: i32, high: u64, low: u64, bits: i32): u64 {
  let rest = low, sticky = false, ulp: u64 = 1;
  if (bits != 64) {
    rest = high << bits;
    sticky = low != 0;
    ulp <<= 64 - bits;
  }
  roundedInexact = rest != 0 || sticky;
  roundedUp = roundsUp(sign, (high & ulp) != 0, rest, sticky);
  high &= 0 - ulp;
  roundedE = e;
  if (roundedUp) {
    high += ulp;
    if (high == 0) {
      high = INTEGER_BIT;
      roundedE = e + 1;
    }
  }
  return high;
}

/** Whether an overflow of this sign gives the largest finite number and not infinity. */
export function saturates(sign: u32): bool {
  const mode = rounding();
  return mode == 3 || (mode == 1 && sign == 0) || (mode == 2 && sign != 0);
}

/**
 * Result from a sign, a biased exponent of any size, and a significand high:low with the top bit of `high` set
 * (low bit 0 sticky), rounded to `bits` bits, with overflow, underflow and precision exceptions.
 */
export function roundPack(sign: u32, e: i32, high: u64, low: u64, bits: i32): void {
  let m = roundBits(sign, e, high, low, bits);
  if (<u32>(roundedE - 1) >= 0x7ffe || e < 1) {
    if (roundedE > 0x7ffe) {
      flag(OE);
      if ((cw & OE) == 0) {
        roundedE -= WRAP;
        if (roundedE > 0x7ffe) {
          // Only FSCALE gets here: too far out even for the adjusted exponent.
          flag(PE | C1);
          setInfinity(sign);
          return;
        }
      }
      else {
        flag(PE);
        if (saturates(sign)) setZ((sign << 15) | 0x7ffe, 0 - (<u64>1 << (64 - bits)));
        else {
          flag(C1);
          setInfinity(sign);
        }
        return;
      }
    } else if ((cw & UE) == 0) {
      if (roundedE < 1) {
        flag(UE);
        roundedE += WRAP;
        if (roundedE < 1) {
          flag(PE);
          setZero(sign);
          return;
        }
      }
    } else {
      // Tininess is judged after rounding to an unbounded exponent; the value stored is rounded once, denormalised.
      const tiny = roundedE < 1;
      high = shiftRightSticky(high, low, 1 - e);
      m = roundBits(sign, 0, high, wideLow, bits);
      if (tiny && roundedInexact) flag(UE);
      roundedE = <i64>m < 0 ? 1 : 0;
    }
  }
  if (roundedInexact) flag(PE);
  if (roundedUp) flag(C1);
  setZ((sign << 15) | roundedE, m);
}

/** Count the result as inexact even if it is not: where hardware does not keep track it says so. */
export function forceInexact(): void {
  flag(PE);
  if ((zS & 0x7fff) == 0 && zM != 0) flag(UE);
}

/** Like `roundPack` for a significand that still has leading zeros; high:low = 0 gives +0. */
export function normalizeRoundPack(sign: u32, e: i32, high: u64, low: u64, bits: i32): void {
  if (high == 0) {
    if (low == 0) {
      setZero(sign);
      return;
    }
    high = low;
    low = 0;
    e -= 64;
  }
  const shift = i32(clz(high));
  if (shift != 0) {
    high = (high << shift) | (low >> (64 - shift));
    low <<= shift;
  }
  roundPack(sign, e - shift, high, low, bits);
}
