// 64 x 64 -> 128 multiplication and 128 / 64 division, which Wasm does not have.

/** Upper half of the unsigned product. */
export function mul64hi_u(a: u64, b: u64): u64 {
  const al = a & 0xffff_ffff, ah = a >> 32, bl = b & 0xffff_ffff, bh = b >> 32;
  const low = al * bl;
  const cross = ah * bl + (low >> 32);
  const middle = al * bh + (cross & 0xffff_ffff);
  return ah * bh + (cross >> 32) + (middle >> 32);
}

/** Upper half of the signed product. */
export function mul64hi_s(a: i64, b: i64): i64 {
  return <i64>mul64hi_u(<u64>a, <u64>b) - ((a >> 63) & b) - ((b >> 63) & a);
}

/** Quotient of high:low / d; the caller has made sure that high < d. The remainder is low - quotient * d. */
export function div128_u(high: u64, low: u64, d: u64): u64 {
  if (!high) return low / d;
  // Two digits of 32 bits, each estimated from the upper digit of the normalised divisor (Knuth, 4.3.1 D).
  const shift = clz(d);
  d <<= shift;
  const dh = d >> 32, dl = d & 0xffff_ffff;
  if (shift) {
    high = (high << shift) | (low >> (64 - shift));
    low <<= shift;
  }
  const l1 = low >> 32, l0 = low & 0xffff_ffff;
  const q1 = digit(high, l1, dh, dl);
  const rest = ((high << 32) | l1) - q1 * d;
  return (q1 << 32) + digit(rest, l0, dh, dl);
}

/** One quotient digit of (high, next) / (dh, dl). */
function digit(high: u64, next: u64, dh: u64, dl: u64): u64 {
  let q = high / dh;
  let r = high - q * dh;
  while (q >> 32 || q * dl > ((r << 32) | next)) {
    q--;
    r += dh;
    if (r >> 32) break;
  }
  return q;
}
