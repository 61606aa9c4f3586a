import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import {
  EXIT_CPUID,
  EXIT_EMULATE,
  EXIT_HLT,
  EXIT_PAUSE,
  EXIT_PRIVILEGED,
  EXIT_SOFT_INT,
  EXIT_SPIN,
  EXIT_VMCALL,
  INT_BREAKPOINT,
  INT_ICEBP,
  INT_N,
  INTERCEPT_CACHE,
  INTERCEPT_CPUID,
  INTERCEPT_CR,
  INTERCEPT_ENTRY,
  INTERCEPT_MONITOR,
  INTERCEPT_PRIVILEGED,
  INTERCEPT_RDPMC,
  INTERCEPT_RDTSC,
  INTERCEPT_RETURN,
  INTERCEPT_SENSITIVE,
  INTERCEPT_VMCALL,
  INTERCEPT_XSETBV,
  LDTR,
  S_CPL,
  S_CR0,
  S_CR4,
  S_EXIT_VA,
  S_GDTR,
  S_ICOUNT,
  S_IDTR,
  S_PKRU,
  S_SEG,
  S_TSC_AUX,
  S_XCR0,
  SEG_SELECTOR,
  SEG_STRIDE,
  TR,
  V_CR0_FLIP,
  V_CR0_MASK,
  V_CR4_FLIP,
  V_INTERCEPTS,
  V_PLE_WINDOW,
  V_SPIN_WINDOW,
} from '../layout.ts';
import { RAX, RCX, RDX, VECTOR } from './common.ts';
import { AC, setSystemFlags } from './flags.ts';
import {
  CR4,
  delegated,
  interceptable,
  interceptedInKernel,
  native,
  privileged,
  requireCpl0,
  requireCr4,
  requireProtected,
  restrictedBy,
  transferredAtCpl0,
  unlessNative,
} from './privilege.ts';

/** EDX:EAX; both upper halves become zero. */
function setPair(e: Emitter, v: Val): void {
  e.setReg(RAX, 4, e.let(e.wrap(v)));
  e.setReg(RDX, 4, e.let(e.wrap(e.shrU(v, e.i64(32)))));
}

// ---------------------------------------------------------------- identification and time

function cpuid(e: Emitter): void {
  interceptable(e, INTERCEPT_CPUID, EXIT_CPUID);
  e.call('cpuid', 'none', [], { registers: true });
}

/** The TSC may count instructions, so the helper must see an exact count; generated code brings S_ICOUNT up to date only when it leaves. */
function timestamp(e: Emitter): Val {
  restrictedBy(e, CR4.TSD);
  interceptable(e, INTERCEPT_RDTSC, EXIT_PRIVILEGED);
  const counted = e.state(S_ICOUNT, 8);
  e.setState(S_ICOUNT, 8, e.retired());
  const tsc = e.call('rdtsc', 'i64', []);
  e.setState(S_ICOUNT, 8, counted);
  return tsc;
}
function rdtscp(e: Emitter): void {
  setPair(e, timestamp(e));
  e.setReg(RCX, 4, e.let(e.wrap(e.state(S_TSC_AUX, 8))));
}
function rdpid(e: Emitter): void {
  const aux = e.and(e.state(S_TSC_AUX, 8), e.i64(-1, 0));
  e.write(0, e.let(e.size(0) === 8 ? aux : e.wrap(aux)));
}

/** RDRAND and RDSEED always succeed: CF = 1, the other flags 0. */
function random(e: Emitter): void {
  const size = e.size(0);
  const v = e.call('rdrand', 'i64', []);
  e.write(0, size === 8 ? v : e.let(e.trunc(e.wrap(v), size)));
  e.setFlagsExplicit({ cf: e.i32(1) });
}

// ---------------------------------------------------------------- extended state

function requireEcx(e: Emitter, bad: (ecx: Val) => Val): void {
  e.if(bad(e.reg(RCX, 4)), () => e.raise(VECTOR.GP, 0));
}
/** XGETBV of XCR0, or with ECX = 1 of the components in use: all that are enabled. */
function xgetbv(e: Emitter): void {
  requireCr4(e, CR4.OSXSAVE);
  requireEcx(e, (ecx) => e.gtU(ecx, e.i32(1)));
  setPair(e, e.state(S_XCR0, 8));
}
function rdpkru(e: Emitter): void {
  requireCr4(e, CR4.PKE);
  requireEcx(e, (ecx) => ecx);
  setPair(e, e.let(e.zext64(e.state(S_PKRU, 4))));
}
function wrpkru(e: Emitter): void {
  requireCr4(e, CR4.PKE);
  requireEcx(e, (ecx) => e.or(ecx, e.reg(RDX, 4)));
  e.call('setPkru', 'none', [e.reg(RAX, 4)]);
  e.endBlock();
}

