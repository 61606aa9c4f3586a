// The page walker: virtual address -> host address and permissions, in every paging mode. It changes nothing but
// accessed and dirty bits; results stay in the module variables below until the next walk.
import {
  ACCESS_EXEC, ACCESS_IMPLICIT_SUPERVISOR, C_WALKS, MAXPHYADDR, P_KERNEL_ROOT, PAGING_EPT, PAGING_OFF, PAGING_SHADOW, S_CPL, S_CR0, S_CR3,
  S_CR4, S_EFER, S_PKRU, S_RFLAGS, S_WALK_CACHE,
  S_WALK_GENERATION, V_DEPRIVILEGED, V_LEVELS, V_PAGING, V_RAM_BASE, V_RAM_HIGH, V_RAM_LOW, V_ROOT, WALK_CACHE_ENTRIES,
  WALK_TABLE_WRITABLE,
} from "../src/layout";
import {
  CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PKE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_NXE, RFLAGS_AC, count,
} from "./cpu";
import { EPT_TO_READ, EPT_TO_WRITE, eptDirty, eptExecutable, eptOpen, eptReadable, eptTable, eptTranslate, eptWritable } from "./ept";

/** Translated: walkHpa, walkRead, walkWrite, walkExec, ... are valid. */
export const WALK_OK: u32 = 0;
/** Page fault with error code walkError. */
export const WALK_FAULT: u32 = 1;
/** Translated to guest-physical walkGpa, which is not RAM; the access is permitted. */
export const WALK_MMIO: u32 = 2;
/** Not canonical: #GP(0). */
export const WALK_GP: u32 = 3;
/** The second level has no translation for guest-physical eptGpa. */
export const WALK_EPT: u32 = 4;

/** Error code bits of #PF (SDM vol. 3, 4.7). */
export const PF_P: u32 = 1;
export const PF_W: u32 = 2;
export const PF_U: u32 = 4;
export const PF_RSVD: u32 = 8;
export const PF_I: u32 = 16;
export const PF_PK: u32 = 32;

const PTE_P: u64 = 1;
const PTE_W: u64 = 2;
const PTE_U: u64 = 4;
const PTE_A: u64 = 0x20;
const PTE_D: u64 = 0x40;
const PTE_PS: u64 = 0x80;
const PTE_G: u64 = 0x100;
const PTE_NX: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const RESERVED_ADDRESS: u64 = 0x000f_ffff_ffff_ffff & ~((<u64>1 << MAXPHYADDR) - 1);

/** HPA of the 4 KiB page. */
export let walkHpa: u32 = 0;
/** Guest-physical address of the byte asked for (HPA in shadow mode). */
export let walkGpa: u64 = 0;
export let walkError: u32 = 0;
/** What later accesses at this privilege may do without walking again. `walkWrite` implies the dirty bit is set. */
export let walkRead: bool = false;
export let walkWrite: bool = false;
export let walkExec: bool = false;
/** The result depends on state that changes without a flush (PKRU): use it once. */
export let walkOnce: bool = false;
/** Data may be accessed only because RFLAGS.AC lifts SMAP. */
export let walkSmap: bool = false;
export let walkGlobal: bool = false;
/** log2 of the size of the page that maps the address. */
export let walkShift: u32 = 12;

/** HPA of a guest-physical address, 0 when it is not RAM. */
@inline
export function ramHpa(cpu: u32, gpa: u64): u32 {
  const low = <u64>load<u32>(cpu, V_RAM_LOW);
  if (gpa < low) return load<u32>(cpu, V_RAM_BASE) + <u32>gpa;
  const high = gpa - 0x1_0000_0000;
  if (high < <u64>load<u32>(cpu, V_RAM_HIGH)) return load<u32>(cpu, V_RAM_BASE) + <u32>low + <u32>high;
  return 0;
}

/** Error code of a fault by this access; `bits`: P, RSVD, PK. */
function faultError(cpu: u32, access: u32, bits: u32, shadow: bool): u32 {
  const kind = access & 3;
  if (kind & 1) bits |= PF_W;
  if (load<u32>(cpu, S_CPL) == 3 && !(access & ACCESS_IMPLICIT_SUPERVISOR)) bits |= PF_U;
  if (kind == ACCESS_EXEC) {
    const cr4 = load<u32>(cpu, S_CR4);
    if (shadow || cr4 & CR4_SMEP || (cr4 & CR4_PAE && load<u32>(cpu, S_EFER) & EFER_NXE)) bits |= PF_I;
  }
  return bits;
}

