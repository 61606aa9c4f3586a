/**
 * The walk of the guest's own tables: four or five levels, 4 KiB, 2 MiB and 1 GiB pages, as the CPU would do it (SDM Vol. 3, 5.5 to 5.8).
 */
import { MODE_NX, MODE_SMEP } from './api.ts';
import {
  ACC_ALL,
  ACC_U,
  ACC_W,
  ACC_X,
  ACCESS_EXEC,
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

/** Guest-physical address in an entry, 4 KiB aligned. */
export function entryGpa(low: number, high: number): number {
  const page = (low & PTE_ADDR_LOW) >>> 0;
  const upper = high & PTE_ADDR_HIGH;
  return upper === 0 ? page : upper * FOUR_GIB + page;
}

/** One walker; its fields hold the result of the last walk. */
export class GuestWalk {
  /** Level of the entry that maps the page: 1 (4 KiB), 2 (2 MiB) or 3 (1 GiB). */
  leafLevel = 0;
  /** Guest-physical address of the 4 KiB page. */
  gpa = 0;
  /** Page-fault error bits P and RSVD when the walk or `permits` failed; `permits` adds W, U and I. */
  error = 0;
  /** By level: rights accumulated down to and including the entry of that level. */
  readonly access = new Int32Array(6);
  /** By level: HPA of the table, word index and low word of the entry. */
  readonly tableHpa = new Float64Array(6);
  readonly word = new Int32Array(6);
  readonly low = new Int32Array(6);
  private readonly words: Int32Array;
  private readonly gpaToHpa: (gpa: number) => number;
  private readonly reservedHigh: number;

  constructor(words: Int32Array, gpaToHpa: (gpa: number) => number, physicalAddressBits: number) {
    this.words = words;
    this.gpaToHpa = gpaToHpa;
    this.reservedHigh = PTE_ADDR_HIGH & ~((1 << (physicalAddressBits - 32)) - 1);
  }

  /** Error bits of an entry read at a level: 0 good, PF_P | PF_RSVD reserved bits set. Only for present entries. */
  reserved(low: number, high: number, level: number, mode: number): number {
    if ((high & this.reservedHigh) !== 0 || (high < 0 && (mode & MODE_NX) === 0)) return PF_P | PF_RSVD;
    if ((low & PTE_PS) === 0 || level === 1) return 0;
    if (level > 3) return PF_P | PF_RSVD;
    // Bits 13..20 (2 MiB) or 13..29 (1 GiB) of a large entry; bit 12 is PAT.
    return (low & (level === 2 ? 0x001f_e000 : 0x3fff_e000)) !== 0 ? PF_P | PF_RSVD : 0;
  }

  /** Follows the tables from `rootHpa`. False: `error` says why (P clear: not present). Changes nothing. */
  walk(rootHpa: number, levels: number, vaLow: number, vaHigh: number, mode: number): boolean {
    let table = rootHpa;
    let access = ACC_ALL;
    for (let level = levels; ; level--) {
      const word = (table >>> 2) + vaIndex(vaLow, vaHigh, level) * 2;
      const low = this.words[word] as number;
      const high = this.words[word + 1] as number;
      if ((low & PTE_P) === 0) {
        this.error = 0;
        return false;
      }
      const reserved = this.reserved(low, high, level, mode);
      if (reserved !== 0) {
        this.error = reserved;
        return false;
      }
      access &= accessOf(low, high);
      this.tableHpa[level] = table;
      this.word[level] = word;
      this.low[level] = low;
      this.access[level] = access;
      if (level === 1 || (low & PTE_PS) !== 0) {
        const base = entryGpa(low, high);
        this.leafLevel = level;
        this.gpa = level === 1 ? base : level === 2 ? base - (base & 0x1fffff) + (vaLow & 0x1ff000) : base - (base & 0x3fffffff) + (vaLow & 0x3ffff000);
        return true;
      }
      table = this.gpaToHpa(entryGpa(low, high));
      if (table < 0) {
        this.error = 0;
        return false;
      }
    }
  }

  /** Whether the translation just found allows an access. PVM has CR0.WP always set, and never SMAP. */
  permits(user: number, access: number, mode: number): boolean {
    const rights = this.access[this.leafLevel] as number;
    const kind = access & ACCESS_KIND;
    const need = (user !== 0 ? ACC_U : 0) | (kind === ACCESS_EXEC ? ACC_X : kind === ACCESS_READ ? 0 : ACC_W);
    if (
      (rights & need) === need &&
      !(kind === ACCESS_EXEC && user === 0 && (rights & ACC_U) !== 0 && (mode & (MODE_NX | MODE_SMEP)) === (MODE_NX | MODE_SMEP))
    ) {
      return true;
    }
    this.error = PF_P;
    return false;
  }

  /** Error code of the fault for the access, from the error of the last walk. */
  errorCode(user: number, access: number, mode: number): number {
    const kind = access & ACCESS_KIND;
    const kindBit = kind === ACCESS_EXEC ? ((mode & MODE_NX) !== 0 ? PF_I : 0) : kind === ACCESS_READ ? 0 : PF_W;
    return this.error | kindBit | (user !== 0 ? PF_U : 0);
  }

  /** Whether the translation found needs no accessed bit (and, for a write, no dirty bit) set. */
  isMarked(levels: number, write: boolean): boolean {
    let all = PTE_A;
    for (let level = levels; level >= this.leafLevel; level--) all &= this.low[level] as number;
    return all !== 0 && (!write || (this.leafLow() & PTE_D) !== 0);
  }

  /**
   * Sets the accessed bits of every entry used and, for a write, the dirty bit of the leaf, each by compare-and-exchange as the CPU does.
   * False when an entry changed since the walk: walk again.
   */
  mark(levels: number, write: boolean): boolean {
    for (let level = levels; level >= this.leafLevel; level--) {
      const old = this.low[level] as number;
      const marked = old | (level === this.leafLevel && write ? PTE_A | PTE_D : PTE_A);
      if (marked === old) continue;
      if (Atomics.compareExchange(this.words, this.word[level] as number, old, marked) !== old) return false;
      this.low[level] = marked;
    }
    return true;
  }

  leafLow(): number {
    return this.low[this.leafLevel] as number;
  }

  /** Rights of the page as the shadow may give them now: no write before the guest's dirty bit is set. */
  leafRights(): number {
    const rights = this.access[this.leafLevel] as number;
    return (this.leafLow() & PTE_D) !== 0 ? rights : rights & ~ACC_W;
  }
}

/** High word of a shadow leaf for the rights given: no-execute, also for user pages in a kernel shadow under SMEP. */
export function leafHigh(rights: number, smepOnUser: boolean): number {
  return (rights & ACC_X) === 0 || (smepOnUser && (rights & ACC_U) !== 0) ? PTE_NX_HIGH : 0;
}
