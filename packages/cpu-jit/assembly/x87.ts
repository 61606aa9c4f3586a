/**
 * The x87 unit as the runtime exports it: one helper an instruction or family, all named `fx_*`, all with the address of
 * the vCPU state block first. None touches guest memory (x87-env.ts does); memory operands come and go as values, so that
 * generated code can make its access between "compute" and "commit" and a fault leaves the unit as it was.
 */
import { S_SCRATCH, S_X87, S_X87_CW, S_X87_FDP, S_X87_FIP, S_X87_FOP, S_X87_SW, S_X87_TAGS, S_X87_TOP } from '../src/layout';
import { addSub, div, mul, squareRoot } from './x87-arith';
import {
  fromBcd, fromFloat32, fromFloat64, fromInteger, bcdHigh, toBcd, toFloat, toInteger, wasDenormal, BLOCKED,
} from './x87-convert';
import {
  BEFORE, C0, C1, C2, C3, DE, ES_B, IE, OE, SF, UE, ZE, at, begin, clearFlags, cw, end, endPush, endPut, fl, flag, isEmpty, isNaN80,
  isSignaling, mOf, pop, push, put, putSt, record, sOf, setCodes, setIndefinite, setUnderflow, setZ, summarize, topOf, zM, zS,
  INTEGER_BIT, QUIET_BIT,
} from './x87-core';
import { exp2Minus1, yLog2x, yLog2xPlus1 } from './x87-log';
import { arctangent2, cosM, cosS, outOfRange, sinCos, sineCosine, tangent } from './x87-trig';
import {
  UNORDERED, classify, compare, constant, exponentM, exponentS, extract, remainder, remainderCodes, roundToIntegral, scale,
} from './x87-misc';

export { fx_ldenv, fx_rstor, fx_save, fx_stenv } from './x87-env';

// ------------------------------------------------------------------ arithmetic
/** Operations by their number in the opcode: 0 add, 1 mul, 4 sub, 5 subr, 6 div, 7 divr. */
function arith(op: u32, aS: u32, aM: u64, bS: u32, bM: u64): void {
  switch (op) {
    case 0: addSub(aS, aM, bS, bM, 0); break;
    case 1: mul(aS, aM, bS, bM); break;
    case 4: addSub(aS, aM, bS, bM, 1); break;
    case 5: addSub(bS, bM, aS, aM, 1); break;
    case 6: div(aS, aM, bS, bM); break;
    default: div(bS, bM, aS, aM); break;
  }
}

/** ST(d) = ST(d) op ST(s), then `pops` pops. `op`: 0 add, 1 mul, 4 sub (d - s), 5 subr (s - d), 6 div, 7 divr. */
export function fx_arith(cpu: u32, op: u32, d: u32, s: u32, pops: u32): void {
  begin(cpu);
  if (isEmpty(cpu, d) || isEmpty(cpu, s)) setUnderflow();
  else {
    const a = at(cpu, d), b = at(cpu, s);
    arith(op, sOf(a), mOf(a), sOf(b), mOf(b));
  }
  endPut(cpu, d, pops);
}

/** ST(0) = ST(0) op z, where z was expanded from memory. */
function arithZ(cpu: u32, op: u32, denormal: bool): void {
  if (isEmpty(cpu, 0)) setUnderflow();
  else {
    const a = at(cpu, 0);
    arith(op, sOf(a), mOf(a), zS, zM);
    if (denormal && !isNaN80(zS, zM) && (fl & ZE) == 0) {
      flag(DE);
      if ((cw & DE) == 0) clearFlags(~DE);
    }
  }
  endPut(cpu, 0, 0);
}
export function fx_arith_f32(cpu: u32, op: u32, bits: u32): void {
  begin(cpu);
  fromFloat32(bits);
  arithZ(cpu, op, wasDenormal);
}
export function fx_arith_f64(cpu: u32, op: u32, bits: u64): void {
  begin(cpu);
  fromFloat64(bits);
  arithZ(cpu, op, wasDenormal);
}
/** Integer operand, sign-extended. */
export function fx_arith_int(cpu: u32, op: u32, value: i32): void {
  begin(cpu);
  fromInteger(value);
  arithZ(cpu, op, false);
}

