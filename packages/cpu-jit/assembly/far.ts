// Far transfers: JMP, CALL, RET and IRET (SDM vol. 3, 6.8, 7.12).
import {
  CS, DS, ES, EXIT_PRIVILEGED, FS, GS, INTERCEPT_ENTRY, INTERCEPT_RETURN, S_CODE_SIZE, S_CPL, S_EXC, S_GPR, S_NMI_BLOCKED, S_RFLAGS, S_RIP, S_WATCH, S_XSAVE_AREA,
  SEG_ATTR, SEG_BASE, SEG_LIMIT, SS, TR, V_INTERCEPTS, WATCH_CODE,
} from "../src/layout";
import {
  GP, NP, RFLAGS_IF, RFLAGS_IOPL, RFLAGS_NT, RFLAGS_RF, RFLAGS_VM, doneAt, fail, isCanonical, nextRip, raise,
} from "./cpu";
import { innerAttr, innerBase, innerLimit, innerSelector, innerStack, innerStack64 } from "./inner-stack";
import { loadSys16 } from "./memory";
import {
  ATTR_BIG, ATTR_LONG, commitStack, currentStack, enterCode, flatStack, longMode, popStack, protectedMode, pushStack, segmentAt, selectorOf, setCpl, setRflags,
  setSegment, setVirtual, skipStack,
} from "./mode";
import {
  CONFORMING, PRESENT, SEGMENT, descriptorAttr, descriptorBase, descriptorLimit, dpl, dropInnerSegments, failed, fetch, fetchStackSegment,
  high, isCode, low, markAccessed, systemType, useDescriptor, useNull,
} from "./segment";
import { TASK_CALL, TASK_IRET, TASK_JUMP, checkTask, fetchTask, switchTask } from "./task";

const RSP = S_GPR + 32;
const ALL_FLAGS: u32 = 0x3c_7fd5;
const VIF_VIP: u32 = 3 << 19;
const TASK_GATE: u32 = 5;

/** Is `ip` within CS, whose limit stays in real and virtual-8086 mode? Else #GP(0). */
function checkReal(cpu: u32, ip: u64): bool {
  if (ip <= <u64>load<u32>(segmentAt(cpu, CS), SEG_LIMIT)) return true;
  raise(cpu, GP, 0);
  return false;
}
/** Real mode and virtual-8086: CS is a paragraph number. */
function enterReal(cpu: u32, selector: u32, ip: u64): u32 {
  const code = segmentAt(cpu, CS);
  setSegment(cpu, CS, selector, selector << 4, load<u32>(code, SEG_LIMIT), load<u32>(code, SEG_ATTR));
  enterCode(cpu);
  return doneAt(cpu, ip);
}

/** Is the target of a far transfer inside the code segment whose descriptor was read last? Else #GP(0). */
function checkTarget(cpu: u32, target: u64): bool {
  const flat = longMode(cpu) && (descriptorAttr() & ATTR_LONG) != 0;
  if (flat ? isCanonical(cpu, target) : target <= <u64>descriptorLimit()) return true;
  raise(cpu, GP, 0);
  return false;
}

/** Present code segment, not both L and D; conforming or not is the caller's. */
function checkCode(cpu: u32, selector: u32): bool {
  const error = selector & 0xfffc;
  if (longMode(cpu) && (descriptorAttr() & (ATTR_LONG | ATTR_BIG)) == (ATTR_LONG | ATTR_BIG)) {
    raise(cpu, GP, error);
    return false;
  }
  if (!(high & PRESENT)) {
    raise(cpu, NP, error);
    return false;
  }
  return markAccessed(cpu);
}

/** Read and check the code segment of JMP or CALL at the same privilege. False with S_EXC set, or (`gate`) a system descriptor. */
let gate: bool = false;
function fetchJumpTarget(cpu: u32, selector: u32): bool {
  gate = false;
  const cpl = load<u32>(cpu, S_CPL);
  const error = selector & 0xfffc;
  if (!error) {
    raise(cpu, GP, 0);
    return false;
  }
  if (!fetch(cpu, selector, GP, 0)) return false;
  if (!(high & SEGMENT)) {
    gate = true;
    return false;
  }
  const allowed = high & CONFORMING ? dpl() <= cpl : (selector & 3) <= cpl && dpl() == cpl;
  if (!isCode() || !allowed) {
    raise(cpu, GP, error);
    return false;
  }
  return checkCode(cpu, selector);
}

