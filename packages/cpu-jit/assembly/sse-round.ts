/**
 * IEEE arithmetic of one lane with MXCSR's rounding mode, flush-to-zero, denormals-are-zero and exception flags. Generated
 * code computes with the host's own instructions where that is the same; these are for all other cases.
 *
 * Lanes are bit patterns in a u64: singles in its low half (`wide` false) or doubles (`wide` true). An unpacked number is
 * (-1)^sign * m * 2^(e - 63) with bit 63 of m set.
 */
import { S_MXCSR } from '../src/layout';

/** Exception flags at their MXCSR positions (SDM vol. 1, 10.2.3); the masks are 7 bits higher. */
export const IE: u32 = 1;
export const DE: u32 = 2;
export const ZE: u32 = 4;
export const OE: u32 = 8;
export const UE: u32 = 16;
export const PE: u32 = 32;
export const MASK_SHIFT: u32 = 7;
const DAZ: u32 = 1 << 6;
const FTZ: u32 = 1 << 15;
const NEAREST: u32 = 0;
export const DOWN: u32 = 1;
const UP: u32 = 2;

let mxcsr: u32 = 0;
/** Exceptions of the current instruction so far. */
export let flags: u32 = 0;

export function begin(cpu: u32): void {
  mxcsr = load<u32>(cpu, S_MXCSR);
  flags = 0;
}
export function signal(exceptions: u32): void {
  flags |= exceptions;
}
export function clear(): void {
  flags = 0;
}
/** S_MXCSR as it was when the instruction began. */
export function controls(): u32 {
  return mxcsr;
}
export function isMasked(exception: u32): bool {
  return (mxcsr & (exception << MASK_SHIFT)) != 0;
}
export function roundingControl(): u32 {
  return (mxcsr >> 13) & 3;
}

// ------------------------------------------------------------------ formats
@inline
function fractionBits(wide: bool): u32 {
  return wide ? 52 : 23;
}
@inline
function exponentMax(wide: bool): u32 {
  return wide ? 0x7ff : 0xff;
}
@inline
function bias(wide: bool): i32 {
  return wide ? 1023 : 127;
}
@inline
export function signBit(wide: bool): u64 {
  return wide ? <u64>1 << 63 : <u64>1 << 31;
}
export function infinity(wide: bool): u64 {
  return <u64>exponentMax(wide) << fractionBits(wide);
}
/** The NaN that an invalid operation gives: negative, quiet, otherwise zero. */
export function indefinite(wide: bool): u64 {
  return signBit(wide) | infinity(wide) | quietBit(wide);
}
export function quietBit(wide: bool): u64 {
  return <u64>1 << (fractionBits(wide) - 1);
}
@inline
export function magnitude(x: u64, wide: bool): u64 {
  return x & (signBit(wide) - 1);
}
export function isNaN(x: u64, wide: bool): bool {
  return magnitude(x, wide) > infinity(wide);
}
export function isSignaling(x: u64, wide: bool): bool {
  return isNaN(x, wide) && !(x & quietBit(wide));
}
export function isZero(x: u64, wide: bool): bool {
  return !magnitude(x, wide);
}
export function isInfinite(x: u64, wide: bool): bool {
  return magnitude(x, wide) == infinity(wide);
}
export function isDenormal(x: u64, wide: bool): bool {
  const m = magnitude(x, wide);
  return m != 0 && m < <u64>1 << fractionBits(wide);
}
/** Operand as the arithmetic sees it: with DAZ a denormal is a zero of its sign. */
export function operand(x: u64, wide: bool): u64 {
  return mxcsr & DAZ && isDenormal(x, wide) ? x & signBit(wide) : x;
}

// ------------------------------------------------------------------ unpack, round
export let unpackedExponent: i32 = 0;
/** Significand of a finite, non-zero lane, bit 63 set; its exponent is in `unpackedExponent`. */
export function unpack(x: u64, wide: bool): u64 {
  const bits = fractionBits(wide);
  const biased = <i32>(magnitude(x, wide) >> bits);
  const fraction = x & ((<u64>1 << bits) - 1);
  if (biased) {
    unpackedExponent = biased - bias(wide);
    return (fraction | (<u64>1 << bits)) << (63 - bits);
  }
  const shift = <i32>clz(fraction);
  unpackedExponent = 1 - bias(wide) + 63 - <i32>bits - shift;
  return fraction << shift;
}

/** Whether dropping `low` (of which `half` is the middle) and `sticky` rounds the magnitude up. */
function roundsUp(sign: bool, odd: bool, low: u64, half: u64, sticky: bool): bool {
  const rc = roundingControl();
  if (rc == NEAREST) return low > half || (low == half && (sticky || odd));
  if (!low && !sticky) return false;
  return rc == DOWN ? sign : rc == UP ? !sign : false;
}

