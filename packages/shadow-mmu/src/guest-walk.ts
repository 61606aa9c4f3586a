/**
 * The walk of the guest's own tables, as the CPU would do it in the guest's paging mode (SDM Vol. 3, 5.3 to 5.8), and the rights it comes to.
 */
import {
  ACCESS_AC,
  MODE_32BIT,
  MODE_LA57,
  MODE_LEGACY,
  MODE_NO_PAGING,
  MODE_NO_WP,
  MODE_NX,
  MODE_PAE,
  MODE_PSE,
  MODE_SMAP,
  MODE_SMEP,
  type ShadowFlavour,
} from './api.ts';
import {
  ACC_ALL,
  ACC_U,
  ACC_W,
  ACC_X,
  ACCESS_EXEC,
  ACCESS_IMPLICIT_SUPERVISOR,
  ACCESS_KIND,
  ACCESS_READ,
  accessOf,
  PF_I,
  PF_P,
  PF_RSVD,
  PF_U,
  PF_W,
  PTE_A,
  PTE_ADDR_HIGH,
  PTE_ADDR_LOW,
  PTE_D,
  PTE_NX_HIGH,
  PTE_P,
  PTE_PS,
  vaIndex,
} from './paging.ts';

const FOUR_GIB = 0x1_0000_0000;
/** Bits 1, 2, 5-8 of a PAE page-directory pointer, and bits 52-63: reserved (SDM Vol. 3, table 5-8). */
export const PDPTE_RESERVED_LOW = 0x1e6;
export const PDPTE_RESERVED_HIGH = 0xfff0_0000 | 0;
/** Bits 52-62 of entries in PAE tables. */
const PAE_RESERVED_HIGH = 0x7ff0_0000;
/** What a large 32-bit entry with bit 21 set is turned into: bit 13 is reserved in the 64-bit form. */
const RESERVED_IN_LARGE = 0x2000;

/** Guest-physical address in an entry, 4 KiB aligned. */
export function entryGpa(low: number, high: number): number {
  const page = (low & PTE_ADDR_LOW) >>> 0;
  const upper = high & PTE_ADDR_HIGH;
  return upper === 0 ? page : upper * FOUR_GIB + page;
}

/**
 * A 4-byte directory entry in the form of 8-byte ones, for the 2 MiB half that `half` (0 or 1) names of what it covers: low word. A 4 MiB page becomes
 * a 2 MiB one; its address bits 32-39 (PSE-36) are {@link largeHigh32}.
 */
export function directoryLow32(entry: number, half: number, hasPse: boolean): number {
  if ((entry & PTE_PS) === 0) return entry;
  if (!hasPse) return entry & ~PTE_PS;
  return (entry & 0xffc0_0fff) | (half << 21) | ((entry & 0x20_0000) !== 0 ? RESERVED_IN_LARGE : 0);
}
export function largeHigh32(entry: number, hasPse: boolean): number {
  return hasPse && (entry & PTE_PS) !== 0 ? (entry >>> 13) & 0xff : 0;
}

/** Levels of the shadow tables for a mode. */
export function shadowLevels(mode: number): number {
  return (mode & MODE_LEGACY) !== 0 ? 3 : (mode & MODE_LA57) !== 0 ? 5 : 4;
}

