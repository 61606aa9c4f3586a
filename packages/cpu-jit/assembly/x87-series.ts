/**
 * 128-bit kernels of the transcendental instructions. A number is a normalised significand hi:lo (top bit set, worth one)
 * and an unbiased exponent, result in `rE`, `rH`, `rL`; a fixed-point fraction is hi:lo / 2^128. Series are evaluated by
 * Horner's rule with 2^-100 or better, so that what is rounded to 64 bits is wrong only within 2^-30 of a tie.
 */
import { INTEGER_BIT } from './x87-core';
import { addWide, divSmall, mulFraction, shiftLeftWide, shiftRightSticky, subWide, wideLow } from './x87-wide';

/** Result of the last kernel. */
export let rE: i32 = 0;
export let rH: u64 = 0;
export let rL: u64 = 0;

/** Set the result, bringing the top bit up. */
export function setR(e: i32, high: u64, low: u64): void {
  if (high == 0) {
    high = low;
    low = 0;
    e -= 64;
  }
  const shift = i32(clz(high));
  rH = shiftLeftWide(high, low, shift);
  rL = wideLow;
  rE = e - shift;
}
/** The largest number below the result: what a value known to be a little smaller rounds like. */
export function decrementR(): void {
  const high = subWide(rH, rL, 0, 1);
  setR(rE, high, wideLow);
}

/** Product of two normalised numbers. */
export function multiply(aE: i32, aH: u64, aL: u64, bE: i32, bH: u64, bL: u64): void {
  const high = mulFraction(aH, aL, bH, bL);
  setR(aE + bE + 1, high, wideLow);
}

/** Quotient of two normalised numbers, truncated; the last bit is set when it is not exact. */
export function divide(aE: i32, aH: u64, aL: u64, bE: i32, bH: u64, bL: u64): void {
  let q1: u64 = 0, q0: u64 = 0;
  let carry = false;
  for (let i = 0; i < 128; i++) {
    q1 = (q1 << 1) | (q0 >> 63);
    q0 <<= 1;
    if (carry || aH > bH || (aH == bH && aL >= bL)) {
      aH = subWide(aH, aL, bH, bL);
      aL = wideLow;
      q0 |= 1;
    }
    carry = <i64>aH < 0;
    aH = (aH << 1) | (aL >> 63);
    aL <<= 1;
  }
  setR(aE - bE, q1, q0 | u64((aH | aL) != 0));
}

/** Square of a normalised number below one as a fixed-point fraction (return value and `wideLow`). */
function squareFraction(e: i32, high: u64, low: u64): u64 {
  const s = mulFraction(high, low, high, low);
  return shiftRightSticky(s, wideLow, -2 * e - 2);
}

/** 1 -+ w / d(n) (1 -+ w / d(n-1) (...)): d(k) = (2k + odd)(2k + odd - 1), alternating; return value and `wideLow`, one = 2^127. */
function factorialSeries(wH: u64, wL: u64, n: u64, odd: u64): u64 {
  let high: u64 = INTEGER_BIT, low: u64 = 0;
  for (let k = n; k != 0; k--) {
    high = mulFraction(wH, wL, high, low);
    high = divSmall(high, wideLow, (2 * k + odd) * (2 * k + odd - 1));
    high = subWide(INTEGER_BIT, 0, high, wideLow);
    low = wideLow;
  }
  return high;
}

/** Sine of a normalised number up to pi/4; always a little below the number itself. */
export function sine(e: i32, high: u64, low: u64): void {
  const wH = squareFraction(e, high, low);
  const sH = factorialSeries(wH, wideLow, 14, 1);
  multiply(e, high, low, 0, sH, wideLow);
  if (rE == e && rH == high && rL == low) decrementR();
}
/** Cosine, the same way. */
export function cosine(e: i32, high: u64, low: u64): void {
  const wH = squareFraction(e, high, low);
  const cH = factorialSeries(wH, wideLow, 14, 0);
  setR(0, cH, wideLow);
  if (rE == 0) decrementR();
}

/** Low half of the last `oddSeries`. */
let seriesLow: u64 = 0;
/** sum of (sign w)^k / (2k + 1), k < n: with `alternate`, atan(t) / t for w = t^2; without, atanh(t) / t. */
function oddSeries(wH: u64, wL: u64, n: u64, alternate: bool): u64 {
  let high: u64 = 0, low: u64 = 0;
  for (let k = n; ; k--) {
    high = mulFraction(wH, wL, high, low);
    low = wideLow;
    const cH = divSmall(INTEGER_BIT, 0, 2 * k + 1);
    high = alternate ? subWide(cH, wideLow, high, low) : addWide(cH, wideLow, high, low);
    low = wideLow;
    if (k == 0) break;
  }
  seriesLow = low;
  return high;
}

/** atan of a normalised number up to tan(pi/8) = 0.4142...; always a little below it. */
export function arctangent(e: i32, high: u64, low: u64): void {
  const wH = squareFraction(e, high, low);
  const s = oddSeries(wH, wideLow, 40, true);
  multiply(e, high, low, 0, s, seriesLow);
  if (rE == e && rH == high && rL == low) decrementR();
}
/** atanh of a normalised number up to 0.172. */
export function areaTangent(e: i32, high: u64, low: u64): void {
  const wH = squareFraction(e, high, low);
  const s = oddSeries(wH, wideLow, 22, false);
  multiply(e, high, low, 0, s, seriesLow);
}

/** |e^t - 1| of a normalised |t| up to ln 2 of the given sign. */
export function exponentialMinus1(sign: u32, e: i32, high: u64, low: u64): void {
  const tH = shiftRightSticky(high, low, -e - 1);
  const tL = wideLow;
  let pH: u64 = INTEGER_BIT, pL: u64 = 0;
  for (let k: u64 = 28; k > 1; k--) {
    pH = mulFraction(tH, tL, pH, pL);
    pH = divSmall(pH, wideLow, k);
    pH = sign ? subWide(INTEGER_BIT, 0, pH, wideLow) : addWide(INTEGER_BIT, 0, pH, wideLow);
    pL = wideLow;
  }
  multiply(e, high, low, 0, pH, pL);
}
