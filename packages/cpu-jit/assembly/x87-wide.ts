/** 128-bit integer arithmetic for the x87 helpers. A pair comes back as (return value, global). */

/** Low half of the last product, quotient pair, shift or sum. */
export let wideLow: u64 = 0;
/** Remainder of the last `divWide`. */
export let wideRest: u64 = 0;

const LOW32: u64 = 0xffffffff;

/** a * b; returns the high half, `wideLow` is the low half. */
export function mulWide(a: u64, b: u64): u64 {
  const a0 = a & LOW32, a1 = a >> 32, b0 = b & LOW32, b1 = b >> 32;
  const p00 = a0 * b0, p01 = a0 * b1, p10 = a1 * b0;
  const middle = (p00 >> 32) + (p01 & LOW32) + (p10 & LOW32);
  wideLow = (middle << 32) | (p00 & LOW32);
  return a1 * b1 + (p01 >> 32) + (p10 >> 32) + (middle >> 32);
}

/** One 32-bit digit of (top:next 32 bits) / d by Knuth's algorithm D; `d` has its top bit set and top < d. */
function quotientDigit(top: u64, next: u64, d: u64): u64 {
  const d1 = d >> 32, d0 = d & LOW32;
  let q = top / d1;
  let r = top - q * d1;
  while (q > LOW32 || q * d0 > ((r << 32) | next)) {
    q -= 1;
    r += d1;
    if (r > LOW32) break;
  }
  return q;
}

/** (high:low) / d for high < d and d >= 2^63; `wideRest` is the remainder. */
export function divWide(high: u64, low: u64, d: u64): u64 {
  const q1 = quotientDigit(high, low >> 32, d);
  const middle = ((high << 32) | (low >> 32)) - q1 * d;
  const q0 = quotientDigit(middle, low & LOW32, d);
  wideRest = ((middle << 32) | (low & LOW32)) - q0 * d;
  return (q1 << 32) | q0;
}

/** high:low >> n, n >= 0, bits shifted out are ORed into bit 0 so that rounding still sees them. */
export function shiftRightSticky(high: u64, low: u64, n: i32): u64 {
  if (n == 0) {
    wideLow = low;
    return high;
  }
  if (n < 64) {
    const out = low << (64 - n);
    wideLow = (high << (64 - n)) | (low >> n) | u64(out != 0);
    return high >> n;
  }
  if (n < 128) {
    const m = n - 64;
    const out = m == 0 ? low : (high << (64 - m)) | low;
    wideLow = (high >> m) | u64(out != 0);
    return 0;
  }
  wideLow = u64((high | low) != 0);
  return 0;
}

/** high:low << n, 0 <= n < 128. */
export function shiftLeftWide(high: u64, low: u64, n: i32): u64 {
  if (n == 0) {
    wideLow = low;
    return high;
  }
  if (n >= 64) {
    wideLow = 0;
    return low << (n - 64);
  }
  wideLow = low << n;
  return (high << n) | (low >> (64 - n));
}

/** High 128 bits of the 256-bit product of two 128-bit fractions, within two units of 2^-128. */
export function mulFraction(ah: u64, al: u64, bh: u64, bl: u64): u64 {
  let high = mulWide(ah, bh);
  let low = wideLow;
  const cross1 = mulWide(ah, bl);
  const cross0 = mulWide(al, bh);
  low += cross1;
  high += u64(low < cross1);
  low += cross0;
  high += u64(low < cross0);
  wideLow = low;
  return high;
}

/** high:low / d for 0 < d < 2^32. */
export function divSmall(high: u64, low: u64, d: u64): u64 {
  const q = high / d;
  let r = high - q * d;
  const t1 = (r << 32) | (low >> 32);
  const q1 = t1 / d;
  r = t1 - q1 * d;
  wideLow = (q1 << 32) | (((r << 32) | (low & LOW32)) / d);
  return q;
}

/** Sum; `wideLow` is its low half. The carry out of the high half is lost. */
export function addWide(ah: u64, al: u64, bh: u64, bl: u64): u64 {
  const low = al + bl;
  wideLow = low;
  return ah + bh + u64(low < al);
}

/** Difference a - b. */
export function subWide(ah: u64, al: u64, bh: u64, bl: u64): u64 {
  wideLow = al - bl;
  return ah - bh - u64(al < bl);
}
