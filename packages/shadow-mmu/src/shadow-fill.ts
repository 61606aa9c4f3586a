import type { Saveable, StateIo } from '@pvm/cpu-jit';
/**
 * Building the shadow of one translation: the path of shadow pages down to a leaf, as the guest walk just done says; and the decision, shared with
 * PTE-write emulation, which shadow page belongs below a guest entry.
 */
import { MODE_32BIT, MODE_LA57, MODE_NO_WP, MODE_NX, MODE_PAE, MODE_PSE, MODE_SMAP, MODE_SMEP, type ShadowFlavour } from './api.ts';
import { GuestEntries } from './guest-entries.ts';
import { entryGpa, type GuestWalk, leafHigh } from './guest-walk.ts';
import {
  ACC_ALL,
  ACC_U,
  ACC_W,
  accessOf,
  PTE_A,
  PTE_D,
  PTE_P,
  PTE_PS,
  ROLE_32BIT,
  ROLE_ACC_SHIFT,
  ROLE_DIRECT,
  ROLE_INHERITED,
  ROLE_LA57,
  ROLE_NO_WP,
  ROLE_NX,
  ROLE_PAE,
  ROLE_PSE,
  ROLE_QUADRANT_SHIFT,
  ROLE_SMAP,
  ROLE_SMEP,
  ROLE_TOP,
  ROLE_USER,
  vaIndex,
} from './paging.ts';
import type { ShadowPages } from './shadow-pages.ts';

const TWO_MIB = 0x20_0000;
const ONE_GIB = 0x4000_0000;

/** Mode bits and the role bits they are kept in. */
const ROLE_OF_MODE = [
  [MODE_LA57, ROLE_LA57],
  [MODE_NX, ROLE_NX],
  [MODE_NO_WP, ROLE_NO_WP],
  [MODE_SMEP, ROLE_SMEP],
  [MODE_SMAP, ROLE_SMAP],
  [MODE_PAE, ROLE_PAE],
  [MODE_32BIT, ROLE_32BIT],
  [MODE_PSE, ROLE_PSE],
] as const;

/** Role bits every shadow page of a root has. */
export function inheritedRole(user: number, mode: number, flavour: ShadowFlavour): number {
  let role = user !== 0 && flavour === 'pvm' ? ROLE_USER : 0;
  for (const [modeBit, roleBit] of ROLE_OF_MODE) if ((mode & modeBit) !== 0) role |= roleBit;
  // The CPU itself applies SMEP and SMAP to KVM's tables; they matter where a user's page may have become the supervisor's.
  if (flavour === 'kvm') return (role & ROLE_NO_WP) !== 0 ? role : role & ~(ROLE_SMEP | ROLE_SMAP);
  // They say nothing about the user's own accesses, nor does CR0.WP, so all settings share the user shadow; PVM's NX and SMEP come together.
  if (user !== 0) return role & ~(ROLE_SMEP | ROLE_SMAP | ROLE_NO_WP);
  return (mode & MODE_NX) !== 0 ? role & ~ROLE_SMAP : role & ~(ROLE_SMEP | ROLE_SMAP);
}

/** Mode bits that matter for reading guest entries. */
export function modeOfRole(role: number): number {
  return ((role & ROLE_NX) !== 0 ? MODE_NX : 0) | ((role & ROLE_PAE) !== 0 ? MODE_PAE : 0);
}

export function roleAccess(role: number): number {
  return (role >>> ROLE_ACC_SHIFT) & ACC_ALL;
}

export class ShadowFill implements Saveable {
  filled = 0;
  prefetched = 0;
  /** Results of `wantTable` and `wantDirect`. */
  wantKey = 0;
  wantRole = 0;
  private readonly pages: ShadowPages;
  private readonly walk: GuestWalk;
  private readonly gpaToHpa: (gpa: number) => number;
  private readonly largePages: boolean;
  private readonly prefetch: number;
  private readonly flavour: ShadowFlavour;
  private readonly entries: GuestEntries;

  constructor(
    pages: ShadowPages,
    walk: GuestWalk,
    gpaToHpa: (gpa: number) => number,
    options: { largePages: boolean; prefetch: number; flavour: ShadowFlavour },
  ) {
    const { largePages, prefetch, flavour } = options;
    this.flavour = flavour;
    this.entries = new GuestEntries(pages);
    this.pages = pages;
    this.walk = walk;
    this.gpaToHpa = gpaToHpa;
    // Reverse maps of large leaves go by 2 MiB block of RAM, so blocks must be aligned in linear memory.
    this.largePages = largePages && (pages.ramBase & 511) === 0;
    this.prefetch = prefetch;
  }

  /** The shadow page below entry `index` of a guest table at `level`, when the entry points to the table in `ramFrame`. */
  wantTable(ramFrame: number, level: number, index: number, rights: number, inherited: number): void {
    this.wantKey = ramFrame;
    this.wantRole = (level - 1) | (rights << ROLE_ACC_SHIFT) | inherited | (level === 5 && index === 511 ? ROLE_TOP : 0);
    // A 32-bit directory has four shadows, a 32-bit page table two.
    if ((inherited & ROLE_32BIT) !== 0) this.wantRole |= (level === 3 ? index : index & 1) << ROLE_QUADRANT_SHIFT;
  }