/** FSQRT, FRNDINT. */
export function fx_sqrt(cpu: u32): void {
  begin(cpu);
  const a = at(cpu, 0);
  if (isEmpty(cpu, 0)) setUnderflow();
  else squareRoot(sOf(a), mOf(a));
  endPut(cpu, 0, 0);
}
export function fx_rndint(cpu: u32): void {
  begin(cpu);
  const a = at(cpu, 0);
  if (isEmpty(cpu, 0)) setUnderflow();
  else roundToIntegral(sOf(a), mOf(a));
  endPut(cpu, 0, 0);
}
/** FSCALE: ST(0) * 2^trunc(ST(1)). */
export function fx_scale(cpu: u32): void {
  begin(cpu);
  const a = at(cpu, 0), b = at(cpu, 1);
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) setUnderflow();
  else scale(sOf(a), mOf(a), sOf(b), mOf(b));
  endPut(cpu, 0, 0);
}
/** FPREM (`nearest` 0) and FPREM1 (1). */
export function fx_rem(cpu: u32, nearest: u32): void {
  begin(cpu);
  const a = at(cpu, 0), b = at(cpu, 1);
  let codes: u32 = 0;
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) setUnderflow();
  else {
    remainder(sOf(a), mOf(a), sOf(b), mOf(b), nearest != 0);
    codes = remainderCodes;
  }
  endPut(cpu, 0, 0);
  if ((fl & BEFORE & ~cw) == 0) setCodes(cpu, C0 | C1 | C2 | C3, codes);
}
/** FXTRACT: ST(0) becomes the exponent, then the significand is pushed. */
export function fx_xtract(cpu: u32): void {
  begin(cpu);
  const a = at(cpu, 0);
  if (isEmpty(cpu, 0)) {
    setUnderflow();
    if (end(cpu)) return;
    putSt(cpu, 0, zS, zM);
    store<u32>(cpu, (topOf(cpu) + 7) & 7, S_X87_TOP);
    putSt(cpu, 0, zS, zM);
    return;
  }
  if (!isEmpty(cpu, 7)) {
    flag(IE | SF | C1);
    setIndefinite();
    if (end(cpu)) return;
    putSt(cpu, 0, zS, zM);
  } else {
    extract(sOf(a), mOf(a));
    if (end(cpu) & BEFORE) return;
    putSt(cpu, 0, exponentS, exponentM);
  }
  store<u32>(cpu, (topOf(cpu) + 7) & 7, S_X87_TOP);
  putSt(cpu, 0, zS, zM);
}

// ------------------------------------------------------------------ transcendental
/** F2XM1. */
export function fx_f2xm1(cpu: u32): void {
  begin(cpu);
  const a = at(cpu, 0);
  if (isEmpty(cpu, 0)) setUnderflow();
  else exp2Minus1(sOf(a), mOf(a));
  endPut(cpu, 0, 0);
}
/** ST(1) = f(ST(1), ST(0)), then pop: FYL2X (0), FYL2XP1 (1), FPATAN (2). */
@inline function binary(cpu: u32, which: u32): void {
  begin(cpu);
  const x = at(cpu, 0), y = at(cpu, 1);
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) setUnderflow();
  else if (which == 0) yLog2x(sOf(y), mOf(y), sOf(x), mOf(x));
  else if (which == 1) yLog2xPlus1(sOf(y), mOf(y), sOf(x), mOf(x));
  else arctangent2(sOf(y), mOf(y), sOf(x), mOf(x));
  endPut(cpu, 1, 1);
}
export function fx_yl2x(cpu: u32): void { binary(cpu, 0); }
export function fx_yl2xp1(cpu: u32): void { binary(cpu, 1); }
export function fx_patan(cpu: u32): void { binary(cpu, 2); }

/** FSIN (`shift` 0), FCOS (1). */
function trigonometric(cpu: u32, shift: u32): void {
  begin(cpu);
  const a = at(cpu, 0);
  let codes: u32 = 0;
  if (isEmpty(cpu, 0)) setUnderflow();
  else {
    sinCos(sOf(a), mOf(a), shift);
    if (outOfRange) codes = C2;
  }
  endPut(cpu, 0, 0);
  setCodes(cpu, C2, codes);
}
export function fx_sin(cpu: u32): void { trigonometric(cpu, 0); }
export function fx_cos(cpu: u32): void { trigonometric(cpu, 1); }

