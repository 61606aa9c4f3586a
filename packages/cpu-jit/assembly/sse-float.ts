/**
 * SSE floating-point instructions under an MXCSR other than the default: exception flags that are noted, other rounding,
 * flush-to-zero, denormals-are-zero or unmasked exceptions. Each takes and returns whole vectors and works on the lanes whose bits are set in `lanes`; the others
 * are the first operand's. An unmasked exception sets S_EXC; then the result is not to be used.
 */
import { MXCSR_DEFAULT, S_CR4, S_EXC, S_EXC_ERROR, S_MXCSR, S_SCRATCH, S_SOFT_HALF } from '../src/layout';
import {
  DE, IE, MASK_SHIFT, PE, ZE, addFinite, begin, clear, controls, divideFinite, flags, indefinite, infinity, isDenormal, isInfinite, isNaN, isSignaling,
  isZero, magnitude, multiplyFinite, operand, quietBit, rootFinite, round, roundingControl, signBit, signal, unpack, unpackedExponent,
} from './sse-round';

const XM: u32 = 19;
const UD: u32 = 6;
/** Exceptions found before computing; all of them. */
const BEFORE: u32 = IE | DE | ZE;
const ALL: u32 = 63;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const A: u32 = S_SCRATCH;
const B: u32 = S_SCRATCH + 16;
const R: u32 = S_SCRATCH + 32;

/** Operations of `sse_arith`. */
const ADD: u32 = 0;
const SUB: u32 = 1;
const MUL: u32 = 2;
const DIV: u32 = 3;
const SQRT: u32 = 4;
const MIN: u32 = 5;
const MAX: u32 = 6;
/** Subtracts in even lanes, adds in odd ones. */
const ADDSUB: u32 = 7;

@inline
function get(base: u32, i: u32, wide: bool): u64 {
  return wide ? load<u64>(base + (i << 3)) : load<u32>(base + (i << 2));
}
@inline
function put(base: u32, i: u32, wide: bool, value: u64): void {
  if (wide) store<u64>(base + (i << 3), value);
  else store<u32>(base + (i << 2), <u32>value);
}
function start(cpu: u32, a: v128, b: v128): void {
  begin(cpu);
  v128.store(cpu + A, a);
  v128.store(cpu + B, b);
  v128.store(cpu + R, a);
}
/** Exceptions of the low half of a 256-bit instruction. */
let held: u32 = 0;
/** Makes the exceptions sticky; raises #XM when one is unmasked. Those of a low half wait for the high half. */
export function finish(cpu: u32): void {
  const half = load<u32>(cpu, S_SOFT_HALF);
  if (half) {
    store<u32>(cpu, 0, S_SOFT_HALF);
    if (half == 1) {
      held = flags;
      return;
    }
    signal(held);
  }
  // See mxcsr.ts.
  if (controls() == MXCSR_DEFAULT) return;
  const unmasked = ~(controls() >> MASK_SHIFT) & ALL;
  // What is found before computing, if unmasked, keeps any lane from being computed.
  const signalled = flags & unmasked & BEFORE ? flags & BEFORE : flags;
  store<u32>(cpu, controls() | signalled, S_MXCSR);
  if (!(signalled & unmasked)) return;
  store<u32>(cpu, (load<u64>(cpu, S_CR4) & CR4_OSXMMEXCPT ? XM : UD) + 1, S_EXC);
  store<u32>(cpu, 0, S_EXC_ERROR);
}
function result(cpu: u32): v128 {
  finish(cpu);
  return v128.load(cpu + R);
}

/** First NaN of two operands, quieted; a signalling one is an invalid operation. */
function propagate(a: u64, b: u64, wide: bool): u64 {
  if (isSignaling(a, wide) || isSignaling(b, wide)) signal(IE);
  return (isNaN(a, wide) ? a : b) | quietBit(wide);
}
export function invalid(wide: bool): u64 {
  signal(IE);
  return indefinite(wide);
}

