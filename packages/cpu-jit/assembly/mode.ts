// Privilege level, code size, RFLAGS as a whole, and the stack: what every transfer of control changes.
import {
  CS, DS, EXIT_EXCEPTION, GS, S_ALIGN, S_CODE_SIZE, S_CPL, S_CR0, S_EFER, S_EXC, S_FLAT, S_GPR, S_RFLAGS, S_SEG, S_STEP, S_TLB, SEG_ATTR, SEG_BASE, SEG_FIRST, SEG_LAST,
  P_DIRECT_ERETUS, P_DIRECT_SYSCALLS, P_KERNEL_ROOT, P_USER_ROOT, SEG_LIMIT, SEG_SELECTOR, SEG_STRIDE, SS, T_CODE_SEGMENT, V_DEPRIVILEGED, V_NATIVE, V_ROOT, V_SLOT,
} from "../src/layout";
import { CR0_AM, CR0_PE, EFER_LMA, GP, RFLAGS_AC, RFLAGS_VM, SS_FAULT, count, done, raise, tlbArray } from "./cpu";
import { getFlags, setFlags } from "./flags";
import { loadSized, storeSized } from "./memory";
import { updateSmap } from "./smap";
import { newContext, selectArray, tlbFlushArray } from "./tlb";

const STATUS: u32 = 0x8d5;
/** TF, IF, DF, IOPL, NT, AC, VIF, VIP, ID: the system flags that software may hold; RF and VM have their own ways. */
const SYSTEM_FLAGS: u32 = 0x003c_7700;
const RSP = S_GPR + 32;
const RBP = S_GPR + 40;

/** Segment attributes: bits 8..23 of the upper half of a descriptor, and bit 16 for "unusable", as in a VMCS (SDM vol. 3, 24.4.1). */
export const ATTR_PRESENT: u32 = 1 << 7;
export const ATTR_LONG: u32 = 1 << 13;
export const ATTR_BIG: u32 = 1 << 14;
export const ATTR_UNUSABLE: u32 = 1 << 16;
/** Data that may be written, privilege 3, present, accessed: all segments of virtual-8086 mode. */
const ATTR_VIRTUAL: u32 = 0xf3;

@inline
export function longMode(cpu: u32): bool {
  return (load<u32>(cpu, S_EFER) & EFER_LMA) != 0;
}
/** Protected mode proper: CR0.PE, not virtual-8086. */
export function protectedMode(cpu: u32): bool {
  return (load<u32>(cpu, S_CR0) & CR0_PE) != 0 && !(load<u32>(cpu, S_RFLAGS) & RFLAGS_VM);
}

@inline
export function segmentAt(cpu: u32, n: u32): u32 {
  return cpu + S_SEG + n * SEG_STRIDE;
}
@inline
export function selectorOf(cpu: u32, n: u32): u32 {
  return load<u32>(segmentAt(cpu, n), SEG_SELECTOR) & 0xffff;
}

/** Fill a segment's hidden part. `limit` in bytes; see ATTR_* for `attr`. */
export function setSegment(cpu: u32, n: u32, selector: u32, base: u64, limit: u32, attr: u32): void {
  const at = segmentAt(cpu, n);
  store<u64>(at, base, SEG_BASE);
  store<u32>(at, limit, SEG_LIMIT);
  store<u32>(at, attr, SEG_ATTR);
  store<u32>(at, selector, SEG_SELECTOR);
  let first: u32 = 0;
  let last = limit;
  if (attr & ATTR_UNUSABLE || !(attr & ATTR_PRESENT)) {
    first = 1;
    last = 0;
  } else if ((attr & 0x1c) == 0x14) {
    // Expand-down data.
    first = limit + 1;
    last = first == 0 ? 0 : attr & ATTR_BIG ? 0xffff_ffff : 0xffff;
    if (first == 0) first = 1;
  }
  store<u32>(at, first, SEG_FIRST);
  store<u32>(at, last, SEG_LAST);
  if (n > <u32>GS) return;
  let flat = first == 0 && last == 0xffff_ffff && (n > <u32>DS || base == 0);
  if (n != CS) flat = flat && (attr & 0x1a) == 0x12;
  if (n == SS) flat = flat && (attr & ATTR_BIG) != 0;
  const bit: u32 = 1 << n;
  const others = load<u32>(cpu, S_FLAT) & ~bit;
  store<u32>(cpu, flat ? others | bit : others, S_FLAT);
}