/** Target of the call gate whose descriptor was read last: selector, offset, operand size in `gateSize`; 0 with S_EXC set. */
let gateOffset: u64 = 0;
let gateSize: u32 = 0;
let gateCount: u32 = 0;
function readGate(cpu: u32, selector: u32): u32 {
  const error = selector & 0xfffc;
  const type = systemType();
  const long = longMode(cpu);
  if (type != 12 && (type != 4 || long)) {
    raise(cpu, GP, error);
    return 0;
  }
  if (dpl() < load<u32>(cpu, S_CPL) || dpl() < (selector & 3)) {
    raise(cpu, GP, error);
    return 0;
  }
  if (!(high & PRESENT)) {
    raise(cpu, NP, error);
    return 0;
  }
  gateOffset = (low & 0xffff) | (high & 0xffff_0000);
  gateSize = long ? 8 : type == 12 ? 4 : 2;
  gateCount = long ? 0 : high & 31;
  if (gateSize == 2) gateOffset &= 0xffff;
  const target = low >> 16;
  if (long) {
    if (!fetchUpper(cpu, selector)) return 0;
    gateOffset |= <u64>low << 32;
  }
  if (!(target & 0xfffc)) {
    raise(cpu, GP, 0);
    return 0;
  }
  if (!fetch(cpu, target, GP, 0)) return 0;
  if (!isCode() || dpl() > load<u32>(cpu, S_CPL) || (long && (descriptorAttr() & (ATTR_LONG | ATTR_BIG)) != ATTR_LONG)) {
    raise(cpu, GP, target & 0xfffc);
    return 0;
  }
  return checkCode(cpu, target) ? target : 0;
}
/** Read the second half of a 16-byte call gate, bits 32..63 of its offset first; its type must be 0. */
function fetchUpper(cpu: u32, selector: u32): bool {
  if (!fetch(cpu, selector + 8, GP, 0)) {
    if (load<u32>(cpu, S_EXC) == GP + 1) raise(cpu, GP, selector & 0xfffc);
    return false;
  }
  if (!(high & 0x1f00)) return true;
  raise(cpu, GP, selector & 0xfffc);
  return false;
}

/** JMP or CALL to a TSS or a task gate, whose descriptor was read last, outside long mode. */
function isTask(cpu: u32): bool {
  const type = systemType();
  return !longMode(cpu) && (type == TASK_GATE || (type & 5) == 1);
}
function toTask(cpu: u32, selector: u32, kind: u32): u32 {
  const error = selector & 0xfffc;
  if (dpl() < load<u32>(cpu, S_CPL) || dpl() < (selector & 3)) return fail(cpu, GP, error);
  if (systemType() == TASK_GATE) {
    if (!(high & PRESENT)) return fail(cpu, NP, error);
    selector = low >> 16;
    if (!fetchTask(cpu, selector, kind, 0)) return failed();
  } else if (!checkTask(cpu, selector, kind, 0)) return failed();
  const next = nextRip(cpu);
  return switchTask(cpu, selector, kind, 0, next) ? doneAt(cpu, load<u64>(cpu, S_RIP)) : failed();
}

/** JMP to selector:offset. */
export function sys_jmpf(cpu: u32, selector: u32, offset: u64): u32 {
  selector &= 0xffff;
  if (!protectedMode(cpu)) return checkReal(cpu, offset) ? enterReal(cpu, selector, offset) : failed();
  let target = offset;
  if (!fetchJumpTarget(cpu, selector)) {
    if (!gate) return failed();
    if (isTask(cpu)) return toTask(cpu, selector, TASK_JUMP);
    selector = readGate(cpu, selector);
    if (!selector) return failed();
    target = gateOffset;
    if (!(high & CONFORMING) && dpl() != load<u32>(cpu, S_CPL)) return fail(cpu, GP, selector & 0xfffc);
  }
  if (!checkTarget(cpu, target)) return failed();
  useDescriptor(cpu, CS, (selector & 0xfffc) | load<u32>(cpu, S_CPL));
  enterCode(cpu);
  return doneAt(cpu, target);
}