/** One walker; its fields hold the result of the last walk. */
export class GuestWalk {
  /** Level of the entry that maps the page: 1 (4 KiB), 2 (2 or 4 MiB) or 3 (1 GiB); 4 without paging. */
  leafLevel = 0;
  /** Level of the first entry used whose accessed bit counts. */
  private topLevel = 0;
  /** Levels at which `mark` has set something since this was last cleared: bit n for level n. */
  markedLevels = 0;
  /** Guest-physical address of the 4 KiB page. */
  gpa = 0;
  /** Page-fault error bits P and RSVD when the walk or `permits` failed; `errorCode` adds W, U and I. */
  error = 0;
  /** By level: rights accumulated down to and including the entry of that level. */
  readonly access = new Int32Array(6);
  /** By level: HPA of the table, word index and low word of the entry as it is in memory. */
  readonly tableHpa = new Float64Array(6);
  readonly word = new Int32Array(6);
  readonly low = new Int32Array(6);
  /** PAE paging: the four page-directory pointers as they were when CR3 was loaded, from this index on. */
  pointers: Int32Array = new Int32Array(8);
  pointersAt = 0;
  private readonly words: Int32Array;
  private readonly gpaToHpa: (gpa: number) => number;
  private readonly reservedHigh: number;
  private readonly isKvm: boolean;

  constructor(words: Int32Array, gpaToHpa: (gpa: number) => number, physicalAddressBits: number, flavour: ShadowFlavour) {
    this.words = words;
    this.gpaToHpa = gpaToHpa;
    this.reservedHigh = PTE_ADDR_HIGH & ~((1 << (physicalAddressBits - 32)) - 1);
    this.isKvm = flavour === 'kvm';
  }

  /** Error bits of an entry read at a level: 0 good, PF_P | PF_RSVD reserved bits set. Only for present entries. */
  reserved(low: number, high: number, level: number, mode: number): number {
    if ((high & this.reservedHigh) !== 0 || (high < 0 && (mode & MODE_NX) === 0)) return PF_P | PF_RSVD;
    if ((mode & MODE_PAE) !== 0 && (high & PAE_RESERVED_HIGH) !== 0) return PF_P | PF_RSVD;
    if ((low & PTE_PS) === 0 || level === 1) return 0;
    if (level > 3) return PF_P | PF_RSVD;
    // Bits 13..20 (2 MiB) or 13..29 (1 GiB) of a large entry; bit 12 is PAT.
    return (low & (level === 2 ? 0x001f_e000 : 0x3fff_e000)) !== 0 ? PF_P | PF_RSVD : 0;
  }

  /** Follows the tables from `rootHpa`, where CR3 points; -1: not RAM. False: `error` says why (P clear: not present). Changes nothing. */
  walk(rootHpa: number, vaLow: number, vaHigh: number, mode: number): boolean {
    if ((mode & MODE_LEGACY) === 0) return this.walkTables(rootHpa, (mode & MODE_LA57) !== 0 ? 5 : 4, vaLow, vaHigh, mode);
    if ((mode & MODE_NO_PAGING) !== 0) return this.walkNothing(vaLow);
    return (mode & MODE_32BIT) !== 0 ? this.walk32(rootHpa, vaLow, mode) : this.walkPae(rootHpa, vaLow, mode);
  }

  private walkTables(rootHpa: number, levels: number, vaLow: number, vaHigh: number, mode: number): boolean {
    let table = rootHpa;
    let access = ACC_ALL;
    this.topLevel = levels;
    for (let level = levels; ; level--) {
      // A table outside RAM reads as all ones: present, with reserved bits.
      if (table < 0) return this.fail(PF_P | PF_RSVD);
      const word = (table >>> 2) + vaIndex(vaLow, vaHigh, level) * 2;
      const low = this.words[word] as number;
      const high = this.words[word + 1] as number;
      if ((low & PTE_P) === 0) return this.fail(0);
      const reserved = this.reserved(low, high, level, mode);
      if (reserved !== 0) return this.fail(reserved);
      access &= accessOf(low, high);
      this.enter(level, table, word, low, access);
      if (level === 1 || (low & PTE_PS) !== 0) {
        const base = entryGpa(low, high);
        this.leafLevel = level;
        this.gpa = level === 1 ? base : level === 2 ? base - (base & 0x1fffff) + (vaLow & 0x1ff000) : base - (base & 0x3fffffff) + (vaLow & 0x3ffff000);
        return true;
      }
      table = this.gpaToHpa(entryGpa(low, high));
    }
  }

