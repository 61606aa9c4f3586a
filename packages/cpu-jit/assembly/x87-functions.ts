/** The transcendental instructions: stack, exceptions and C2 around the functions of x87-trig.ts and x87-log.ts. */
import { S_X87_TOP } from '../src/layout';
import {
  at, BEFORE, begin, C1, C2, end, endPut, flag, INTEGER_BIT, isEmpty, isNaN80, mOf, putSt, setCodes, setUnderflow, sOf, topOf,
  zM, zS,
} from './x87-core';
import { exp2Minus1, yLog2x, yLog2xPlus1 } from './x87-log';
import { arctangent2, cosM, cosS, outOfRange, sinCos, sineCosine, tangent } from './x87-trig';

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