/** FSINCOS and FPTAN replace ST(0) by z and push a second result; both are indefinite after a stack fault. */
function pushSecond(cpu: u32, s: u32, m: u64): void {
  if (end(cpu) & BEFORE) return;
  putSt(cpu, 0, zS, zM);
  store<u32>(cpu, (topOf(cpu) + 7) & 7, S_X87_TOP);
  putSt(cpu, 0, s, m);
}
/** Stack faults of the two; true when there is one. */
function pairFault(cpu: u32): bool {
  if (isEmpty(cpu, 0)) setUnderflow();
  else if (!isEmpty(cpu, 7)) {
    setUnderflow();
    flag(C1);
  } else return false;
  pushSecond(cpu, zS, zM);
  return true;
}
export function fx_sincos(cpu: u32): void {
  begin(cpu);
  setCodes(cpu, C2, 0);
  if (pairFault(cpu)) return;
  const a = at(cpu, 0);
  sineCosine(sOf(a), mOf(a));
  if (outOfRange) {
    end(cpu);
    setCodes(cpu, C2, C2);
  } else if (isNaN80(zS, zM)) pushSecond(cpu, zS, zM);
  else pushSecond(cpu, cosS, cosM);
}
export function fx_ptan(cpu: u32): void {
  begin(cpu);
  setCodes(cpu, C2, 0);
  if (pairFault(cpu)) return;
  const a = at(cpu, 0);
  tangent(sOf(a), mOf(a));
  if (outOfRange) {
    end(cpu);
    setCodes(cpu, C2, C2);
  } else if (isNaN80(zS, zM)) pushSecond(cpu, zS, zM);
  else pushSecond(cpu, 0x3fff, INTEGER_BIT);
}

/** FABS (`and` 0x7fff, `xor` 0) and FCHS (0xffff, 0x8000): the sign of ST(0). */
export function fx_sign(cpu: u32, and: u32, xor: u32): void {
  begin(cpu);
  const a = at(cpu, 0);
  if (isEmpty(cpu, 0)) setUnderflow();
  else setZ((sOf(a) & and) ^ xor, mOf(a));
  endPut(cpu, 0, 0);
}

// ------------------------------------------------------------------ comparing
/** Exceptions and pops of a comparison; an unmasked exception prevents the pops, not the result. */
function compareEnd(cpu: u32, result: u32, pops: u32): u32 {
  if (end(cpu) & BEFORE) return result;
  for (; pops != 0; pops--) pop(cpu);
  return result;
}
function compareSt(cpu: u32, i: u32, quiet: u32): u32 {
  begin(cpu);
  if (isEmpty(cpu, 0) || isEmpty(cpu, i)) {
    flag(IE | SF);
    return UNORDERED;
  }
  const a = at(cpu, 0), b = at(cpu, i);
  return compare(sOf(a), mOf(a), sOf(b), mOf(b), quiet != 0);
}
@inline function setCompareCodes(cpu: u32, result: u32): void {
  setCodes(cpu, C0 | C2 | C3, result << 8);
}
/** FCOM, FCOMP, FCOMPP (`quiet` 0) and FUCOM... (1) with ST(i). */
export function fx_com(cpu: u32, i: u32, quiet: u32, pops: u32): void {
  setCompareCodes(cpu, compareEnd(cpu, compareSt(cpu, i, quiet), pops));
}
/** FCOMI, FUCOMI...: ZF, PF, CF at their EFLAGS positions. */
export function fx_comi(cpu: u32, i: u32, quiet: u32, pops: u32): u32 {
  return compareEnd(cpu, compareSt(cpu, i, quiet), pops);
}
function compareZ(cpu: u32, denormal: bool, pops: u32): void {
  let result = UNORDERED;
  if (isEmpty(cpu, 0)) flag(IE | SF);
  else {
    const a = at(cpu, 0);
    result = compare(sOf(a), mOf(a), zS, zM, false);
    if (denormal && result != UNORDERED) flag(DE);
  }
  setCompareCodes(cpu, compareEnd(cpu, result, pops));
}
export function fx_com_f32(cpu: u32, bits: u32, pops: u32): void {
  begin(cpu);
  fromFloat32(bits);
  compareZ(cpu, wasDenormal, pops);
}
export function fx_com_f64(cpu: u32, bits: u64, pops: u32): void {
  begin(cpu);
  fromFloat64(bits);
  compareZ(cpu, wasDenormal, pops);
}
export function fx_com_int(cpu: u32, value: i32, pops: u32): void {
  begin(cpu);
  fromInteger(value);
  compareZ(cpu, false, pops);
}
/** FTST. */
export function fx_tst(cpu: u32): void {
  begin(cpu);
  setZ(0, 0);
  compareZ(cpu, false, 0);
}
/** FXAM. */
export function fx_xam(cpu: u32): void {
  const a = at(cpu, 0);
  const kind = isEmpty(cpu, 0) ? C0 | C3 : classify(sOf(a), mOf(a));
  setCodes(cpu, C0 | C1 | C2 | C3, kind | ((sOf(a) >> 15) << 9));
}