  private walkPae(rootHpa: number, vaLow: number, mode: number): boolean {
    if (rootHpa < 0) return this.fail(PF_P | PF_RSVD);
    const word = this.pointersAt + (vaLow >>> 30) * 2;
    const low = this.pointers[word] as number;
    const high = this.pointers[word + 1] as number;
    if ((low & PTE_P) === 0) return this.fail(0);
    if ((low & PDPTE_RESERVED_LOW) !== 0 || (high & (PDPTE_RESERVED_HIGH | this.reservedHigh)) !== 0) return this.fail(PF_P | PF_RSVD);
    this.enter(3, rootHpa, word, low, ACC_ALL);
    return this.walkTables(this.gpaToHpa(entryGpa(low, high)), 2, vaLow, 0, mode);
  }

  private walk32(rootHpa: number, vaLow: number, mode: number): boolean {
    if (rootHpa < 0) return this.fail(PF_P | PF_RSVD);
    const hasPse = (mode & MODE_PSE) !== 0;
    this.topLevel = 2;
    // The third level of the shadow has no rights of its own.
    this.access[3] = ACC_ALL;
    const word = (rootHpa >>> 2) + (vaLow >>> 22);
    const entry = this.words[word] as number;
    if ((entry & PTE_P) === 0) return this.fail(0);
    const low = directoryLow32(entry, (vaLow >>> 21) & 1, hasPse);
    if (this.reserved(low, 0, 2, mode) !== 0) return this.fail(PF_P | PF_RSVD);
    this.enter(2, rootHpa, word, entry, accessOf(low, 0));
    if ((low & PTE_PS) !== 0) {
      this.leafLevel = 2;
      this.gpa = entryGpa(low, largeHigh32(entry, hasPse)) + (vaLow & 0x1f_f000);
      return true;
    }
    const table = this.gpaToHpa(entryGpa(entry, 0));
    if (table < 0) return this.fail(PF_P | PF_RSVD);
    const leafWord = (table >>> 2) + ((vaLow >>> 12) & 1023);
    const leaf = this.words[leafWord] as number;
    if ((leaf & PTE_P) === 0) return this.fail(0);
    this.enter(1, table, leafWord, leaf, accessOf(low, 0) & accessOf(leaf, 0));
    this.leafLevel = 1;
    this.gpa = entryGpa(leaf, 0);
    return true;
  }

  private walkNothing(vaLow: number): boolean {
    this.topLevel = 0;
    this.leafLevel = 4;
    this.access[4] = ACC_ALL;
    this.low[4] = PTE_P | PTE_A | PTE_D;
    this.gpa = (vaLow & PTE_ADDR_LOW) >>> 0;
    return true;
  }

  private enter(level: number, table: number, word: number, low: number, access: number): void {
    this.tableHpa[level] = table;
    this.word[level] = word;
    this.low[level] = low;
    this.access[level] = access;
  }

  private fail(error: number): false {
    this.error = error;
    return false;
  }

  /** Whether the translation just found allows an access. `user` 0: the supervisor. */
  permits(user: number, access: number, mode: number): boolean {
    const rights = this.access[this.leafLevel] as number;
    const kind = access & ACCESS_KIND;
    let need = user !== 0 ? ACC_U : 0;
    if (kind === ACCESS_EXEC) need |= ACC_X;
    else if (kind !== ACCESS_READ && (user !== 0 || (mode & MODE_NO_WP) === 0)) need |= ACC_W;
    const isUserPage = (rights & ACC_U) !== 0;
    const isKept = user === 0 && isUserPage && (kind === ACCESS_EXEC ? this.hasSmep(mode) : this.isSmapFault(access, mode));
    if ((rights & need) === need && !isKept) return true;
    this.error = PF_P;
    return false;
  }

  private hasSmep(mode: number): boolean {
    // In PVM's ABI NX and SMEP come together; KVM's guests may have either.
    return (mode & MODE_SMEP) !== 0 && (this.isKvm || (mode & MODE_NX) !== 0) && (mode & MODE_NO_PAGING) === 0;
  }