function add(a: u64, b: u64, wide: bool): u64 {
  const s = signBit(wide);
  if (isInfinite(a, wide)) return isInfinite(b, wide) && a != b ? invalid(wide) : a;
  if (isInfinite(b, wide)) return b;
  if (isZero(a, wide) && isZero(b, wide)) return a == b ? a : roundingControl() == 1 ? s : 0;
  // A finite number stays itself, but may be tiny: it goes through rounding for the sake of FTZ.
  if (isZero(a, wide)) return againRounded(b, wide);
  return isZero(b, wide) ? againRounded(a, wide) : addFinite(a, b, wide);
}
export function againRounded(x: u64, wide: bool): u64 {
  const m = unpack(x, wide);
  return round((x & signBit(wide)) != 0, unpackedExponent, m, false, wide);
}
function multiply(a: u64, b: u64, wide: bool): u64 {
  const sign = (a ^ b) & signBit(wide);
  if (isInfinite(a, wide) || isInfinite(b, wide)) return isZero(a, wide) || isZero(b, wide) ? invalid(wide) : sign | infinity(wide);
  return isZero(a, wide) || isZero(b, wide) ? sign : multiplyFinite(a, b, wide);
}
function divide(a: u64, b: u64, wide: bool): u64 {
  const sign = (a ^ b) & signBit(wide);
  if (isInfinite(a, wide)) return isInfinite(b, wide) ? invalid(wide) : sign | infinity(wide);
  if (isInfinite(b, wide)) return sign;
  if (isZero(b, wide)) {
    if (isZero(a, wide)) return invalid(wide);
    signal(ZE);
    return sign | infinity(wide);
  }
  return isZero(a, wide) ? sign : divideFinite(a, b, wide);
}
function root(x: u64, wide: bool): u64 {
  if (isZero(x, wide)) return x;
  if (x & signBit(wide)) return invalid(wide);
  return isInfinite(x, wide) ? x : rootFinite(x, wide);
}

/** Total order of numbers that are not NaN, both zeros equal: negative, 0, positive. */
function order(a: u64, b: u64, wide: bool): i32 {
  if (isZero(a, wide) && isZero(b, wide)) return 0;
  const s = signBit(wide);
  const x = a & s ? -<i64>magnitude(a, wide) : <i64>magnitude(a, wide);
  const y = b & s ? -<i64>magnitude(b, wide) : <i64>magnitude(b, wide);
  return x < y ? -1 : x > y ? 1 : 0;
}
/** MIN and MAX return the second operand when one is NaN or both are equal. */
function extreme(a: u64, b: u64, wide: bool, largest: bool): u64 {
  if (isNaN(a, wide) || isNaN(b, wide)) {
    signal(IE);
    return b;
  }
  const o = order(a, b, wide);
  return (largest ? o > 0 : o < 0) ? a : b;
}

function lane(op: u32, rawA: u64, rawB: u64, wide: bool): u64 {
  const a = operand(rawA, wide);
  const b = operand(rawB, wide);
  if (op >= MIN) {
    if (!isNaN(a, wide) && !isNaN(b, wide)) signalDenormals(a, b, wide);
    return extreme(a, b, wide, op == MAX);
  }
  const first = op == SQRT ? b : a;
  if (isNaN(first, wide) || isNaN(b, wide)) return propagate(first, b, wide);
  const before = flags;
  clear();
  let r: u64;
  switch (op) {
    case ADD: r = add(a, b, wide); break;
    case SUB: r = add(a, b ^ signBit(wide), wide); break;
    case MUL: r = multiply(a, b, wide); break;
    case DIV: r = divide(a, b, wide); break;
    default: r = root(b, wide);
  }
  // Invalid operations and divisions by zero come before denormal operands.
  if (!(flags & (IE | ZE))) signalDenormals(first, b, wide);
  signal(before);
  return r;
}
export function signalDenormals(a: u64, b: u64, wide: bool): void {
  if (isDenormal(a, wide) || isDenormal(b, wide)) signal(DE);
}

/** ADD..ADDSUB; SQRT takes `b`. */
export function sse_arith(cpu: u32, op: u32, wide: u32, lanes: u32, a: v128, b: v128): v128 {
  const w = wide != 0;
  start(cpu, a, b);
  for (let i: u32 = 0; i < 4; i++) {
    if ((lanes >> i) & 1) put(cpu + R, i, w, lane(op != ADDSUB ? op : i & 1 ? ADD : SUB, get(cpu + A, i, w), get(cpu + B, i, w), w));
  }
  return result(cpu);
}

