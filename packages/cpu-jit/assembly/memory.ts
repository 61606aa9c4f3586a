// Guest memory accesses that the inline TLB path of generated code could not serve: refills, page crossings, MMIO,
// stores to frames with decoded code, faults. Every helper that cannot complete sets S_EXC.
import {
  ACCESS_EXEC, ACCESS_IMPLICIT_SUPERVISOR, ACCESS_PROBE, ACCESS_READ, ACCESS_RMW, ACCESS_WRITE, C_TLB_HITS, C_TLB_MISSES, EXC_REQUEST, EXC_RESTART,
  P_PAGE_FAULT, P_SMOD, PAGING_EPT, PAGING_SHADOW, S_EXC, S_EXC_ADDR, S_EXC_ERROR, S_EXIT_ACCESS, S_EXIT_BLOCK, S_EXIT_GPA, S_EXIT_SIZE, S_EXIT_VA,
  S_ALIGN, S_EXIT_VALUE, S_GPR, S_SPLIT, S_STEP, S_STEP_STACK, S_TIER, S_WATCH, STEP_STACK_ALL, STEP_STACK_POINTER, TIER_NONE, TLB_ADDEND, TLB_COUNTED, TLB_EXEC, TLB_FLAG_CODE, TLB_FLAG_SMAP, TLB_FLAGS, TLB_READ, TLB_WRITE, V_PAGING, WATCH_DATA,
} from "../src/layout";
import { AC, GP, SS_FAULT, count, isCanonical, linear, raise, raisePageFault } from "./cpu";
import { touched } from "./debug";
import { eptGpa } from "./ept";
import { NO_GUEST_FAULT, userFault } from "./guest-fault";
import { virtualTpr } from "./apic-page";
import { MMU_DONE, MMU_LEAVE, MMU_RAISED, MMU_RETRY, hostMmio, hostMmuFault, hostSmc } from "./host";
import { PAGE_MASK, codeBits, entryOf, entryOffset, fill, supervisorArray, tlbForgetFaulting, unprotect } from "./tlb";
import { WALK_EPT, WALK_FAULT, WALK_GP, WALK_MMIO, WALK_OK, walk, walkError, walkExec, walkGpa, walkHpa, walkRead, walkWrite } from "./walk";

/** A hypervisor that repairs without effect is stopped after this many attempts. */
const MAX_REPAIRS: u32 = 64;

/** A stack slot, in the terms of STEP_STACK_POINTER: PUSH and CALL access those below the pointer, POP and RET those at it. */
const STACK_SLOT: u64 = 16;

/** #GP(0); #SS(0) for data in the stack segment (SDM vol. 1, 3.3.7.1). Which segment an access is to is not known here: the instruction is run
 *  again, alone, by somebody who decodes it. */
function raiseNotCanonical(cpu: u32, va: u64, access: u32): void {
  if ((access & 3) == ACCESS_EXEC || access & ACCESS_IMPLICIT_SUPERVISOR) return raise(cpu, GP, 0);
  if (!load<u32>(cpu, S_STEP)) {
    if (load<u32>(cpu, S_TIER) == TIER_NONE) return raise(cpu, GP, 0);
    store<u32>(cpu, EXC_RESTART, S_EXC);
    return;
  }
  const stack = load<u32>(cpu, S_STEP_STACK);
  const isStack = stack == STEP_STACK_ALL || (stack == STEP_STACK_POINTER && va - load<u64>(cpu, S_GPR + 32) + STACK_SLOT < 2 * STACK_SLOT);
  raise(cpu, isStack ? SS_FAULT : GP, 0);
}

