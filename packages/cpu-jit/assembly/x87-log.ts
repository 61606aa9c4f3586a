/** F2XM1, FYL2X, FYL2XP1. */
import {
  BIAS, denormals, flag, forceInexact, INTEGER_BIT, isInfinity, isZero, nans, nE, normalize, PE, roundPack, setInfinity,
  setInvalid, setZ, setZero, ZE,
} from './x87-core';
import { areaTangent, divide, exponentialMinus1, multiply, rE, rH, rL, setR } from './x87-series';
import { addWide, shiftRightSticky, subWide, wideLow } from './x87-wide';

/** ln 2 = 0.69... as a significand of exponent -1; log2 e = 1.44.... */
const LN2_HIGH: u64 = 0xb172_17f7_d1cf_79ab;
const LN2_LOW: u64 = 0xc9e3_b398_03f2_f6af;
const LOG2E_HIGH: u64 = 0xb8aa_3b29_5c17_f0bb;
const LOG2E_LOW: u64 = 0xbe87_fed0_691d_3e88;
/** sqrt 2. */
const SQRT2: u64 = 0xb504_f333_f9de_6484;

/** F2XM1: 2^x - 1 for |x| <= 1; outside the manual leaves it open. */
export function exp2Minus1(s: u32, m: u64): void {
  if (nans(s, m, s, m)) return;
  const sign = s >> 15;
  if (isInfinity(s, m)) {
    if (sign) setZ(0x8000 | BIAS, INTEGER_BIT);
    else setInfinity(0);
    return;
  }
  if (isZero(s, m)) {
    setZ(s, m);
    return;
  }
  if (denormals(s, m, s, m)) return;
  const n = normalize(s, m);
  const e = nE - BIAS;
  if (e >= 0) {
    // -1 gives -1/2 and 1 gives 1; beyond, hardware returns the operand. All count as inexact.
    flag(PE);
    if (e == 0 && n == INTEGER_BIT && sign) setZ(0x8000 | (BIAS - 1), INTEGER_BIT);
    else setZ(s, m);
    return;
  }
  multiply(e, n, 0, -1, LN2_HIGH, LN2_LOW);
  exponentialMinus1(sign, rE, rH, rL);
  roundPack(sign, rE + BIAS, rH, rL | 1, 64);
}

/** Sign of the logarithm in rE, rH, rL, and whether it is a whole number. */
let logSign: u32 = 0;
let isWhole: bool = false;

/** 2 atanh(s) / ln 2 of the number s in rE, rH, rL. */
function logOfRatio(): void {
  areaTangent(rE, rH, rL);
  multiply(rE, rH, rL, 1, LOG2E_HIGH, LOG2E_LOW);
}

/** log2 of v * 2^k, v = high:low / 2^127 in [1, 2). */
function log2Of(k: i32, high: u64, low: u64): void {
  // With f = v or v / 2, whichever is nearer to one: log2 f = 2 atanh((f - 1) / (f + 1)) / ln 2.
  let n: u64, nLow: u64;
  logSign = u32(high >= SQRT2);
  if (logSign) {
    k += 1;
    n = subWide(0, 0, high, low);
    nLow = wideLow;
  } else {
    n = high & ~INTEGER_BIT;
    nLow = low;
  }
  isWhole = (n | nLow) == 0;
  if (!isWhole) {
    // (v + 2) / 4 or (v + 1) / 2.
    const by = logSign ? 2 : 1;
    const part = shiftRightSticky(high, low, by);
    const d = addWide(INTEGER_BIT >> 1, 0, part, wideLow), dLow = wideLow;
    setR(0, n, nLow);
    const e = rE, h = rH, l = rL;
    setR(by, d, dLow);
    divide(e, h, l, rE, rH, rL);
    logOfRatio();
    if (k == 0) return;
  } else if (k == 0) {
    logSign = 0;
    setR(0, 0, 1);
    return;
  }
  // k + log2 f in units of 2^-112.
  const negative = u32(k < 0);
  const whole = <u64>(k < 0 ? -k : k) << 48;
  if (isWhole) setR(15, whole, 0);
  else {
    const part = shiftRightSticky(rH, rL, 15 - rE), partLow = wideLow;
    const sum = negative == logSign ? addWide(whole, 0, part, partLow) : subWide(whole, 0, part, partLow);
    setR(15, sum, wideLow);
  }
  logSign = negative;
}