/** Load a segment register of virtual-8086 mode (SDM vol. 3, 21.1.1). */
export function setVirtual(cpu: u32, n: u32, selector: u32): void {
  setSegment(cpu, n, selector, selector << 4, 0xffff, ATTR_VIRTUAL);
}

/** Make a privilege level current, with its TLB array. With a deprivileged kernel that is the direct switch: the shadow root changes too. */
export function setCpl(cpu: u32, cpl: u32): void {
  const old = load<u32>(cpu, S_CPL);
  store<u32>(cpu, cpl, S_CPL);
  if (load<u32>(cpu, V_DEPRIVILEGED)) {
    store<u32>(cpu, load<u32>(cpu + (cpl == 3 ? P_USER_ROOT : P_KERNEL_ROOT)), V_ROOT);
    if (old != cpl && cpl == 3) count(cpu, P_DIRECT_ERETUS);
    if (old != cpl && old == 3) count(cpu, P_DIRECT_SYSCALLS);
  }
  const array = (load<u32>(cpu, V_SLOT) << 1) + (cpl == 3 ? 1 : 0);
  if (load<u32>(cpu, S_TLB) != tlbArray(cpu, array)) selectArray(cpu, array);
  alignment(cpu);
}

/** CPL, RFLAGS.AC or CR0.AM changed: is SMAP lifted, and is alignment checked now? Then the current TLB array must not have tags for data. */
export function alignment(cpu: u32): void {
  updateSmap(cpu);
  const asked = (load<u32>(cpu, S_RFLAGS) & RFLAGS_AC) != 0 && load<u32>(cpu, S_CPL) == 3 && (load<u32>(cpu, S_CR0) & CR0_AM) != 0;
  const on: u32 = asked && load<u32>(cpu, V_NATIVE) ? 1 : 0;
  if (on == load<u32>(cpu, S_ALIGN)) return;
  store<u32>(cpu, on, S_ALIGN);
  if (on) tlbFlushArray(cpu, (load<u32>(cpu, V_SLOT) << 1) + 1);
}

/** CS, CPL or the mode changed: the code size that follows, and a context of its own for RIPs that mean other bytes now. */
export function enterCode(cpu: u32): void {
  const attr = load<u32>(segmentAt(cpu, CS), SEG_ATTR);
  const size: u32 = longMode(cpu) && attr & ATTR_LONG ? 64 : attr & ATTR_BIG ? 32 : 16;
  store<u32>(cpu, size, S_CODE_SIZE);
  const base = size == 64 ? 0 : load<u64>(segmentAt(cpu, CS), SEG_BASE);
  const array = (load<u32>(cpu, V_SLOT) << 1) + (load<u32>(cpu, S_CPL) == 3 ? 1 : 0);
  const key = base << 8 | size;
  const held = cpu + (array << 3);
  if (load<u64>(held, T_CODE_SEGMENT) == key) return;
  store<u64>(held, key, T_CODE_SEGMENT);
  newContext(cpu, array);
}

export function rflags(cpu: u32): u32 {
  return load<u32>(cpu, S_RFLAGS) | getFlags(cpu) | 2;
}
/** Set the flags in `mask` from `value`, status and system flags alike. */
export function setRflags(cpu: u32, value: u32, mask: u32): void {
  const system = mask & SYSTEM_FLAGS;
  store<u32>(cpu, (load<u32>(cpu, S_RFLAGS) & ~system & (SYSTEM_FLAGS | RFLAGS_VM)) | (value & system) | 2, S_RFLAGS);
  setFlags(cpu, value & STATUS);
  if (mask & RFLAGS_AC) alignment(cpu);
}

// The stack of an event or a far transfer, as three numbers, so that a new one can be filled before it is current.

export let stackPointer: u64 = 0;
let stackBase: u64 = 0;
let stackMask: u64 = 0;
let stackFirst: u32 = 0;
let stackLast: u32 = 0;
/** Error code for a stack fault. */
let stackError: u32 = 0;