/** Refill: HPA for an access of `size` bytes within one page, or 0: S_EXC set, or (S_EXC clear) the hypervisor did the access. */
export function refill(cpu: u32, va: u64, access: u32, size: u32): u32 {
  count(cpu, C_TLB_MISSES);
  const arch = access & 7;
  const watched = (load<u32>(cpu, S_WATCH) & WATCH_DATA) != 0 && !(access & (ACCESS_PROBE | ACCESS_EXEC | ACCESS_IMPLICIT_SUPERVISOR));
  for (let n: u32 = 0; n < MAX_REPAIRS; n++) {
    const result = walk(cpu, va, arch);
    if (result == WALK_OK) {
      fill(cpu, va, arch);
      if (watched && touched(cpu, va, size, access == ACCESS_WRITE)) return 0;
      return walkHpa | (<u32>va & 0xfff);
    }
    if (result == WALK_GP) {
      raiseNotCanonical(cpu, va, access);
      return 0;
    }
    store<u64>(cpu, va, S_EXIT_VA);
    store<u32>(cpu, arch, S_EXIT_ACCESS);
    store<u32>(cpu, size, S_EXIT_SIZE);
    if (result == WALK_MMIO) {
      store<u64>(cpu, walkGpa, S_EXIT_GPA);
      if (watched && touched(cpu, va, size, access == ACCESS_WRITE)) return 0;
      if (!(access & ACCESS_PROBE)) hostMmio(cpu);
      return 0;
    }
    if (result == WALK_FAULT) {
      if (load<u32>(cpu, V_PAGING) != PAGING_SHADOW) {
        tlbForgetFaulting(cpu, va);
        raisePageFault(cpu, va, walkError);
        return 0;
      }
      if (load<u32>(cpu, P_PAGE_FAULT) && !load<u32>(cpu, P_SMOD)) {
        const error = userFault(cpu, va, arch);
        if (error != NO_GUEST_FAULT) {
          raisePageFault(cpu, va, error);
          return 0;
        }
      }
      // What the hardware would have reported; the hypervisor decides what the guest sees.
      store<u32>(cpu, walkError, S_EXC_ERROR);
      store<u64>(cpu, va, S_EXC_ADDR);
    } else {
      if (virtualTpr(cpu, eptGpa, access)) return 0;
      store<u64>(cpu, eptGpa, S_EXIT_GPA);
    }
    store<u32>(cpu, arch | (access & ACCESS_PROBE), S_EXIT_ACCESS);
    const action = hostMmuFault(cpu);
    if (action == MMU_RETRY) continue;
    if (action == MMU_LEAVE) store<u32>(cpu, EXC_REQUEST, S_EXC);
    return 0;
  }
  store<u32>(cpu, EXC_REQUEST, S_EXC);
  return 0;
}

/** HPA to read `size` bytes within one page, or 0 (see `refill`; the value is then in S_EXIT_VALUE). */
@inline
export function readPtr(cpu: u32, va: u64, size: u32): u32 {
  const entry = entryOf(cpu, va);
  const tag = load<u64>(entry, TLB_READ);
  if (tag == (va & PAGE_MASK) || isCounted(cpu, tag, va)) return <u32>va + load<u32>(entry, TLB_ADDEND);
  return refill(cpu, va, ACCESS_READ, size);
}

/** A hit that must be counted? Then it is. */
@inline
function isCounted(cpu: u32, tag: u64, va: u64): bool {
  if (tag != (va & PAGE_MASK ^ TLB_COUNTED)) return false;
  count(cpu, C_TLB_HITS);
  return true;
}

/** HPA to read what will be written next. Write permission is checked; decoded code is left to the store. */
export function rmwPtr(cpu: u32, va: u64, size: u32, access: u32): u32 {
  const entry = entryOf(cpu, va);
  const tag = load<u32>(entry, TLB_FLAGS) & TLB_FLAG_CODE ? load<u64>(entry, TLB_READ) : load<u64>(entry, TLB_WRITE);
  if (tag == (va & PAGE_MASK) || isCounted(cpu, tag, va)) return <u32>va + load<u32>(entry, TLB_ADDEND);
  return refill(cpu, va, access, size);
}

