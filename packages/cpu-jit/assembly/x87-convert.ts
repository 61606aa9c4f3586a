/** Conversions between 80-bit numbers and the memory formats: m32, m64, integers, packed BCD. */
import {
  BIAS, C1, clearFlags, cw, flag, IE, INTEGER_BIT, isNaN80, isUnsupported, isZero, nE, normalize, OE, PE, QUIET_BIT, roundBits,
  roundedE, roundedInexact, roundedUp, roundsUp, saturates, setZ, UE, zM, zS,
} from './x87-core';
import { shiftRightSticky, wideLow } from './x87-wide';

/** The number converted last was a denormal of its memory format. */
export let wasDenormal: bool = false;

/** m32 or m64 bits (fraction of `fraction` bits, exponent of `exponent` bits) to 80 bits in z; signalling NaNs stay so. */
@inline function expand(bits: u64, fraction: i32, exponent: i32): void {
  const sign = u32(bits >> (fraction + exponent)) << 15;
  const top: u32 = (1 << exponent) - 1;
  const e = u32(bits >> fraction) & top;
  const f = (bits & ((<u64>1 << fraction) - 1)) << (63 - fraction);
  wasDenormal = false;
  if (e == top) setZ(sign | 0x7fff, INTEGER_BIT | f);
  else if (e != 0) setZ(sign | (e + BIAS - (top >> 1)), INTEGER_BIT | f);
  else if (f == 0) setZ(sign, 0);
  else {
    wasDenormal = true;
    const shift = u32(clz(f));
    setZ(sign | (BIAS - (top >> 1) + 1 - shift), f << shift);
  }
}
export function fromFloat32(bits: u32): void { expand(bits, 23, 8); }
export function fromFloat64(bits: u64): void { expand(bits, 52, 11); }

export function fromInteger(value: i64): void {
  if (value == 0) {
    setZ(0, 0);
    return;
  }
  const magnitude = value < 0 ? 0 - <u64>value : <u64>value;
  const shift = u32(clz(magnitude));
  setZ((value < 0 ? 0x8000 : 0) | (BIAS + 63 - shift), magnitude << shift);
}

/** The operation stores nothing: an unmasked exception. */
export const BLOCKED: u32 = 0x8000_0000;

/** Round to m32 (24, 8) or m64 (53, 11); returns the bits. */
export function toFloat(s: u32, m: u64, bits: i32, exponent: i32): u64 {
  const sign = s >> 15;
  const fraction = bits - 1;
  const top: u64 = (<u64>1 << exponent) - 1;
  const signed = <u64>sign << (fraction + exponent);
  if (isUnsupported(s, m)) {
    flag(IE);
    return (<u64>-1 << (fraction - 1)) & (u64.MAX_VALUE >> (63 - fraction - exponent));
  }
  if ((s & 0x7fff) == 0x7fff) {
    if (isNaN80(s, m)) {
      if ((m & QUIET_BIT) == 0) flag(IE);
      m |= QUIET_BIT;
    }
    return signed | (top << fraction) | ((m << 1) >> (64 - fraction));
  }
  if (isZero(s, m)) return signed;
  const high = normalize(s, m);
  const e = nE - BIAS + i32(top >> 1);
  let rounded = roundBits(sign, e, high, 0, bits);
  if (roundedE >= i32(top)) {
    flag(OE);
    if ((cw & OE) == 0) return 0;
    flag(PE);
    if (saturates(sign)) return signed | ((top << fraction) - 1);
    flag(C1);
    return signed | (top << fraction);
  }
  let biased: u64 = roundedE;
  if (e < 1) {
    const tiny = roundedE < 1;
    if (tiny && (cw & UE) == 0) {
      flag(UE);
      return 0;
    }
    const shifted = shiftRightSticky(high, 0, 1 - e);
    rounded = roundBits(sign, 0, shifted, wideLow, bits);
    if (tiny && roundedInexact) flag(UE);
    biased = <i64>rounded < 0 ? 1 : 0;
  }
  if (roundedInexact) flag(PE);
  if (roundedUp) flag(C1);
  return signed | (biased << fraction) | ((rounded << 1) >> (64 - fraction));
}

/** Magnitude of a finite number rounded to an integer; u64.MAX_VALUE with IE when it needs more than 63 bits (but -2^63 fits). */
export function toMagnitude(s: u32, m: u64, truncate: bool): u64 {
  const e = i32(s & 0x7fff) - BIAS;
  if (e > 63 || isUnsupported(s, m)) {
    flag(IE);
    return u64.MAX_VALUE;
  }
  let whole = shiftRightSticky(m, 0, 63 - e);
  const rest = wideLow;
  if (rest != 0) {
    flag(PE);
    if (!truncate && roundsUp(s >> 15, (whole & 1) != 0, rest, false)) {
      whole += 1;
      flag(C1);
    }
  }
  return whole;
}

/** Integer of 2, 4 or 8 bytes, or the integer indefinite with IE. */
export function toInteger(s: u32, m: u64, size: u32, truncate: bool): i64 {
  const magnitude = toMagnitude(s, m, truncate);
  const limit: u64 = <u64>1 << ((size << 3) - 1);
  if ((s >> 15 != 0 ? magnitude > limit : magnitude >= limit) || magnitude == u64.MAX_VALUE) {
    clearFlags(PE | C1);
    flag(IE);
    return <i64>(0 - limit);
  }
  return s >> 15 != 0 ? <i64>(0 - magnitude) : <i64>magnitude;
}

/** Upper 16 bits of the packed BCD made by `toBcd`. */
export let bcdHigh: u32 = 0;
/** 18 decimal digits and a sign; the packed BCD indefinite with IE when they do not suffice. */
export function toBcd(s: u32, m: u64): u64 {
  let magnitude = toMagnitude(s, m, false);
  if (magnitude > 999_999_999_999_999_999) {
    clearFlags(PE | C1);
    flag(IE);
    bcdHigh = 0xffff;
    return 0xc000_0000_0000_0000;
  }
  let low: u64 = 0;
  for (let i = 0; i < 64; i += 4) {
    low |= (magnitude % 10) << i;
    magnitude /= 10;
  }
  bcdHigh = u32(magnitude % 10) | (u32(magnitude / 10) << 4) | ((s >> 15) << 15);
  return low;
}

/** Packed BCD to z. Digits above 9 count as their value, as the hardware has them. */
export function fromBcd(low: u64, high: u32): void {
  let value: u64 = ((high >> 4) & 15) * 10 + (high & 15);
  for (let i = 60; i >= 0; i -= 4) value = value * 10 + ((low >> i) & 15);
  fromInteger(<i64>value);
  setZ(zS | (high & 0x8000), zM);
}
