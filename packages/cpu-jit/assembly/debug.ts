// Breakpoints and other debug exceptions (SDM vol. 3, chapter 18). Nothing here costs anything while no breakpoint is armed: pages with a data
// breakpoint have no TLB tags, so that accesses come to `touched`; pages with an instruction breakpoint are never entered as blocks or regions.
import {
  CS, EXC_RESTART, EXIT_EXCEPTION, NEXT, S_CODE_SIZE, S_CR4, S_DEBUG, S_DEBUG_SHADOW, S_DR, S_EXC, S_ICOUNT, S_MSR, S_RFLAGS,
  S_RIP, S_SEG, S_STEP, S_WATCH, SEG_BASE, SEG_STRIDE, V_NATIVE, WATCH_CODE, WATCH_DATA,
} from "../src/layout";
import { DB, GP, RFLAGS_RF, RFLAGS_TF, UD, done, fail, raise } from "./cpu";
import { exceptionReason } from "./events";
import { AT_DEBUGCTL } from "./msr";
import { PAGE_MASK, tlbFlushAll } from "./tlb";

/** DR6 (SDM vol. 3, 18.2.3). */
export const DR6_BREAKPOINTS: u32 = 15;
const DR6_BD: u32 = 1 << 13;
const DR6_BS: u32 = 1 << 14;
const DR6_BT: u32 = 1 << 15;
const DR6_FIXED: u64 = 0xffff_0ff0;
/** DR7 (SDM vol. 3, 18.2.4): what may be set, what is always set, general detect, and what a task switch clears (L0..L3, LE). */
const DR7_KNOWN: u64 = 0xffff_23ff;
const DR7_FIXED: u64 = 0x400;
const DR7_GD: u64 = 1 << 13;
const DR7_LOCAL: u64 = 0x155;
const CR4_DE: u32 = 8;
/** IA32_DEBUGCTL: last-branch records and single-step on branches, which a debug exception turns off. */
const DEBUGCTL_LBR_BTF: u64 = 3;
const DEBUGCTL_BTF: u64 = 2;
/** R/W field of DR7. */
const ON_EXECUTION: u32 = 0;
const ON_WRITE: u32 = 1;
const ON_IO: u32 = 2;
/** S_EXC_ERROR of a #DB that is a fault: the instruction has not run. */
export const DEBUG_FAULT: u32 = 1;

const DR6 = S_DR + 48;
const DR7 = S_DR + 56;

@inline
function control(cpu: u32): u32 { return load<u32>(cpu, DR7); }
function kindOf(cpu: u32, n: u32): u32 { return control(cpu) >> (16 + n * 4) & 3; }
/** Bytes that breakpoint `n` covers, from its address down to a multiple of them. */
function lengthOf(cpu: u32, n: u32): u64 {
  const code = control(cpu) >> (18 + n * 4) & 3;
  return code == 2 ? 8 : code + 1;
}
function startOf(cpu: u32, n: u32): u64 { return load<u64>(cpu + (n << 3), S_DR) & ~(lengthOf(cpu, n) - 1); }

/** DR0..DR3, DR7 or CR4.DE changed: which breakpoints are armed, and no translation that was made without them stays. */
export function watch(cpu: u32): void {
  let armed: u32 = 0;
  for (let n: u32 = 0; n < 4; n++) {
    if (!(control(cpu) >> (n << 1) & 3)) continue;
    const kind = kindOf(cpu, n);
    if (kind == ON_EXECUTION) armed |= 16 << n;
    else if (kind != ON_IO) armed |= 1 << n;
    else if (load<u32>(cpu, S_CR4) & CR4_DE) armed |= 256 << n;
  }
  const old = load<u32>(cpu, S_WATCH);
  store<u32>(cpu, armed, S_WATCH);
  if ((old | armed) & (WATCH_DATA | WATCH_CODE)) tlbFlushAll(cpu);
}