/** CALL to selector:offset, `size` the operand size in bytes. */
export function sys_callf(cpu: u32, selector: u32, offset: u64, size: u32): u32 {
  selector &= 0xffff;
  const back = nextRip(cpu);
  if (!protectedMode(cpu)) {
    if (!checkReal(cpu, offset)) return failed();
    currentStack(cpu);
    if (!pushStack(cpu, size, selectorOf(cpu, CS)) || !pushStack(cpu, size, back)) return failed();
    commitStack(cpu);
    return enterReal(cpu, selector, offset);
  }
  let target = offset;
  if (!fetchJumpTarget(cpu, selector)) {
    if (!gate) return failed();
    if (isTask(cpu)) return toTask(cpu, selector, TASK_CALL);
    selector = readGate(cpu, selector);
    if (!selector) return failed();
    target = gateOffset;
    size = gateSize;
    if (!(high & CONFORMING) && dpl() < load<u32>(cpu, S_CPL)) return callInner(cpu, selector, target, size, back);
  }
  // As on Intel's processors: from compatibility to 64-bit code the stack has no base any more when the return address is pushed, and whether the target is
  // in its segment is looked at after that.
  if (longMode(cpu) && descriptorAttr() & ATTR_LONG) flatStack(load<u64>(cpu, RSP));
  else currentStack(cpu);
  if (!pushStack(cpu, size, selectorOf(cpu, CS)) || !pushStack(cpu, size, back) || !checkTarget(cpu, target)) return failed();
  commitStack(cpu);
  useDescriptor(cpu, CS, (selector & 0xfffc) | load<u32>(cpu, S_CPL));
  enterCode(cpu);
  return doneAt(cpu, target);
}

/** A call gate to an inner level: another stack from the TSS; outside long mode parameters are copied to it. */
function callInner(cpu: u32, selector: u32, target: u64, size: u32, back: u64): u32 {
  if (load<u32>(cpu, V_INTERCEPTS) & INTERCEPT_ENTRY) return EXIT_PRIVILEGED;
  const cpl = load<u32>(cpu, S_CPL);
  const newCpl = dpl();
  const base = descriptorBase();
  const limit = descriptorLimit();
  const attr = descriptorAttr();
  const long = longMode(cpu);
  if (long ? !isCanonical(cpu, target) : target > <u64>limit) return fail(cpu, GP, 0);
  const oldRsp = load<u64>(cpu, RSP);
  const oldSs = selectorOf(cpu, SS);
  // The parameters are read while the old stack is current.
  if (!long && !copyParameters(cpu, size)) return failed();
  const ok = long ? innerStack64(cpu, newCpl) : innerStack(cpu, newCpl, 0);
  if (!ok) return failed();
  const stack = innerSelector;
  const stackBase = innerBase;
  const stackLimit = innerLimit;
  const stackAttr = innerAttr;
  setCpl(cpu, newCpl);
  let pushed = pushStack(cpu, size, oldSs) && pushStack(cpu, size, oldRsp);
  if (!long) for (let i: i32 = gateCount - 1; i >= 0 && pushed; i--) pushed = pushStack(cpu, size, load<u32>(cpu + S_XSAVE_AREA + i * 4));
  if (!(pushed && pushStack(cpu, size, selectorOf(cpu, CS)) && pushStack(cpu, size, back))) {
    setCpl(cpu, cpl);
    return failed();
  }
  setSegment(cpu, SS, stack, stackBase, stackLimit, stackAttr);
  setSegment(cpu, CS, (selector & 0xfffc) | newCpl, base, limit, attr);
  commitStack(cpu);
  enterCode(cpu);
  return doneAt(cpu, target);
}

/** Copy the parameters of the call gate read last from the current stack to the scratch area. */
function copyParameters(cpu: u32, size: u32): bool {
  currentStack(cpu);
  for (let i: u32 = 0; i < gateCount; i++) {
    store<u32>(cpu + S_XSAVE_AREA + i * 4, <u32>popStack(cpu, size));
    if (load<u32>(cpu, S_EXC)) return false;
  }
  return true;
}

/** Read and check the code segment a RET or IRET goes back to. */
function fetchReturnTarget(cpu: u32, selector: u32): bool {
  const error = selector & 0xfffc;
  const rpl = selector & 3;
  if (!error) {
    raise(cpu, GP, 0);
    return false;
  }
  if (!fetch(cpu, selector, GP, 0)) return false;
  const allowed = high & CONFORMING ? dpl() <= rpl : dpl() == rpl;
  if (rpl < load<u32>(cpu, S_CPL) || !isCode() || !allowed) {
    raise(cpu, GP, error);
    return false;
  }
  return checkCode(cpu, selector);
}