// ------------------------------------------------------------------ loads
function loadZ(cpu: u32, denormal: bool): void {
  if (isSignaling(zS, zM)) {
    flag(IE);
    setZ(zS, zM | QUIET_BIT);
  }
  if (denormal) flag(DE);
  endPush(cpu, IE);
}
export function fx_ld_f32(cpu: u32, bits: u32): void {
  begin(cpu);
  fromFloat32(bits);
  loadZ(cpu, wasDenormal);
}
export function fx_ld_f64(cpu: u32, bits: u64): void {
  begin(cpu);
  fromFloat64(bits);
  loadZ(cpu, wasDenormal);
}
/** FLD m80: any bit pattern, no conversion. */
export function fx_ld_f80(cpu: u32, mantissa: u64, signExponent: u32): void {
  begin(cpu);
  setZ(signExponent & 0xffff, mantissa);
  endPush(cpu, BEFORE);
}
export function fx_ld_int(cpu: u32, value: i64): void {
  begin(cpu);
  fromInteger(value);
  endPush(cpu, BEFORE);
}
export function fx_ld_bcd(cpu: u32, low: u64, high: u32): void {
  begin(cpu);
  fromBcd(low, high);
  endPush(cpu, BEFORE);
}
export function fx_ld_st(cpu: u32, i: u32): void {
  begin(cpu);
  if (isEmpty(cpu, i)) {
    setUnderflow();
    push(cpu, BEFORE);
    return;
  }
  const a = at(cpu, i);
  setZ(sOf(a), mOf(a));
  endPush(cpu, BEFORE);
}
/** FLD1 0, FLDL2T 1, FLDL2E 2, FLDPI 3, FLDLG2 4, FLDLN2 5, FLDZ 6. */
export function fx_ld_const(cpu: u32, which: u32): void {
  begin(cpu);
  constant(which);
  endPush(cpu, BEFORE);
}

// ------------------------------------------------------------------ stores to memory
// Each leaves the value in S_SCRATCH and returns a status for `fx_commit`; negative: an unmasked exception, store nothing.
@inline function storeStatus(blocking: u32): u32 { return (fl & blocking & ~cw) != 0 ? fl | BLOCKED : fl; }

export function fx_st_f32(cpu: u32): u32 {
  begin(cpu);
  const a = at(cpu, 0);
  let bits: u64 = 0xffc0_0000;
  if (isEmpty(cpu, 0)) flag(IE | SF);
  else bits = toFloat(sOf(a), mOf(a), 24, 8);
  store<u64>(cpu, bits, S_SCRATCH);
  return storeStatus(IE | OE | UE);
}
export function fx_st_f64(cpu: u32): u32 {
  begin(cpu);
  const a = at(cpu, 0);
  let bits: u64 = 0xfff8_0000_0000_0000;
  if (isEmpty(cpu, 0)) flag(IE | SF);
  else bits = toFloat(sOf(a), mOf(a), 53, 11);
  store<u64>(cpu, bits, S_SCRATCH);
  return storeStatus(IE | OE | UE);
}
/** FSTP m80: mantissa in S_SCRATCH, sign and exponent at S_SCRATCH + 8. */
export function fx_st_f80(cpu: u32): u32 {
  begin(cpu);
  const a = at(cpu, 0);
  if (isEmpty(cpu, 0)) setUnderflow();
  else setZ(sOf(a), mOf(a));
  store<u64>(cpu, zM, S_SCRATCH);
  store<u64>(cpu, zS, S_SCRATCH + 8);
  return storeStatus(IE);
}
/** FIST(P), FISTTP (`truncate` 1) of 2, 4 or 8 bytes. */
export function fx_st_int(cpu: u32, size: u32, truncate: u32): u32 {
  begin(cpu);
  const a = at(cpu, 0);
  let value = <i64>(0 - (<u64>1 << ((size << 3) - 1)));
  if (isEmpty(cpu, 0)) flag(IE | SF);
  else value = toInteger(sOf(a), mOf(a), size, truncate != 0);
  store<u64>(cpu, value, S_SCRATCH);
  return storeStatus(IE);
}
/** FBSTP: 8 bytes in S_SCRATCH, 2 at S_SCRATCH + 8. */
export function fx_st_bcd(cpu: u32): u32 {
  begin(cpu);
  const a = at(cpu, 0);
  let low: u64 = 0xc000_0000_0000_0000;
  let high: u32 = 0xffff;
  if (isEmpty(cpu, 0)) flag(IE | SF);
  else {
    low = toBcd(sOf(a), mOf(a));
    high = bcdHigh;
  }
  store<u64>(cpu, low, S_SCRATCH);
  store<u64>(cpu, high, S_SCRATCH + 8);
  return storeStatus(IE);
}
/** Second half of a store: exceptions of the first half, then `pops` pops. */
export function fx_commit(cpu: u32, status: u32, pops: u32): void {
  record(cpu, status & ~BLOCKED);
  if (status & BLOCKED) return;
  for (; pops != 0; pops--) pop(cpu);
}

