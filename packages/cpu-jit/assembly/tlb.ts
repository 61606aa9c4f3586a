// Soft TLB: fill, flush, contexts.
import {
  ACCESS_EXEC, ACCESS_IMPLICIT_SUPERVISOR, BLOCK_HEADS, C_TLB_FLUSHES, CODE_BITS, CPU_BASE, CPU_STRIDE, FRAME_WRITTEN, JC_BASE, JC_CPU_SIZE, MAX_VCPUS,
  P_KERNEL_CTX, P_KERNEL_TLB, P_USER_CTX, P_USER_TLB, PAGING_EPT, S_ALIGN, S_CR4, S_CTX, S_PKRU, S_TLB, S_TLB_COUNTED, S_WATCH, STACK_ROOM, T_CODE_BLOOM, T_CODE_BLOOM_SIZE, T_CODE_SEGMENT, T_CTX,
  T_GLOBAL_BLOOM, T_GLOBAL_CTX, T_LARGE, T_LOCAL_CODE, T_NEXT_CTX, T_SHARING, T_USED, TLB_ADDEND, TLB_ARRAYS, TLB_ARRAY_SIZE, TLB_CLOSED, TLB_COUNTED, TLB_ENTRY_SIZE, TLB_EXEC, TLB_FLAG_CODE,
  TLB_FLAG_GLOBAL, TLB_FLAG_HUGE, TLB_FLAG_LARGE, TLB_FLAG_SMAP, TLB_FLAGS, TLB_READ, TLB_WRITE, V_PAGING, V_SLOT, WATCH_DATA,
} from "../src/layout";
import { CR4_PGE, count, cpuIndex, tlbArray } from "./cpu";
import { isWatched } from "./debug";
import { forgetEpt } from "./ept";
import { listSmapEntry } from "./smap";
import { forgetWalk, forgetWalks, walkExec, walkGlobal, walkHpa, walkOnce, walkRead, walkShift, walkSmap, walkWrite } from "./walk";

export const PAGE_MASK: u64 = 0xffff_ffff_ffff_f000;
/** T_CODE_SEGMENT of 64-bit code. */
const CODE_SEGMENT_64: u64 = 64;
/** Never equal to a page address. Flushing fills with ones. */
const INVALID: u64 = 0xffff_ffff_ffff_ffff;
/** Bits of an address that select the entry, and how far they are above those of the entry's offset. */
const INDEX_SHIFT: u32 = 7;
const INDEX_BITS: u32 = (TLB_ARRAY_SIZE - TLB_ENTRY_SIZE) << INDEX_SHIFT;
/** Offset of an array's last entry. */
const LAST_ENTRY: u32 = TLB_ARRAY_SIZE - TLB_ENTRY_SIZE;

/**
 * The tag for data of an entry that allows nothing. Generated code ignores the low twelve bits of the difference between tag and address, so the tag must differ from
 * each address that has this entry in others: in those that select the entry. All ones do, but in the last entry.
 */
@inline
export function noDataTag(entry: u32): u64 {
  return (entry & LAST_ENTRY) == LAST_ENTRY ? 0 : INVALID;
}
/** Is `tag` that of the page at `page` in `entry`, if it is closed or counted as well? */
@inline
function isTagOf(entry: u32, tag: u64, page: u64): bool {
  return ((tag ^ page) & ~(<u64>TLB_CLOSED | TLB_COUNTED)) == 0 && tag != noDataTag(entry);
}

/** Where in an array the entry is that may hold `va`. */
@inline
export function entryOffset(va: u64): u32 {
  return <u32>(va >> INDEX_SHIFT) & (TLB_ARRAY_SIZE - TLB_ENTRY_SIZE);
}
/** TLB entry of the current array that may hold `va`. */
@inline
export function entryOf(cpu: u32, va: u64): u32 {
  return load<u32>(cpu, S_TLB) + entryOffset(va);
}
/** The supervisor's array of the current slot: the even one. */
@inline
export function supervisorArray(cpu: u32): u32 {
  return load<u32>(cpu, S_TLB) & ~TLB_ARRAY_SIZE;
}

/** An entry changes, or another array becomes the current one: compiled code must ask for the page of the stack again. */
@inline
export function forgetStack(): void {
  store<u64>(STACK_ROOM, 0);
}

/** Bitmap word of the frame's 64-byte lines that hold decoded code. */
@inline
export function codeBits(hpa: u32): u64 {
  return load<u64>(CODE_BITS + (hpa >> 12 << 3));
}