/** HPA to write `size` bytes within one page; the value must be in S_EXIT_VALUE. 0: S_EXC set, or the store has been done. */
export function writePtr(cpu: u32, va: u64, size: u32): u32 {
  const hpa = rmwPtr(cpu, va, size, ACCESS_WRITE);
  if (!hpa) return 0;
  if (codeBits(hpa)) return overCode(cpu, hpa, size);
  unprotect(cpu, va, hpa);
  return hpa;
}

/** A store within a frame that holds decoded code: `hpa` when it may go on, else 0 with S_EXC set. */
export function overCode(cpu: u32, hpa: u32, size: u32): u32 {
  const first = hpa >> 6 & 63;
  const last = (hpa + size - 1) >> 6 & 63;
  const lines = <u64>-1 << first & <u64>-1 >> (63 - last);
  if (!(codeBits(hpa) & lines)) return hpa;
  if (!load<u32>(cpu, S_STEP)) {
    store<u32>(cpu, EXC_RESTART, S_EXC);
    return 0;
  }
  store<u32>(cpu, hpa, S_EXIT_BLOCK);
  store<u32>(cpu, size, S_EXIT_SIZE);
  hostSmc(cpu);
  return hpa;
}

@inline
export function crosses(va: u64, size: u32): bool {
  return (<u32>va & 0xfff) + size > 0x1000;
}

/** Start of the second page of an access that crosses. */
@inline
function secondPage(cpu: u32, va: u64): u64 {
  return linear(cpu, (va | 0xfff) + 1);
}

/** Copy `n` bytes; memory.copy is a call into the engine and slower for so few. */
function copyBytes(to: u32, from: u32, n: u32): void {
  for (let i: u32 = 0; i < n; i++) store<u8>(to + i, load<u8>(from + i));
}

/** S_EXIT_VALUE for the hooks: zero-extended. */
function putValue(cpu: u32, from: u32, n: u32): void {
  store<u64>(cpu, 0, S_EXIT_VALUE);
  store<u64>(cpu, 0, S_EXIT_VALUE + 8);
  copyBytes(cpu + S_EXIT_VALUE, from, n);
}

/** A load that crosses a page, into S_SPLIT. */
function splitLoad(cpu: u32, va: u64, size: u32, rmw: bool): void {
  const split = cpu + S_SPLIT;
  const n = 0x1000 - (<u32>va & 0xfff);
  const first = rmw ? rmwPtr(cpu, va, n, ACCESS_RMW) : readPtr(cpu, va, n);
  if (load<u32>(cpu, S_EXC)) return;
  copyBytes(split, first ? first : cpu + S_EXIT_VALUE, n);
  const va2 = secondPage(cpu, va);
  const second = rmw ? rmwPtr(cpu, va2, size - n, ACCESS_RMW) : readPtr(cpu, va2, size - n);
  if (load<u32>(cpu, S_EXC)) return;
  copyBytes(split + n, second ? second : cpu + S_EXIT_VALUE, size - n);
}

/** A store of S_SPLIT that crosses a page. Nothing is written before both pages are known to be writable. */
function splitStore(cpu: u32, va: u64, size: u32): void {
  const split = cpu + S_SPLIT;
  const n = 0x1000 - (<u32>va & 0xfff);
  const va2 = secondPage(cpu, va);
  let first = rmwPtr(cpu, va, n, ACCESS_RMW | ACCESS_PROBE);
  if (load<u32>(cpu, S_EXC)) return;
  let second = rmwPtr(cpu, va2, size - n, ACCESS_RMW | ACCESS_PROBE);
  if (load<u32>(cpu, S_EXC)) return;
  if (load<u32>(cpu, S_WATCH) & WATCH_DATA && (touched(cpu, va, n, true) || touched(cpu, va2, size - n, true))) return;
  if (first && codeBits(first) && !overCode(cpu, first, n)) return;
  if (second && codeBits(second) && !overCode(cpu, second, size - n)) return;
  if (first) copyBytes(first, split, n);
  else storePart(cpu, va, split, n);
  if (load<u32>(cpu, S_EXC)) return;
  if (second) copyBytes(second, split + n, size - n);
  else storePart(cpu, va2, split + n, size - n);
}

