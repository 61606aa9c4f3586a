// Delivery of exceptions and interrupts through the IDT (SDM vol. 3, chapter 7), or the vector table of real mode.
import {
  C_EVENTS, CS, EXC_REQUEST, EXC_RESTART, EXIT_EXCEPTION, EXIT_INTR_WINDOW, EXIT_REQUEST, EXIT_RESTART, EXIT_SHUTDOWN, EXIT_SOFT_INT, EXIT_STEP, P_PAGE_FAULT,
  INTR_WINDOW, NEXT, NEXT_CHECK, S_CPL, S_CR2, S_EXC, S_EXC_ADDR, S_EXC_ERROR, S_EXIT_VA, S_GPR, S_ICOUNT, S_IDTR, S_INTR, S_NMI,
  S_NMI_BLOCKED, S_RFLAGS, S_RIP, S_SHADOW, S_STEP, SEG_ATTR, SEG_BASE, SEG_LIMIT, SEG_SELECTOR, SS, TR, V_EXC_BITMAP, V_NATIVE,
} from "../src/layout";
import {
  DF, GP, NP, PF, RFLAGS_AC, RFLAGS_IF, RFLAGS_NT, RFLAGS_RF, RFLAGS_TF, RFLAGS_VM, SS_FAULT, TS, count, isCanonical, nextRip, raise,
} from "./cpu";
import { loadSys16, loadSys32, loadSys64 } from "./memory";
import {
  ATTR_BIG, ATTR_LONG, ATTR_UNUSABLE, commitStack, currentStack, enterCode, flatStack, longMode, otherStack, protectedMode, pushStack, rflags,
  segmentAt, selectorOf, setCpl, setSegment,
} from "./mode";
import {
  CONFORMING, PRESENT, descriptorAttr, descriptorBase, descriptorLimit, dpl, fetch, fetchStackSegment, high, isCode, markAccessed,
} from "./segment";

const RSP = S_GPR + 32;
/** Where an event comes from. */
const FAULT: u32 = 0;
const TRAP: u32 = 1;
const EXTERNAL: u32 = 2;
/** INT n, INT3, INTO: the gate's DPL counts, and faults are the program's own. */
const SOFTWARE: u32 = 3;
/** INT1. */
const ICEBP: u32 = 4;

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
  const ok = protectedMode(cpu) ? deliverGate(cpu, vector, kind, error, rip) : deliverReal(cpu, vector, rip);
  store<u32>(cpu, step, S_STEP);
  return ok;
}