/** Is there a data breakpoint in the page of `va`? */
export function isWatched(cpu: u32, va: u64): bool {
  const armed = load<u32>(cpu, S_WATCH);
  for (let n: u32 = 0; n < 4; n++) if (armed >> n & 1 && (startOf(cpu, n) & PAGE_MASK) == (va & PAGE_MASK)) return true;
  return false;
}
/** Is there an instruction breakpoint in the page of `va`? */
export function isCodeWatched(cpu: u32, va: u64): bool {
  const armed = load<u32>(cpu, S_WATCH) >> 4;
  for (let n: u32 = 0; n < 4; n++) if (armed >> n & 1 && (load<u64>(cpu + (n << 3), S_DR) & PAGE_MASK) == (va & PAGE_MASK)) return true;
  return false;
}

/**
 * An access within a page with a data breakpoint. True: the instruction must run again alone, S_EXC says so; else what it hit is noted and is
 * reported after the instruction.
 */
export function touched(cpu: u32, va: u64, size: u32, write: bool): bool {
  if (!isWatched(cpu, va)) return false;
  if (!load<u32>(cpu, S_STEP)) {
    store<u32>(cpu, EXC_RESTART, S_EXC);
    return true;
  }
  const armed = load<u32>(cpu, S_WATCH);
  for (let n: u32 = 0; n < 4; n++) {
    if (!(armed >> n & 1) || (!write && kindOf(cpu, n) == ON_WRITE)) continue;
    const start = startOf(cpu, n);
    if (va < start + lengthOf(cpu, n) && start < va + size) store<u32>(cpu, load<u32>(cpu, S_DEBUG) | 1 << n, S_DEBUG);
  }
  return false;
}

/** `size` ports from `port` on were used: I/O breakpoints, and the end of a single-stepped instruction that left the guest. */
export function portTouched(cpu: u32, port: u32, size: u32): void {
  const armed = load<u32>(cpu, S_WATCH) >> 8;
  for (let n: u32 = 0; n < 4; n++) {
    if (!(armed >> n & 1)) continue;
    const start = <u32>startOf(cpu, n) & 0xffff;
    if (port < start + <u32>lengthOf(cpu, n) && start < port + size) store<u32>(cpu, load<u32>(cpu, S_DEBUG) | 1 << n, S_DEBUG);
  }
}

/** The instruction at RIP was completed outside of the CPU: a single-step trap is due all the same. */
export function debug_completed(cpu: u32): void {
  if (load<u32>(cpu, S_RFLAGS) & RFLAGS_TF && load<u32>(cpu, V_NATIVE) && !(load<u64>(cpu, S_MSR + (AT_DEBUGCTL << 3)) & DEBUGCTL_BTF)) {
    store<u32>(cpu, load<u32>(cpu, S_DEBUG) | DR6_BS, S_DEBUG);
  }
}

/** Linear address of RIP. */
function fetchAddress(cpu: u32): u64 {
  const rip = load<u64>(cpu, S_RIP);
  if (load<u32>(cpu, S_CODE_SIZE) == 64) return rip;
  return (load<u64>(cpu, S_SEG + CS * SEG_STRIDE + SEG_BASE) + rip) & 0xffff_ffff;
}

/**
 * Before a single instruction: NEXT, or, when there is a breakpoint at RIP, what came of delivering its fault (NEXT_CHECK or EXIT_*). RF, or
 * a load of SS just before, lets the instruction run; RF is used up.
 */
export function debug_fetch(cpu: u32): u32 {
  const flags = load<u32>(cpu, S_RFLAGS);
  store<u32>(cpu, flags & ~RFLAGS_RF, S_RFLAGS);
  const armed = load<u32>(cpu, S_WATCH) >> 4;
  if (!(armed & 15) || flags & RFLAGS_RF || load<u64>(cpu, S_DEBUG_SHADOW) == load<u64>(cpu, S_ICOUNT)) return NEXT;
  const at = fetchAddress(cpu);
  let hit: u32 = 0;
  for (let n: u32 = 0; n < 4; n++) if (armed >> n & 1 && load<u64>(cpu + (n << 3), S_DR) == at) hit |= 1 << n;
  if (!hit) return NEXT;
  note(cpu, hit);
  raise(cpu, DB, DEBUG_FAULT);
  return exceptionReason(cpu);
}

