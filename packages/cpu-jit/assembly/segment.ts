// Descriptors and segment registers (SDM vol. 3, chapters 3 and 5).
import {
  CS, DS, ES, FS, GS, LDTR, S_CPL, S_EXC, S_GDTR, S_SEG, SEG_ATTR, SEG_BASE, SEG_LIMIT, SEG_SELECTOR, SEG_STRIDE, SS, TR, S_CODE_SIZE, S_RFLAGS,
} from "../src/layout";
import { GP, NP, RFLAGS_VM, SS_FAULT, TS, UD, done, fail, raise } from "./cpu";
import { ZF, getFlags, setFlags } from "./flags";
import { loadSys32, loadSys64, storeSys8 } from "./memory";
import { ATTR_UNUSABLE, longMode, protectedMode, segmentAt, setSegment, setVirtual } from "./mode";

/** The descriptor read last: its two halves, and where it is. */
export let low: u32 = 0;
export let high: u32 = 0;
let at: u64 = 0;

/** Type bits of a descriptor: executable, conforming or expand-down, readable or writable. */
export const CODE: u32 = 1 << 11;
export const CONFORMING: u32 = 1 << 10;
const READ_WRITE: u32 = 1 << 9;
const ACCESSED: u32 = 1 << 8;
export const SEGMENT: u32 = 1 << 12;
export const PRESENT: u32 = 1 << 15;

@inline
export function dpl(): u32 { return high >> 13 & 3; }
@inline
export function systemType(): u32 { return high >> 8 & 15; }
@inline
export function isCode(): bool { return (high & (SEGMENT | CODE)) == (SEGMENT | CODE); }
@inline
function isWritableData(): bool { return (high & (SEGMENT | CODE | READ_WRITE)) == (SEGMENT | READ_WRITE); }
/** Data, or code that may be read. */
export function isReadable(): bool { return (high & SEGMENT) != 0 && (!(high & CODE) || (high & READ_WRITE) != 0); }

export function descriptorBase(): u32 { return low >> 16 | (high & 0xff) << 16 | (high & 0xff00_0000); }
export function descriptorLimit(): u32 {
  const limit = (low & 0xffff) | (high & 0xf_0000);
  return high & 1 << 23 ? limit << 12 | 0xfff : limit;
}
/** Linear address of the descriptor read last. */
export function descriptorAddress(): u64 { return at; }
export function descriptorAttr(): u32 { return high >> 8 & 0xf0ff; }

/** Read the descriptor that `selector` names. False: outside its table, or (S_EXC set) the read faulted. */
function read(cpu: u32, selector: u32): bool {
  let base: u64, limit: u32;
  if (selector & 4) {
    const ldt = segmentAt(cpu, LDTR);
    if (load<u32>(ldt, SEG_ATTR) & ATTR_UNUSABLE || !(load<u32>(ldt, SEG_SELECTOR) & 0xfffc)) return false;
    base = load<u64>(ldt, SEG_BASE);
    limit = load<u32>(ldt, SEG_LIMIT);
  } else {
    base = load<u64>(cpu, S_GDTR);
    limit = load<u32>(cpu, S_GDTR + 8);
  }
  const index = selector & 0xfff8;
  if (index + 7 > limit) return false;
  at = base + index;
  const descriptor = loadSys64(cpu, at);
  low = <u32>descriptor;
  high = <u32>(descriptor >> 32);
  return !load<u32>(cpu, S_EXC);
}

/** As `read`; a selector outside its table raises `vector` with the selector as error code, `ext` put in. */
export function fetch(cpu: u32, selector: u32, vector: u32, ext: u32): bool {
  if (read(cpu, selector)) return true;
  if (!load<u32>(cpu, S_EXC)) raise(cpu, vector, (selector & 0xfffc) | ext);
  return false;
}

