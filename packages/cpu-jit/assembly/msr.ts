// RDMSR and WRMSR of the registers the CPU knows; all others leave the guest (EXIT_MSR_*).
import {
  CLOCK_HOST, EXIT_MSR_READ, EXIT_MSR_WRITE, FS, GS, INTERCEPT_MSR, S_APIC_BASE, S_CSTAR, S_EFER, S_GPR, S_KERNEL_GS_BASE, S_LSTAR, S_MSR, S_PAT,
  S_SEG, S_SFMASK, S_STAR, S_SYSENTER_CS, S_SYSENTER_EIP, S_SYSENTER_ESP, S_TSC_AUX, S_TSC_OFFSET, SEG_BASE, SEG_STRIDE, V_INTERCEPTS, V_MSR_BITMAP, MAXPHYADDR,
} from "../src/layout";
import { GP, done, fail, isCanonical } from "./cpu";
import { setEfer } from "./control";
import { rdtsc } from "./time";

const RAX = S_GPR;
const RCX = S_GPR + 8;
const RDX = S_GPR + 16;

/** Variable and fixed MTRRs are supported: 8, write-combining (SDM vol. 3, 12.11.1). */
const MTRR_CAP: u64 = 0x508;
/** Places in S_MSR. */
const AT_MTRR_VARIABLE: u32 = 0;
const AT_MTRR_FIXED: u32 = 16;
const AT_MTRR_DEF_TYPE: u32 = 27;
const AT_MISC_ENABLE: u32 = 28;
export const AT_DEBUGCTL: u32 = 29;
const AT_TSC_ADJUST: u32 = 30;

/** Place in S_MSR of an MSR that only holds its value, -1: not one of them. */
function heldAt(msr: u32): i32 {
  if (msr - 0x200 < 16) return AT_MTRR_VARIABLE + (msr - 0x200);
  if (msr == 0x250) return AT_MTRR_FIXED;
  if (msr - 0x258 < 2) return AT_MTRR_FIXED + 1 + (msr - 0x258);
  if (msr - 0x268 < 8) return AT_MTRR_FIXED + 3 + (msr - 0x268);
  if (msr == 0x2ff) return AT_MTRR_DEF_TYPE;
  if (msr == 0x1a0) return AT_MISC_ENABLE;
  if (msr == 0x1d9) return AT_DEBUGCTL;
  return -1;
}

/** State-block offset of an MSR that is a field of it, 0: not one. */
function fieldOf(msr: u32): u32 {
  switch (msr) {
    case 0x174: return S_SYSENTER_CS;
    case 0x175: return S_SYSENTER_ESP;
    case 0x176: return S_SYSENTER_EIP;
    case 0x277: return S_PAT;
    case 0xc000_0080: return S_EFER;
    case 0xc000_0081: return S_STAR;
    case 0xc000_0082: return S_LSTAR;
    case 0xc000_0083: return S_CSTAR;
    case 0xc000_0084: return S_SFMASK;
    case 0xc000_0100: return S_SEG + FS * SEG_STRIDE + SEG_BASE;
    case 0xc000_0101: return S_SEG + GS * SEG_STRIDE + SEG_BASE;
    case 0xc000_0102: return S_KERNEL_GS_BASE;
    case 0xc000_0103: return S_TSC_AUX;
    default: return 0;
  }
}
/** Must its value be a canonical address? */
function isAddress(msr: u32): bool {
  return msr == 0x175 || msr == 0x176 || msr == 0xc000_0082 || msr == 0xc000_0083 || msr - 0xc000_0100 < 3;
}

/** Does the control block take this MSR away from the CPU? Its bitmap has VMX's layout (SDM vol. 3, 25.6.9). */
function intercepted(cpu: u32, msr: u32, write: u32): bool {
  if (!(load<u32>(cpu, V_INTERCEPTS) & INTERCEPT_MSR)) return false;
  const bitmap = load<u32>(cpu, V_MSR_BITMAP);
  const index = msr & 0x1fff;
  if (!bitmap || (msr & 0x3fff_ffff) > 0x1fff || (msr >> 30 != 0 && msr >> 30 != 3)) return true;
  const byte = bitmap + (write << 11) + (msr >> 31 << 10) + (index >> 3);
  return (load<u8>(byte) >> <u8>(index & 7) & 1) != 0;
}

