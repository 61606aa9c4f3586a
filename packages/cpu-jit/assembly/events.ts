// Delivery of exceptions and interrupts through the IDT (SDM vol. 3, chapter 7), or the vector table of real mode.
import {
  C_EVENTS, CS, DS, ES, EXC_REQUEST, EXC_RESTART, EXC_STEP, EXIT_EXCEPTION, FS, GS, INT_ICEBP, INT_N, EXIT_INTR_WINDOW, EXIT_REQUEST, EXIT_RESTART, EXIT_SHUTDOWN, EXIT_SOFT_INT, EXIT_STEP, P_PAGE_FAULT,
  INTR_WINDOW, NEXT, NEXT_CHECK, S_CPL, S_CR0, S_CR2, S_DEBUG, S_DEBUG_SHADOW, S_EXC, S_EXC_ADDR, S_EXC_ERROR, S_EXIT_VA, S_GPR, S_ICOUNT, S_IDTR, S_INTR, S_NMI,
  S_NMI_BLOCKED, S_REPEATING, S_RFLAGS, S_RIP, S_SHADOW, S_STEP, SEG_ATTR, SEG_BASE, SEG_LIMIT, SEG_SELECTOR, SS, TR, V_EXC_BITMAP, V_NATIVE,
} from "../src/layout";
import {
  CR0_PE, DB, DF, GP, NP, PF, RFLAGS_AC, RFLAGS_IF, RFLAGS_IOPL, RFLAGS_NT, RFLAGS_RF, RFLAGS_TF, RFLAGS_VM, count, fail, nextRip,
  raise,
} from "./cpu";
import { DEBUG_FAULT, DR6_BREAKPOINTS, enterDebugHandler, raiseTrap } from "./debug";
import { eventStack64, innerAttr, innerBase, innerLimit, innerSelector, innerStack } from "./inner-stack";
import { loadSys16, loadSys64 } from "./memory";
import {
  ATTR_BIG, ATTR_LONG, alignStack, commitStack, currentStack, enterCode, flatStack, longMode, pushStack, rflags,
  segmentAt, selectorOf, setCpl, setSegment,
} from "./mode";
import {
  CONFORMING, PRESENT, descriptorAttr, descriptorBase, descriptorLimit, dpl, fetch, high, isCode, markAccessed, useNull,
} from "./segment";
import { TASK_EVENT, fetchTask, switchTask } from "./task";

const RSP = S_GPR + 32;
/** Where an event comes from. */
const FAULT: u32 = 0;
const TRAP: u32 = 1;
const EXTERNAL: u32 = 2;
/** INT n: the gate's DPL counts, and faults are the program's own. */
const SOFTWARE: u32 = 3;
/** INT1: privileged in no mode. */
const ICEBP: u32 = 4;
/** INT3 and INTO, which virtual-8086 mode lets through whatever IOPL is. */
const BREAKPOINT: u32 = 5;

/** Blocked while its handler runs. */
const NMI: u32 = 2;

/** Vectors with an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC. */
const WITH_ERROR: u32 = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17;
/** #DE, #TS, #NP, #SS, #GP: two of them make a double fault (SDM vol. 3, table 7-5). */
const CONTRIBUTORY: u32 = 1 << 0 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13;

function refuse(cpu: u32, vector: u32, error: u32): bool {
  raise(cpu, vector, error);
  return false;
}

/** Deliver `vector`; false with S_EXC set when that faults, and nothing has changed. `rip`: where the handler returns to. */
function deliver(cpu: u32, vector: u32, kind: u32, error: u32, rip: u64): bool {
  count(cpu, C_EVENTS);
  // No generated code is active: stores over decoded code drop it at once.
  const step = load<u32>(cpu, S_STEP);
  store<u32>(cpu, 1, S_STEP);
  const ok = load<u32>(cpu, S_CR0) & CR0_PE ? deliverGate(cpu, vector, kind, error, rip) : deliverReal(cpu, vector, rip);
  store<u32>(cpu, step, S_STEP);
  return ok;
}

