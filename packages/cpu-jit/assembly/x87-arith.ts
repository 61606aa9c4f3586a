/** Add, subtract, multiply, divide and square root of 80-bit numbers; results through `setZ`, exceptions through `flag`. */
import {
  BIAS, cw, DE, denormals, flag, INTEGER_BIT, isDenormal, isInfinity, isNormal, isZero, nans, nE, normalize, normalizeRoundPack,
  precision, rounding, roundPack, setInfinity, setInvalid, setZ, setZero, ZE,
} from './x87-core';
import { divWide, mulWide, shiftRightSticky, subWide, wideLow, wideRest } from './x87-wide';

/** a + b, or a - b when `negate` is 1. */
export function addSub(aS: u32, aM: u64, bS: u32, bM: u64, negate: u32): void {
  if (!isNormal(aS, aM) || !isNormal(bS, bM)) {
    if (nans(aS, aM, bS, bM)) return;
    const a = aS >> 15, b = (bS >> 15) ^ negate;
    const aInf = isInfinity(aS, aM), bInf = isInfinity(bS, bM);
    if (aInf && bInf && a != b) {
      setInvalid();
      return;
    }
    if (denormals(aS, aM, bS, bM)) return;
    if (aInf || bInf) {
      setInfinity(aInf ? a : b);
      return;
    }
    if (isZero(aS, aM)) {
      if (isZero(bS, bM)) setZero(a == b ? a : u32(rounding() == 1));
      else {
        const m = normalize(bS, bM);
        roundPack(b, nE, m, 0, precision());
      }
      return;
    }
    if (isZero(bS, bM)) {
      const m = normalize(aS, aM);
      roundPack(a, nE, m, 0, precision());
      return;
    }
  }
  let sign = aS >> 15, other = (bS >> 15) ^ negate;
  let high = normalize(aS, aM);
  let e = nE;
  let low: u64 = normalize(bS, bM);
  let f = nE;
  if (e < f || (e == f && high < low)) {
    const t = high; high = low; low = t;
    const u = e; e = f; f = u;
    const v = sign; sign = other; other = v;
  }
  const small = shiftRightSticky(low, 0, e - f);
  low = wideLow;
  if (sign == other) {
    const sum = high + small;
    if (sum >= high) roundPack(sign, e, sum, low, precision());
    else roundPack(sign, e + 1, (sum >> 1) | INTEGER_BIT, (sum << 63) | (low >> 1) | (low & 1), precision());
    return;
  }
  const difference = subWide(high, 0, small, low);
  if ((difference | wideLow) == 0) setZero(u32(rounding() == 1));
  else normalizeRoundPack(sign, e, difference, wideLow, precision());
}

export function mul(aS: u32, aM: u64, bS: u32, bM: u64): void {
  const sign = (aS ^ bS) >> 15;
  if (!isNormal(aS, aM) || !isNormal(bS, bM)) {
    if (nans(aS, aM, bS, bM)) return;
    const aInf = isInfinity(aS, aM), bInf = isInfinity(bS, bM);
    const aZero = isZero(aS, aM), bZero = isZero(bS, bM);
    if ((aInf && bZero) || (bInf && aZero)) {
      setInvalid();
      return;
    }
    if (denormals(aS, aM, bS, bM)) return;
    if (aInf || bInf) {
      setInfinity(sign);
      return;
    }
    if (aZero || bZero) {
      setZero(sign);
      return;
    }
  }
  const a = normalize(aS, aM);
  const e = nE;
  const b = normalize(bS, bM);
  const high = mulWide(a, b);
  normalizeRoundPack(sign, e + nE - BIAS + 1, high, wideLow, precision());
}

export function div(aS: u32, aM: u64, bS: u32, bM: u64): void {
  const sign = (aS ^ bS) >> 15;
  if (!isNormal(aS, aM) || !isNormal(bS, bM)) {
    if (nans(aS, aM, bS, bM)) return;
    const aInf = isInfinity(aS, aM), bInf = isInfinity(bS, bM);
    const aZero = isZero(aS, aM), bZero = isZero(bS, bM);
    if ((aInf && bInf) || (aZero && bZero)) {
      setInvalid();
      return;
    }
    if (bZero && !aInf) {
      flag(ZE);
      setInfinity(sign);
      return;
    }
    if (denormals(aS, aM, bS, bM)) return;
    if (aInf || bZero) {
      setInfinity(sign);
      return;
    }
    if (aZero || bInf) {
      setZero(sign);
      return;
    }
  }
  const a = normalize(aS, aM);
  const e = nE;
  const b = normalize(bS, bM);
  // a / 2 < b because both have their top bit set.
  const high = divWide(a >> 1, a << 63, b);
  const low = divWide(wideRest, 0, b) | u64(wideRest != 0);
  normalizeRoundPack(sign, e - nE + BIAS, high, low, precision());
}

/** Floor of the square root of high:low >= 2^126; `rootRest` tells the rest. */
let rootRest: u64 = 0;
function rootWide(high: u64, low: u64): u64 {
  // 52 bits from the f64 square root, one Newton step for the rest, then exact correction by at most a few units.
  let r: u64 = u64.MAX_VALUE;
  const estimate = sqrt<f64>(f64(high)) * 4294967296.0;
  if (estimate < 18446744073709551615.0) r = u64(estimate);
  if (r <= high) r = u64.MAX_VALUE;
  else {
    const q = divWide(high, low, r);
    r = (r >> 1) + (q >> 1) + (r & q & 1);
  }
  let square = mulWide(r, r);
  while (square > high || (square == high && wideLow > low)) {
    r -= 1;
    square = mulWide(r, r);
  }
  let restHigh = subWide(high, low, square, wideLow);
  let rest = wideLow;
  // (r + 1)^2 - r^2 = 2 r + 1 must exceed the rest.
  while (restHigh > r >> 63 || (restHigh == r >> 63 && rest > r << 1)) {
    restHigh = subWide(restHigh, rest, r >> 63, (r << 1) | 1);
    rest = wideLow;
    r += 1;
  }
  // The next bit of the root is 1 when rest > r; a rest is never exactly half.
  rootRest = (restHigh != 0 || rest > r ? INTEGER_BIT : 0) | u64(restHigh != 0 || rest != 0);
  return r;
}

export function squareRoot(s: u32, m: u64): void {
  if (!isNormal(s, m) || s >> 15 != 0) {
    if (nans(s, m, s, m)) return;
    if (isZero(s, m)) {
      setZ(s, m);
      return;
    }
    if (s >> 15 != 0) {
      setInvalid();
      return;
    }
    if (isInfinity(s, m)) {
      setInfinity(0);
      return;
    }
    if (isDenormal(s, m)) {
      flag(DE);
      if ((cw & DE) == 0) return;
    }
  }
  const n = normalize(s, m);
  // Value is n * 2^(nE - BIAS - 63): make the exponent even.
  const unbiased = nE - BIAS;
  const odd = unbiased & 1;
  const root = odd ? rootWide(n, 0) : rootWide(n >> 1, n << 63);
  roundPack(0, ((unbiased - odd) >> 1) + BIAS, root, rootRest, precision());
}