/** The number rounded to a lane, exceptions signalled. `sticky`: something below the last bit of `m` is not zero. */
export function round(sign: bool, e: i32, m: u64, sticky: bool, wide: bool): u64 {
  const bits = fractionBits(wide);
  const signed = sign ? signBit(wide) : 0;
  const least = 1 - bias(wide);
  let drop: u64 = 63 - bits;
  let low = m & ((<u64>1 << drop) - 1);
  let kept = m >> drop;
  let exponent = e;
  if (roundsUp(sign, (kept & 1) != 0, low, <u64>1 << (drop - 1), sticky)) kept++;
  if (kept >> (bits + 1)) {
    kept >>= 1;
    exponent++;
  }
  if (exponent >= least) {
    if (exponent > bias(wide)) {
      // For an unmasked overflow only the significand counts as rounded.
      signal(low != 0 || sticky || isMasked(OE) ? OE | PE : OE);
      const rc = roundingControl();
      const toInfinity = rc == NEAREST || rc == (sign ? DOWN : UP);
      return signed | (toInfinity ? infinity(wide) : infinity(wide) - 1);
    }
    if (low != 0 || sticky) signal(PE);
    return signed | (<u64>(exponent + bias(wide)) << bits) + (kept & ((<u64>1 << bits) - 1));
  }
  // Tiny, judged after rounding to full precision.
  if (!isMasked(UE)) {
    signal(low != 0 || sticky ? UE | PE : UE);
    return signed;
  }
  if (mxcsr & FTZ) {
    signal(UE | PE);
    return signed;
  }
  drop += <u64>(least - e);
  let half: u64 = 0;
  if (drop > 64) {
    sticky = true;
    low = 0;
    half = 1;
    kept = 0;
  } else if (drop == 64) {
    low = m;
    half = <u64>1 << 63;
    kept = 0;
  } else {
    low = m & ((<u64>1 << drop) - 1);
    half = <u64>1 << (drop - 1);
    kept = m >> drop;
  }
  if (roundsUp(sign, (kept & 1) != 0, low, half, sticky)) kept++;
  if (low != 0 || sticky) signal(UE | PE);
  // A carry out of the fraction makes the least normal number.
  return signed | kept;
}

// ------------------------------------------------------------------ finite, non-zero operands
/** a + b; for a - b the caller flips b's sign. */
export function addFinite(a: u64, b: u64, wide: bool): u64 {
  let ma = unpack(a, wide) >> 1;
  let ea = unpackedExponent;
  let mb = unpack(b, wide) >> 1;
  let eb = unpackedExponent;
  let signA = (a & signBit(wide)) != 0;
  let signB = (b & signBit(wide)) != 0;
  if (ea < eb || (ea == eb && ma < mb)) {
    const m = ma; ma = mb; mb = m;
    const e = ea; ea = eb; eb = e;
    const s = signA; signA = signB; signB = s;
  }
  const distance = ea - eb;
  if (distance > 62) mb = 1;
  else if (distance) mb = (mb >> distance) | <u64>((mb & ((<u64>1 << distance) - 1)) != 0);
  const sum = signA == signB ? ma + mb : ma - mb;
  if (!sum) return roundingControl() == DOWN ? signBit(wide) : 0;
  const shift = <i32>clz(sum);
  return round(signA, ea + 1 - shift, sum << shift, false, wide);
}

export function multiplyFinite(a: u64, b: u64, wide: bool): u64 {
  const ma = unpack(a, wide);
  const ea = unpackedExponent;
  const mb = unpack(b, wide);
  let e = ea + unpackedExponent + 1;
  // Significands have at most 53 bits: the low halves have 21 bits above zeros.
  const ah = ma >> 32, al = ma & 0xffff_ffff, bh = mb >> 32, bl = mb & 0xffff_ffff;
  const low = al * bl;
  const middle = ah * bl + (low >> 32);
  const middle2 = al * bh + (middle & 0xffff_ffff);
  let high = ah * bh + (middle >> 32) + (middle2 >> 32);
  let rest = (middle2 << 32) | (low & 0xffff_ffff);
  if (!(high >> 63)) {
    high = (high << 1) | (rest >> 63);
    rest <<= 1;
    e--;
  }
  return round(((a ^ b) & signBit(wide)) != 0, e, high, rest != 0, wide);
}

export function divideFinite(a: u64, b: u64, wide: bool): u64 {
  let remainder = unpack(a, wide) >> 11;
  let e = unpackedExponent;
  const divisor = unpack(b, wide) >> 11;
  e -= unpackedExponent;
  if (remainder < divisor) {
    remainder <<= 1;
    e--;
  }
  let quotient: u64 = 0;
  for (let i = 0; i < 64; i++) {
    quotient <<= 1;
    if (remainder >= divisor) {
      remainder -= divisor;
      quotient |= 1;
    }
    remainder <<= 1;
  }
  return round(((a ^ b) & signBit(wide)) != 0, e, quotient, remainder != 0, wide);
}

/** Square root of a positive number, digit by digit. */
export function rootFinite(x: u64, wide: bool): u64 {
  let m = unpack(x, wide) >> 11;
  let e = unpackedExponent;
  if (e & 1) {
    m <<= 1;
    e--;
  }
  let root: u64 = 0;
  let remainder: u64 = 0;
  for (let i = 0; i < 57; i++) {
    remainder = (remainder << 2) | (i < 27 ? (m >> (52 - 2 * i)) & 3 : 0);
    const trial = (root << 2) | 1;
    root <<= 1;
    if (remainder >= trial) {
      remainder -= trial;
      root |= 1;
    }
  }
  return round(false, e >> 1, root << 7, remainder != 0, wide);
}