/** Set the accessed bit of the descriptor read last. */
export function markAccessed(cpu: u32): bool {
  if (high & ACCESSED) return true;
  storeSys8(cpu, at + 5, (high >> 8 & 0xff) | 1);
  high |= ACCESSED;
  return !load<u32>(cpu, S_EXC);
}

/** Load segment register `n` from the descriptor read last. */
export function useDescriptor(cpu: u32, n: u32, selector: u32): void {
  setSegment(cpu, n, selector, descriptorBase(), descriptorLimit(), descriptorAttr());
}
/** A null selector. */
export function useNull(cpu: u32, n: u32, selector: u32): void {
  setSegment(cpu, n, selector, 0, 0, ATTR_UNUSABLE);
}

/** Check SS for privilege level `cpl` and leave its descriptor read; `vector`: what bad selectors raise. */
export function fetchStackSegment(cpu: u32, selector: u32, cpl: u32, vector: u32, ext: u32): bool {
  if (!(selector & 0xfffc)) {
    raise(cpu, vector, ext);
    return false;
  }
  if (!fetch(cpu, selector, vector, ext)) return false;
  const error = (selector & 0xfffc) | ext;
  if ((selector & 3) != cpl || dpl() != cpl || !isWritableData()) {
    raise(cpu, vector, error);
    return false;
  }
  if (!(high & PRESENT)) {
    raise(cpu, SS_FAULT, error);
    return false;
  }
  return markAccessed(cpu);
}

/** MOV, POP, LDS... to segment register `n`; faults set S_EXC. */
export function load_segment(cpu: u32, n: u32, selector: u32): void {
  selector &= 0xffff;
  if (load<u32>(cpu, S_RFLAGS) & RFLAGS_VM) return setVirtual(cpu, n, selector);
  if (!protectedMode(cpu)) {
    const segment = segmentAt(cpu, n);
    // In real mode limit and attributes stay as they are, but a null selector of protected mode leaves nothing to stay.
    const keep = !(load<u32>(segment, SEG_ATTR) & ATTR_UNUSABLE);
    setSegment(cpu, n, selector, selector << 4, keep ? load<u32>(segment, SEG_LIMIT) : 0xffff, keep ? load<u32>(segment, SEG_ATTR) : 0x93);
    return;
  }
  const cpl = load<u32>(cpu, S_CPL);
  if (n == SS) {
    if (!(selector & 0xfffc) && load<u32>(cpu, S_CODE_SIZE) == 64 && cpl < 3 && (selector & 3) == cpl) return useNull(cpu, n, selector);
    if (fetchStackSegment(cpu, selector, cpl, GP, 0)) useDescriptor(cpu, n, selector);
    return;
  }
  if (!(selector & 0xfffc)) return useNull(cpu, n, selector);
  if (!fetch(cpu, selector, GP, 0)) return;
  const bound = !(high & CODE) || !(high & CONFORMING);
  if (!isReadable() || (bound && (cpl > dpl() || (selector & 3) > dpl()))) return raise(cpu, GP, selector & 0xfffc);
  if (!(high & PRESENT)) return raise(cpu, NP, selector & 0xfffc);
  if (markAccessed(cpu)) useDescriptor(cpu, n, selector);
}

/** On a return to an outer privilege level data segments it may not see become null. */
export function dropInnerSegments(cpu: u32): void {
  const cpl = load<u32>(cpu, S_CPL);
  for (let n: u32 = ES; n <= <u32>GS; n++) {
    if (n == CS || n == SS) continue;
    const attr = load<u32>(segmentAt(cpu, n), SEG_ATTR);
    if (attr & ATTR_UNUSABLE) continue;
    const conforming = (attr & 0x1c) == 0x1c;
    if (!conforming && (attr >> 5 & 3) < cpl) useNull(cpu, n, 0);
  }
}

/** Upper half of the base of a system descriptor in long mode, which takes 16 bytes. */
function wideBase(cpu: u32, selector: u32): u64 {
  if (!longMode(cpu)) return descriptorBase();
  if ((selector & 0xfff8) + 15 > load<u32>(cpu, S_GDTR + 8)) {
    raise(cpu, GP, selector & 0xfffc);
    return 0;
  }
  return <u64>loadSys32(cpu, at + 8) << 32 | descriptorBase();
}