function fault(cpu: u32, access: u32, bits: u32, shadow: bool): u32 {
  walkError = faultError(cpu, access, bits, shadow);
  return WALK_FAULT;
}

/** HPA of a paging structure, 0 when it cannot be reached. `access`: EPT_TO_READ or EPT_TO_WRITE. */
@inline
function tableHpa(cpu: u32, mode: u32, address: u64, access: u32): u32 {
  if (mode == PAGING_SHADOW) return <u32>address;
  if (mode == PAGING_EPT) return eptTable(cpu, address, access);
  return ramHpa(cpu, address);
}

/** Second stage and final permissions: `r`, `w`, `x` are what the first level allows. */
function finish(cpu: u32, mode: u32, gpa: u64, access: u32, r: bool, w: bool, x: bool): u32 {
  walkGpa = gpa;
  if (mode == PAGING_SHADOW) {
    walkHpa = <u32>gpa & ~0xfff;
  } else if (mode == PAGING_EPT) {
    let hpa = eptOpen(cpu, gpa);
    if (!hpa) {
      const kind = access & 3;
      hpa = eptTranslate(cpu, gpa, kind == ACCESS_EXEC ? 4 : kind & 1 ? EPT_TO_WRITE : EPT_TO_READ, false);
      if (!hpa) return WALK_EPT;
      r = r && eptReadable;
      w = w && eptWritable && eptDirty;
      x = x && eptExecutable;
    }
    walkHpa = hpa & ~0xfff;
  } else {
    const hpa = ramHpa(cpu, gpa);
    if (!hpa) return WALK_MMIO;
    walkHpa = hpa & ~0xfff;
  }
  walkRead = r;
  walkWrite = w;
  walkExec = x;
  return WALK_OK;
}

/**
 * Rights check of a leaf. `user`, `writable`, `nx`: combined over the levels; `pkey`: protection key, 0 when off.
 * Returns WALK_OK, or WALK_FAULT with walkError.
 */
let allowRead: bool = false;
let allowWrite: bool = false;
let allowExec: bool = false;
function check(cpu: u32, access: u32, user: bool, writable: bool, nx: bool, pkey: u32, shadow: bool): u32 {
  const deprivileged = shadow && load<u32>(cpu, V_DEPRIVILEGED) != 0;
  const supervisor = !deprivileged && (load<u32>(cpu, S_CPL) != 3 || (access & ACCESS_IMPLICIT_SUPERVISOR) != 0);
  // Where the guest's paging is off, shadow tables translate all the same.
  const cr4: u32 = shadow && !(load<u32>(cpu, S_CR0) & CR0_PG) ? 0 : load<u32>(cpu, S_CR4);
  const wp = shadow || (load<u32>(cpu, S_CR0) & CR0_WP) != 0;
  let r: bool, w: bool, x: bool;
  walkOnce = false;
  walkSmap = false;
  if (!supervisor) {
    r = user;
    w = user && writable;
    x = user && !nx;
  } else if (user) {
    r = true;
    x = !nx && !(cr4 & CR4_SMEP);
    if (cr4 & CR4_SMAP) {
      r = walkSmap = !(access & ACCESS_IMPLICIT_SUPERVISOR) && (load<u32>(cpu, S_RFLAGS) & RFLAGS_AC) != 0;
    }
    w = r && (writable || !wp);
  } else {
    r = true;
    w = writable || !wp;
    x = !nx;
  }
  const kind = access & 3;
  let refused: u32 = 0;
  if (user && cr4 & CR4_PKE && !shadow && load<u32>(cpu, S_EFER) & EFER_LMA) {
    // A page of key 0 may be cached: `setPkru` flushes when the rights of key 0 change.
    if (pkey) walkOnce = true;
    const rights = load<u32>(cpu, S_PKRU) >> (pkey << 1) & 3;
    const noWrite = (rights & 2) != 0 && (!supervisor || wp);
    if (rights & 1 || (noWrite && kind & 1)) {
      if (kind != ACCESS_EXEC) refused = PF_PK;
    }
    if (rights & 1) r = w = false;
    if (noWrite) w = false;
  }
  allowRead = r;
  allowWrite = w;
  allowExec = x;
  const ok = kind == ACCESS_EXEC ? x : kind & 1 ? w : r;
  return ok ? WALK_OK : fault(cpu, access, PF_P | refused, shadow);
}

