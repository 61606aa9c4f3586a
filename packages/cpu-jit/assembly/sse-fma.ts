/** Fused multiply-add: exact product, exact sum, one rounding (SDM vol. 1, 14.5.3). Under any MXCSR controls, and for results that are NaN. */
import { S_SCRATCH } from '../src/layout';
import { againRounded, finish, invalid, signalDenormals } from './sse-float';
import {
  DOWN, IE, begin, clear, flags, isInfinite, isNaN, isSignaling, isZero, operand, quietBit, round, roundingControl, signBit, signal, unpack,
  unpackedExponent,
} from './sse-round';

const X: u32 = S_SCRATCH;
const Y: u32 = S_SCRATCH + 16;
const Z: u32 = S_SCRATCH + 32;
const R: u32 = S_SCRATCH + 48;

/** First NaN in the order of multiplicands, addend; quieted. */
function propagate(x: u64, y: u64, z: u64, wide: bool): u64 {
  if (isSignaling(x, wide) || isSignaling(y, wide) || isSignaling(z, wide)) signal(IE);
  return (isNaN(x, wide) ? x : isNaN(y, wide) ? y : z) | quietBit(wide);
}

// A sum of 128-bit significands, high and low halves.
let high: u64 = 0;
let low: u64 = 0;
/** Shift right; what is lost stays as a one in the last bit. */
function shiftRight(n: u32): void {
  if (n >= 128) {
    low = <u64>((high | low) != 0);
    high = 0;
  } else if (n >= 64) {
    const lost = low | (n > 64 ? high << (128 - n) : 0);
    low = (high >> (n - 64)) | <u64>(lost != 0);
    high = 0;
  } else if (n) {
    const lost = low << (64 - n);
    low = (low >> n) | (high << (64 - n)) | <u64>(lost != 0);
    high >>= n;
  }
}

/** x * y + z of finite numbers, x and y not zero. */
function fuse(x: u64, y: u64, z: u64, wide: bool): u64 {
  const s = signBit(wide);
  const signP = ((x ^ y) & s) != 0, signZ = (z & s) != 0;
  const mx = unpack(x, wide), ex = unpackedExponent;
  const my = unpack(y, wide);
  // Bits 127:64 and 63:0 of the product. Value: m * 2^(e - 127).
  let ep = ex + unpackedExponent + 1;
  const xh = mx >> 32, xl = mx & 0xffff_ffff, yh = my >> 32, yl = my & 0xffff_ffff;
  const t = xl * yl;
  const u = xh * yl + (t >> 32);
  const w = xl * yh + (u & 0xffff_ffff);
  let ph = xh * yh + (u >> 32) + (w >> 32);
  let pl = (w << 32) | (t & 0xffff_ffff);
  if (!(ph >> 63)) {
    ph = (ph << 1) | (pl >> 63);
    pl <<= 1;
    ep--;
  }
  if (isZero(z, wide)) return round(signP, ep, ph, pl != 0, wide);
  let zh = unpack(z, wide), zl: u64 = 0;
  let ez = unpackedExponent;
  // The larger first; both give way by one bit for the carry (their last bits are zeros).
  let sign = signP;
  let e = ep;
  const swap = ez > ep || (ez == ep && (zh > ph || (zh == ph && zl > pl)));
  if (swap) {
    const h = ph, l = pl;
    ph = zh; pl = zl; zh = h; zl = l;
    e = ez; ez = ep; sign = signZ;
  }
  high = ph; low = pl;
  shiftRight(1);
  ph = high; pl = low;
  high = zh; low = zl;
  const distance = <u32>(e - ez) + 1;
  shiftRight(distance);
  if (signP == signZ) {
    const sum = pl + low;
    ph = ph + high + <u64>(sum < pl);
    pl = sum;
  } else {
    const borrow = <u64>(pl < low);
    pl -= low;
    ph = ph - high - borrow;
  }
  if (!(ph | pl)) return roundingControl() == DOWN ? s : 0;
  let shift: u32 = ph ? <u32>clz(ph) : 64 + <u32>clz(pl);
  e += 1 - <i32>shift;
  if (shift >= 64) {
    ph = pl << (shift - 64);
    pl = 0;
  } else if (shift) {
    ph = (ph << shift) | (pl >> (64 - shift));
    pl <<= shift;
  }
  return round(sign, e, ph, pl != 0, wide);
}

/** `z` has its sign turned already where the instruction says so; `negate` turns that of the product. */
function compute(x: u64, y: u64, z: u64, negate: bool, wide: bool): u64 {
  const s = signBit(wide);
  if (negate) x ^= s;
  const product = (x ^ y) & s;
  if (isInfinite(x, wide) || isInfinite(y, wide)) {
    if (isZero(x, wide) || isZero(y, wide)) return invalid(wide);
    const infinite = isInfinite(x, wide) ? (x & (s - 1)) | product : (y & (s - 1)) | product;
    return isInfinite(z, wide) && z != infinite ? invalid(wide) : infinite;
  }
  if (isInfinite(z, wide)) return z;
  if (isZero(x, wide) || isZero(y, wide)) {
    if (!isZero(z, wide)) return againRounded(z, wide);
    return (z & s) == product ? product : roundingControl() == DOWN ? s : 0;
  }
  return fuse(x, y, z, wide);
}

/** `signs`: bit 0 and 1 the addend of even, of odd lanes is subtracted; bit 2 the product is negative. Other lanes are those of `base`. */
export function sse_fma(cpu: u32, signs: u32, wide: u32, lanes: u32, a: v128, b: v128, c: v128, base: v128): v128 {
  const w = wide != 0;
  begin(cpu);
  v128.store(cpu + X, a);
  v128.store(cpu + Y, b);
  v128.store(cpu + Z, c);
  v128.store(cpu + R, base);
  for (let i: u32 = 0; i < 4; i++) {
    if (!((lanes >> i) & 1)) continue;
    const at = w ? i << 3 : i << 2;
    const x = operand(lane(cpu + X + at, w), w), y = operand(lane(cpu + Y + at, w), w), z = operand(lane(cpu + Z + at, w), w);
    let r: u64;
    if (isNaN(x, w) || isNaN(y, w) || isNaN(z, w)) r = propagate(x, y, z, w);
    else {
      const before = flags;
      clear();
      const turned = (signs >> (i & 1)) & 1 ? z ^ signBit(w) : z;
      r = compute(x, y, turned, (signs & 4) != 0, w);
      // An invalid operation comes before denormal operands.
      if (!(flags & IE)) {
        signalDenormals(x, y, w);
        signalDenormals(z, z, w);
      }
      signal(before);
    }
    if (w) store<u64>(cpu + R + at, r);
    else store<u32>(cpu + R + at, <u32>r);
  }
  finish(cpu);
  return v128.load(cpu + R);
}
@inline
function lane(at: u32, wide: bool): u64 {
  return wide ? load<u64>(at) : load<u32>(at);
}

/** Does Wasm's relaxed multiply-add round once on this host? (1 + 2^-30)^2 - (1 + 2^-29) is 2^-60, or 0 after rounding the product. */
export function fuses(): bool {
  const x = f64x2.splat(1.0 + Math.pow(2, -30));
  return f64x2.extract_lane(f64x2.relaxed_madd(x, x, f64x2.splat(-1.0 - Math.pow(2, -29))), 0) != 0;
}