/** FXSAVE and its kin are helpers `name(cpu, address, REX.W, ...)` that check alignment and feature bits themselves. */
function stateHelper(name: string, kind?: number): Semantics {
  const write = name.endsWith('save');
  return (e) => {
    const args = [e.address(0, { write }), e.i32(e.form.opSize === 8 ? 1 : 0), ...(kind === undefined ? [] : [e.i32(kind)])];
    e.call(name, 'none', args, { registers: true });
    e.checkException();
  };
}

// ---------------------------------------------------------------- descriptor tables, control registers

/** FXRSTOR and XRSTOR may change MXCSR, which decides whether compiled code may run: they end the block. */
function stateRestore(name: string): Semantics {
  const restore = stateHelper(name);
  return (e) => {
    restore(e);
    e.endBlock();
  };
}

/** #UD outside 64-bit code, before privilege is looked at. */
function in64BitCode(f: Semantics): Semantics {
  return (e) => (e.codeSize === 64 ? f(e) : e.raise(VECTOR.UD));
}

/** SGDT, SIDT: limit, then base (8 bytes in 64-bit mode, else 4). */
function storeTable(table: number): Semantics {
  return (e) => {
    restrictedBy(e, CR4.UMIP);
    const address = e.let(e.address(0));
    e.store(address, 2, e.let(e.and(e.state(table + 8, 4), e.i32(0xffff))));
    const base = e.state(table, 8);
    const at = e.let(e.add(address, e.i64(2)));
    if (e.codeSize === 64) e.store(at, 8, base);
    else e.store(at, 4, e.let(e.wrap(base)));
  };
}
/** LGDT, LIDT; a 16-bit operand size takes 24 bits of the base. */
function loadTable(table: number): Semantics {
  return (e) => {
    requireCpl0(e);
    const address = e.let(e.address(0));
    const limit = e.load(address, 2);
    const at = e.let(e.add(address, e.i64(2)));
    const base = e.codeSize === 64 ? e.load(at, 8) : e.zext64(e.and(e.load(at, 4), e.i32(e.form.opSize === 2 ? 0xff_ffff : -1)));
    e.setState(table, 8, base);
    e.setState(table + 8, 4, limit);
    e.endBlock();
  };
}
function storeSelector(segment: number): Semantics {
  return (e) => {
    requireProtected(e);
    restrictedBy(e, CR4.UMIP);
    writeWord(e, e.state(S_SEG + segment * SEG_STRIDE + SEG_SELECTOR, 4), 0xffff);
  };
}
/** A register destination takes the value zero-extended to its size, memory 16 bits. */
function writeWord(e: Emitter, v: Val, mask: number): void {
  const size = e.size(0);
  const value = e.and(v, e.i32(size === 2 ? mask & 0xffff : mask));
  e.write(0, e.let(size === 8 ? e.zext64(value) : value));
}
/** CR0 and CR4 as the guest sees them: through the read shadow. */
function visible(e: Emitter, v: Val, flip: Val): Val {
  return e.let(e.xor(v, e.zext64(flip)));
}
/** SMSW: a register destination gets more of CR0 than the 16 documented bits, as on all processors. */
function smsw(e: Emitter): void {
  restrictedBy(e, CR4.UMIP);
  writeWord(e, e.let(e.wrap(visible(e, e.state(S_CR0, 8), e.state(V_CR0_FLIP, 4)))), -1);
}
function clts(e: Emitter): void {
  requireCpl0(e, INTERCEPT_CR | INTERCEPT_PRIVILEGED);
  const owned = e.and(e.state(V_CR0_MASK, 4), e.wrap(visible(e, e.state(S_CR0, 8), e.state(V_CR0_FLIP, 4))));
  e.if(e.and(owned, e.i32(8)), () => e.exit(EXIT_PRIVILEGED, 'this'));
  e.setState(S_CR0, 8, e.and(e.state(S_CR0, 8), e.i64(~8)));
  e.endBlock();
}
/** Reading a control register has no effect on the machine. */
function movFromControl(e: Emitter): void {
  requireCpl0(e, INTERCEPT_CR | INTERCEPT_SENSITIVE);
  const register = e.registerField(1);
  const flip4 = e.select(e.eq(register, e.i32(S_CR4)), e.state(V_CR4_FLIP, 4), e.i32(0));
  const flip = e.let(e.select(e.eq(register, e.i32(S_CR0)), e.state(V_CR0_FLIP, 4), flip4));
  const v = visible(e, e.zext64(e.read(1)), flip);
  e.write(0, e.size(0) === 8 ? v : e.let(e.wrap(v)));
}