/** Entry of the paging-structure cache that may hold the last-level table of `va`. */
@inline
function cacheEntry(cpu: u32, va: u64): u32 {
  return cpu + S_WALK_CACHE + (<u32>(va >> 21) & (WALK_CACHE_ENTRIES - 1)) * 32;
}
@inline
function cacheTag(cpu: u32, va: u64): u64 {
  return va >> 21 | <u64>load<u32>(cpu, S_WALK_GENERATION) << 43;
}

/** Forget what the paging-structure cache holds for `va`. */
export function forgetWalk(cpu: u32, va: u64): void {
  store<u64>(cacheEntry(cpu, va), 0);
}

/** Empty the paging-structure cache. */
export function forgetWalks(cpu: u32): void {
  const generation = load<u32>(cpu, S_WALK_GENERATION) + 1;
  if (generation >> 21) {
    memory.fill(cpu + S_WALK_CACHE, 0, WALK_CACHE_ENTRIES * 32);
    store<u32>(cpu, 1, S_WALK_GENERATION);
  } else {
    store<u32>(cpu, generation, S_WALK_GENERATION);
  }
}

/** 4- and 5-level tables, through the paging-structure cache. */
function walkCached(cpu: u32, mode: u32, va: u64, access: u32, root: u64, levels: u32): u32 {
  const cached = cacheEntry(cpu, va);
  if (load<u64>(cached) == cacheTag(cpu, va) && load<u64>(cached, 8) == root) {
    const slot = load<u32>(cached, 16) + ((<u32>(va >> 12) & 511) << 3);
    const entry = load<u64>(slot);
    const shadow = mode == PAGING_SHADOW;
    const rights = <u64>load<u32>(cached, 20);
    const isMarked = (entry & marksOf(access)) == marksOf(access) || mode != PAGING_EPT || (rights & WALK_TABLE_WRITABLE) != 0;
    if (entry & PTE_P && isMarked && !(entry & reservedBits(cpu, shadow, true))) {
      if (!leaf(cpu, mode, va, access, slot, AT_SLOT, entry, rights & entry, rights << 32 | entry, 12)) return WALK_OK;
      if (walkMiss) return WALK_MMIO;
    }
    // A fault must be one of the tables as they are now.
  }
  return walkLong(cpu, mode, va, access, root, levels, true);
}

@inline
function reservedBits(cpu: u32, shadow: bool, long: bool): u64 {
  if (shadow) return 0;
  const bits = long ? RESERVED_ADDRESS : RESERVED_ADDRESS | 0x7ff0_0000_0000_0000;
  return load<u32>(cpu, S_EFER) & EFER_NXE ? bits : bits | PTE_NX;
}

/** `leaf` ended with WALK_MMIO. */
let walkMiss: bool = false;

/** Bits that an access sets in the entry of its page. */
@inline
function marksOf(access: u32): u64 {
  return access & 1 ? PTE_A | PTE_D : PTE_A;
}
/** For `leaf`: the slot may be written. */
const AT_SLOT: u64 = -1;

/** Last step: rights, accessed and dirty bits, second stage. `slot`: HPA of the entry; `table`: its table for EPT, or AT_SLOT; `all`, `nx`: combined rights. */
function leaf(cpu: u32, mode: u32, va: u64, access: u32, slot: u32, table: u64, entry: u64, all: u64, nx: u64, shift: u32): u32 {
  walkMiss = false;
  const refused = check(cpu, access, (all & PTE_U) != 0, (all & PTE_W) != 0, (nx & PTE_NX) != 0, <u32>(entry >> 59) & 15, mode == PAGING_SHADOW);
  if (refused) return refused;
  const marks = marksOf(access);
  if ((entry & marks) != marks) {
    if (mode == PAGING_EPT && table != AT_SLOT) {
      const base = eptTranslate(cpu, table, EPT_TO_WRITE, true);
      if (!base) return WALK_EPT;
      slot = base + (slot & 0xfff);
    }
    atomic.or<u64>(slot, marks);
  }
  walkShift = shift;
  walkGlobal = (entry & PTE_G) != 0;
  const below = (<u64>1 << shift) - 1;
  const w = allowWrite && ((entry | marks) & PTE_D) != 0;
  const result = finish(cpu, mode, (entry & ADDRESS & ~below) | (va & below), access, allowRead, w, allowExec);
  walkMiss = result == WALK_MMIO;
  return result;
}