/** LLDT. */
export function sys_lldt(cpu: u32, selector: u32): u32 {
  if (!protectedMode(cpu)) return fail(cpu, UD, 0);
  if (!(selector & 0xfffc)) {
    useNull(cpu, LDTR, selector);
    return done(cpu);
  }
  if (selector & 4) return fail(cpu, GP, selector & 0xfffc);
  if (!fetch(cpu, selector, GP, 0)) return failed();
  if (high & SEGMENT || systemType() != 2) return fail(cpu, GP, selector & 0xfffc);
  if (!(high & PRESENT)) return fail(cpu, NP, selector & 0xfffc);
  const base = wideBase(cpu, selector);
  if (load<u32>(cpu, S_EXC)) return failed();
  setSegment(cpu, LDTR, selector, base, descriptorLimit(), descriptorAttr());
  return done(cpu);
}

/** LTR: an available TSS becomes busy. */
export function sys_ltr(cpu: u32, selector: u32): u32 {
  if (!protectedMode(cpu)) return fail(cpu, UD, 0);
  if (!(selector & 0xfffc)) return fail(cpu, GP, 0);
  if (selector & 4) return fail(cpu, GP, selector & 0xfffc);
  if (!fetch(cpu, selector, GP, 0)) return failed();
  const type = systemType();
  if (high & SEGMENT || !(type == 9 || (type == 1 && !longMode(cpu)))) return fail(cpu, GP, selector & 0xfffc);
  if (!(high & PRESENT)) return fail(cpu, NP, selector & 0xfffc);
  const base = wideBase(cpu, selector);
  if (load<u32>(cpu, S_EXC)) return failed();
  storeSys8(cpu, at + 5, (high >> 8 & 0xff) | 2);
  if (load<u32>(cpu, S_EXC)) return failed();
  setSegment(cpu, TR, selector, base, descriptorLimit(), descriptorAttr() | 2);
  return done(cpu);
}
/** S_EXC is set already. */
@inline
export function failed(): u32 { return 16; }

/** Which of LAR, LSL, VERR, VERW `sys_access` is for. */
const LAR: u32 = 0;
const LSL: u32 = 1;
const VERR: u32 = 2;

/** LAR, LSL, VERR, VERW: ZF says whether `selector` names a descriptor of the right kind that may be seen; the value for LAR and LSL. */
export function sys_access(cpu: u32, selector: u32, what: u32): u32 {
  if (!protectedMode(cpu)) {
    raise(cpu, UD, 0);
    return 0;
  }
  selector &= 0xffff;
  const ok = (selector & 0xfffc) != 0 && read(cpu, selector) && visible(cpu, selector, what);
  if (load<u32>(cpu, S_EXC)) return 0;
  setFlags(cpu, (getFlags(cpu) & ~ZF) | (ok ? ZF : 0));
  if (!ok) return 0;
  return what == LAR ? high & 0x00ff_ff00 : what == LSL ? descriptorLimit() : 0;
}

function visible(cpu: u32, selector: u32, what: u32): bool {
  const long = longMode(cpu);
  const reached = load<u32>(cpu, S_CPL) <= dpl() && (selector & 3) <= dpl();
  if (high & SEGMENT) {
    if (what == VERR && !isReadable()) return false;
    if (what > VERR && !isWritableData()) return false;
    return reached || (high & (CODE | CONFORMING)) == (CODE | CONFORMING);
  }
  if (what >= VERR || !reached) return false;
  // System descriptors with these types: LDT, TSS, gates.
  const types: u32 = long ? (what == LAR ? 0x1a04 : 0x0a04) : what == LAR ? 0x1a3e : 0x0a0e;
  return (types >> systemType() & 1) != 0;
}
