/** VCVTPH2PS, VCVTPS2PH: single and half precision (1 sign, 5 exponent, 10 fraction bits; bias 15). */
import { S_SCRATCH } from '../src/layout';
import { finish } from './sse-float';
import { DE, IE, OE, PE, UE, begin, isMasked, isDenormal, isNaN, isSignaling, isZero, operand, roundingControl, signal, unpack, unpackedExponent } from './sse-round';

const A: u32 = S_SCRATCH;
const R: u32 = S_SCRATCH + 16;

/** Always exact; denormals are numbers whatever MXCSR.DAZ says. */
function widened(h: u32): u32 {
  const sign = (h & 0x8000) << 16;
  const fraction = h & 0x3ff;
  const exponent = (h >> 10) & 0x1f;
  if (exponent == 0x1f) {
    if (!fraction) return sign | 0x7f80_0000;
    if (!(fraction & 0x200)) signal(IE);
    return sign | 0x7fc0_0000 | (fraction << 13);
  }
  if (exponent) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (!fraction) return sign;
  const shift = clz(fraction) - 21;
  return sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13);
}
/** Four halves in the low (`from` 0) or high (1) quadword. */
export function f16c_widen(cpu: u32, from: u32, a: v128): v128 {
  begin(cpu);
  v128.store(cpu + A, a);
  for (let i: u32 = 0; i < 4; i++) store<u32>(cpu + R + (i << 2), widened(load<u16>(cpu + A + (from << 3) + (i << 1))));
  finish(cpu);
  return v128.load(cpu + R);
}

/** Whether `low`, of which `half` is the middle, rounds up under control `rc`. */
function roundsUp(sign: bool, odd: bool, low: u64, half: u64, rc: u32): bool {
  if (rc == 0) return low > half || (low == half && odd);
  return low != 0 && (rc == 1 ? sign : rc == 2 ? !sign : false);
}
/** MXCSR.FTZ does not apply. */
function narrowed(raw: u64, rc: u32): u32 {
  const x = operand(raw, false);
  const sign = <u32>(x >> 16) & 0x8000;
  if (isNaN(x, false)) {
    if (isSignaling(x, false)) signal(IE);
    return sign | 0x7e00 | (<u32>(x >> 13) & 0x1ff);
  }
  if (isZero(x, false)) return sign;
  if ((x & 0x7fff_ffff) == 0x7f80_0000) return sign | 0x7c00;
  if (isDenormal(x, false)) signal(DE);
  const m = unpack(x, false);
  const e = unpackedExponent;
  // Eleven significant bits, fewer below 2^-14.
  let drop: u64 = 53;
  let low = m & ((<u64>1 << drop) - 1);
  let kept = m >> drop;
  let exponent = e;
  if (roundsUp(sign != 0, (kept & 1) != 0, low, <u64>1 << (drop - 1), rc)) kept++;
  if (kept >> 11) {
    kept >>= 1;
    exponent++;
  }
  if (exponent >= -14) {
    if (exponent > 15) {
      signal(OE | PE);
      const toInfinity = rc == 0 || rc == (sign ? 1 : 2);
      return sign | (toInfinity ? 0x7c00 : 0x7bff);
    }
    if (low) signal(PE);
    return sign | ((exponent + 15) << 10) + (<u32>kept & 0x3ff);
  }
  drop += <u64>(-14 - e);
  if (drop > 64) {
    // Less than half of the least denormal.
    low = 1;
    kept = <u64>roundsUp(sign != 0, false, 1, 2, rc);
  } else {
    low = drop == 64 ? m : m & ((<u64>1 << drop) - 1);
    kept = drop == 64 ? 0 : m >> drop;
    if (roundsUp(sign != 0, (kept & 1) != 0, low, <u64>1 << (drop - 1), rc)) kept++;
  }
  if (low) signal(UE | PE);
  else if (!isMasked(UE)) signal(UE);
  return sign | <u32>kept;
}
/** Four singles to halves in the low quadword, zeros above; imm[2] rounding as MXCSR says, else imm[1:0]. */
export function f16c_narrow(cpu: u32, imm: u32, a: v128): v128 {
  begin(cpu);
  v128.store(cpu + A, a);
  const rc = imm & 4 ? roundingControl() : imm & 3;
  store<u64>(cpu, 0, R + 8);
  for (let i: u32 = 0; i < 4; i++) store<u16>(cpu + R + (i << 1), <u16>narrowed(load<u32>(cpu + A + (i << 2)), rc));
  finish(cpu);
  return v128.load(cpu + R);
}
