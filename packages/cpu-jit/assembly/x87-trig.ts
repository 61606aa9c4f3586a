/** FSIN, FCOS, FSINCOS, FPTAN, FPATAN. */
import {
  BIAS, C1, clearFlags, denormals, forceInexact, INTEGER_BIT, isInfinity, isZero, nans, nE, normalize, roundPack, setInvalid,
  setZ, setZero, zM, zS,
} from './x87-core';
import { arctangent, cosine, divide, rE, rH, rL, setR, sine } from './x87-series';
import { addWide, shiftRightSticky, subWide, wideLow } from './x87-wide';

/** pi in units of 2^-64 as the hardware reduces by it: 66 bits; pi/2 is the same number in units of 2^-65. */
const PI66_HIGH: u64 = 3;
const PI66_LOW: u64 = 0x243f_6a88_85a3_08d3;
/** pi to 128 bits; as a significand worth pi/2. */
const PI_HIGH: u64 = 0xc90f_daa2_2168_c234;
const PI_LOW: u64 = 0xc4c6_628b_80dc_1cd1;

/** Below this exponent hardware returns the operand for sine and tangent and one for the cosine, whatever the rounding. */
const TINY: i32 = -68;
/** The same for FPATAN and the ratio of its operands. */
const TINY_RATIO: i32 = -40;

/** Of the last reduction: multiples of pi/2 taken off (mod 4), and the sign of the rest. */
let quadrant: u32 = 0;
let restSign: u32 = 0;

/** |x| = k pi/2 + rest, |rest| <= pi/4, exactly (with the 66-bit pi); false when |x| >= 2^63. The rest is in rE, rH, rL. */
function reduce(s: u32, m: u64): bool {
  const m1 = normalize(s, m);
  const e = nE - BIAS;
  if (e >= 63) return false;
  quadrant = 0;
  restSign = 0;
  setR(e, m1, 0);
  if (e < -1) return true;
  // In units of 2^-65 the number is m1 * 2^(e + 2): double and subtract.
  let high: u64 = 0, low = m1;
  for (let i = e + 2; i > 0; i--) {
    high = (high << 1) | (low >> 63);
    low <<= 1;
    quadrant <<= 1;
    if (high > PI66_HIGH || (high == PI66_HIGH && low >= PI66_LOW)) {
      high = subWide(high, low, PI66_HIGH, PI66_LOW);
      low = wideLow;
      quadrant |= 1;
    }
  }
  const twice = (high << 1) | (low >> 63);
  if (twice > PI66_HIGH || (twice == PI66_HIGH && low << 1 > PI66_LOW)) {
    high = subWide(PI66_HIGH, PI66_LOW, high, low);
    low = wideLow;
    quadrant += 1;
    restSign = 1;
  }
  // Never zero: the 66-bit number is odd and longer than any significand.
  setR(62, high, low);
  return true;
}

/** The operand of a trigonometric instruction needs no computation: result set. C2 reports one that is out of range. */
export let outOfRange: bool = false;
function special(s: u32, m: u64): bool {
  outOfRange = false;
  if (nans(s, m, s, m)) return true;
  if (isInfinity(s, m)) {
    setInvalid();
    return true;
  }
  return false;
}

/** Sine (`shift` 0) or cosine (1) of the reduced argument of sign `sign`. */
function sineOf(sign: u32, shift: u32, e: i32, high: u64, low: u64): void {
  const k = quadrant + shift;
  if (k & 1) cosine(e, high, low);
  else sine(e, high, low);
  // sin(k pi/2 + r): the sign of r counts for odd functions only, so does the sign of the operand.
  let negative = (k >> 1) & 1;
  if ((k & 1) == 0) negative ^= restSign;
  if (shift == 0) negative ^= sign;
  roundPack(negative, rE + BIAS, rH, rL, 64);
}

/** FSIN and FCOS. */
export function sinCos(s: u32, m: u64, shift: u32): void {
  if (special(s, m)) return;
  if (isZero(s, m)) {
    if (shift) setZ(BIAS, INTEGER_BIT);
    else setZ(s, m);
    return;
  }
  if (denormals(s, m, s, m)) return;
  if (!reduce(s, m)) {
    outOfRange = true;
    setZ(s, m);
    return;
  }
  if (rE < TINY) {
    if (shift) setZ(BIAS, INTEGER_BIT);
    else roundPack(s >> 15, rE + BIAS, rH, rL, 64);
    forceInexact();
  } else sineOf(s >> 15, shift, rE, rH, rL);
}

