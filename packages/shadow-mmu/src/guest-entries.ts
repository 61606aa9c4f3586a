/**
 * Guest table entries by the shadow entries made from them: 8-byte entries match one to one; of 32-bit paging a page table has two shadow pages, a page
 * directory four, whose entries cover half of a directory entry each (see ROLE_QUADRANT_SHIFT).
 */
import { directoryLow32, largeHigh32 } from './guest-walk.ts';
import { ROLE_32BIT, ROLE_LEVEL, ROLE_PSE, ROLE_QUADRANT_SHIFT } from './paging.ts';
import type { ShadowPages } from './shadow-pages.ts';

export class GuestEntries {
  /** Result of `read`: the entry in the form of 8-byte entries. */
  low = 0;
  high = 0;
  /** Result of `range`: first and last shadow entry; none when first > last. */
  first = 0;
  last = 0;
  private readonly pages: ShadowPages;

  constructor(pages: ShadowPages) {
    this.pages = pages;
  }

  /** Reads the guest entry that shadow entry `index` of `frame` is made from. */
  read(frame: number, index: number): void {
    const { pool, ramBase } = this.pages;
    const role = pool.role[frame] as number;
    const table = (ramBase + (pool.key[frame] as number)) * 1024;
    if ((role & ROLE_32BIT) === 0) {
      this.low = pool.words[table + index * 2] as number;
      this.high = pool.words[table + index * 2 + 1] as number;
      return;
    }
    const quadrant = (role >>> ROLE_QUADRANT_SHIFT) & 3;
    this.high = 0;
    if ((role & ROLE_LEVEL) === 1) {
      this.low = pool.words[table + quadrant * 512 + index] as number;
      return;
    }
    const entry = pool.words[table + quadrant * 256 + (index >>> 1)] as number;
    const hasPse = (role & ROLE_PSE) !== 0;
    this.low = directoryLow32(entry, index & 1, hasPse);
    this.high = largeHigh32(entry, hasPse);
  }

  /** Which shadow entries of `frame` are made from the bytes `first`..`last` of the guest's table. */
  range(frame: number, first: number, last: number): void {
    const role = this.pages.pool.role[frame] as number;
    if ((role & ROLE_32BIT) === 0) {
      this.first = first >>> 3;
      this.last = last >>> 3;
      return;
    }
    const quadrant = (role >>> ROLE_QUADRANT_SHIFT) & 3;
    // Shadow entries per guest entry: 1 in page tables, 2 in directories.
    const shift = (role & ROLE_LEVEL) === 1 ? 0 : 1;
    const base = quadrant * 512;
    this.first = Math.max(0, ((first >>> 2) << shift) - base);
    this.last = Math.min(511, ((last >>> 2) << shift) + shift - base);
  }
}