  /** The shadow page below an entry at `level`, when the page at `gpa` is part of a large guest page with these rights. */
  wantDirect(gpa: number, level: number, rights: number, inherited: number): void {
    this.wantKey = level === 2 ? (gpa / TWO_MIB) | 0 : ((gpa / ONE_GIB) | 0) * 512;
    this.wantRole = (level - 1) | ROLE_DIRECT | (rights << ROLE_ACC_SHIFT) | inherited;
  }

  /** Whether an entry that is not a leaf leads to the wanted page. */
  leadsToWanted(low: number): boolean {
    const child = this.pages.childOf(low);
    return this.pages.pool.key[child] === this.wantKey && this.pages.pool.role[child] === this.wantRole;
  }

  /** Whether the 2 MiB guest page around `gpa`, backed at `hpa`, may be one shadow leaf: aligned and all RAM, none of it in use as a page table or logged. */
  mayBeLarge(gpa: number, hpa: number): boolean {
    if (!this.largePages || ((gpa ^ hpa) & (TWO_MIB - 1)) !== 0) return false;
    const offset = gpa & (TWO_MIB - 1);
    const base = hpa - offset;
    if (!this.pages.mayBeLarge(((base >>> 12) - this.pages.ramBase) >>> 9)) return false;
    return this.gpaToHpa(gpa - offset) === base && this.gpaToHpa(gpa - offset + TWO_MIB - 4096) === base + TWO_MIB - 4096;
  }

  /**
   * Makes the shadow below `root` translate the page of the last guest walk, backed at `hpa`, with `rights`. Room for five pages must have been made.
   * Entries on the way that lead elsewhere (the guest entry changed, or now has other rights or another size) are replaced.
   */
  fill(root: number, vaLow: number, vaHigh: number, hpa: number, rights: number): void {
    const { pages, walk } = this;
    const pool = pages.pool;
    const inherited = (pool.role[root] as number) & ROLE_INHERITED;
    let frame = root;
    for (let level = pool.level(root); ; level--) {
      pool.referenced[frame] = 1;
      pool.writes[frame] = 0;
      const index = vaIndex(vaLow, vaHigh, level);
      const sidx = frame * 512 + index;
      if (level === 1) {
        this.filled++;
        this.setLeaf(sidx, 1, hpa, rights, inherited);
        if (this.prefetch > 1) this.fillNeighbours(frame, index, rights, inherited);
        return;
      }
      if (level > walk.leafLevel) {
        this.wantTable(((walk.tableHpa[level - 1] as number) >>> 12) - pages.ramBase, level, index, walk.access[level] as number, inherited);
      } else this.wantDirect(walk.gpa, level, rights, inherited);
      const low = pool.low(sidx);
      if (low !== 0 && (low & PTE_PS) === 0 && this.leadsToWanted(low)) {
        frame = pages.childOf(low);
        continue;
      }
      if (level === 2 && walk.leafLevel >= 2 && this.mayBeLarge(walk.gpa, hpa)) {
        this.filled++;
        this.setLeaf(sidx, 2, hpa - (walk.gpa & (TWO_MIB - 1)), rights, inherited);
        return;
      }
      if (low !== 0) pages.drop(sidx);
      const child = pages.obtain(this.wantKey, this.wantRole);
      pages.link(sidx, child);
      frame = child;
    }
  }

  /** Sets a leaf for the page at `hpa`; `rights` without ACC_W while the guest's dirty bit is clear. Returns true when the entry changed. */
  setLeaf(sidx: number, level: number, hpa: number, rights: number, inherited: number): boolean {
    const ramFrame = (hpa >>> 12) - this.pages.ramBase;
    const low = this.pages.leafLow(ramFrame, rights, level);
    return this.pages.setLeaf(sidx, level, low, leafHigh(rights, this.flavour === 'pvm' && (inherited & ROLE_SMEP) !== 0));
  }

  /** Fills the aligned group of entries around one just filled, where the guest has entries already marked accessed. */
  private fillNeighbours(frame: number, index: number, rights: number, inherited: number): void {
    const { pages, walk } = this;
    const first = index & ~(this.prefetch - 1);
    const direct = walk.leafLevel !== 1;
    const regionGpa = walk.gpa - (walk.gpa & (TWO_MIB - 1));
    for (let i = first; i < first + this.prefetch; i++) {
      const sidx = frame * 512 + i;
      if (pages.pool.low(sidx) !== 0) continue;
      if (!direct) this.fillFromEntry(sidx, i, inherited);
      else {
        const hpa = this.gpaToHpa(regionGpa + i * 4096);
        if (hpa >= 0 && this.setLeaf(sidx, 1, hpa, rights, inherited)) this.prefetched++;
      }
    }
  }

  private fillFromEntry(sidx: number, index: number, inherited: number): void {
    const { walk, entries } = this;
    entries.read(sidx >>> 9, index);
    const { low, high } = entries;
    if ((low & (PTE_P | PTE_A)) !== (PTE_P | PTE_A) || walk.reserved(low, high, 1, modeOfRole(inherited)) !== 0) return;
    const rights = (walk.access[2] as number) & accessOf(low, high) & ((low & PTE_D) !== 0 ? ACC_ALL : ACC_ALL & ~ACC_W);
    if ((inherited & ROLE_USER) !== 0 && (rights & ACC_U) === 0) return;
    const hpa = this.gpaToHpa(entryGpa(low, high));
    if (hpa >= 0 && this.setLeaf(sidx, 1, hpa, rights, inherited)) this.prefetched++;
  }

  state(s: StateIo): void {
    s.fields(this, ['filled', 'prefetched']);
  }
}