function deliverReal(cpu: u32, vector: u32, rip: u64): bool {
  if (vector * 4 + 3 > load<u32>(cpu, S_IDTR + 8)) return refuse(cpu, GP, vector * 8 + 2);
  const entry = load<u64>(cpu, S_IDTR) + vector * 4;
  const ip = loadSys16(cpu, entry);
  const cs = loadSys16(cpu, entry + 2);
  if (load<u32>(cpu, S_EXC)) return false;
  currentStack(cpu);
  if (!pushStack(cpu, 2, rflags(cpu)) || !pushStack(cpu, 2, selectorOf(cpu, CS)) || !pushStack(cpu, 2, rip)) return false;
  commitStack(cpu);
  store<u32>(cpu, load<u32>(cpu, S_RFLAGS) & ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC), S_RFLAGS);
  const code = segmentAt(cpu, CS);
  setSegment(cpu, CS, cs, cs << 4, load<u32>(code, SEG_LIMIT), load<u32>(code, SEG_ATTR));
  store<u64>(cpu, ip, S_RIP);
  enterCode(cpu);
  return true;
}

function deliverGate(cpu: u32, vector: u32, kind: u32, error: u32, rip: u64): bool {
  const long = longMode(cpu);
  const ext: u32 = kind == SOFTWARE || kind == BREAKPOINT ? 0 : 1;
  const entryError = vector * 8 + 2 + ext;
  const entrySize: u32 = long ? 16 : 8;
  if (vector * entrySize + entrySize - 1 > load<u32>(cpu, S_IDTR + 8)) return refuse(cpu, GP, entryError);
  const entry = load<u64>(cpu, S_IDTR) + vector * entrySize;
  const gate = loadSys64(cpu, entry);
  const upper = long ? loadSys64(cpu, entry + 8) : 0;
  if (load<u32>(cpu, S_EXC)) return false;
  const cpl = load<u32>(cpu, S_CPL);
  const type = <u32>(gate >> 40) & 0x1f;
  // 64- or 32-bit interrupt and trap gates; outside long mode 16-bit ones and task gates too.
  if (type != 14 && type != 15 && (long || (type != 5 && type != 6 && type != 7))) return refuse(cpu, GP, entryError);
  if ((kind == SOFTWARE || kind == BREAKPOINT) && (<u32>(gate >> 45) & 3) < cpl) return refuse(cpu, GP, entryError);
  if (!(gate >> 47 & 1)) return refuse(cpu, NP, entryError);
  const selector = <u32>(gate >> 16) & 0xffff;
  if (type == 5) return deliverTask(cpu, vector, kind, error, selector, ext, rip);
  let target = (gate & 0xffff) | (gate >> 32 & 0xffff_0000) | upper << 32;
  if (!(selector & 0xfffc)) return refuse(cpu, GP, ext);
  if (!fetch(cpu, selector, GP, ext)) return false;
  const selectorError = (selector & 0xfffc) | ext;
  if (!isCode() || dpl() > cpl) return refuse(cpu, GP, selectorError);
  if (!(high & PRESENT)) return refuse(cpu, NP, selectorError);
  if (!markAccessed(cpu)) return false;
  const codeBase = descriptorBase();
  const codeLimit = descriptorLimit();
  const codeAttr = descriptorAttr();
  if (long && (codeAttr & (ATTR_LONG | ATTR_BIG)) != ATTR_LONG) return refuse(cpu, GP, selectorError);
  const newCpl = high & CONFORMING ? cpl : dpl();
  const virtual = (load<u32>(cpu, S_RFLAGS) & RFLAGS_VM) != 0;
  if (virtual && newCpl) return refuse(cpu, GP, selectorError);
  const inner = newCpl < cpl;
  const size: u32 = long ? 8 : type & 8 ? 4 : 2;
  if (size == 2) target &= 0xffff;

  const oldRsp = load<u64>(cpu, RSP);
  const oldSs = selectorOf(cpu, SS);
  if (long) {
    const ist = <u32>(gate >> 32) & 7;
    if (ist || inner) {
      if (!eventStack64(cpu, ist, newCpl, ext)) return false;
    } else flatStack(oldRsp);
    alignStack();
  } else if (inner) {
    if (!innerStack(cpu, newCpl, ext)) return false;
  } else {
    currentStack(cpu);
  }
  const newSs = innerSelector;
  const ssBase = innerBase;
  const ssLimit = innerLimit;
  const ssAttr = innerAttr;

  // The pushes are accesses at the new privilege level.
  setCpl(cpu, newCpl);
  let image = rflags(cpu);
  if (kind == FAULT || (kind == EXTERNAL && load<u64>(cpu, S_REPEATING) == load<u64>(cpu, S_ICOUNT))) image |= RFLAGS_RF;
  let ok = true;
  if (virtual) ok = pushStack(cpu, size, selectorOf(cpu, GS)) && pushStack(cpu, size, selectorOf(cpu, FS)) && pushStack(cpu, size, selectorOf(cpu, DS)) && pushStack(cpu, size, selectorOf(cpu, ES));
  if (ok && (long || inner)) ok = pushStack(cpu, size, oldSs) && pushStack(cpu, size, oldRsp);
  ok = ok && pushStack(cpu, size, image) && pushStack(cpu, size, selectorOf(cpu, CS)) && pushStack(cpu, size, rip);
  if (ok && kind <= TRAP && WITH_ERROR >> vector & 1) ok = pushStack(cpu, size, error);
  if (!ok) {
    setCpl(cpu, cpl);
    return false;
  }
  if (inner) setSegment(cpu, SS, newSs, ssBase, ssLimit, ssAttr);
  if (virtual) {
    useNull(cpu, DS, 0);
    useNull(cpu, ES, 0);
    useNull(cpu, FS, 0);
    useNull(cpu, GS, 0);
  }
  commitStack(cpu);
  const cleared = RFLAGS_TF | RFLAGS_NT | RFLAGS_VM | RFLAGS_RF | (type & 1 ? 0 : RFLAGS_IF);
  store<u32>(cpu, load<u32>(cpu, S_RFLAGS) & ~cleared, S_RFLAGS);
  setSegment(cpu, CS, (selector & 0xfffc) | newCpl, codeBase, codeLimit, codeAttr);
  store<u64>(cpu, target, S_RIP);
  enterCode(cpu);
  return true;
}