  private isSmapFault(access: number, mode: number): boolean {
    return this.isKvm && (mode & MODE_SMAP) !== 0 && (mode & MODE_NO_PAGING) === 0 && (access & (ACCESS_AC | ACCESS_IMPLICIT_SUPERVISOR)) !== ACCESS_AC;
  }

  /** Error code of the fault for the access, from the error of the last walk. */
  errorCode(user: number, access: number, mode: number): number {
    const kind = access & ACCESS_KIND;
    const tells = (mode & MODE_NX) !== 0 || (this.isKvm && (mode & MODE_SMEP) !== 0);
    const kindBit = kind === ACCESS_EXEC ? (tells ? PF_I : 0) : kind === ACCESS_READ ? 0 : PF_W;
    return this.error | kindBit | (user !== 0 ? PF_U : 0);
  }

  /** Whether the translation found needs no accessed bit (and, for a write, no dirty bit) set. */
  isMarked(write: boolean): boolean {
    let all = PTE_A;
    for (let level = this.topLevel; level >= this.leafLevel; level--) all &= this.low[level] as number;
    return all !== 0 && (!write || (this.leafLow() & PTE_D) !== 0);
  }

  /**
   * Sets the accessed bits of every entry used and, for a write, the dirty bit of the leaf, each by compare-and-exchange as the CPU does.
   * False when an entry changed since the walk: walk again.
   */
  mark(write: boolean): boolean {
    for (let level = this.topLevel; level >= this.leafLevel; level--) {
      const marks = level === this.leafLevel && write ? PTE_A | PTE_D : PTE_A;
      let old = this.low[level] as number;
      while ((old & marks) !== marks) {
        const found = Atomics.compareExchange(this.words, this.word[level] as number, old, old | marks);
        if (found === old) {
          old |= marks;
          this.markedLevels |= 1 << level;
        } else if (((found ^ old) & ~(PTE_A | PTE_D)) !== 0) return false;
        // Only marks were set since: by another vCPU, or for another level of this walk, which may use one entry twice.
        else old = found;
      }
      this.low[level] = old;
    }
    return true;
  }

  leafLow(): number {
    return this.low[this.leafLevel] as number;
  }

  /**
   * Rights of the page as the shadow may give them now: no write before the guest's dirty bit is set. While CR0.WP is 0 a supervisor's write to a read-only
   * page is allowed; where one root serves both privileges, that takes the page away from the user (and from execution under SMEP), whose next access
   * turns it back.
   */
  leafRights(user: number, write: boolean, mode: number): number {
    const rights = this.access[this.leafLevel] as number;
    if ((this.leafLow() & PTE_D) === 0) return rights & ~ACC_W;
    if ((rights & ACC_W) !== 0 || (mode & MODE_NO_WP) === 0 || user !== 0) return rights;
    if (!this.isKvm || (rights & ACC_U) === 0) return rights | ACC_W;
    if (!write) return rights;
    return (rights & ~(this.hasSmep(mode) ? ACC_U | ACC_X : ACC_U)) | ACC_W;
  }

  /** Whether a write just permitted must be done for the guest, since a page given to the supervisor for it would no longer obey SMAP. */
  mustEmulate(user: number, write: boolean, mode: number): boolean {
    return write && user === 0 && this.isKvm && (mode & MODE_SMAP) !== 0 && ((this.access[this.leafLevel] as number) & (ACC_U | ACC_W)) === ACC_U;
  }
}

/** High word of a shadow leaf for the rights given: no-execute, also for user pages in a kernel shadow under SMEP. */
export function leafHigh(rights: number, smepOnUser: boolean): number {
  return (rights & ACC_X) === 0 || (smepOnUser && (rights & ACC_U) !== 0) ? PTE_NX_HIGH : 0;
}
