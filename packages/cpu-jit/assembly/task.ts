// Task switches, which exist outside long mode only (SDM vol. 3, chapter 8).
import {
  CS, ES, GS, LDTR, S_CR0, S_EXC, S_GDTR, S_GPR, S_RFLAGS, S_RIP, S_XSAVE_AREA, SEG_ATTR, SEG_BASE, SEG_LIMIT, SEG_SELECTOR, SS, TR,
} from "../src/layout";
import { CR0_PG, GP, NP, RFLAGS_NT, RFLAGS_RF, RFLAGS_VM, TS, raise } from "./cpu";
import { loadCr3 } from "./control";
import { debugTaskSwitched } from "./debug";
import { loadSys8, loadSys16, loadSys32, probeSys, storeSys8, storeSys16, storeSys32 } from "./memory";
import { enterCode, rflags, segmentAt, selectorOf, setCpl, setRflags, setSegment, setVirtual } from "./mode";
import {
  CONFORMING, PRESENT, SEGMENT, descriptorAddress, descriptorAttr, descriptorBase, descriptorLimit, dpl, fetch, fetchStackSegment, high, isCode, isReadable,
  markAccessed, systemType, useDescriptor, useNull,
} from "./segment";

/** What starts a switch. */
export const TASK_JUMP: u32 = 0;
export const TASK_CALL: u32 = 1;
export const TASK_IRET: u32 = 2;
export const TASK_EVENT: u32 = 3;

const CR0_TS: u32 = 8;
const ALL_FLAGS: u32 = 0x3c_7fd5;
/** Bit of a TSS's type: it has the 32-bit layout; the other types are those of the 80286. */
const WIDE: u32 = 8;
const BUSY: u32 = 2;
/** Smallest limits (SDM vol. 3, 8.2.1, 8.6). */
const LAST_32: u32 = 103;
const LAST_16: u32 = 43;
/** Fields of a 32-bit TSS (SDM vol. 3, figure 8-2), and of a 16-bit one (figure 8-10). */
const CR3_AT: u32 = 28;
const IP_AT: u32 = 32;
const FLAGS_AT: u32 = 36;
const REGISTERS_AT: u32 = 40;
const SEGMENTS_AT: u32 = 72;
const LDT_AT: u32 = 96;
const TRAP_AT: u32 = 100;
const IP16_AT: u32 = 14;
const FLAGS16_AT: u32 = 16;
const REGISTERS16_AT: u32 = 18;
const SEGMENTS16_AT: u32 = 34;
const LDT16_AT: u32 = 42;

function refuse(cpu: u32, vector: u32, error: u32): bool {
  raise(cpu, vector, error);
  return false;
}

/** Check the descriptor read last, that of TSS `selector`: available, or busy for IRET, and present. */
export function checkTask(cpu: u32, selector: u32, kind: u32, ext: u32): bool {
  const vector = kind == TASK_IRET ? TS : GP;
  const error = (selector & 0xfffc) | ext;
  const type: u32 = kind == TASK_IRET ? 1 | BUSY : 1;
  if (selector & 4 || high & SEGMENT || (systemType() & ~WIDE) != type) return refuse(cpu, vector, error);
  if (!(high & PRESENT)) return refuse(cpu, NP, error);
  return true;
}

/** Read and check the descriptor of TSS `selector`, named by a task gate or a back link. */
export function fetchTask(cpu: u32, selector: u32, kind: u32, ext: u32): bool {
  const vector = kind == TASK_IRET ? TS : GP;
  if (selector & 4 || !(selector & 0xfffc)) return refuse(cpu, vector, (selector & 0xfffc) | ext);
  return fetch(cpu, selector, vector, ext) && checkTask(cpu, selector, kind, ext);
}

/** Copy of the new TSS in the scratch area. */
@inline
function field16(cpu: u32, at: u32): u32 { return load<u16>(cpu + S_XSAVE_AREA + at); }
@inline
function field32(cpu: u32, at: u32): u32 { return load<u32>(cpu + S_XSAVE_AREA + at); }

/** Is all memory that the switch reads and writes there? Copies the new TSS. */
function prepare(cpu: u32, base: u64, last: u32, oldBase: u64, oldWide: bool, linked: bool): bool {
  if (!probeSys(cpu, oldBase + (oldWide ? IP_AT : IP16_AT), oldWide ? LDT_AT - IP_AT : LDT16_AT - IP16_AT)) return false;
  if (linked && !probeSys(cpu, base, 2)) return false;
  for (let i: u32 = 0; i <= last; i++) {
    store<u8>(cpu + S_XSAVE_AREA + i, <u8>loadSys8(cpu, base + i));
    if (load<u32>(cpu, S_EXC)) return false;
  }
  return true;
}

