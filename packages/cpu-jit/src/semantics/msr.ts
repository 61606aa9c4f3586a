import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import {
  EXIT_MSR_READ,
  EXIT_MSR_WRITE,
  FS,
  GS,
  INTERCEPT_MSR,
  INTERCEPT_SENSITIVE,
  S_KERNEL_GS_BASE,
  S_SEG,
  SEG_BASE,
  SEG_STRIDE,
  V_INTERCEPTS,
  V_LEVELS,
} from '../layout.ts';
import { RAX, RCX, RDX, VECTOR } from './common.ts';
import { CR4, requireCpl0, requireCr4, unlessNative } from './privilege.ts';

const FS_BASE = S_SEG + FS * SEG_STRIDE + SEG_BASE;
const GS_BASE = S_SEG + GS * SEG_STRIDE + SEG_BASE;
/** MSRs the CPU serves itself while MSRs are not intercepted, from MSR_FS_BASE = C000_0100h on: the ones of every context switch. */
const SERVED = [FS_BASE, GS_BASE, S_KERNEL_GS_BASE];
const MSR_FS_BASE = 0xc000_0100;

/** Index of the MSR in ECX among those served, i32; unsigned above 2 for others. */
function servedIndex(e: Emitter): Val {
  return e.let(e.sub(e.reg(RCX, 4), e.i32(MSR_FS_BASE)));
}
function whenServed(e: Emitter, index: Val, f: () => void): void {
  const free = e.eqz(e.and(e.state(V_INTERCEPTS, 4), e.i32(INTERCEPT_MSR)));
  e.if(e.and(free, e.ltU(index, e.i32(SERVED.length))), f);
}

/** #GP(0) unless the address is canonical for the paging in use: sign-extended from bit 47, or 56 with five levels. */
function requireCanonical(e: Emitter, address: Val): void {
  const spare = e.let(e.select(e.eq(e.state(V_LEVELS, 4), e.i32(5)), e.i64(7), e.i64(16)));
  e.if(e.ne(e.shrS(e.shl(address, spare), spare), address), () => e.raise(VECTOR.GP, 0));
}

/** RDMSR: index in ECX, value to EDX:EAX. */
function rdmsr(e: Emitter): void {
  requireCpl0(e, 0);
  const index = servedIndex(e);
  const value = e.variable(e.i64(0));
  const served = e.variable(e.i32(0));
  whenServed(e, index, () => {
    served.set(e.i32(1));
    for (const [i, field] of SERVED.entries()) e.if(e.eq(index, e.i32(i)), () => value.set(e.state(field, 8)));
  });
  e.if(e.eqz(served.get()), () => {
    unlessNative(e, EXIT_MSR_READ);
    e.transfer('sys_rdmsr', []);
  });
  const v = value.get();
  e.setReg(RAX, 4, e.let(e.wrap(v)));
  e.setReg(RDX, 4, e.let(e.wrap(e.shrU(v, e.i64(32)))));
}
/** WRMSR: index in ECX, value from EDX:EAX. */
function wrmsr(e: Emitter): void {
  requireCpl0(e, 0);
  const index = servedIndex(e);
  const value = e.let(e.or(e.shl(e.zext64(e.reg(RDX, 4)), e.i64(32)), e.zext64(e.reg(RAX, 4))));
  whenServed(e, index, () => {
    requireCanonical(e, value);
    for (const [i, field] of SERVED.entries()) e.if(e.eq(index, e.i32(i)), () => e.setState(field, 8, value));
    e.endBlock();
  });
  unlessNative(e, EXIT_MSR_WRITE);
  e.transfer('sys_wrmsr', []);
}

/** RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE. */
function readBase(field: number): Semantics {
  return (e) => {
    requireCr4(e, CR4.FSGSBASE);
    const base = e.state(field, 8);
    e.write(0, e.size(0) === 8 ? base : e.let(e.wrap(base)));
  };
}
function writeBase(field: number): Semantics {
  return (e) => {
    requireCr4(e, CR4.FSGSBASE);
    const base = e.let(e.zext64(e.read(0)));
    if (e.size(0) === 8) requireCanonical(e, base);
    e.setState(field, 8, base);
  };
}

function swapgs(e: Emitter): void {
  requireCpl0(e, INTERCEPT_SENSITIVE);
  const base = e.state(GS_BASE, 8);
  const other = e.state(S_KERNEL_GS_BASE, 8);
  e.setState(GS_BASE, 8, other);
  e.setState(S_KERNEL_GS_BASE, 8, base);
}

/** Model-specific registers and segment bases (SDM vol. 2, by mnemonic). */
export const msrs: Record<string, Semantics> = {
  rdmsr,
  wrmsr,
  rdfsbase: readBase(FS_BASE),
  rdgsbase: readBase(GS_BASE),
  wrfsbase: writeBase(FS_BASE),
  wrgsbase: writeBase(GS_BASE),
  swapgs,
};