/** Cosine of FSINCOS; the sine is in z. */
export let cosS: u32 = 0;
export let cosM: u64 = 0;
export function sineCosine(s: u32, m: u64): void {
  sinCos(s, m, 0);
  if (outOfRange) return;
  const sinS = zS, sinM = zM;
  clearFlags(C1);
  sinCos(s, m, 1);
  cosS = zS;
  cosM = zM;
  setZ(sinS, sinM);
}

export function tangent(s: u32, m: u64): void {
  if (special(s, m)) return;
  if (isZero(s, m)) {
    setZ(s, m);
    return;
  }
  if (denormals(s, m, s, m)) return;
  if (!reduce(s, m)) {
    outOfRange = true;
    setZ(s, m);
    return;
  }
  const e = rE, high = rH, low = rL;
  if (e < TINY) {
    roundPack(s >> 15, e + BIAS, high, low, 64);
    forceInexact();
    return;
  }
  sine(e, high, low);
  const sE = rE, sH = rH, sL = rL;
  cosine(e, high, low);
  if (quadrant & 1) divide(rE, rH, rL, sE, sH, sL);
  else divide(sE, sH, sL, rE, rH, rL);
  roundPack((s >> 15) ^ restSign ^ (quadrant & 1), rE + BIAS, rH, rL, 64);
}

/** Round pi/2 * 2^e. */
function roundPi(sign: u32, e: i32): void {
  roundPack(sign, BIAS + e, PI_HIGH, PI_LOW, 64);
}

/** tan(pi/8) = 1.65685... * 2^-2. */
const TAN_PI_8: u64 = 0xd413_cccf_e779_9211;

/** FPATAN: angle of the point (x, y). */
export function arctangent2(yS: u32, yM: u64, xS: u32, xM: u64): void {
  if (nans(yS, yM, xS, xM)) return;
  const sign = yS >> 15, left = xS >> 15 != 0;
  if (denormals(yS, yM, xS, xM)) return;
  const yInf = isInfinity(yS, yM), xInf = isInfinity(xS, xM);
  if (yInf) {
    if (!xInf) roundPi(sign, 0);
    else if (!left) roundPi(sign, -1);
    else roundPack(sign, BIAS + 1, 0x96cb_e3f9_990e_91a7, 0x9394_c9e8_a0a5_159d, 64);
    return;
  }
  if (xInf || isZero(yS, yM)) {
    if (left) roundPi(sign, 1);
    else setZero(sign);
    return;
  }
  if (isZero(xS, xM)) {
    roundPi(sign, 0);
    return;
  }
  let a = normalize(yS, yM);
  let aE = nE;
  let b = normalize(xS, xM);
  let bE = nE;
  const steep = aE > bE || (aE == bE && a > b);
  if (steep) {
    const t = a; a = b; b = t;
    const u = aE; aE = bE; bE = u;
  }
  // Angle to the nearer axis: atan(a / b), a <= b.
  divide(aE, a, 0, bE, b, 0);
  let e = rE, high = rH, low = rL;
  if (e >= -1 || (e == -2 && high > TAN_PI_8)) {
    // atan(q) = pi/4 - atan((1 - q) / (1 + q)).
    const q1 = shiftRightSticky(high, low, -e), q0 = wideLow;
    const n1 = subWide(INTEGER_BIT, 0, q1, q0), n0 = wideLow;
    if ((n1 | n0) == 0) setR(-1, PI_HIGH, PI_LOW);
    else {
      const d1 = addWide(INTEGER_BIT >> 1, 0, q1 >> 1, (q0 >> 1) | (q1 << 63)), d0 = wideLow;
      setR(0, n1, n0);
      const nE2 = rE, nH = rH, nL = rL;
      setR(1, d1, d0);
      divide(nE2, nH, nL, rE, rH, rL);
      arctangent(rE, rH, rL);
      const r1 = shiftRightSticky(rH, rL, -1 - rE);
      const difference = subWide(PI_HIGH, PI_LOW, r1, wideLow);
      setR(-1, difference, wideLow);
    }
  } else if (e >= TINY_RATIO || steep || left) arctangent(e, high, low);
  else {
    roundPack(sign, e + BIAS, high, low, 64);
    forceInexact();
    return;
  }
  // From the angle to the nearer axis to the angle itself.
  if (steep || left) {
    // pi/2 -+ angle, or pi - angle, in units of 2^-126.
    e = rE;
    const base = steep ? 0 : 1;
    const shift = base - e;
    high = shiftRightSticky(rH, rL, shift + 1);
    low = wideLow;
    const p1 = PI_HIGH >> 1, p0 = (PI_HIGH << 63) | (PI_LOW >> 1);
    high = steep && left ? addWide(p1, p0, high, low) : subWide(p1, p0, high, low);
    setR(base + 1, high, wideLow);
  }
  roundPack(sign, rE + BIAS, rH, rL | 1, 64);
}
