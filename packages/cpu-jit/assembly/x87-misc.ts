/** Remainder, rounding to integral, scaling, splitting, comparing, classifying, constants. */
import { fromInteger } from './x87-convert';
import {
  BIAS, C0, C1, C2, C3, denormals, flag, IE, INTEGER_BIT, isDenormal, isInfinity, isNaN80, isNormal, isUnsupported, isZero,
  nans, nE, normalize, normalizeRoundPack, PE, QUIET_BIT, rounding, roundPack, roundsUp, setInfinity, setInvalid, setZ, setZero,
  ZE, zM, zS,
} from './x87-core';
import { shiftRightSticky, subWide, wideLow } from './x87-wide';

/** Quotient bits of the last remainder: C2 when it is only partial, else C0 C3 C1 = bits 2 1 0. */
export let remainderCodes: u32 = 0;
/** The last remainder was none, for a NaN or an invalid operation: C0 and C3 stay as they were. */
export let remainderIsNone: bool = false;

/** FPREM (truncated quotient) and FPREM1 (`nearest`): a rem b, always exact. */
export function remainder(aS: u32, aM: u64, bS: u32, bM: u64, nearest: bool): void {
  remainderCodes = 0;
  remainderIsNone = false;
  if (!isNormal(aS, aM) || !isNormal(bS, bM)) {
    remainderIsNone = true;
    if (nans(aS, aM, bS, bM)) return;
    if (isInfinity(aS, aM) || isZero(bS, bM)) {
      setInvalid();
      return;
    }
    remainderIsNone = false;
    if (denormals(aS, aM, bS, bM)) return;
    if (isZero(aS, aM)) {
      setZ(aS, aM);
      return;
    }
    if (isInfinity(bS, bM)) {
      // A pseudo-denormal becomes the normal number it stands for; nothing else changes, not even a tiny number.
      setZ(<i64>aM < 0 && (aS & 0x7fff) == 0 ? aS | 1 : aS, aM);
      return;
    }
  }
  let sign = aS >> 15;
  let r = normalize(aS, aM);
  const aE = nE;
  const b = normalize(bS, bM);
  const distance = aE - nE;
  const least = nearest ? -1 : 0;
  if (distance < least) {
    roundPack(sign, aE, r, 0, 64);
    return;
  }
  // Schoolbook division, one quotient bit at each exponent from aE down.
  const partial = distance >= 64;
  const steps = partial ? 33 + (distance & 31) : distance + 1;
  let q: u32 = 0;
  let carry = false;
  for (let i = 0; i < steps; i++) {
    if (i != 0) {
      carry = <i64>r < 0;
      r <<= 1;
    }
    q <<= 1;
    if (carry || r >= b) {
      r -= b;
      q |= 1;
    }
  }
  let high = r, low: u64 = 0;
  const e = aE - steps + 1;
  if (partial) remainderCodes = C2;
  else {
    if (steps == 0) {
      high = r >> 1;
      low = r << 63;
    }
    if (nearest) {
      const half = steps == 0 ? r : r << 1;
      const over = steps != 0 && <i64>r < 0;
      if (over || half > b || (half == b && (q & 1) != 0)) {
        high = subWide(b, 0, high, low);
        low = wideLow;
        sign ^= 1;
        q += 1;
      }
    }
    remainderCodes = ((q & 4) << 6) | ((q & 2) << 13) | ((q & 1) << 9);
  }
  if ((high | low) == 0) setZero(aS >> 15);
  else normalizeRoundPack(sign, e, high, low, 64);
}

/** FRNDINT. */
export function roundToIntegral(s: u32, m: u64): void {
  const sign = s >> 15;
  if (!isNormal(s, m)) {
    if (nans(s, m, s, m)) return;
    if (denormals(s, m, s, m)) return;
    if (isZero(s, m) || isInfinity(s, m)) {
      setZ(s, m);
      return;
    }
  }
  const e = i32(s & 0x7fff) - BIAS;
  if (e >= 63) {
    setZ(s, m);
    return;
  }
  let whole = shiftRightSticky(m, 0, 63 - e);
  const rest = wideLow;
  if (rest != 0) {
    flag(PE);
    if (roundsUp(sign, (whole & 1) != 0, rest, false)) {
      whole += 1;
      flag(C1);
    }
  }
  fromInteger(<i64>whole);
  setZ(zS & 0x7fff | (sign << 15), zM);
}