/** HLT leaves at the instruction, or where the CPU works by itself after it, so that a shadow of STI ends with it. */
function hlt(e: Emitter): void {
  requireCpl0(e, 0);
  unlessNative(e, EXIT_HLT);
  e.exit(EXIT_HLT, 'next');
}
function movFromDebug(e: Emitter): void {
  requireCpl0(e);
  unlessNative(e, EXIT_PRIVILEGED);
  const v = e.call('sys_read_dr', 'i64', [e.registerField(1)]);
  e.checkException();
  e.write(0, e.size(0) === 8 ? v : e.let(e.wrap(v)));
}

/** There are no performance counters. */
function rdpmc(e: Emitter): void {
  interceptable(e, INTERCEPT_RDPMC, EXIT_PRIVILEGED);
  e.if(native(e), () => e.raise(VECTOR.GP, 0));
  privileged(EXIT_PRIVILEGED)(e);
}

/** STAC, CLAC: what the TLB holds of user pages is opened and closed. */
function alignmentCheck(set: boolean): Semantics {
  return (e) => {
    e.if(e.state(S_CPL, 4), () => e.raise(VECTOR.UD));
    interceptable(e, INTERCEPT_SENSITIVE, EXIT_PRIVILEGED);
    setSystemFlags(e, set ? AC : 0, set ? 0 : AC);
    e.call('alignment', 'none', []);
  };
}

// ---------------------------------------------------------------- software interrupts

function interrupt(e: Emitter, vector: Val, how: number): void {
  const intercepted = e.ne(e.and(e.state(V_INTERCEPTS, 4), e.i32(INTERCEPT_ENTRY)), e.i32(0));
  e.if(e.or(e.eqz(native(e)), intercepted), () => {
    e.setState(S_EXIT_VA, 8, e.zext64(vector));
    e.exit(EXIT_SOFT_INT, 'this');
  });
  e.transfer('sys_int', [vector, e.i32(how)]);
}
function into(e: Emitter): void {
  e.if(e.flag('o'), () => interrupt(e, e.i32(4), INT_BREAKPOINT));
  e.endBlock();
}

function sysenter(e: Emitter): void {
  unlessNative(e, EXIT_EMULATE);
  interceptable(e, INTERCEPT_ENTRY, EXIT_PRIVILEGED);
  e.transfer('sys_sysenter', []);
}
function iret(e: Emitter): void {
  unlessNative(e, EXIT_EMULATE);
  e.if(interceptedInKernel(e, INTERCEPT_SENSITIVE), () => e.exit(EXIT_PRIVILEGED, 'this'));
  e.transfer('sys_iret', [e.i32(e.form.opSize)]);
}

/** No instruction waits, but a hypervisor may want to know of a loop that does, and other vCPUs of the thread may be what it waits for. */
function pause(e: Emitter): void {
  e.if(e.or(e.state(V_PLE_WINDOW, 4), e.state(V_SPIN_WINDOW, 4)), () => {
    const reason = e.let(e.call('pause_loop', 'i32', [e.retired()]));
    e.if(e.eq(reason, e.i32(EXIT_PAUSE)), () => e.exit(EXIT_PAUSE, 'next'));
    e.if(e.eq(reason, e.i32(EXIT_SPIN)), () => e.exit(EXIT_SPIN, 'next'));
  });
}
/** MONITOR and MWAIT, which our CPU does not have, unless a hypervisor makes it look so. */
function monitor(e: Emitter): void {
  interceptable(e, INTERCEPT_MONITOR, EXIT_PRIVILEGED);
  e.if(native(e), () => e.raise(VECTOR.UD));
}

const nothing: Semantics = () => {};
/** CLFLUSH and its like: there is no cache, but they fault as loads do. */
const flushLine: Semantics = (e) => void e.read(0);
const undefinedOpcode: Semantics = (e) => e.raise(VECTOR.UD);
/** Instructions that a CPU by itself does not have. */
function undefinedWhenNative(otherwise: Semantics): Semantics {
  return (e) => {
    e.if(native(e), () => e.raise(VECTOR.UD));
    otherwise(e);
  };
}
function names(list: string, f: Semantics): Record<string, Semantics> {
  return Object.fromEntries(list.split(' ').map((name) => [name, f]));
}