function give(cpu: u32, value: u64): u32 {
  store<u64>(cpu, value & 0xffff_ffff, RAX);
  store<u64>(cpu, value >> 32, RDX);
  return done(cpu);
}

export function sys_rdmsr(cpu: u32): u32 {
  const msr = load<u32>(cpu, RCX);
  if (intercepted(cpu, msr, 0)) return EXIT_MSR_READ;
  const field = fieldOf(msr);
  if (field) return give(cpu, load<u64>(cpu + field));
  const held = heldAt(msr);
  if (held >= 0) return give(cpu, load<u64>(cpu + (<u32>held << 3), S_MSR));
  switch (msr) {
    case 0x10: return give(cpu, rdtsc(cpu));
    case 0x1b: return give(cpu, load<u64>(cpu, S_APIC_BASE));
    case 0x3b: return give(cpu, load<u64>(cpu, S_MSR + (AT_TSC_ADJUST << 3)));
    case 0xfe: return give(cpu, MTRR_CAP);
    default: return EXIT_MSR_READ;
  }
}

export function sys_wrmsr(cpu: u32): u32 {
  const msr = load<u32>(cpu, RCX);
  if (intercepted(cpu, msr, 1)) return EXIT_MSR_WRITE;
  const value = <u64>load<u32>(cpu, RAX) | <u64>load<u32>(cpu, RDX) << 32;
  if (msr == 0xc000_0080) return setEfer(cpu, value) ? done(cpu) : fail(cpu, GP, 0);
  const field = fieldOf(msr);
  if (field) {
    if (isAddress(msr) && !isCanonical(cpu, value)) return fail(cpu, GP, 0);
    if (msr == 0x277 && !isPat(value)) return fail(cpu, GP, 0);
    if ((msr == 0xc000_0084 || msr == 0xc000_0103) && value >> 32) return fail(cpu, GP, 0);
    store<u64>(cpu + field, value);
    return done(cpu);
  }
  const held = heldAt(msr);
  if (held >= 0) {
    // Last-branch records (never filled in) and single-step on branches.
    if (held == AT_DEBUGCTL && value >> 2) return fail(cpu, GP, 0);
    if (held <= <i32>AT_MTRR_DEF_TYPE && !isMtrr(held, value)) return fail(cpu, GP, 0);
    store<u64>(cpu + (<u32>held << 3), value, S_MSR);
    return done(cpu);
  }
  if (msr == 0x10 || msr == 0x3b) {
    // IA32_TSC_ADJUST counts what was added to the counter, by either register.
    const adjust = load<u64>(cpu, S_MSR + (AT_TSC_ADJUST << 3));
    const delta = msr == 0x10 ? value - rdtsc(cpu) : value - adjust;
    store<u64>(cpu, load<u64>(cpu, S_TSC_OFFSET) + delta, S_TSC_OFFSET);
    store<u64>(cpu, adjust + delta, S_MSR + (AT_TSC_ADJUST << 3));
    return done(cpu);
  }
  // IA32_MTRRCAP says what there is.
  if (msr == 0xfe) return fail(cpu, GP, 0);
  return EXIT_MSR_WRITE;
}

/** Uncacheable, write-combining, -through, -protected or -back (SDM vol. 3, table 12-8). */
function isMemoryType(type: u32): bool {
  return type <= 1 || (type >= 4 && type <= 6);
}
/** May the MTRR at this place of S_MSR be written so: types that there are, reserved bits clear (SDM vol. 3, 12.11.2)? */
function isMtrr(held: i32, value: u64): bool {
  if (held == <i32>AT_MTRR_DEF_TYPE) return !(value & ~0xcff) && isMemoryType(<u32>value & 0xff);
  if (held >= <i32>AT_MTRR_FIXED) {
    for (let i = 0; i < 8; i++) if (!isMemoryType(<u32>(value >> (i << 3)) & 0xff)) return false;
    return true;
  }
  if (value >> MAXPHYADDR) return false;
  // Bases are even, masks odd.
  return held & 1 ? !(value & 0x7ff) : !(value & 0xf00) && isMemoryType(<u32>value & 0xff);
}

/** Every byte a memory type: 0, 1, 4, 5, 6 or 7. */
function isPat(value: u64): bool {
  for (let i = 0; i < 8; i++) {
    const type = <u32>(value >> (i << 3)) & 0xff;
    if (type > 7 || type == 2 || type == 3) return false;
  }
  return true;
}