/** For each predicate 0..15 the relations that satisfy it: less 1, equal 2, greater 4, unordered 8 (SDM vol. 2, table 3-1). */
const RELATIONS: u64 = 0xf465_0b9a_7ced_8312;

/** CMPx with predicate 0..31: lanes of ones or zeros. */
export function sse_compare(cpu: u32, predicate: u32, wide: u32, lanes: u32, a: v128, b: v128): v128 {
  const w = wide != 0;
  start(cpu, a, b);
  for (let i: u32 = 0; i < 4; i++) {
    if (!((lanes >> i) & 1)) continue;
    const x = operand(get(cpu + A, i, w), w), y = operand(get(cpu + B, i, w), w);
    let relation: u64 = 8;
    if (isNaN(x, w) || isNaN(y, w)) {
      // Quiet NaNs are invalid to the predicates of ordering, and from 16 on to the others.
      const ordering = (predicate & 3) == 1 || (predicate & 3) == 2;
      if (ordering == predicate < 16 || isSignaling(x, w) || isSignaling(y, w)) signal(IE);
    } else {
      signalDenormals(x, y, w);
      const o = order(x, y, w);
      relation = o < 0 ? 1 : o > 0 ? 4 : 2;
    }
    const satisfying = RELATIONS >> ((predicate & 15) << 2);
    put(cpu + R, i, w, satisfying & relation ? -1 : 0);
  }
  return result(cpu);
}

/** COMISx (`ordered` 1: a quiet NaN is invalid too) and UCOMISx: bit 0 a >= b, bit 1 a <= b. */
export function sse_comis(cpu: u32, ordered: u32, wide: u32, a: v128, b: v128): u32 {
  const w = wide != 0;
  start(cpu, a, b);
  const x = operand(get(cpu + A, 0, w), w), y = operand(get(cpu + B, 0, w), w);
  let relation: u32 = 0;
  if (isNaN(x, w) || isNaN(y, w)) {
    if (ordered || isSignaling(x, w) || isSignaling(y, w)) signal(IE);
  } else {
    signalDenormals(x, y, w);
    const o = order(x, y, w);
    relation = (o >= 0 ? 1 : 0) | (o <= 0 ? 2 : 0);
  }
  finish(cpu);
  return relation;
}

// ------------------------------------------------------------------ conversions
/** Double to single (the lowest `count`, packed low; the lanes above are zero). */
export function sse_narrow(cpu: u32, count: u32, a: v128): v128 {
  start(cpu, i32x4.splat(0), a);
  for (let i: u32 = 0; i < count; i++) {
    const x = operand(get(cpu + B, i, true), true);
    const sign = <u32>(x >> 32) & 0x8000_0000;
    let r: u32;
    if (isNaN(x, true)) {
      if (isSignaling(x, true)) signal(IE);
      r = sign | 0x7fc0_0000 | (<u32>(x >> 29) & 0x3f_ffff);
    } else if (isInfinite(x, true)) r = sign | 0x7f80_0000;
    else if (isZero(x, true)) r = sign;
    else {
      if (isDenormal(x, true)) signal(DE);
      const m = unpack(x, true);
      r = <u32>round(sign != 0, unpackedExponent, m, false, false);
    }
    put(cpu + R, i, false, r);
  }
  return result(cpu);
}
/** Single to double (the lowest `count`). */
export function sse_widen(cpu: u32, count: u32, a: v128): v128 {
  start(cpu, i32x4.splat(0), a);
  for (let i: u32 = 0; i < count; i++) {
    const x = operand(get(cpu + B, i, false), false);
    if (isSignaling(x, false)) signal(IE);
    if (isDenormal(x, false)) signal(DE);
    put(cpu + R, i, true, reinterpret<u64>(<f64>reinterpret<f32>(<u32>x)));
  }
  return result(cpu);
}

function fromInteger(x: i64, wide: bool): u64 {
  if (!x) return 0;
  const m = <u64>(x < 0 ? -x : x);
  const shift = <i32>clz(m);
  return round(x < 0, 63 - shift, m << shift, false, wide);
}
/** CVTSI2Sx: the low lane. */
export function sse_from_integer(cpu: u32, wide: u32, x: i64): v128 {
  start(cpu, i32x4.splat(0), i32x4.splat(0));
  put(cpu + R, 0, wide != 0, fromInteger(x, wide != 0));
  return result(cpu);
}
/** CVTDQ2PS, CVTPI2PS: the lowest `count` doublewords. */
export function sse_from_dwords(cpu: u32, count: u32, a: v128): v128 {
  start(cpu, i32x4.splat(0), a);
  for (let i: u32 = 0; i < count; i++) put(cpu + R, i, false, fromInteger(<i64>load<i32>(cpu + B + (i << 2)), false));
  return result(cpu);
}