/** One half of a crossing store that a device or the hypervisor takes. */
function storePart(cpu: u32, va: u64, from: u32, n: u32): void {
  putValue(cpu, from, n);
  const hpa = writePtr(cpu, va, n);
  if (hpa) copyBytes(hpa, from, n);
}

/** Does alignment checking refuse the access? Then #AC is raised. It comes before page faults, and after #GP for addresses that are not canonical;
 *  128-bit accesses have rules of their own. That is what silicon does. */
@inline
export function misaligned(cpu: u32, va: u64, size: u32): bool {
  if (!load<u32>(cpu, S_ALIGN) || !(va & (size - 1)) || size > 8 || !isCanonical(cpu, va)) return false;
  raise(cpu, AC, 0);
  return true;
}

@inline
function loadOf<T>(cpu: u32, va: u64, rmw: bool): T {
  const size = <u32>sizeof<T>();
  if (size > 1 && misaligned(cpu, va, size)) return load<T>(cpu, S_EXIT_VALUE);
  if (size > 1 && crosses(va, size)) {
    splitLoad(cpu, va, size, rmw);
    return load<T>(cpu, S_SPLIT);
  }
  const hpa = rmw ? rmwPtr(cpu, va, size, ACCESS_RMW) : readPtr(cpu, va, size);
  return hpa ? load<T>(hpa) : load<T>(cpu, S_EXIT_VALUE);
}

@inline
function storeOf<T>(cpu: u32, va: u64, value: T): void {
  const size = <u32>sizeof<T>();
  if (size > 1 && misaligned(cpu, va, size)) return;
  if (size > 1 && crosses(va, size)) {
    store<T>(cpu, value, S_SPLIT);
    splitStore(cpu, va, size);
    return;
  }
  if (size < 8) store<u64>(cpu, <u64>value, S_EXIT_VALUE);
  else store<T>(cpu, value, S_EXIT_VALUE);
  const hpa = writePtr(cpu, va, size);
  if (hpa) store<T>(hpa, value);
}

export function load8(cpu: u32, va: u64): u32 { return loadOf<u8>(cpu, va, false); }
export function load16(cpu: u32, va: u64): u32 { return loadOf<u16>(cpu, va, false); }
export function load32(cpu: u32, va: u64): u32 { return loadOf<u32>(cpu, va, false); }
export function load64(cpu: u32, va: u64): u64 { return loadOf<u64>(cpu, va, false); }
export function load128(cpu: u32, va: u64): v128 { return loadOf<v128>(cpu, va, false); }
export function loadw8(cpu: u32, va: u64): u32 { return loadOf<u8>(cpu, va, true); }
export function loadw16(cpu: u32, va: u64): u32 { return loadOf<u16>(cpu, va, true); }
export function loadw32(cpu: u32, va: u64): u32 { return loadOf<u32>(cpu, va, true); }
export function loadw64(cpu: u32, va: u64): u64 { return loadOf<u64>(cpu, va, true); }
export function loadw128(cpu: u32, va: u64): v128 { return loadOf<v128>(cpu, va, true); }
export function store8(cpu: u32, va: u64, value: u32): void { storeOf<u8>(cpu, va, <u8>value); }
export function store16(cpu: u32, va: u64, value: u32): void { storeOf<u16>(cpu, va, <u16>value); }
export function store32(cpu: u32, va: u64, value: u32): void { storeOf<u32>(cpu, va, value); }
export function store64(cpu: u32, va: u64, value: u64): void { storeOf<u64>(cpu, va, value); }
export function store128(cpu: u32, va: u64, value: v128): void { storeOf<v128>(cpu, va, value); }