/** Is a return to `selector` one to CPL 3 that the hypervisor wants to see? */
@inline
function returnIntercepted(cpu: u32, selector: u32): bool {
  return (selector & 3) == 3 && load<u32>(cpu, S_CPL) < 3 && (load<u32>(cpu, V_INTERCEPTS) & INTERCEPT_RETURN) != 0;
}

/** Go back to code at selector:ip with the descriptor's parts in hand and, with `stack`, to SS:rSP. */
function goBack(cpu: u32, selector: u32, ip: u64, stack: bool, ss: u32, sp: u64, release: u32): bool {
  if (!checkTarget(cpu, ip)) return false;
  const rpl = selector & 3;
  const outer = rpl > load<u32>(cpu, S_CPL);
  const base = descriptorBase();
  const limit = descriptorLimit();
  const attr = descriptorAttr();
  const long = longMode(cpu) && (attr & ATTR_LONG) != 0;
  const nullStack = stack && !(ss & 0xfffc);
  if (stack) {
    if (nullStack) {
      if (!long || rpl == 3 || (ss & 3) != rpl) {
        raise(cpu, GP, 0);
        return false;
      }
    } else if (!fetchStackSegment(cpu, ss, rpl, GP, 0)) return false;
    if (nullStack) useNull(cpu, SS, ss);
    else useDescriptor(cpu, SS, ss);
  }
  setCpl(cpu, rpl);
  setSegment(cpu, CS, selector, base, limit, attr);
  enterCode(cpu);
  if (stack) {
    if (long) store<u64>(cpu, sp + release, RSP);
    else if (load<u32>(segmentAt(cpu, SS), SEG_ATTR) & ATTR_BIG) store<u64>(cpu, (sp + release) & 0xffff_ffff, RSP);
    else store<u16>(cpu, <u16>(sp + release), RSP);
  } else {
    commitStack(cpu);
  }
  if (outer) dropInnerSegments(cpu);
  return true;
}

/** RET far, releasing `release` bytes of arguments. */
export function sys_retf(cpu: u32, size: u32, release: u32): u32 {
  currentStack(cpu);
  const ip = popStack(cpu, size);
  if (load<u32>(cpu, S_EXC)) return failed();
  const cs = <u32>popStack(cpu, size) & 0xffff;
  if (load<u32>(cpu, S_EXC)) return failed();
  skipStack(release);
  if (!protectedMode(cpu)) {
    if (!checkReal(cpu, ip)) return failed();
    commitStack(cpu);
    return enterReal(cpu, cs, ip);
  }
  if (returnIntercepted(cpu, cs)) return EXIT_PRIVILEGED;
  const outer = (cs & 3) > load<u32>(cpu, S_CPL);
  let sp: u64 = 0;
  let ss: u32 = 0;
  if (outer) {
    sp = popStack(cpu, size);
    if (load<u32>(cpu, S_EXC)) return failed();
    ss = <u32>popStack(cpu, size) & 0xffff;
    if (load<u32>(cpu, S_EXC)) return failed();
  }
  if (!fetchReturnTarget(cpu, cs)) return failed();
  if (!goBack(cpu, cs, ip, outer, ss, sp, release)) return failed();
  return doneAt(cpu, ip);
}

/** IRET with NT: back to the task that the back link of the TSS names. */
function returnToTask(cpu: u32): u32 {
  if (longMode(cpu)) return fail(cpu, GP, 0);
  const link = loadSys16(cpu, load<u64>(segmentAt(cpu, TR), SEG_BASE));
  if (load<u32>(cpu, S_EXC) || !fetchTask(cpu, link, TASK_IRET, 0)) return failed();
  const next = nextRip(cpu);
  return switchTask(cpu, link, TASK_IRET, 0, next) ? doneAt(cpu, load<u64>(cpu, S_RIP)) : failed();
}