/** y * logarithm for finite non-zero y. */
function multiplyLog(yS: u32, yM: u64): void {
  const y = normalize(yS, yM);
  multiply(nE - BIAS, y, 0, rE, rH, rL);
  roundPack((yS >> 15) ^ logSign, rE + BIAS, rH, isWhole ? rL : rL | 1, 64);
  // Even exact products.
  forceInexact();
}
/** y * logarithm when one of them is zero or infinite: `logZero`, else the logarithm is infinite when `logInf`. */
function multiplySpecial(yS: u32, yM: u64, sign: u32, logZero: bool, logInf: bool): void {
  sign ^= yS >> 15;
  const yZero = isZero(yS, yM);
  if (isInfinity(yS, yM) ? logZero : yZero && logInf) setInvalid();
  else if (yZero || logZero) setZero(sign);
  else setInfinity(sign);
}

/** FYL2X: y log2(x). */
export function yLog2x(yS: u32, yM: u64, xS: u32, xM: u64): void {
  if (nans(yS, yM, xS, xM)) return;
  const xZero = isZero(xS, xM);
  if (xS >> 15 && !xZero) {
    setInvalid();
    return;
  }
  const yInf = isInfinity(yS, yM), yZero = isZero(yS, yM);
  if (xZero) {
    if (!yInf && !yZero) flag(ZE);
    multiplySpecial(yS, yM, 1, false, true);
    return;
  }
  const xInf = isInfinity(xS, xM);
  const one = xS == BIAS && xM == INTEGER_BIT;
  if (yInf && one) {
    setInvalid();
    return;
  }
  if (xInf && yZero) {
    setInvalid();
    return;
  }
  if (denormals(yS, yM, xS, xM)) return;
  if (xInf || yInf || yZero || one) {
    multiplySpecial(yS, yM, u32(!xInf && (xS & 0x7fff) < u32(BIAS)), one, xInf);
    return;
  }
  const x = normalize(xS, xM);
  log2Of(nE - BIAS, x, 0);
  multiplyLog(yS, yM);
}

/** FYL2XP1: y log2(x + 1). */
export function yLog2xPlus1(yS: u32, yM: u64, xS: u32, xM: u64): void {
  if (nans(yS, yM, xS, xM)) return;
  const sign = xS >> 15;
  const xZero = isZero(xS, xM), xInf = isInfinity(xS, xM);
  const yInf = isInfinity(yS, yM), yZero = isZero(yS, yM);
  if ((xZero && yInf) || (xInf && (yZero || sign != 0))) {
    setInvalid();
    return;
  }
  if (denormals(yS, yM, xS, xM)) return;
  if (xZero || xInf || yInf || yZero) {
    multiplySpecial(yS, yM, sign, xZero, xInf);
    return;
  }
  const x = normalize(xS, xM);
  const e = nE - BIAS;
  if (e < -2 || (e == -2 && x < 0x95f6_1998_0c43_36f8)) {
    // log2(1 + x) = 2 atanh(x / (2 + x)) / ln 2; (2 + x) / 2 in units of 2^-127.
    const half = shiftRightSticky(x, 0, 1 - e), halfLow = wideLow;
    const d = sign ? subWide(INTEGER_BIT, 0, half, halfLow) : addWide(INTEGER_BIT, 0, half, halfLow);
    setR(1, d, wideLow);
    divide(e, x, 0, rE, rH, rL);
    logOfRatio();
    logSign = sign;
    isWhole = false;
    multiplyLog(yS, yM);
    return;
  }
  // Beyond the documented range.
  if (sign && e >= 0) {
    setZ(xS, xM);
    flag(PE);
    return;
  }
  const base = e < 0 ? 0 : e + 1;
  const part = shiftRightSticky(x, 0, base - e), partLow = wideLow;
  const oneHigh = shiftRightSticky(INTEGER_BIT, 0, base), oneLow = wideLow;
  const v = sign ? subWide(oneHigh, oneLow, part, partLow) : addWide(oneHigh, oneLow, part, partLow);
  setR(base, v, wideLow);
  log2Of(rE, rH, rL);
  multiplyLog(yS, yM);
}