/** 4- and 5-level tables, and PAE tables below the PDPTE (`levels` 2). */
function walkLong(cpu: u32, mode: u32, va: u64, access: u32, root: u64, levels: u32, long: bool): u32 {
  const shadow = mode == PAGING_SHADOW;
  const reserved = reservedBits(cpu, shadow, long);
  let table = root & ADDRESS;
  let shift: u32 = 3 + 9 * levels;
  let all: u64 = PTE_W | PTE_U;
  let nx: u64 = 0;
  while (true) {
    const offset = (<u32>(va >> shift) & 511) << 3;
    let base = tableHpa(cpu, mode, table, EPT_TO_READ);
    if (!base) {
      // A table outside RAM reads as all ones on real buses: present, with reserved bits.
      return mode == PAGING_EPT ? WALK_EPT : fault(cpu, access, PF_P | PF_RSVD, shadow);
    }
    const entry = load<u64>(base + offset);
    if (!(entry & PTE_P)) return fault(cpu, access, 0, shadow);
    if (entry & reserved) return fault(cpu, access, PF_P | PF_RSVD, shadow);
    if (shift == 12) {
      if (long) {
        const writable: u32 = mode == PAGING_EPT && eptWritable && eptDirty ? WALK_TABLE_WRITABLE : 0;
        const cached = cacheEntry(cpu, va);
        store<u64>(cached, cacheTag(cpu, va));
        store<u64>(cached, root, 8);
        store<u32>(cached, base, 16);
        store<u32>(cached, (<u32>all & <u32>(PTE_W | PTE_U)) | <u32>(nx >> 32 & 0x8000_0000) | writable, 20);
      }
      return leaf(cpu, mode, va, access, base + offset, table, entry, all & entry, nx | entry, 12);
    }
    all &= entry;
    nx |= entry;
    if (entry & PTE_PS) {
      if (shift > 30 || entry & (((<u64>1 << shift) - 1) & 0x000f_ffff_ffff_e000)) return fault(cpu, access, PF_P | PF_RSVD, shadow);
      return leaf(cpu, mode, va, access, base + offset, table, entry, all, nx, shift);
    }
    if (!(entry & PTE_A)) {
      if (mode == PAGING_EPT) {
        base = eptTranslate(cpu, table, EPT_TO_WRITE, true);
        if (!base) return WALK_EPT;
      }
      atomic.or<u64>(base + offset, PTE_A);
    }
    table = entry & ADDRESS;
    shift -= 9;
  }
}

/** PAE paging: four PDPTEs without rights, read from memory at each walk, then two levels. */
function walkPae(cpu: u32, mode: u32, va: u64, access: u32): u32 {
  const address = (load<u64>(cpu, S_CR3) & 0xffff_ffe0) | (va >> 27 & 0x18);
  const slot = tableHpa(cpu, mode, address, EPT_TO_READ);
  if (!slot) return mode == PAGING_EPT ? WALK_EPT : fault(cpu, access, PF_P | PF_RSVD, false);
  const entry = load<u64>(slot);
  if (!(entry & PTE_P)) return fault(cpu, access, 0, false);
  if (entry & (RESERVED_ADDRESS | 0xfff0_0000_0000_01e6)) return fault(cpu, access, PF_P | PF_RSVD, false);
  return walkLong(cpu, mode, va, access, entry & ADDRESS, 2, false);
}