@inline
function arrayOf(tlb: u32): u32 {
  // TLB_BASE is aligned to TLB_CPU_SIZE.
  return tlb / <u32>TLB_ARRAY_SIZE & (TLB_ARRAYS - 1);
}

/** Bit of T_LARGE for the large page of `va`, of 4 MiB or less. Kernels map all of memory by large pages: programs' addresses have bits of their own. */
@inline
function largeBit(va: u64): u64 {
  return (va >> 22 & 31) | va >> 63 << 5;
}

/** Enter the result of the last walk, which was for `va`. */
export function fill(cpu: u32, va: u64, access: u32): void {
  if (walkOnce) return;
  forgetStack();
  const tlb = access & ACCESS_IMPLICIT_SUPERVISOR ? supervisorArray(cpu) : load<u32>(cpu, S_TLB);
  const entry = tlb + entryOffset(va);
  const page = va & PAGE_MASK;
  const array = arrayOf(tlb);
  const used = load<u32>(cpu, T_USED);
  if (!(used >> array & 1)) store<u32>(cpu, used | (1 << array), T_USED);

  let flags: u32 = walkGlobal ? TLB_FLAG_GLOBAL : 0;
  if (walkShift > 12) {
    const large = cpu + (array << 3);
    const huge = walkShift == 30;
    flags |= huge ? TLB_FLAG_HUGE : TLB_FLAG_LARGE;
    store<u64>(large, load<u64>(large, T_LARGE) | (huge ? <u64>0xffff_ffff << (va >> 63 << 5) : <u64>1 << largeBit(va)), T_LARGE);
  }
  const none = noDataTag(entry);
  const tag = page ^ load<u64>(cpu, S_TLB_COUNTED);
  let write = none;
  if (walkWrite) {
    if (codeBits(walkHpa)) flags |= TLB_FLAG_CODE;
    else {
      write = tag;
      markWritten(walkHpa);
    }
  }
  let exec = INVALID;
  if ((access & 3) == ACCESS_EXEC) {
    exec = page;
    markCode(cpu, array, va);
    if (!walkGlobal) fetchedLocally(cpu, array);
  } else if (walkExec && load<u64>(entry, TLB_EXEC) == page) exec = page;
  // S_WATCH and S_ALIGN: accesses that somebody must look at find no tag.
  const open = !load<u64>(cpu, S_WATCH) || !(load<u32>(cpu, S_ALIGN) || (load<u32>(cpu, S_WATCH) & WATCH_DATA && isWatched(cpu, va)));
  if (!open) {
    write = none;
    flags &= ~TLB_FLAG_CODE;
  }
  store<u64>(entry, walkRead && open ? tag : none, TLB_READ);
  store<u64>(entry, write, TLB_WRITE);
  store<u64>(entry, exec, TLB_EXEC);
  store<u32>(entry, walkHpa - <u32>page, TLB_ADDEND);
  store<u32>(entry, walkSmap ? flags | TLB_FLAG_SMAP : flags, TLB_FLAGS);
  if (walkSmap) listSmapEntry(cpu, entry);
}

/** Remember that some TLB holds a write tag for the frame. */
function markWritten(hpa: u32): void {
  const frame = hpa >> 12;
  const word = FRAME_WRITTEN + (frame >> 5 << 2);
  const bit: u32 = 1 << (frame & 31);
  if (!(load<u32>(word) & bit)) atomic.or<u32>(word, bit);
}

/** The frame at `hpa`, mapped at `va`, holds no code any more: give the entry its write tag back. */
export function unprotect(cpu: u32, va: u64, hpa: u32): void {
  const entry = entryOf(cpu, va);
  const flags = load<u32>(entry, TLB_FLAGS);
  const tag = load<u64>(entry, TLB_READ);
  if (!(flags & TLB_FLAG_CODE) || tag != (va & PAGE_MASK ^ load<u64>(cpu, S_TLB_COUNTED))) return;
  store<u32>(entry, flags & ~TLB_FLAG_CODE, TLB_FLAGS);
  store<u64>(entry, tag, TLB_WRITE);
  markWritten(hpa);
}