/** FSCALE: a * 2^trunc(b). */
export function scale(aS: u32, aM: u64, bS: u32, bM: u64): void {
  const sign = aS >> 15;
  if (nans(aS, aM, bS, bM)) return;
  const aInf = isInfinity(aS, aM), aZero = isZero(aS, aM);
  if (isInfinity(bS, bM)) {
    const up = bS >> 15 == 0;
    if (up ? aZero : aInf) setInvalid();
    else if (!denormals(aS, aM, bS, bM)) {
      if (up) setInfinity(sign);
      else setZero(sign);
    }
    return;
  }
  if (denormals(aS, aM, bS, bM)) return;
  if (aInf || aZero) {
    setZ(aS, aM);
    return;
  }
  const e = i32(bS & 0x7fff) - BIAS;
  // 2^17 moves any number out of range.
  let n = e < 0 ? 0 : e > 16 ? 1 << 17 : i32(bM >> (63 - e));
  if (bS >> 15 != 0) n = -n;
  const m = normalize(aS, aM);
  roundPack(sign, nE + n, m, 0, 64);
}

/** Exponent part of FXTRACT; the significand is in z. */
export let exponentS: u32 = 0;
export let exponentM: u64 = 0;
export function extract(s: u32, m: u64): void {
  if (nans(s, m, s, m)) {
    exponentS = zS;
    exponentM = zM;
    return;
  }
  if (isInfinity(s, m)) {
    exponentS = 0x7fff;
    exponentM = INTEGER_BIT;
    setZ(s, m);
    return;
  }
  if (isZero(s, m)) {
    flag(ZE);
    exponentS = 0xffff;
    exponentM = INTEGER_BIT;
    setZ(s, m);
    return;
  }
  if (denormals(s, m, s, m)) return;
  const significand = normalize(s, m);
  fromInteger(nE - BIAS);
  exponentS = zS;
  exponentM = zM;
  setZ((s & 0x8000) | BIAS, significand);
}

/** CF, PF and ZF of a comparison at their EFLAGS positions; shifted left by 8 they are C0, C2 and C3. */
export const UNORDERED: u32 = 0x45;
export function compare(aS: u32, aM: u64, bS: u32, bM: u64, quietAllowed: bool): u32 {
  if (!isNormal(aS, aM) || !isNormal(bS, bM)) {
    if (isUnsupported(aS, aM) || isUnsupported(bS, bM)) {
      flag(IE);
      return UNORDERED;
    }
    const a = isNaN80(aS, aM), b = isNaN80(bS, bM);
    if (a || b) {
      if (!quietAllowed || (a && (aM & QUIET_BIT) == 0) || (b && (bM & QUIET_BIT) == 0)) flag(IE);
      return UNORDERED;
    }
    denormals(aS, aM, bS, bM);
    if (isZero(aS, aM) && isZero(bS, bM)) return 0x40;
  }
  if (aS >> 15 != bS >> 15) return aS >> 15;
  // A pseudo-denormal equals the normal number of exponent 1.
  let aE = aS & 0x7fff, bE = bS & 0x7fff;
  if (aE == 0 && <i64>aM < 0) aE = 1;
  if (bE == 0 && <i64>bM < 0) bE = 1;
  if (aE == bE && aM == bM) return 0x40;
  const less = aE < bE || (aE == bE && aM < bM);
  return u32(less) ^ (aS >> 15);
}

/** FXAM class of a non-empty register, without C1. */
export function classify(s: u32, m: u64): u32 {
  if (isUnsupported(s, m)) return 0;
  if (isNaN80(s, m)) return C0;
  if (isInfinity(s, m)) return C0 | C2;
  if (isZero(s, m)) return C3;
  if (isDenormal(s, m)) return C2 | C3;
  return C2;
}

/** FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ in encoding order: 64 bits rounded down; `above`: the rest is over a half. */
@inline function irrational(e: u32, m: u64, above: bool): void {
  const mode = rounding();
  setZ(e, mode == 2 || (mode == 0 && above) ? m + 1 : m);
}
export function constant(which: u32): void {
  switch (which) {
    case 0: setZ(BIAS, INTEGER_BIT); break;
    case 1: irrational(0x4000, 0xd49a_784b_cd1b_8afe, false); break;
    case 2: irrational(0x3fff, 0xb8aa_3b29_5c17_f0bb, true); break;
    case 3: irrational(0x4000, 0xc90f_daa2_2168_c234, true); break;
    case 4: irrational(0x3ffd, 0x9a20_9a84_fbcf_f798, true); break;
    case 5: irrational(0x3ffe, 0xb172_17f7_d1cf_79ab, true); break;
    default: setZ(0, 0); break;
  }
}