/** Through a task gate: the new task gets the error code on its stack. */
function deliverTask(cpu: u32, vector: u32, kind: u32, error: u32, selector: u32, ext: u32, rip: u64): bool {
  if (kind == FAULT) store<u32>(cpu, load<u32>(cpu, S_RFLAGS) | RFLAGS_RF, S_RFLAGS);
  const ok = fetchTask(cpu, selector, TASK_EVENT, ext) && switchTask(cpu, selector, TASK_EVENT, ext, rip);
  if (!ok || kind > TRAP || !(WITH_ERROR >> vector & 1)) return ok;
  currentStack(cpu);
  if (!pushStack(cpu, load<u32>(segmentAt(cpu, TR), SEG_ATTR) & 8 ? 4 : 2, error)) return false;
  commitStack(cpu);
  return true;
}

/** Every delivery counts as an instruction: a handler that faults before its first one must not run for ever. */
function delivered(cpu: u32): u32 {
  store<u64>(cpu, load<u64>(cpu, S_ICOUNT) + 1, S_ICOUNT);
  return NEXT_CHECK;
}

/** Does exception `vector` leave the guest? */
@inline
function intercepted(cpu: u32, vector: u32): bool {
  return vector < 32 && (load<u32>(cpu, V_EXC_BITMAP) >> vector & 1) != 0;
}

/**
 * Deliver the exception in S_EXC, raised while `first` was (0xff: nothing) being delivered. `injected`: whatever the control block
 * intercepts. NEXT_CHECK or EXIT_*.
 */