/** Bit of a Bloom filter for the page of `va`. Both halves of the address space have their own: a kernel's code survives a program's INVLPGs. */
@inline
function bloomBit(va: u64): u32 {
  const half: u32 = T_CODE_BLOOM_SIZE * 4;
  return (<u32>(va >> 12) & (half - 1)) + (<u32>(va >> 63) * half);
}
@inline
function marked(filter: u32, va: u64): bool {
  const bit = bloomBit(va);
  return (load<u8>(filter + (bit >> 3)) >> (bit & 7) & 1) != 0;
}
@inline
function mark(filter: u32, va: u64): void {
  const bit = bloomBit(va);
  const byte = filter + (bit >> 3);
  store<u8>(byte, load<u8>(byte) | <u8>((<u32>1) << (bit & 7)));
}
@inline
function bloomOf(cpu: u32, array: u32): u32 {
  return cpu + T_CODE_BLOOM + array * <u32>T_CODE_BLOOM_SIZE;
}
@inline
function isSharing(cpu: u32, array: u32): bool {
  return (load<u32>(cpu, T_SHARING) >> array & 1) != 0;
}

/** Code was fetched from the page of `va`, so the jump cache may depend on it. */
function markCode(cpu: u32, array: u32, va: u64): void {
  mark(bloomOf(cpu, array), va);
  if (isSharing(cpu, array)) mark(cpu + T_GLOBAL_BLOOM, va);
}

/** Code was fetched from a page that is not global. */
function fetchedLocally(cpu: u32, array: u32): void {
  store<u32>(cpu, load<u32>(cpu, T_LOCAL_CODE) | (1 << array), T_LOCAL_CODE);
  if (isSharing(cpu, array)) newContext(cpu, array);
}

function unusedContext(cpu: u32): u32 {
  let context = load<u32>(cpu, T_NEXT_CTX) + 1;
  if (context == 0) {
    // All numbers are used up: forget what was ever cached under them.
    jumpCacheFlush(cpu);
    context = 1;
  }
  store<u32>(cpu, context, T_NEXT_CTX);
  return context;
}

function setContext(cpu: u32, array: u32, context: u32): void {
  store<u32>(cpu + (array << 2), context, T_CTX);
  const tlb = tlbArray(cpu, array);
  if (load<u32>(cpu, S_TLB) == tlb) store<u32>(cpu, context, S_CTX);
  if (load<u32>(cpu, P_USER_TLB) == tlb) store<u32>(cpu, context, P_USER_CTX);
  if (load<u32>(cpu, P_KERNEL_TLB) == tlb) store<u32>(cpu, context, P_KERNEL_CTX);
}

/** Give `array` a new context: cached virtual code addresses of it are forgotten. Exec tags and the Bloom filter stay. */
export function newContext(cpu: u32, array: u32): void {
  store<u32>(cpu, load<u32>(cpu, T_SHARING) & ~(1 << array), T_SHARING);
  setContext(cpu, array, unusedContext(cpu));
}

/**
 * Code in global pages is the same in every address space (SDM vol. 3, 4.10.2.4): supervisor's arrays that fetched from no other pages have one context, so
 * that what is cached of a kernel's code outlives a change of PCID.
 */
export function shareContext(cpu: u32, array: u32): void {
  const bit: u32 = 1 << array;
  const sharing = load<u32>(cpu, T_SHARING);
  if ((sharing | load<u32>(cpu, T_LOCAL_CODE)) & bit || !(load<u32>(cpu, S_CR4) & CR4_PGE)) return;
  if (load<u64>(cpu + (array << 3), T_CODE_SEGMENT) != CODE_SEGMENT_64) return;
  const filter = cpu + T_GLOBAL_BLOOM;
  if (!sharing) {
    memory.fill(filter, 0, T_CODE_BLOOM_SIZE);
    store<u32>(cpu, unusedContext(cpu), T_GLOBAL_CTX);
  }
  // Its exec tags stay: nothing will mark their pages again.
  const own = bloomOf(cpu, array);
  for (let at: u32 = 0; at < <u32>T_CODE_BLOOM_SIZE; at += 8) store<u64>(filter + at, load<u64>(filter + at) | load<u64>(own + at));
  store<u32>(cpu, sharing | bit, T_SHARING);
  // It has something to flush from now on, whatever its entries are.
  store<u32>(cpu, load<u32>(cpu, T_USED) | bit, T_USED);
  setContext(cpu, array, load<u32>(cpu, T_GLOBAL_CTX));
}

/** A new context for `array` and all that share its own. */
function forgetContext(cpu: u32, array: u32): void {
  const sharing = load<u32>(cpu, T_SHARING);
  newContext(cpu, array);
  if (!(sharing >> array & 1)) return;
  for (let other: u32 = 0; other < <u32>TLB_ARRAYS; other++) if (other != array && sharing >> other & 1) newContext(cpu, other);
}