/** After a single instruction that TF was set before: the trap that is due. `branch`: it was a branch that was taken. */
export function debug_step(cpu: u32, branch: u32): void {
  if (load<u64>(cpu, S_MSR + (AT_DEBUGCTL << 3)) & DEBUGCTL_BTF && !branch) return;
  store<u32>(cpu, load<u32>(cpu, S_DEBUG) | DR6_BS, S_DEBUG);
}

/** Put causes into DR6: the breakpoints are those of this exception, the other bits stay until software clears them. */
function note(cpu: u32, causes: u32): void {
  let status = load<u64>(cpu, DR6);
  if (causes & DR6_BREAKPOINTS) status &= ~<u64>DR6_BREAKPOINTS;
  store<u64>(cpu, status | causes | DR6_FIXED, DR6);
}

/** Raise the trap that waits in S_DEBUG. */
export function raiseTrap(cpu: u32): void {
  note(cpu, load<u32>(cpu, S_DEBUG));
  store<u32>(cpu, 0, S_DEBUG);
  raise(cpu, DB, 0);
}

/** After a single instruction of a guest whose events the hypervisor delivers: the trap, with the breakpoints that the instruction has hit. */
export function debug_trap(cpu: u32): void {
  store<u32>(cpu, load<u32>(cpu, S_DEBUG) | DR6_BS, S_DEBUG);
  raiseTrap(cpu);
}

/** A debug exception is being delivered: its handler may use the debug registers and is not itself traced. */
export function enterDebugHandler(cpu: u32): void {
  store<u64>(cpu, load<u64>(cpu, DR7) & ~DR7_GD, DR7);
  const at = S_MSR + (AT_DEBUGCTL << 3);
  store<u64>(cpu + at, load<u64>(cpu + at) & ~DEBUGCTL_LBR_BTF);
}

/** A new task has its own local breakpoints to enable; `trap`: its TSS asks for a debug exception. */
export function debugTaskSwitched(cpu: u32, trap: bool): void {
  const old = load<u64>(cpu, DR7);
  if (old & DR7_LOCAL) {
    store<u64>(cpu, old & ~DR7_LOCAL, DR7);
    watch(cpu);
  }
  if (trap) store<u32>(cpu, load<u32>(cpu, S_DEBUG) | DR6_BT, S_DEBUG);
}

/** Debug register at state-block offset `register`, DR4 and DR5 being DR6 and DR7; 0 with S_EXC set: CR4.DE makes those undefined, or DR7.GD guards all. */
function debugRegister(cpu: u32, register: u32): u32 {
  const n = (register - S_DR) >> 3;
  const alias = n == 4 || n == 5;
  if (alias && load<u32>(cpu, S_CR4) & CR4_DE) {
    raise(cpu, UD, 0);
    return 0;
  }
  if (load<u64>(cpu, DR7) & DR7_GD) {
    note(cpu, DR6_BD);
    raise(cpu, DB, DEBUG_FAULT);
    return 0;
  }
  return alias ? register + 16 : register;
}

export function sys_read_dr(cpu: u32, register: u32): u64 {
  const at = debugRegister(cpu, register);
  if (!at) return 0;
  const value = load<u64>(cpu + at);
  return at == DR6 ? value | DR6_FIXED : at == DR7 ? value | DR7_FIXED : value;
}

/** MOV to a debug register. */
export function sys_write_dr(cpu: u32, register: u32, value: u64): u32 {
  const at = debugRegister(cpu, register);
  if (!at) return EXIT_EXCEPTION;
  if ((at == DR6 || at == DR7) && value >> 32) return fail(cpu, GP, 0);
  store<u64>(cpu + at, at == DR6 ? value & 0xe00f : at == DR7 ? value & DR7_KNOWN : value);
  if (at != DR6) watch(cpu);
  return done(cpu);
}