// ------------------------------------------------------------------ register moves and control
/** FST/FSTP ST(i). */
export function fx_st_st(cpu: u32, i: u32, pops: u32): void {
  begin(cpu);
  const a = at(cpu, 0);
  if (isEmpty(cpu, 0)) setUnderflow();
  else setZ(sOf(a), mOf(a));
  endPut(cpu, i, pops);
}
export function fx_xch(cpu: u32, i: u32): void {
  begin(cpu);
  const empty0 = isEmpty(cpu, 0), emptyI = isEmpty(cpu, i);
  if (empty0 || emptyI) {
    setUnderflow();
    if (end(cpu)) return;
    if (empty0) putSt(cpu, 0, zS, zM);
    if (emptyI) putSt(cpu, i, zS, zM);
  } else end(cpu);
  const a = at(cpu, 0), b = at(cpu, i);
  const s = sOf(a), m = mOf(a);
  put(a, sOf(b), mOf(b));
  put(b, s, m);
}
/** FCMOVcc whose condition holds (`taken` 1) or not: empty registers count either way. */
export function fx_cmov(cpu: u32, i: u32, taken: u32): void {
  begin(cpu);
  if (isEmpty(cpu, 0) || isEmpty(cpu, i)) setUnderflow();
  else {
    const a = at(cpu, taken != 0 ? i : 0);
    setZ(sOf(a), mOf(a));
  }
  endPut(cpu, 0, 0);
}
/** FINCSTP (1), FDECSTP (7). */
export function fx_rotate(cpu: u32, by: u32): void {
  store<u32>(cpu, (topOf(cpu) + by) & 7, S_X87_TOP);
  setCodes(cpu, C1, 0);
}
/** FFREE, FFREEP (`pops` 1). */
export function fx_free(cpu: u32, i: u32, pops: u32): void {
  store<u32>(cpu, load<u32>(cpu, S_X87_TAGS) & ~(1 << ((topOf(cpu) + i) & 7)), S_X87_TAGS);
  for (; pops != 0; pops--) pop(cpu);
}
/** FNINIT. */
export function fx_init(cpu: u32): void {
  store<u32>(cpu, 0x37f, S_X87_CW);
  store<u32>(cpu, 0, S_X87_SW);
  store<u32>(cpu, 0, S_X87_TOP);
  store<u32>(cpu, 0, S_X87_TAGS);
  store<u32>(cpu, 0, S_X87_FOP);
  store<u64>(cpu, 0, S_X87_FIP);
  store<u64>(cpu, 0, S_X87_FDP);
}
/** FNCLEX. */
export function fx_clex(cpu: u32): void {
  store<u32>(cpu, load<u32>(cpu, S_X87_SW) & 0x7f00, S_X87_SW);
}
/** Status word with TOP (FNSTSW). */
export function fx_sw(cpu: u32): u32 {
  return load<u32>(cpu, S_X87_SW) | (topOf(cpu) << 11);
}
/** FLDCW: newly unmasked pending exceptions take effect at the next waiting instruction. */
export function fx_ldcw(cpu: u32, value: u32): void {
  store<u32>(cpu, (value & 0x1f3f) | 0x40, S_X87_CW);
  summarize(cpu);
}