/** May something be cached of code in the page of `va`, for `array` to use? */
function mayHoldCode(cpu: u32, array: u32, va: u64): bool {
  return marked(isSharing(cpu, array) ? cpu + T_GLOBAL_BLOOM : bloomOf(cpu, array), va);
}

/** New contexts for all arrays: nothing in the jump cache is valid any more. */
export function forgetLinks(cpu: u32): void {
  for (let array: u32 = 0; array < <u32>TLB_ARRAYS; array++) newContext(cpu, array);
}

/** Make TLB array `array` the current one. */
export function selectArray(cpu: u32, array: u32): void {
  forgetStack();
  store<u32>(cpu, tlbArray(cpu, array), S_TLB);
  store<u32>(cpu, load<u32>(cpu + (array << 2), T_CTX), S_CTX);
}

export function jumpCacheFlush(cpu: u32): void {
  memory.fill(JC_BASE + cpuIndex(cpu) * <u32>JC_CPU_SIZE, 0, JC_CPU_SIZE);
}

/** A new context for an array without exec tags. */
function forgetCode(cpu: u32, array: u32): void {
  store<u32>(cpu, load<u32>(cpu, T_LOCAL_CODE) & ~(1 << array), T_LOCAL_CODE);
  memory.fill(bloomOf(cpu, array), 0, T_CODE_BLOOM_SIZE);
  forgetContext(cpu, array);
}

export function tlbFlushArray(cpu: u32, array: u32): void {
  forgetStack();
  count(cpu, C_TLB_FLUSHES);
  forgetWalks(cpu);
  const used = load<u32>(cpu, T_USED);
  if (!(used >> array & 1)) return;
  const tlb = tlbArray(cpu, array);
  memory.fill(tlb, 0xff, TLB_ARRAY_SIZE);
  invalidate(tlb + LAST_ENTRY);
  store<u32>(cpu, used & ~(1 << array), T_USED);
  store<u64>(cpu + (array << 3), 0, T_LARGE);
  forgetCode(cpu, array);
}

/** Flush what is not global (MOV to CR3 without PCID). */
export function tlbFlushNonGlobal(cpu: u32, array: u32): void {
  forgetStack();
  count(cpu, C_TLB_FLUSHES);
  forgetWalks(cpu);
  if (!(load<u32>(cpu, T_USED) >> array & 1)) return;
  const tlb = tlbArray(cpu, array);
  const end = tlb + TLB_ARRAY_SIZE;
  // A kernel whose code is all in global pages keeps its links.
  const keepsCode = !(load<u32>(cpu, T_LOCAL_CODE) >> array & 1);
  for (let e = tlb; e < end; e += TLB_ENTRY_SIZE) {
    if (!(load<u32>(e, TLB_FLAGS) & TLB_FLAG_GLOBAL)) invalidate(e);
    // Fetches must mark the emptied Bloom filter again.
    else if (!keepsCode) store<u64>(e, INVALID, TLB_EXEC);
  }
  if (keepsCode) return;
  forgetCode(cpu, array);
}

/** Flush every array. On a zeroed state block also makes what is in memory a valid, empty TLB and jump cache. */
export function tlbFlushAll(cpu: u32): void {
  forgetWalks(cpu);
  forgetEpt(cpu);
  if (!load<u32>(cpu, T_NEXT_CTX)) {
    store<u32>(cpu, -1, T_USED);
    jumpCacheFlush(cpu);
  }
  const used = load<u32>(cpu, T_USED);
  for (let array: u32 = 0; array < <u32>TLB_ARRAYS; array++) if (used >> array & 1) tlbFlushArray(cpu, array);
}

@inline
function invalidate(entry: u32): void {
  const none = noDataTag(entry);
  store<u64>(entry, none, TLB_READ);
  store<u64>(entry, none, TLB_WRITE);
  store<u64>(entry, INVALID, TLB_EXEC);
  store<u32>(entry, 0, TLB_FLAGS);
}

function holds(entry: u32, page: u64): bool {
  return isTagOf(entry, load<u64>(entry, TLB_READ), page) || isTagOf(entry, load<u64>(entry, TLB_WRITE), page) || load<u64>(entry, TLB_EXEC) == page;
}

/** Address the entry is about, whichever tag is valid, but for the bits of closed and counted tags. */
function pageOf(entry: u32): u64 {
  const none = noDataTag(entry);
  let page = load<u64>(entry, TLB_READ);
  if (page == none) page = load<u64>(entry, TLB_WRITE);
  if (page == none) page = load<u64>(entry, TLB_EXEC);
  return page;
}