/** The rest of an IRET from CPL 0 to virtual-8086 mode: ESP, SS, ES, DS, FS and GS follow on the stack. */
function returnToVirtual(cpu: u32, cs: u32, ip: u64, flags: u32): u32 {
  let n: u32 = 0;
  for (; n < 6; n++) {
    store<u32>(cpu + S_XSAVE_AREA + n * 4, <u32>popStack(cpu, 4));
    if (load<u32>(cpu, S_EXC)) return failed();
  }
  if (ip > 0xffff) return fail(cpu, GP, 0);
  setRflags(cpu, flags, ALL_FLAGS);
  store<u32>(cpu, load<u32>(cpu, S_RFLAGS) | RFLAGS_VM, S_RFLAGS);
  restoreRf(cpu, flags);
  setVirtual(cpu, CS, cs);
  store<u64>(cpu, load<u32>(cpu + S_XSAVE_AREA), RSP);
  setVirtual(cpu, SS, load<u16>(cpu + S_XSAVE_AREA + 4));
  setVirtual(cpu, ES, load<u16>(cpu + S_XSAVE_AREA + 8));
  setVirtual(cpu, DS, load<u16>(cpu + S_XSAVE_AREA + 12));
  setVirtual(cpu, FS, load<u16>(cpu + S_XSAVE_AREA + 16));
  setVirtual(cpu, GS, load<u16>(cpu + S_XSAVE_AREA + 20));
  setCpl(cpu, 3);
  enterCode(cpu);
  store<u32>(cpu, 0, S_NMI_BLOCKED);
  return doneAt(cpu, ip);
}

/** RF matters while there is an instruction breakpoint; nothing else looks at it, and only single steps take it back. */
function restoreRf(cpu: u32, flags: u32): void {
  if (load<u32>(cpu, S_WATCH) & WATCH_CODE) store<u32>(cpu, load<u32>(cpu, S_RFLAGS) | (flags & RFLAGS_RF), S_RFLAGS);
}

/** IRET with operands of `size` bytes. */
export function sys_iret(cpu: u32, size: u32): u32 {
  const real = !protectedMode(cpu);
  if (!real && load<u32>(cpu, S_RFLAGS) & RFLAGS_NT) return returnToTask(cpu);
  const virtual = (load<u32>(cpu, S_RFLAGS) & RFLAGS_VM) != 0;
  if (virtual && (load<u32>(cpu, S_RFLAGS) & RFLAGS_IOPL) != RFLAGS_IOPL) return fail(cpu, GP, 0);
  currentStack(cpu);
  const ip = popStack(cpu, size);
  if (load<u32>(cpu, S_EXC)) return failed();
  const cs = <u32>popStack(cpu, size) & 0xffff;
  if (load<u32>(cpu, S_EXC)) return failed();
  const flags = <u32>popStack(cpu, size);
  if (load<u32>(cpu, S_EXC)) return failed();
  const kept: u32 = size == 2 ? 0xffff : -1;
  if (real) {
    if (!checkReal(cpu, ip)) return failed();
    commitStack(cpu);
    setRflags(cpu, flags, (virtual ? ALL_FLAGS & ~(RFLAGS_IOPL | VIF_VIP) : ALL_FLAGS) & kept);
    restoreRf(cpu, flags & kept);
    store<u32>(cpu, 0, S_NMI_BLOCKED);
    return enterReal(cpu, cs, ip);
  }
  if (returnIntercepted(cpu, cs)) return EXIT_PRIVILEGED;
  const cpl = load<u32>(cpu, S_CPL);
  if (flags & RFLAGS_VM && cpl == 0 && size == 4 && !longMode(cpu)) return returnToVirtual(cpu, cs, ip, flags);
  const stack = load<u32>(cpu, S_CODE_SIZE) == 64 || (cs & 3) > cpl;
  let sp: u64 = 0;
  let ss: u32 = 0;
  if (stack) {
    sp = popStack(cpu, size);
    if (load<u32>(cpu, S_EXC)) return failed();
    ss = <u32>popStack(cpu, size) & 0xffff;
    if (load<u32>(cpu, S_EXC)) return failed();
  }
  if (!fetchReturnTarget(cpu, cs)) return failed();
  let mask = ALL_FLAGS & kept;
  if (cpl > (load<u32>(cpu, S_RFLAGS) >> 12 & 3)) mask &= ~RFLAGS_IF;
  if (cpl) mask &= ~(RFLAGS_IOPL | VIF_VIP);
  if (!goBack(cpu, cs, ip, stack, ss, sp, 0)) return failed();
  setRflags(cpu, flags, mask);
  restoreRf(cpu, flags & kept);
  store<u32>(cpu, 0, S_NMI_BLOCKED);
  return doneAt(cpu, ip);
}
