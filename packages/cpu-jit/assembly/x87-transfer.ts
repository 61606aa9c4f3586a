/** Loads, stores and constants: values between the register stack and memory operands or immediate patterns. */
import { S_SCRATCH } from '../src/layout';
import {
  bcdHigh, BLOCKED, fromBcd, fromFloat32, fromFloat64, fromInteger, toBcd, toFloat, toInteger, wasDenormal,
} from './x87-convert';
import {
  at, BEFORE, begin, cw, DE, endPush, fl, flag, IE, isEmpty, isSignaling, mOf, OE, pop, push, QUIET_BIT, record, setUnderflow,
  setZ, SF, sOf, UE, zM, zS,
} from './x87-core';
import { constant } from './x87-misc';

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