/** Forget the page of `va` in `array`: all of it when it is large. */
export function tlbInvlpg(cpu: u32, array: u32, va: u64): void {
  forgetStack();
  forgetWalks(cpu);
  if (!(load<u32>(cpu, T_USED) >> array & 1)) return;
  const tlb = tlbArray(cpu, array);
  const page = va & PAGE_MASK;
  const entry = tlb + (<u32>(va >> 7) & (TLB_ARRAY_SIZE - TLB_ENTRY_SIZE));
  if (holds(entry, page)) invalidate(entry);
  const large = load<u64>(cpu + (array << 3), T_LARGE);
  if (large >> largeBit(va) & 1) {
    const end = tlb + TLB_ARRAY_SIZE;
    let dropped = false;
    for (let e = tlb; e < end; e += TLB_ENTRY_SIZE) {
      const flags = load<u32>(e, TLB_FLAGS);
      if (!(flags & (TLB_FLAG_LARGE | TLB_FLAG_HUGE))) continue;
      // 4 MiB covers both sizes of TLB_FLAG_LARGE.
      const difference = (pageOf(e) ^ va) >> (flags & TLB_FLAG_HUGE ? 30 : 22);
      if (difference) continue;
      invalidate(e);
      dropped = true;
    }
    if (dropped) return forgetContext(cpu, array);
  }
  if (mayHoldCode(cpu, array, va)) forgetContext(cpu, array);
}

/** A page fault at `va`: nothing may be left of what TLB and paging-structure cache held for its page (SDM vol. 3, 5.10.4.1). */
export function tlbForgetFaulting(cpu: u32, va: u64): void {
  forgetStack();
  forgetWalk(cpu, va);
  const page = va & PAGE_MASK;
  for (let user: u32 = 0; user < 2; user++) {
    const array = (load<u32>(cpu, V_SLOT) << 1) + user;
    const entry = tlbArray(cpu, array) + (<u32>(va >> 7) & (TLB_ARRAY_SIZE - TLB_ENTRY_SIZE));
    if (!(load<u32>(cpu, T_USED) >> array & 1)) continue;
    // Another array may have the page's exec tag.
    let wasCode = isSharing(cpu, array) && marked(cpu + T_GLOBAL_BLOOM, va);
    if (holds(entry, page)) {
      wasCode = wasCode || load<u64>(entry, TLB_EXEC) == page;
      invalidate(entry);
    }
    if (wasCode) forgetContext(cpu, array);
  }
}

/** The frame at `hpa` got its first code bit: stores to it must come to the slow path, on every vCPU. */
export function protectFrame(_: u32, hpa: u32): void {
  const frame = hpa >> 12;
  const word = FRAME_WRITTEN + (frame >> 5 << 2);
  const bit: u32 = 1 << (frame & 31);
  if (!(load<u32>(word) & bit)) return;
  atomic.and<u32>(word, ~bit);
  forgetStack();
  for (let v: u32 = 0; v < <u32>MAX_VCPUS; v++) {
    const cpu = <u32>CPU_BASE + v * <u32>CPU_STRIDE;
    const used = load<u32>(cpu, T_USED);
    for (let array: u32 = 0; array < <u32>TLB_ARRAYS; array++) {
      if (used >> array & 1) protectIn(tlbArray(cpu, array), frame);
    }
  }
}

function protectIn(tlb: u32, frame: u32): void {
  const end = tlb + TLB_ARRAY_SIZE;
  for (let e = tlb; e < end; e += TLB_ENTRY_SIZE) {
    const none = noDataTag(e);
    const tag = load<u64>(e, TLB_WRITE);
    if (tag == none) continue;
    // The bits that select the entry, which closed and counted tags do not have, are those of the entry.
    const page = (<u32>tag & ~INDEX_BITS) | ((e - tlb) << INDEX_SHIFT);
    if ((page + load<u32>(e, TLB_ADDEND)) >> 12 != frame) continue;
    store<u64>(e, none, TLB_WRITE);
    store<u32>(e, load<u32>(e, TLB_FLAGS) | TLB_FLAG_CODE, TLB_FLAGS);
  }
}

/** WRPKRU: pages of key 0 are cached with their rights, so a change of those flushes. */
export function setPkru(cpu: u32, value: u32): void {
  const old = load<u32>(cpu, S_PKRU);
  store<u32>(cpu, value, S_PKRU);
  if ((old ^ value) & 3) tlbFlushAll(cpu);
}