/** Magnitude of a finite, non-zero lane rounded to an integer; bit 63 is set on overflow. `inexact` tells whether bits were lost. */
let inexact: bool = false;
function integral(x: u64, wide: bool, rc: u32): u64 {
  const m = unpack(x, wide);
  const sign = (x & signBit(wide)) != 0;
  const e = unpackedExponent;
  inexact = false;
  if (e >= 63) return <u64>1 << 63;
  let kept: u64 = 0, low = m, half: u64 = <u64>1 << 63;
  if (e >= 0) {
    kept = m >> (63 - e);
    low = m & ((<u64>1 << (63 - e)) - 1);
    half = <u64>1 << (62 - e);
  } else if (e < -1) {
    low = 1;
  }
  inexact = low != 0;
  const up = rc == 0 ? low > half || (low == half && (kept & 1) != 0) : inexact && (rc == 1 ? sign : rc == 2 ? !sign : false);
  return kept + <u64>up;
}
function toInteger(x: u64, wide: bool, limit: u64, rc: u32): i64 {
  if (isZero(x, wide)) return 0;
  const negative = (x & signBit(wide)) != 0;
  if (!isNaN(x, wide) && !isInfinite(x, wide)) {
    const m = integral(x, wide, rc);
    if (m < limit || (negative && m == limit && !(unpackedExponent >= 63 && !isPowerOfTwo(x, wide)))) {
      if (inexact) signal(PE);
      return negative ? -<i64>m : <i64>m;
    }
  }
  signal(IE);
  return -<i64>limit;
}
/** Of a magnitude of 2^63 or more: whether it is 2^63 itself. */
function isPowerOfTwo(x: u64, wide: bool): bool {
  return unpack(x, wide) == <u64>1 << 63 && unpackedExponent == 63;
}
/** CVT(T)Sx2SI to `size` bytes. */
export function sse_to_integer(cpu: u32, wide: u32, size: u32, truncate: u32, a: v128): i64 {
  start(cpu, a, a);
  const r = toInteger(operand(get(cpu + A, 0, wide != 0), wide != 0), wide != 0, size == 8 ? <u64>1 << 63 : <u64>1 << 31, truncate ? 3 : roundingControl());
  finish(cpu);
  return r;
}
/** CVT(T)Px2DQ and PI: `count` doublewords, zero above. */
export function sse_to_dwords(cpu: u32, wide: u32, count: u32, truncate: u32, a: v128): v128 {
  start(cpu, i32x4.splat(0), a);
  const rc = truncate ? 3 : roundingControl();
  for (let i: u32 = 0; i < count; i++) {
    put(cpu + R, i, false, <u32>toInteger(operand(get(cpu + B, i, wide != 0), wide != 0), wide != 0, <u64>1 << 31, rc));
  }
  return result(cpu);
}

/** ROUNDx of `b`: imm[2] rounding as MXCSR says, else imm[1:0]; imm[3] no precision exception. */
export function sse_round(cpu: u32, imm: u32, wide: u32, lanes: u32, a: v128, b: v128): v128 {
  const w = wide != 0;
  start(cpu, a, b);
  const rc = imm & 4 ? roundingControl() : imm & 3;
  for (let i: u32 = 0; i < 4; i++) {
    if (!((lanes >> i) & 1)) continue;
    let x = operand(get(cpu + B, i, w), w);
    if (isNaN(x, w)) x = propagate(x, x, w);
    else if (!isZero(x, w) && !isInfinite(x, w)) {
      const m = integral(x, w, rc);
      // From 2^63 on every number is integral already.
      if (unpackedExponent < 63) {
        if (inexact && !(imm & 8)) signal(PE);
        const sign = x & signBit(w);
        const r = w ? reinterpret<u64>(<f64>m) : <u64>reinterpret<u32>(<f32>m);
        x = sign | r;
      }
    }
    put(cpu + R, i, w, x);
  }
  return result(cpu);
}
