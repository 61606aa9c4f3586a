/**
 * The x87 unit as the runtime exports it: one helper an instruction or family, all named `fx_*`, all with the address of
 * the vCPU state block first. None touches guest memory (x87-env.ts does); memory operands come and go as values, so that
 * generated code can make its access between "compute" and "commit" and a fault leaves the unit as it was.
 */
import { S_X87_CW, S_X87_FDP, S_X87_FIP, S_X87_FOP, S_X87_SW, S_X87_TAGS, S_X87_TOP } from '../src/layout';
import { addSub, div, mul, squareRoot } from './x87-arith';
import { fromFloat32, fromFloat64, fromInteger, wasDenormal } from './x87-convert';
import {
  at, BEFORE, begin, C0, C1, C2, C3, clearFlags, cw, DE, end, endPut, fl, flag, IE, isEmpty, isNaN80, mOf, pop, put, putSt,
  setCodes, setIndefinite, setUnderflow, setZ, SF, sOf, summarize, topOf, ZE, zM, zS,
} from './x87-core';
import {
  classify, compare, exponentM, exponentS, extract, remainder, remainderCodes, remainderIsNone, roundToIntegral, scale, UNORDERED,
} from './x87-misc';

export { fx_ldenv, fx_opcode, fx_rstor, fx_save, fx_stenv } from './x87-env';
export { fx_cos, fx_f2xm1, fx_patan, fx_ptan, fx_sin, fx_sincos, fx_yl2x, fx_yl2xp1 } from './x87-functions';
export {
  fx_commit, fx_ld_bcd, fx_ld_const, fx_ld_f32, fx_ld_f64, fx_ld_f80, fx_ld_int, fx_ld_st, fx_st_bcd, fx_st_f32, fx_st_f64,
  fx_st_f80, fx_st_int,
} from './x87-transfer';

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
  let codes: u32 = 0, none = true;
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) setUnderflow();
  else {
    remainder(sOf(a), mOf(a), sOf(b), mOf(b), nearest != 0);
    codes = remainderCodes;
    none = remainderIsNone;
  }
  endPut(cpu, 0, 0);
  if (none) setCodes(cpu, C2, 0);
  else if ((fl & BEFORE & ~cw) == 0) setCodes(cpu, C0 | C1 | C2 | C3, codes);
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

/** FABS (`and` 0x7fff, `xor` 0) and FCHS (0xffff, 0x8000): the sign of ST(0). */
export function fx_sign(cpu: u32, and: u32, xor: u32): void {
  begin(cpu);
  const a = at(cpu, 0);
  if (isEmpty(cpu, 0)) setUnderflow();
  else setZ((sOf(a) & and) ^ xor, mOf(a));
  endPut(cpu, 0, 0);
}

// ------------------------------------------------------------------ comparing
/** The operation clears C1 for a stack underflow only. The manual has FCOMI clear it always; silicon does not. */
function keepC1(cpu: u32): void {
  if (!(fl & SF)) flag(load<u32>(cpu, S_X87_SW) & C1);
}
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
  const result = compareSt(cpu, i, quiet);
  keepC1(cpu);
  return compareEnd(cpu, result, pops);
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

// ------------------------------------------------------------------ register moves and control
/** FST/FSTP ST(i). */
export function fx_st_st(cpu: u32, i: u32, pops: u32): void {
  begin(cpu);
  const a = at(cpu, 0);
  if (isEmpty(cpu, 0)) setUnderflow();
  else setZ(sOf(a), mOf(a));
  endPut(cpu, i, pops);
}
/** D9 D8+i, not documented: FSTP that raises nothing; of an empty register it only pops. */
export function fx_st_unchecked(cpu: u32, i: u32): void {
  const a = at(cpu, 0);
  setCodes(cpu, C1, 0);
  if (!isEmpty(cpu, 0)) putSt(cpu, i, sOf(a), mOf(a));
  pop(cpu);
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
  keepC1(cpu);
  endPut(cpu, 0, 0);
}
/** FINCSTP (1), FDECSTP (7). */
export function fx_rotate(cpu: u32, by: u32): void {
  store<u32>(cpu, (topOf(cpu) + by) & 7, S_X87_TOP);
  setCodes(cpu, C1, 0);
}
/** FFREE, FFREEP (`pops` 1). C1, which the manual leaves undefined, becomes 0. */
export function fx_free(cpu: u32, i: u32, pops: u32): void {
  setCodes(cpu, C1, 0);
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