function saveTask(cpu: u32, base: u64, wide: bool, flags: u32, rip: u64): void {
  if (wide) {
    storeSys32(cpu, base + IP_AT, <u32>rip);
    storeSys32(cpu, base + FLAGS_AT, flags);
    for (let n: u32 = 0; n < 8; n++) storeSys32(cpu, base + REGISTERS_AT + n * 4, load<u32>(cpu + S_GPR + n * 8));
    for (let n: u32 = ES; n <= <u32>GS; n++) storeSys16(cpu, base + SEGMENTS_AT + n * 4, selectorOf(cpu, n));
  } else {
    storeSys16(cpu, base + IP16_AT, <u32>rip);
    storeSys16(cpu, base + FLAGS16_AT, flags);
    for (let n: u32 = 0; n < 8; n++) storeSys16(cpu, base + REGISTERS16_AT + n * 2, load<u32>(cpu + S_GPR + n * 8));
    for (let n: u32 = ES; n < 4; n++) storeSys16(cpu, base + SEGMENTS16_AT + n * 2, selectorOf(cpu, n));
  }
}

/** Clear the busy bit in the descriptor of the current task. */
function release(cpu: u32): bool {
  const at = load<u64>(cpu, S_GDTR) + (selectorOf(cpu, TR) & 0xfff8) + 5;
  const byte = loadSys8(cpu, at);
  if (load<u32>(cpu, S_EXC)) return false;
  storeSys8(cpu, at, byte & ~BUSY);
  return !load<u32>(cpu, S_EXC);
}

/**
 * Switch to the task whose TSS descriptor was read and checked last. `rip`: where the current task goes on. False with S_EXC set: before the
 * registers of the new task are loaded nothing has changed; after that the fault is one of the new task, RIP at its first instruction.
 */
export function switchTask(cpu: u32, selector: u32, kind: u32, ext: u32, rip: u64): bool {
  const wide = (systemType() & WIDE) != 0;
  const base = <u64>descriptorBase();
  const limit = descriptorLimit();
  const attr = descriptorAttr();
  const at = descriptorAddress();
  const busyByte = (high >> 8 & 0xff) | BUSY;
  if ((wide ? LAST_32 : LAST_16) > limit) return refuse(cpu, TS, (selector & 0xfffc) | ext);
  const old = segmentAt(cpu, TR);
  const oldBase = load<u64>(old, SEG_BASE);
  const oldWide = (load<u32>(old, SEG_ATTR) & WIDE) != 0;
  const oldSelector = selectorOf(cpu, TR);
  if ((oldWide ? LAST_32 : LAST_16) > load<u32>(old, SEG_LIMIT)) return refuse(cpu, TS, (oldSelector & 0xfffc) | ext);
  const nests = kind == TASK_CALL || kind == TASK_EVENT;
  if (!prepare(cpu, base, wide ? LAST_32 : LAST_16, oldBase, oldWide, nests)) return false;
  if (!nests && !release(cpu)) return false;
  let flags = rflags(cpu);
  if (kind == TASK_IRET) flags &= ~RFLAGS_NT;
  saveTask(cpu, oldBase, oldWide, flags, rip);
  if (nests) storeSys16(cpu, base, oldSelector);
  if (kind != TASK_IRET) storeSys8(cpu, at + 5, busyByte);
  if (load<u32>(cpu, S_EXC)) return false;
  setSegment(cpu, TR, selector, base, limit, attr | BUSY);
  store<u32>(cpu, load<u32>(cpu, S_CR0) | CR0_TS, S_CR0);
  debugTaskSwitched(cpu, wide && (field16(cpu, TRAP_AT) & 1) != 0);
  return loadTask(cpu, wide, nests, ext);
}