function deliverReal(cpu: u32, vector: u32, rip: u64): bool {
  if (load<u32>(cpu, S_RFLAGS) & RFLAGS_VM) return refuse(cpu, GP, 0);
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

/** A pointer of `size` bytes at `offset` of the TSS; #TS when it lies outside. */
function fromTss(cpu: u32, offset: u32, size: u32, ext: u32): u64 {
  const tss = segmentAt(cpu, TR);
  if (offset + size - 1 > load<u32>(tss, SEG_LIMIT)) {
    raise(cpu, TS, (load<u32>(tss, SEG_SELECTOR) & 0xfffc) | ext);
    return 0;
  }
  const address = load<u64>(tss, SEG_BASE) + offset;
  return size == 8 ? loadSys64(cpu, address) : size == 4 ? loadSys32(cpu, address) : loadSys16(cpu, address);
}

function deliverGate(cpu: u32, vector: u32, kind: u32, error: u32, rip: u64): bool {
  const long = longMode(cpu);
  const ext: u32 = kind == SOFTWARE ? 0 : 1;
  const entryError = vector * 8 + 2 + ext;
  const entrySize: u32 = long ? 16 : 8;
  if (vector * entrySize + entrySize - 1 > load<u32>(cpu, S_IDTR + 8)) return refuse(cpu, GP, entryError);
  const entry = load<u64>(cpu, S_IDTR) + vector * entrySize;
  const gate = loadSys64(cpu, entry);
  const upper = long ? loadSys64(cpu, entry + 8) : 0;
  if (load<u32>(cpu, S_EXC)) return false;
  const cpl = load<u32>(cpu, S_CPL);
  const type = <u32>(gate >> 40) & 0x1f;
  // 64- or 32-bit interrupt and trap gates; 16-bit ones outside long mode. Task gates are not served.
  if (type != 14 && type != 15 && (long || (type != 6 && type != 7))) return refuse(cpu, GP, entryError);
  if (kind == SOFTWARE && (<u32>(gate >> 45) & 3) < cpl) return refuse(cpu, GP, entryError);
  if (!(gate >> 47 & 1)) return refuse(cpu, NP, entryError);
  const selector = <u32>(gate >> 16) & 0xffff;
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
  const inner = newCpl < cpl;
  const size: u32 = long ? 8 : type & 8 ? 4 : 2;
  if (size == 2) target &= 0xffff;

  const oldRsp = load<u64>(cpu, RSP);
  const oldSs = selectorOf(cpu, SS);
  let newSs: u32 = 0, ssBase: u32 = 0, ssLimit: u32 = 0, ssAttr: u32 = 0;
  if (long) {
    const ist = <u32>(gate >> 32) & 7;
    let pointer: u64;
    if (ist) pointer = fromTss(cpu, 28 + ist * 8, 8, ext);
    else pointer = inner ? fromTss(cpu, 4 + newCpl * 8, 8, ext) : oldRsp;
    if (load<u32>(cpu, S_EXC)) return false;
    if (!isCanonical(cpu, pointer)) return refuse(cpu, SS_FAULT, ext);
    flatStack(pointer & ~0xf);
    newSs = newCpl;
  } else if (inner) {
    const wide = (load<u32>(segmentAt(cpu, TR), SEG_ATTR) & 8) != 0;
    const pointer = wide ? fromTss(cpu, 4 + newCpl * 8, 4, ext) : fromTss(cpu, 2 + newCpl * 4, 2, ext);
    newSs = <u32>(wide ? fromTss(cpu, 8 + newCpl * 8, 2, ext) : fromTss(cpu, 4 + newCpl * 4, 2, ext));
    if (load<u32>(cpu, S_EXC) || !fetchStackSegment(cpu, newSs, newCpl, TS, ext)) return false;
    ssBase = descriptorBase();
    ssLimit = descriptorLimit();
    ssAttr = descriptorAttr();
    const down = (ssAttr & 0x1c) == 0x14;
    const big = (ssAttr & ATTR_BIG) != 0;
    otherStack(pointer, ssBase, big, down ? ssLimit + 1 : 0, down ? (big ? 0xffff_ffff : 0xffff) : ssLimit, (newSs & 0xfffc) | ext);
  } else {
    currentStack(cpu);
  }

  // The pushes are accesses at the new privilege level.
  setCpl(cpu, newCpl);
  let image = rflags(cpu);
  if (kind == FAULT) image |= RFLAGS_RF;
  let ok = true;
  if (long || inner) ok = pushStack(cpu, size, oldSs) && pushStack(cpu, size, oldRsp);
  ok = ok && pushStack(cpu, size, image) && pushStack(cpu, size, selectorOf(cpu, CS)) && pushStack(cpu, size, rip);
  if (ok && kind <= TRAP && WITH_ERROR >> vector & 1) ok = pushStack(cpu, size, error);
  if (!ok) {
    setCpl(cpu, cpl);
    return false;
  }
  if (inner) {
    if (long) setSegment(cpu, SS, newSs, 0, 0xffff_ffff, ATTR_UNUSABLE);
    else setSegment(cpu, SS, newSs, ssBase, ssLimit, ssAttr);
  }
  commitStack(cpu);
  const cleared = RFLAGS_TF | RFLAGS_NT | RFLAGS_VM | RFLAGS_RF | (type & 1 ? 0 : RFLAGS_IF);
  store<u32>(cpu, load<u32>(cpu, S_RFLAGS) & ~cleared, S_RFLAGS);
  setSegment(cpu, CS, (selector & 0xfffc) | newCpl, codeBase, codeLimit, codeAttr);
  store<u64>(cpu, target, S_RIP);
  enterCode(cpu);
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
    let vector = load<u32>(cpu, S_EXC) - 1;
    let error = load<u32>(cpu, S_EXC_ERROR);
    if (first != 0xff) {
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
    // #DB from here is a trap: single-step is the only source.
    if (deliver(cpu, vector, vector == 1 ? TRAP : FAULT, error, load<u64>(cpu, S_RIP))) return delivered(cpu);
    first = vector;
  }
}

/** What follows a set S_EXC: NEXT_CHECK when it has been delivered, or EXIT_*; S_EXC stays set for EXIT_EXCEPTION only. */
export function exceptionReason(cpu: u32): u32 {
  const exception = load<u32>(cpu, S_EXC);
  if (exception == EXC_RESTART || exception == EXC_REQUEST) {
    store<u32>(cpu, 0, S_EXC);
    return exception == EXC_RESTART ? EXIT_RESTART : EXIT_REQUEST;
  }
  if (load<u32>(cpu, V_NATIVE)) return deliverException(cpu, 0xff, false);
  const pageFault = load<u32>(cpu, P_PAGE_FAULT);
  return pageFault && exception == PF + 1 ? call_indirect<u32>(pageFault, cpu) : EXIT_EXCEPTION;
}

/** An event from outside the program. */
function external(cpu: u32, vector: u32): u32 {
  if (deliver(cpu, vector, EXTERNAL, 0, load<u64>(cpu, S_RIP))) return delivered(cpu);
  return exceptionReason(cpu);
}

/** Could an external interrupt be delivered at this point? */
export function interruptible(cpu: u32): u32 {
  return load<u32>(cpu, S_RFLAGS) & RFLAGS_IF && load<u64>(cpu, S_SHADOW) != load<u64>(cpu, S_ICOUNT) ? 1 : 0;
}

/**
 * Between two instructions: deliver what is pending. NEXT: nothing was; NEXT_CHECK: an event was delivered; EXIT_STEP: one
 * instruction must run by itself first, or TF is set; other EXIT_*.
 */
export function attention(cpu: u32): u32 {
  if (!load<u32>(cpu, V_NATIVE)) return NEXT;
  if (load<u32>(cpu, S_EXC)) return exceptionReason(cpu);
  const shadow = load<u64>(cpu, S_SHADOW) == load<u64>(cpu, S_ICOUNT);
  if (load<u32>(cpu, S_NMI) && !load<u32>(cpu, S_NMI_BLOCKED)) {
    if (shadow) return EXIT_STEP;
    store<u32>(cpu, 0, S_NMI);
    store<u32>(cpu, 1, S_NMI_BLOCKED);
    return external(cpu, 2);
  }
  const pending = load<u32>(cpu, S_INTR);
  if (pending && load<u32>(cpu, S_RFLAGS) & RFLAGS_IF) {
    if (shadow) return EXIT_STEP;
    store<u32>(cpu, 0, S_INTR);
    return pending == INTR_WINDOW ? EXIT_INTR_WINDOW : external(cpu, pending - 1);
  }
  return load<u32>(cpu, S_RFLAGS) & RFLAGS_TF ? EXIT_STEP : NEXT;
}

/**
 * Event injection by the hypervisor (SDM vol. 3, 27.6): deliver `vector` through the guest's table whatever the control block intercepts, as
 * an event of `kind` (0 fault, 1 trap, 2 external, 3 software, 4 INT1). A software interrupt returns to after the instruction at S_RIP, everything else to S_RIP.
 * NEXT_CHECK, or EXIT_SHUTDOWN.
 */
export function inject(cpu: u32, vector: u32, kind: u32, error: u32): u32 {
  store<u32>(cpu, 0, S_EXC);
  if (deliver(cpu, vector, kind, error, kind >= SOFTWARE ? nextRip(cpu) : load<u64>(cpu, S_RIP))) return delivered(cpu);
  return deliverException(cpu, kind <= TRAP ? vector : 0xff, true);
}

/** INT n, INT3, INTO, INT1 (`icebp`): deliver, with the next instruction as return address. */
export function sys_int(cpu: u32, vector: u32, icebp: u32): u32 {
  if (intercepted(cpu, vector)) {
    store<u64>(cpu, vector, S_EXIT_VA);
    return EXIT_SOFT_INT;
  }
  if (deliver(cpu, vector, icebp ? ICEBP : SOFTWARE, 0, nextRip(cpu))) return delivered(cpu);
  return EXIT_EXCEPTION;
}
