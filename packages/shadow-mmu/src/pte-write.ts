import type { Saveable, StateIo } from '@pvm/cpu-jit';
/**
 * Writes to guest page tables: each guest entry a write touches is compared with every shadow entry made from it, which is kept, changed or dropped.
 */
import { GuestEntries } from './guest-entries.ts';
import { entryGpa, type GuestWalk } from './guest-walk.ts';
import { ACC_U, ACC_W, accessOf, PTE_A, PTE_D, PTE_P, PTE_PS, ROLE_INHERITED, ROLE_USER } from './paging.ts';
import { modeOfRole, roleAccess, type ShadowFill } from './shadow-fill.ts';
import type { ShadowPages } from './shadow-pages.ts';

/**
 * Writes to a guest table, with no fault going through its shadow page in between, after which it is taken for a page that is no longer a table.
 * Last-level tables in use see long runs too (fork, munmap, page-table set-up), upper ones do not.
 */
const FLOOD_LAST_LEVEL = 32;
const FLOOD_UPPER = 4;
const PAGE_OFFSET = 0xfff;
/** Offset bits of a 2 MiB page. */
const LARGE_OFFSET = 0x1f_ffff;

export class PteWrites implements Saveable {
  writes = 0;
  visible = 0;
  flooded = 0;
  private readonly pages: ShadowPages;
  private readonly fill: ShadowFill;
  private readonly walk: GuestWalk;
  private readonly gpaToHpa: (gpa: number) => number;
  private readonly bytes: Uint8Array;
  private readonly entries: GuestEntries;

  constructor(pages: ShadowPages, fill: ShadowFill, walk: GuestWalk, gpaToHpa: (gpa: number) => number) {
    this.pages = pages;
    this.fill = fill;
    this.walk = walk;
    this.gpaToHpa = gpaToHpa;
    this.entries = new GuestEntries(pages);
    this.bytes = new Uint8Array(pages.pool.words.buffer);
  }

  /** Copies `size` bytes inside one page from linear-memory address `source` to the guest table at `hpa`, then synchronises. */
  emulate(hpa: number, size: number, source: number): void {
    const words = this.pages.pool.words;
    if (size === 8 && ((hpa | source) & 7) === 0) {
      words[(hpa >>> 2) + 1] = words[(source >>> 2) + 1] as number;
      words[hpa >>> 2] = words[source >>> 2] as number;
    } else for (let i = 0; i < size; i++) this.bytes[hpa + i] = this.bytes[source + i] as number;
    const first = hpa & PAGE_OFFSET;
    const last = first + size - 1;
    this.writes += (last >>> 3) - (first >>> 3) + 1;
    this.synchronise((hpa >>> 12) - this.pages.ramBase, first, last, true);
  }

  /** Brings every shadow page made from a RAM frame in step with its bytes `first`..`last`. */
  synchronise(ramFrame: number, first: number, last: number, countFlood: boolean): void {
    const { pages } = this;
    const pool = pages.pool;
    let frame = pages.pagesOf[ramFrame] as number;
    while (frame !== 0) {
      this.entries.range(frame, first, last);
      const end = this.entries.last;
      for (let index = this.entries.first; index <= end; index++) this.synchroniseEntry(frame, index);
      if (countFlood && this.isFlooded(frame)) {
        this.flooded++;
        pages.zap(frame);
        // Zapping may have freed any other page of the list: start over (what was synchronised stays so).
        frame = pages.pagesOf[ramFrame] as number;
      } else frame = pool.nextPage[frame] as number;
    }
  }

  private isFlooded(frame: number): boolean {
    const pool = this.pages.pool;
    if (pool.currentUses[frame] !== 0) return false;
    const writes = (pool.writes[frame] as number) + 1;
    pool.writes[frame] = writes;
    return writes >= (pool.level(frame) === 1 ? FLOOD_LAST_LEVEL : FLOOD_UPPER);
  }

  /** Brings every entry of a shadow page in step with the guest's table. */
  synchronisePage(frame: number): void {
    const { pool } = this.pages;
    for (let index = 0, left = pool.present[frame] as number; left > 0 && index < 512; index++) {
      if (pool.low(frame * 512 + index) === 0) continue;
      left--;
      this.synchroniseEntry(frame, index);
    }
  }

  /** Keeps, changes or drops one entry, as the guest's table says. */
  synchroniseEntry(frame: number, index: number): void {
    const { pages, entries } = this;
    const sidx = frame * 512 + index;
    const shadow = pages.pool.low(sidx);
    if (shadow === 0) return;
    entries.read(frame, index);
    if (this.update(sidx, shadow, entries.low, entries.high)) return;
    this.visible++;
    pages.drop(sidx);
  }

  /** Whether a present shadow entry could be kept or changed to say what the guest entry says; otherwise it must go. */
  private update(sidx: number, shadow: number, low: number, high: number): boolean {
    const { pages, fill } = this;
    const role = pages.pool.role[sidx >>> 9] as number;
    const level = pages.pool.level(sidx >>> 9);
    // An entry not marked accessed must go, so that the next use marks it.
    if ((low & (PTE_P | PTE_A)) !== (PTE_P | PTE_A) || this.walk.reserved(low, high, level, modeOfRole(role)) !== 0) return false;
    const rights = roleAccess(role) & accessOf(low, high);
    if ((role & ROLE_USER) !== 0 && (rights & ACC_U) === 0) return false;
    const inherited = role & ROLE_INHERITED;
    const shadowLeaf = pages.isLeaf(shadow, level);
    let gpa = entryGpa(low, high);
    if (level !== 1 && (low & PTE_PS) === 0) {
      const table = this.gpaToHpa(gpa);
      if (shadowLeaf || table < 0) return false;
      fill.wantTable((table >>> 12) - pages.ramBase, level, sidx & 511, rights, inherited);
      return fill.leadsToWanted(shadow);
    }
    const leafRights = (low & PTE_D) !== 0 ? rights : rights & ~ACC_W;
    if (!shadowLeaf) {
      fill.wantDirect(gpa, level, leafRights, inherited);
      return fill.leadsToWanted(shadow);
    }
    if (level !== 1) gpa -= gpa & LARGE_OFFSET;
    const hpa = this.gpaToHpa(gpa);
    if (hpa < 0 || (level !== 1 && !fill.mayBeLarge(gpa, hpa))) return false;
    if (fill.setLeaf(sidx, level, hpa, leafRights, inherited)) this.visible++;
    return true;
  }

  state(s: StateIo): void {
    s.fields(this, ['writes', 'visible', 'flooded']);
  }
}