/** HPA of the code byte at linear address `va`, or 0 with S_EXC set. */
export function translateExec(cpu: u32, va: u64): u32 {
  const entry = entryOf(cpu, va);
  if (load<u64>(entry, TLB_EXEC) == (va & PAGE_MASK)) return <u32>va + load<u32>(entry, TLB_ADDEND);
  const hpa = refill(cpu, va, ACCESS_EXEC, 1);
  // Code in a device cannot run here.
  if (!hpa && !load<u32>(cpu, S_EXC)) store<u32>(cpu, EXC_REQUEST, S_EXC);
  return hpa;
}

/** As `translateExec`, but finding nothing is no fault: 0, and nothing is raised or asked of the hypervisor. */
export function probeExec(cpu: u32, va: u64): u32 {
  const entry = entryOf(cpu, va);
  if (load<u64>(entry, TLB_EXEC) == (va & PAGE_MASK)) return <u32>va + load<u32>(entry, TLB_ADDEND);
  if (walk(cpu, va, ACCESS_EXEC) != WALK_OK) return 0;
  fill(cpu, va, ACCESS_EXEC);
  return walkHpa | (<u32>va & 0xfff);
}

/** HPA for `access` (ACCESS_*) of one byte at `va`, through the TLB, or 0 with S_EXC set or the access emulated. */
export function translate(cpu: u32, va: u64, access: u32): u32 {
  if (access == ACCESS_READ) return readPtr(cpu, va, 1);
  if (access == ACCESS_EXEC) return translateExec(cpu, va);
  if (access & ACCESS_IMPLICIT_SUPERVISOR) return refill(cpu, va, access, 1);
  return rmwPtr(cpu, va, 1, access);
}

/** Raise the fault, if any, that writing [va, va + size) would raise; 1 when all of it may be written. At most two pages. */
export function probeWrite(cpu: u32, va: u64, size: u32): u32 {
  rmwPtr(cpu, va, 1, ACCESS_RMW | ACCESS_PROBE);
  if (load<u32>(cpu, S_EXC)) return 0;
  if (crosses(va, size)) rmwPtr(cpu, secondPage(cpu, va), 1, ACCESS_RMW | ACCESS_PROBE);
  return load<u32>(cpu, S_EXC) ? 0 : 1;
}

/** Before a masked store from `first` to `last`, in at most two pages, both of which it writes: the fault, if any, that it raises. As on silicon
 *  the first byte is looked at first, then the last one. */
export function probeSpan(cpu: u32, first: u64, last: u64): void {
  rmwPtr(cpu, first, 1, ACCESS_RMW | ACCESS_PROBE);
  if (!load<u32>(cpu, S_EXC)) rmwPtr(cpu, last, 1, ACCESS_RMW | ACCESS_PROBE);
}

/** Loads and stores of `size` 1, 2, 4 or 8 bytes. */
export function loadSized(cpu: u32, va: u64, size: u32): u64 {
  if (size == 8) return load64(cpu, va);
  if (size == 4) return load32(cpu, va);
  return size == 2 ? load16(cpu, va) : load8(cpu, va);
}
export function storeSized(cpu: u32, va: u64, size: u32, value: u64): void {
  if (size == 8) store64(cpu, va, value);
  else if (size == 4) store32(cpu, va, <u32>value);
  else if (size == 2) store16(cpu, va, <u32>value);
  else store8(cpu, va, <u32>value);
}

// Accesses to descriptor tables and task state: at privilege 0 whatever CPL is, through the supervisor's TLB array.