/** The stack SS:rSP as it is now. */
export function currentStack(cpu: u32): void {
  if (load<u32>(cpu, S_CODE_SIZE) == 64) return flatStack(load<u64>(cpu, RSP));
  const ss = segmentAt(cpu, SS);
  const big = (load<u32>(ss, SEG_ATTR) & ATTR_BIG) != 0;
  otherStack(load<u64>(cpu, RSP), load<u64>(ss, SEG_BASE), big, load<u32>(ss, SEG_FIRST), load<u32>(ss, SEG_LAST), 0);
}
/** A stack in 64-bit mode. */
export function flatStack(pointer: u64): void {
  stackPointer = pointer;
  stackBase = 0;
  stackMask = -1;
}
/** Events in long mode push to a multiple of 16. */
export function alignStack(): void {
  stackPointer &= ~0xf;
}
export function otherStack(pointer: u64, base: u64, big: bool, first: u32, last: u32, error: u32): void {
  stackMask = big ? 0xffff_ffff : 0xffff;
  stackPointer = pointer & stackMask;
  stackBase = base;
  stackFirst = first;
  stackLast = last;
  stackError = error;
}

/** Linear address of `size` bytes at stack offset `offset`; S_EXC set when they lie outside the segment. */
function stackAddress(cpu: u32, offset: u64, size: u32): u64 {
  if (stackMask == -1) return offset;
  if (<u32>offset < stackFirst || offset + size - 1 > <u64>stackLast) raise(cpu, SS_FAULT, stackError);
  return (stackBase + offset) & 0xffff_ffff;
}

/** Push `size` bytes; false with S_EXC set. Decoded code under the stack is dropped at once: no generated code is active here. */
export function pushStack(cpu: u32, size: u32, value: u64): bool {
  const at = (stackPointer - size) & stackMask;
  const address = stackAddress(cpu, at, size);
  if (load<u32>(cpu, S_EXC)) return false;
  const step = load<u32>(cpu, S_STEP);
  store<u32>(cpu, 1, S_STEP);
  storeSized(cpu, address, size, value);
  store<u32>(cpu, step, S_STEP);
  if (!stackOk(cpu)) return false;
  stackPointer = at;
  return true;
}
/** Whether the access to the stack went well. */
function stackOk(cpu: u32): bool {
  if (!load<u32>(cpu, S_EXC)) return true;
  // A stack address that is not canonical is a stack fault.
  if (load<u32>(cpu, S_EXC) == GP + 1) raise(cpu, SS_FAULT, stackError);
  return false;
}
/** Pop `size` bytes; S_EXC set when that faults. */
export function popStack(cpu: u32, size: u32): u64 {
  const address = stackAddress(cpu, stackPointer & stackMask, size);
  if (load<u32>(cpu, S_EXC)) return 0;
  const value = loadSized(cpu, address, size);
  if (stackOk(cpu)) stackPointer = (stackPointer + size) & stackMask;
  return value;
}
export function skipStack(bytes: u32): void {
  stackPointer = (stackPointer + bytes) & stackMask;
}
/** Write the pointer back to rSP, as wide as the stack is. */
export function commitStack(cpu: u32): void {
  if (stackMask == -1) store<u64>(cpu, stackPointer, RSP);
  else if (stackMask == 0xffff) store<u16>(cpu, <u16>stackPointer, RSP);
  else store<u64>(cpu, stackPointer, RSP);
}

/** ENTER with nesting levels: the frame pointers of the outer procedures are copied. */
export function sys_enter(cpu: u32, size: u32, bytes: u32, level: u32): u32 {
  const rbp = load<u64>(cpu, RBP);
  currentStack(cpu);
  if (!pushStack(cpu, size, rbp)) return EXIT_EXCEPTION;
  const frame = stackPointer;
  for (let i: u32 = 1; i < level; i++) {
    const address = stackAddress(cpu, (rbp - i * size) & stackMask, size);
    if (load<u32>(cpu, S_EXC)) return EXIT_EXCEPTION;
    const outer = loadSized(cpu, address, size);
    if (!stackOk(cpu) || !pushStack(cpu, size, outer)) return EXIT_EXCEPTION;
  }
  if (!pushStack(cpu, size, frame)) return EXIT_EXCEPTION;
  stackPointer = (stackPointer - bytes) & stackMask;
  commitStack(cpu);
  if (size == 8) store<u64>(cpu, frame, RBP);
  else if (size == 4) store<u64>(cpu, frame & 0xffff_ffff, RBP);
  else store<u16>(cpu, <u16>frame, RBP);
  return done(cpu);
}