function deliverException(cpu: u32, first: u32, injected: bool): u32 {
  while (true) {
    // The delivery needs memory that the hypervisor does not give: it leaves with the instruction undone, which raises the exception again.
    if (load<u32>(cpu, S_EXC) == EXC_REQUEST) {
      store<u32>(cpu, 0, S_EXC);
      return EXIT_REQUEST;
    }
    let vector = load<u32>(cpu, S_EXC) - 1;
    let error = load<u32>(cpu, S_EXC_ERROR);
    if (first != 0xff) {
      // CR2 is that of the last page fault, even if it only makes a double or triple fault (SDM vol. 3, 7.15, interrupt 14).
      if (vector == PF && (injected || first == PF || first == DF)) store<u64>(cpu, load<u64>(cpu, S_EXC_ADDR), S_CR2);
      if (first == DF) {
        store<u32>(cpu, 0, S_EXC);
        return EXIT_SHUTDOWN;
      }
      const second = vector < 32 && (CONTRIBUTORY >> vector & 1) != 0;
      if (first < 32 && ((CONTRIBUTORY >> first & 1 && second) || (first == PF && (second || vector == PF)))) {
        vector = DF;
        error = 0;
        raise(cpu, DF, 0);
      }
    }
    if (!injected && intercepted(cpu, vector)) return EXIT_EXCEPTION;
    if (vector == PF) store<u64>(cpu, load<u64>(cpu, S_EXC_ADDR), S_CR2);
    store<u32>(cpu, 0, S_EXC);
    let kind = FAULT;
    if (vector == DB) {
      if (error != DEBUG_FAULT) kind = TRAP;
      enterDebugHandler(cpu);
    }
    if (deliver(cpu, vector, kind, error, load<u64>(cpu, S_RIP))) return delivered(cpu);
    first = vector;
  }
}

/** What follows a set S_EXC: NEXT_CHECK when it has been delivered, or EXIT_*; S_EXC stays set for EXIT_EXCEPTION only. */
export function exceptionReason(cpu: u32): u32 {
  const exception = load<u32>(cpu, S_EXC);
  if (exception >= <u32>EXC_RESTART) {
    store<u32>(cpu, 0, S_EXC);
    return exception == EXC_RESTART ? EXIT_RESTART : exception == EXC_STEP ? EXIT_STEP : EXIT_REQUEST;
  }
  if (load<u32>(cpu, V_NATIVE)) return deliverException(cpu, 0xff, false);
  const pageFault = load<u32>(cpu, P_PAGE_FAULT);
  return pageFault && exception == PF + 1 ? call_indirect<u32>(pageFault, cpu) : EXIT_EXCEPTION;
}

/** An event from outside the program. When the delivery needs memory that is not there it comes again after that: nothing else would repeat it. */
function external(cpu: u32, vector: u32): u32 {
  if (deliver(cpu, vector, EXTERNAL, 0, load<u64>(cpu, S_RIP))) return delivered(cpu);
  if (needsMemory(cpu)) {
    if (vector == NMI) {
      store<u32>(cpu, 1, S_NMI);
      store<u32>(cpu, 0, S_NMI_BLOCKED);
    } else store<u32>(cpu, vector + 1, S_INTR);
  }
  return exceptionReason(cpu);
}

/** Is S_EXC a page fault, or a request that something be done with memory? */
function needsMemory(cpu: u32): bool {
  const exception = load<u32>(cpu, S_EXC);
  return exception == PF + 1 || exception >= <u32>EXC_RESTART;
}

/** Could an external interrupt be delivered at this point? */
export function interruptible(cpu: u32): u32 {
  return load<u32>(cpu, S_RFLAGS) & RFLAGS_IF && load<u64>(cpu, S_SHADOW) != load<u64>(cpu, S_ICOUNT) ? 1 : 0;
}

/**
 * Between two instructions: deliver what is pending. NEXT: nothing was; NEXT_CHECK: an event was delivered; EXIT_STEP: one
 * instruction must run by itself first, or TF or RF is set; other EXIT_*.
 */