function systemPtr(cpu: u32, va: u64, size: u32, access: u32): u32 {
  const entry = supervisorArray(cpu) + entryOffset(va);
  const tag = access == ACCESS_READ ? load<u64>(entry, TLB_READ) : load<u64>(entry, TLB_WRITE);
  // RFLAGS.AC does not lift SMAP for these accesses.
  const isOpen = !(load<u32>(entry, TLB_FLAGS) & TLB_FLAG_SMAP);
  if (isOpen && (tag == (va & PAGE_MASK) || isCounted(cpu, tag, va))) return <u32>va + load<u32>(entry, TLB_ADDEND);
  return refill(cpu, va, access | ACCESS_IMPLICIT_SUPERVISOR, size);
}

function systemLoad(cpu: u32, va: u64, size: u32): void {
  const split = cpu + S_SPLIT;
  const n: u32 = crosses(va, size) ? 0x1000 - (<u32>va & 0xfff) : size;
  const first = systemPtr(cpu, va, n, ACCESS_READ);
  if (load<u32>(cpu, S_EXC)) return;
  copyBytes(split, first ? first : cpu + S_EXIT_VALUE, n);
  if (n == size) return;
  const second = systemPtr(cpu, secondPage(cpu, va), size - n, ACCESS_READ);
  if (load<u32>(cpu, S_EXC)) return;
  copyBytes(split + n, second ? second : cpu + S_EXIT_VALUE, size - n);
}

function systemStore(cpu: u32, va: u64, size: u32): void {
  const split = cpu + S_SPLIT;
  const n: u32 = crosses(va, size) ? 0x1000 - (<u32>va & 0xfff) : size;
  if (n < size) {
    systemPtr(cpu, secondPage(cpu, va), size - n, ACCESS_RMW | ACCESS_PROBE);
    if (load<u32>(cpu, S_EXC)) return;
  }
  systemPart(cpu, va, split, n);
  if (n < size && !load<u32>(cpu, S_EXC)) systemPart(cpu, secondPage(cpu, va), split + n, size - n);
}

function systemPart(cpu: u32, va: u64, from: u32, n: u32): void {
  putValue(cpu, from, n);
  const hpa = systemPtr(cpu, va, n, ACCESS_WRITE);
  if (!hpa || (codeBits(hpa) && !overCode(cpu, hpa, n))) return;
  copyBytes(hpa, from, n);
}

/** Raise the fault, if any, that a system write of [va, va + size), at most two pages, would raise; false when there is one. */
export function probeSys(cpu: u32, va: u64, size: u32): bool {
  systemPtr(cpu, va, 1, ACCESS_RMW | ACCESS_PROBE);
  if (!load<u32>(cpu, S_EXC) && crosses(va, size)) systemPtr(cpu, secondPage(cpu, va), 1, ACCESS_RMW | ACCESS_PROBE);
  return !load<u32>(cpu, S_EXC);
}

export function loadSys8(cpu: u32, va: u64): u32 { systemLoad(cpu, va, 1); return load<u8>(cpu, S_SPLIT); }
export function loadSys16(cpu: u32, va: u64): u32 { systemLoad(cpu, va, 2); return load<u16>(cpu, S_SPLIT); }
export function loadSys32(cpu: u32, va: u64): u32 { systemLoad(cpu, va, 4); return load<u32>(cpu, S_SPLIT); }
export function loadSys64(cpu: u32, va: u64): u64 { systemLoad(cpu, va, 8); return load<u64>(cpu, S_SPLIT); }
export function storeSys8(cpu: u32, va: u64, value: u32): void { store<u8>(cpu, value, S_SPLIT); systemStore(cpu, va, 1); }
export function storeSys16(cpu: u32, va: u64, value: u32): void { store<u16>(cpu, value, S_SPLIT); systemStore(cpu, va, 2); }
export function storeSys32(cpu: u32, va: u64, value: u32): void { store<u32>(cpu, value, S_SPLIT); systemStore(cpu, va, 4); }
export function storeSys64(cpu: u32, va: u64, value: u64): void { store<u64>(cpu, value, S_SPLIT); systemStore(cpu, va, 8); }