/** Load the registers of the task whose TSS is in the scratch area. */
function loadTask(cpu: u32, wide: bool, nests: bool, ext: u32): bool {
  if (wide && load<u32>(cpu, S_CR0) & CR0_PG) loadCr3(cpu, field32(cpu, CR3_AT));
  let flags = wide ? field32(cpu, FLAGS_AT) : field16(cpu, FLAGS16_AT);
  if (nests) flags |= RFLAGS_NT;
  for (let n: u32 = 0; n < 8; n++) {
    // What a 16-bit TSS leaves of the upper halves is undefined; processors set them.
    const value = wide ? field32(cpu, REGISTERS_AT + n * 4) : 0xffff_0000 | field16(cpu, REGISTERS16_AT + n * 2);
    store<u64>(cpu + S_GPR + n * 8, value);
  }
  setRflags(cpu, flags, ALL_FLAGS);
  store<u32>(cpu, (load<u32>(cpu, S_RFLAGS) & ~RFLAGS_VM) | (flags & (RFLAGS_VM | RFLAGS_RF)), S_RFLAGS);
  const ip = wide ? field32(cpu, IP_AT) : field16(cpu, IP16_AT);
  store<u64>(cpu, ip, S_RIP);
  // All selectors are there before the first descriptor is looked at.
  for (let n: u32 = ES; n <= <u32>GS; n++) useNull(cpu, n, segmentOf(cpu, wide, n));
  const ldt = wide ? field16(cpu, LDT_AT) : field16(cpu, LDT16_AT);
  useNull(cpu, LDTR, ldt);
  const virtual = (flags & RFLAGS_VM) != 0;
  const code = segmentOf(cpu, wide, CS);
  setCpl(cpu, virtual ? 3 : code & 3);
  enterCode(cpu);
  if (!loadLdt(cpu, ldt, ext)) return false;
  if (virtual) {
    for (let n: u32 = ES; n <= <u32>GS; n++) setVirtual(cpu, n, segmentOf(cpu, wide, n));
    enterCode(cpu);
  } else if (!loadSegments(cpu, wide, code, ext)) return false;
  if (ip > load<u32>(segmentAt(cpu, CS), SEG_LIMIT)) return refuse(cpu, GP, ext);
  return true;
}

function segmentOf(cpu: u32, wide: bool, n: u32): u32 {
  if (wide) return field16(cpu, SEGMENTS_AT + n * 4);
  return n < 4 ? field16(cpu, SEGMENTS16_AT + n * 2) : 0;
}

function loadLdt(cpu: u32, selector: u32, ext: u32): bool {
  if (!(selector & 0xfffc)) return true;
  const error = (selector & 0xfffc) | ext;
  if (selector & 4) return refuse(cpu, TS, error);
  if (!fetch(cpu, selector, TS, ext)) return false;
  if (high & SEGMENT || systemType() != 2 || !(high & PRESENT)) return refuse(cpu, TS, error);
  setSegment(cpu, LDTR, selector, descriptorBase(), descriptorLimit(), descriptorAttr());
  return true;
}

function loadSegments(cpu: u32, wide: bool, code: u32, ext: u32): bool {
  const cpl = code & 3;
  const error = (code & 0xfffc) | ext;
  if (!(code & 0xfffc)) return refuse(cpu, TS, error);
  if (!fetch(cpu, code, TS, ext)) return false;
  if (!isCode() || (high & CONFORMING ? dpl() > cpl : dpl() != cpl)) return refuse(cpu, TS, error);
  if (!(high & PRESENT)) return refuse(cpu, NP, error);
  if (!markAccessed(cpu)) return false;
  useDescriptor(cpu, CS, code);
  enterCode(cpu);
  const stack = segmentOf(cpu, wide, SS);
  if (!fetchStackSegment(cpu, stack, cpl, TS, ext)) return false;
  useDescriptor(cpu, SS, stack);
  for (let n: u32 = ES; n <= <u32>GS; n++) {
    if (n != CS && n != SS && !loadData(cpu, n, segmentOf(cpu, wide, n), cpl, ext)) return false;
  }
  return true;
}

function loadData(cpu: u32, n: u32, selector: u32, cpl: u32, ext: u32): bool {
  if (!(selector & 0xfffc)) return true;
  const error = (selector & 0xfffc) | ext;
  if (!fetch(cpu, selector, TS, ext)) return false;
  const conforming = isCode() && (high & CONFORMING) != 0;
  if (!isReadable() || (!conforming && (cpl > dpl() || (selector & 3) > dpl()))) return refuse(cpu, TS, error);
  if (!(high & PRESENT)) return refuse(cpu, NP, error);
  if (!markAccessed(cpu)) return false;
  useDescriptor(cpu, n, selector);
  return true;
}