export function attention(cpu: u32): u32 {
  if (!load<u32>(cpu, V_NATIVE)) {
    if (load<u32>(cpu, S_DEBUG) & DR6_BREAKPOINTS) {
      raiseTrap(cpu);
      return exceptionReason(cpu);
    }
    return load<u32>(cpu, S_RFLAGS) & (RFLAGS_TF | RFLAGS_RF) ? EXIT_STEP : NEXT;
  }
  if (load<u32>(cpu, S_EXC)) return exceptionReason(cpu);
  if (load<u32>(cpu, S_DEBUG)) {
    if (load<u64>(cpu, S_DEBUG_SHADOW) == load<u64>(cpu, S_ICOUNT)) return EXIT_STEP;
    raiseTrap(cpu);
    return exceptionReason(cpu);
  }
  const shadow = load<u64>(cpu, S_SHADOW) == load<u64>(cpu, S_ICOUNT);
  if (load<u32>(cpu, S_NMI) && !load<u32>(cpu, S_NMI_BLOCKED)) {
    if (shadow) return EXIT_STEP;
    store<u32>(cpu, 0, S_NMI);
    store<u32>(cpu, 1, S_NMI_BLOCKED);
    return external(cpu, NMI);
  }
  const pending = load<u32>(cpu, S_INTR);
  if (pending && load<u32>(cpu, S_RFLAGS) & RFLAGS_IF) {
    if (shadow) return EXIT_STEP;
    store<u32>(cpu, 0, S_INTR);
    return pending == INTR_WINDOW ? EXIT_INTR_WINDOW : external(cpu, pending - 1);
  }
  return load<u32>(cpu, S_RFLAGS) & (RFLAGS_TF | RFLAGS_RF) ? EXIT_STEP : NEXT;
}

/**
 * Event injection by the hypervisor (SDM vol. 3, 27.6): deliver `vector` through the guest's table whatever the control block intercepts, as
 * an event of `kind` (0 fault, 1 trap, 2 external, 3 software, 4 INT1). A software interrupt returns to after the instruction at S_RIP, everything else to S_RIP.
 * NEXT_CHECK, or EXIT_SHUTDOWN. An external interrupt whose delivery meets a page fault waits in S_INTR, and the page fault is delivered.
 */
export function inject(cpu: u32, vector: u32, kind: u32, error: u32): u32 {
  store<u32>(cpu, 0, S_EXC);
  if (vector == DB && (kind <= TRAP || kind == ICEBP)) enterDebugHandler(cpu);
  if (deliver(cpu, vector, kind, error, kind >= SOFTWARE ? nextRip(cpu) : load<u64>(cpu, S_RIP))) return delivered(cpu);
  if (kind == EXTERNAL && needsMemory(cpu)) store<u32>(cpu, vector + 1, S_INTR);
  return deliverException(cpu, kind <= TRAP ? vector : 0xff, true);
}

/** INT n, INT3, INTO, INT1: deliver, with the next instruction as return address. `how`: INT_N, INT_ICEBP or INT_BREAKPOINT. */
export function sys_int(cpu: u32, vector: u32, how: u32): u32 {
  if (how == INT_N && load<u32>(cpu, S_RFLAGS) & RFLAGS_VM && (load<u32>(cpu, S_RFLAGS) & RFLAGS_IOPL) != RFLAGS_IOPL) return fail(cpu, GP, 0);
  if (intercepted(cpu, vector)) {
    store<u64>(cpu, vector, S_EXIT_VA);
    return EXIT_SOFT_INT;
  }
  const next = nextRip(cpu);
  if (how == INT_ICEBP) enterDebugHandler(cpu);
  if (deliver(cpu, vector, how == INT_N ? SOFTWARE : how == INT_ICEBP ? ICEBP : BREAKPOINT, 0, next)) return delivered(cpu);
  return EXIT_EXCEPTION;
}