/** System instructions (SDM vol. 2, by mnemonic); MSRs and segment bases are in `msr.ts`, port I/O in `io.ts`. */
export const system: Record<string, Semantics> = {
  // WAITPKG, caches and prefetching have nothing to act on; fences order what is in order already.
  ...names('nop endbr32 endbr64 prefetchw prefetchnta prefetcht0 prefetcht1 prefetcht2', nothing),
  ...names('lfence mfence sfence', nothing),
  ...names('clflush clflushopt clwb', flushLine),
  pause,
  ...names('invd wbinvd', (e) => requireCpl0(e, INTERCEPT_PRIVILEGED | INTERCEPT_CACHE)),
  monitor: (e) => {
    monitor(e);
    requireCpl0(e);
  },
  mwait: (e) => {
    monitor(e);
    privileged(EXIT_PRIVILEGED)(e);
  },
  ...names('ud0 ud1 ud2', undefinedOpcode),
  cpuid,
  rdtsc: (e) => setPair(e, timestamp(e)),
  rdtscp,
  rdpid,
  rdrand: random,
  rdseed: random,
  xgetbv,
  rdpkru,
  wrpkru,
  fxsave: stateHelper('fxsave'),
  fxrstor: stateRestore('fxrstor'),
  xsave: stateHelper('xsave', 0),
  xsaveopt: stateHelper('xsave', 1),
  xsavec: stateHelper('xsave', 2),
  xrstor: stateRestore('xrstor'),
  sgdt: storeTable(S_GDTR),
  sidt: storeTable(S_IDTR),
  lgdt: loadTable(S_GDTR),
  lidt: loadTable(S_IDTR),
  sldt: storeSelector(LDTR),
  str: storeSelector(TR),
  smsw,
  clts,
  mov_r_cr: movFromControl,
  stac: alignmentCheck(true),
  clac: alignmentCheck(false),
  hlt,
  mov_cr_r: transferredAtCpl0(EXIT_PRIVILEGED, 'sys_write_cr', (e) => [e.registerField(0), e.let(e.zext64(e.read(1)))], INTERCEPT_CR),
  lmsw: transferredAtCpl0(EXIT_PRIVILEGED, 'sys_lmsw', (e) => [e.read(0)], INTERCEPT_CR | INTERCEPT_PRIVILEGED),
  mov_dr_r: transferredAtCpl0(EXIT_PRIVILEGED, 'sys_write_dr', (e) => [e.registerField(0), e.let(e.zext64(e.read(1)))]),
  mov_r_dr: movFromDebug,
  // These two look at INTERCEPT_INVLPG themselves, and leave with their operand.
  invlpg: transferredAtCpl0(EXIT_PRIVILEGED, 'sys_invlpg', (e) => [e.address(0)], 0),
  invpcid: transferredAtCpl0(EXIT_PRIVILEGED, 'sys_invpcid', (e) => [e.let(e.zext64(e.read(0))), e.address(1)], 0),
  xsetbv: transferredAtCpl0(EXIT_PRIVILEGED, 'sys_xsetbv', undefined, INTERCEPT_PRIVILEGED | INTERCEPT_XSETBV),
  ...names('xsaves xrstors', undefinedWhenNative(privileged(EXIT_PRIVILEGED))),
  rdpmc,
  // A hypercall leaves from any privilege; the hypervisor knows who may.
  vmcall: (e) => {
    interceptable(e, INTERCEPT_VMCALL, EXIT_VMCALL);
    e.exit(EXIT_PRIVILEGED, 'this');
  },
  vmmcall: delegated(EXIT_PRIVILEGED),
  // Virtualisation instructions, when a design offers them to its guest.
  ...names('vmlaunch vmresume vmxoff vmxon vmptrld vmptrst vmclear vmread vmwrite invept invvpid', undefinedWhenNative(privileged(EXIT_EMULATE))),
  ...names('vmrun vmload vmsave stgi clgi skinit invlpga', undefinedWhenNative(privileged(EXIT_EMULATE))),
  vmfunc: undefinedWhenNative(delegated(EXIT_EMULATE)),
  sysenter,
  sysexit: transferredAtCpl0(EXIT_EMULATE, 'sys_sysexit', (e) => [e.i32(e.form.opSize)], INTERCEPT_RETURN | INTERCEPT_SENSITIVE),
  sysret: in64BitCode(transferredAtCpl0(EXIT_EMULATE, 'sys_sysret', (e) => [e.i32(e.form.opSize)], INTERCEPT_RETURN | INTERCEPT_SENSITIVE)),
  iret,
  syscall: (e) => e.syscall(),
  int3: (e) => interrupt(e, e.i32(3), INT_BREAKPOINT),
  int1: (e) => interrupt(e, e.i32(1), INT_ICEBP),
  int: (e) => interrupt(e, e.imm(1), INT_N),
  into,
};