/** 32-bit paging: two levels of 4-byte entries, 4 MiB pages with CR4.PSE (PSE-36 included). */
function walk32(cpu: u32, mode: u32, va: u64, access: u32): u32 {
  const directory = (load<u64>(cpu, S_CR3) & 0xffff_f000) | (va >> 20 & 0xffc);
  let slot = tableHpa(cpu, mode, directory, EPT_TO_READ);
  if (!slot) return mode == PAGING_EPT ? WALK_EPT : fault(cpu, access, PF_P | PF_RSVD, false);
  let entry = load<u32>(slot);
  if (!(entry & 1)) return fault(cpu, access, 0, false);
  let all = entry;
  let at = directory;
  let shift: u32 = 22;
  if (!(entry & <u32>PTE_PS) || !(load<u32>(cpu, S_CR4) & CR4_PSE)) {
    if (!(entry & <u32>PTE_A)) {
      if (mode == PAGING_EPT) slot = tableHpa(cpu, mode, at, EPT_TO_WRITE);
      if (!slot) return WALK_EPT;
      atomic.or<u32>(slot, <u32>PTE_A);
    }
    at = <u64>(entry & 0xffff_f000) | (va >> 10 & 0xffc);
    slot = tableHpa(cpu, mode, at, EPT_TO_READ);
    if (!slot) return mode == PAGING_EPT ? WALK_EPT : fault(cpu, access, PF_P | PF_RSVD, false);
    entry = load<u32>(slot);
    if (!(entry & 1)) return fault(cpu, access, 0, false);
    all &= entry;
    shift = 12;
  } else if (entry & 0x0020_0000) {
    return fault(cpu, access, PF_P | PF_RSVD, false);
  }
  const refused = check(cpu, access, (all & <u32>PTE_U) != 0, (all & <u32>PTE_W) != 0, false, 0, false);
  if (refused) return refused;
  let marks = <u32>PTE_A;
  if (access & 1) marks |= <u32>PTE_D;
  if ((entry & marks) != marks) {
    if (mode == PAGING_EPT) slot = tableHpa(cpu, mode, at, EPT_TO_WRITE);
    if (!slot) return WALK_EPT;
    atomic.or<u32>(slot, marks);
  }
  walkShift = shift;
  walkGlobal = (entry & <u32>PTE_G) != 0;
  let gpa: u64;
  if (shift == 12) gpa = <u64>(entry & 0xffff_f000) | (va & 0xfff);
  else gpa = <u64>(entry & 0xffc0_0000) | (<u64>(entry >> 13 & 0xff) << 32) | (va & 0x3f_ffff);
  const w = allowWrite && ((entry | marks) & <u32>PTE_D) != 0;
  return finish(cpu, mode, gpa, access, allowRead, w, allowExec);
}

/** Walk for `access` (ACCESS_*) at `va` in the mode of the control block. Returns WALK_*. */
export function walk(cpu: u32, va: u64, access: u32): u32 {
  count(cpu, C_WALKS);
  const mode = load<u32>(cpu, V_PAGING);
  const long = (load<u32>(cpu, S_EFER) & EFER_LMA) != 0;
  if (mode == PAGING_SHADOW) {
    const levels = load<u32>(cpu, V_LEVELS);
    const kernelsOwn = access & ACCESS_IMPLICIT_SUPERVISOR && load<u32>(cpu, V_DEPRIVILEGED);
    const root = <u64>load<u32>(cpu + (kernelsOwn ? P_KERNEL_ROOT : V_ROOT));
    if (levels < 4) return walkLong(cpu, mode, va, access, root, levels, true);
    return canonical(va, levels) ? walkCached(cpu, mode, va, access, root, levels) : WALK_GP;
  }
  const cr4 = load<u32>(cpu, S_CR4);
  if (mode == PAGING_OFF || !(load<u32>(cpu, S_CR0) & CR0_PG)) {
    walkShift = 12;
    walkGlobal = false;
    walkOnce = false;
    walkSmap = false;
    // EFER.LMA without CR0.PG is a state that only the owner of the CPU makes: flat 64-bit code, its addresses cut to the 48 bits of the second level.
    if (long && !canonical(va, 4)) return WALK_GP;
    return finish(cpu, mode, long ? va & 0xffff_ffff_ffff : va & 0xffff_ffff, access, true, true, true);
  }
  if (long) {
    const levels: u32 = cr4 & CR4_LA57 ? 5 : 4;
    if (!canonical(va, levels)) return WALK_GP;
    return walkCached(cpu, mode, va, access, load<u64>(cpu, S_CR3), levels);
  }
  return cr4 & CR4_PAE ? walkPae(cpu, mode, va, access) : walk32(cpu, mode, va, access);
}

function canonical(va: u64, levels: u32): bool {
  const high = 64 - (12 + 9 * levels);
  return (<u64>(<i64>(va << high) >> high)) == va;
}
