// SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM vol. 2).
import {
  CS, EXIT_SYSCALL, S_CODE_SIZE, S_CPL, S_EFER, S_EXIT_INSN_LEN, S_GPR, S_LSTAR, S_RFLAGS, S_SFMASK, S_STAR, S_SYSENTER_CS, S_SYSENTER_EIP,
  S_SYSENTER_ESP, SS, SYSCALL_NATIVE, V_NATIVE, V_SYSCALL_MODE,
} from "../src/layout";
import { GP, RFLAGS_IF, RFLAGS_VM, UD, doneAt, fail, isCanonical, nextRip } from "./cpu";
import { enterCode, longMode, protectedMode, rflags, setCpl, setRflags, setSegment } from "./mode";

const EFER_SCE: u32 = 1;
const RCX = S_GPR + 8;
const RDX = S_GPR + 16;
const RSP = S_GPR + 32;
const R11 = S_GPR + 88;
const ALL_FLAGS: u32 = 0x3c_7fd5;
/** Attributes of the flat segments that these instructions load without a descriptor. */
const FLAT_CODE: u32 = 0xc09b;
const FLAT_CODE64: u32 = 0xa09b;
const FLAT_DATA: u32 = 0xc093;

/** CS = `selector` and SS = the next one, flat, at privilege `cpl`. */
function flatSegments(cpu: u32, selector: u32, stack: u32, cpl: u32, long: bool): void {
  const level = cpl << 5;
  setCpl(cpu, cpl);
  setSegment(cpu, CS, (selector & 0xfffc) | cpl, 0, 0xffff_ffff, (long ? FLAT_CODE64 : FLAT_CODE) | level);
  setSegment(cpu, SS, (stack & 0xfffc) | cpl, 0, 0xffff_ffff, FLAT_DATA | level);
  enterCode(cpu);
}

/** SYSCALL where no switcher is linked: the instruction as the CPU does it, or a VM exit. */
export function syscall_native(cpu: u32): u32 {
  if (!load<u32>(cpu, V_NATIVE) || load<u32>(cpu, V_SYSCALL_MODE) != SYSCALL_NATIVE) {
    store<u32>(cpu, 2, S_EXIT_INSN_LEN);
    return EXIT_SYSCALL;
  }
  if (!(load<u32>(cpu, S_EFER) & EFER_SCE) || load<u32>(cpu, S_CODE_SIZE) != 64) return fail(cpu, UD, 0);
  const flags = rflags(cpu);
  store<u64>(cpu, nextRip(cpu), RCX);
  store<u64>(cpu, flags, R11);
  setRflags(cpu, flags & ~load<u32>(cpu, S_SFMASK), ALL_FLAGS);
  const selector = load<u32>(cpu, S_STAR + 4) & 0xffff;
  flatSegments(cpu, selector, selector + 8, 0, true);
  return doneAt(cpu, load<u64>(cpu, S_LSTAR));
}

/** SYSRET to 64-bit (`size` 8) or compatibility code. */
export function sys_sysret(cpu: u32, size: u32): u32 {
  if (!(load<u32>(cpu, S_EFER) & EFER_SCE) || load<u32>(cpu, S_CODE_SIZE) != 64) return fail(cpu, UD, 0);
  if (load<u32>(cpu, S_CPL)) return fail(cpu, GP, 0);
  let target = load<u64>(cpu, RCX);
  if (size == 8) {
    if (!isCanonical(cpu, target)) return fail(cpu, GP, 0);
  } else {
    target &= 0xffff_ffff;
  }
  setRflags(cpu, load<u32>(cpu, R11), ALL_FLAGS);
  const selector = load<u32>(cpu, S_STAR + 4) >> 16;
  flatSegments(cpu, size == 8 ? selector + 16 : selector, selector + 8, 3, size == 8);
  return doneAt(cpu, target);
}

export function sys_sysenter(cpu: u32): u32 {
  const selector = load<u32>(cpu, S_SYSENTER_CS) & 0xfffc;
  if (!protectedMode(cpu) || !selector) return fail(cpu, GP, 0);
  const long = longMode(cpu);
  store<u32>(cpu, load<u32>(cpu, S_RFLAGS) & ~(RFLAGS_IF | RFLAGS_VM), S_RFLAGS);
  const stack = load<u64>(cpu, S_SYSENTER_ESP);
  const target = load<u64>(cpu, S_SYSENTER_EIP);
  store<u64>(cpu, long ? stack : stack & 0xffff_ffff, RSP);
  flatSegments(cpu, selector, selector + 8, 0, long);
  return doneAt(cpu, long ? target : target & 0xffff_ffff);
}

export function sys_sysexit(cpu: u32, size: u32): u32 {
  const selector = load<u32>(cpu, S_SYSENTER_CS) & 0xfffc;
  if (!protectedMode(cpu) || !selector || load<u32>(cpu, S_CPL)) return fail(cpu, GP, 0);
  let target = load<u64>(cpu, RDX);
  let stack = load<u64>(cpu, RCX);
  if (size == 8) {
    if (!isCanonical(cpu, target) || !isCanonical(cpu, stack)) return fail(cpu, GP, 0);
  } else {
    target &= 0xffff_ffff;
    stack &= 0xffff_ffff;
  }
  store<u64>(cpu, stack, RSP);
  if (size == 8) flatSegments(cpu, selector + 32, selector + 40, 3, true);
  else flatSegments(cpu, selector + 16, selector + 24, 3, false);
  return doneAt(cpu, target);
}
