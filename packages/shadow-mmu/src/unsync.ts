import type { Saveable, StateIo } from '@pvm/cpu-jit';
/**
 * Last-level pages that are out of step ("unsync"): the guest writes such a table without an exit, so that its shadow may say what the table said earlier. That
 * is what a TLB may do, until the guest flushes: then the entries concerned are brought in step.
 */
import { vaIndex } from './paging.ts';
import type { PteWrites } from './pte-write.ts';
import type { ShadowPages } from './shadow-pages.ts';
import { SLOTS } from './tlb-reach.ts';

/** Values of `FramePool.unsync`. */
const OUT_OF_STEP = 1;
const COLLECTED = 2;

export class Unsync implements Saveable {
  unsynced = 0;
  synced = 0;
  /** Single addresses brought in step. */
  addresses = 0;
  private readonly pages: ShadowPages;
  private readonly writes: PteWrites;
  /** Pages found by the last `collect`. */
  private readonly found: Int32Array;
  private count = 0;

  constructor(pages: ShadowPages, writes: PteWrites) {
    this.pages = pages;
    this.writes = writes;
    this.found = new Int32Array(pages.pool.frames);
    pages.onStaleReuse = (frame) => this.refresh(frame);
  }

  /** Lets the guest write the table in a RAM frame, if it is a last-level table wherever it is used. Its shadow pages are out of step from now on. */
  allowWrites(ramFrame: number): boolean {
    const { pool, pagesOf, inSync } = this.pages;
    for (let frame = pagesOf[ramFrame] as number; frame !== 0; frame = pool.nextPage[frame] as number) if (pool.level(frame) !== 1) return false;
    for (let frame = pagesOf[ramFrame] as number; frame !== 0; frame = pool.nextPage[frame] as number) {
      if (pool.unsync[frame] !== 0) continue;
      pool.unsync[frame] = OUT_OF_STEP;
      this.unsynced++;
      this.pages.markParentsUnsync(frame);
    }
    inSync[ramFrame] = 0;
    return true;
  }

  /** Brings everything below a page in step, and write-protects it: a flush of all that a root translates. */
  syncBelow(frame: number): void {
    if (this.pages.pool.unsyncChildren[frame] === 0) return;
    this.count = 0;
    this.collect(frame);
    const { pool } = this.pages;
    // First all are write-protected: while one is compared with its table, none may become writable through another that still is out of step.
    for (let i = 0; i < this.count; i++) {
      const page = this.found[i] as number;
      pool.unsync[page] = 0;
      this.synced++;
      this.pages.protect(pool.key[page] as number);
    }
    for (let i = 0; i < this.count; i++) this.writes.synchronisePage(this.found[i] as number);
  }

  /** Gathers the unsync pages below a page and clears the notes that lead to them. */
  private collect(frame: number): void {
    const { pool } = this.pages;
    for (let word = frame * 16; word < frame * 16 + 16; word++) {
      for (let bits = pool.unsyncBits[word] as number; bits !== 0; bits &= bits - 1) {
        const sidx = word * 32 + (31 - Math.clz32(bits & -bits));
        const child = this.pages.childOf(pool.low(sidx));
        if (pool.unsync[child] === OUT_OF_STEP) {
          pool.unsync[child] = COLLECTED;
          this.found[this.count++] = child;
        } else if (pool.unsyncChildren[child] !== 0) this.collect(child);
        pool.clearUnsyncChild(sidx);
      }
    }
  }

  /**
   * A page out of step, or with such pages below, gets another parent. The guest need not flush where nothing was mapped before, so what it maps there
   * must be what its tables say now.
   */
  private refresh(frame: number): void {
    if (this.pages.pool.unsync[frame] !== 0) this.writes.synchronisePage(frame);
    else this.syncBelow(frame);
  }

  /** Brings one address in step in every root of a vCPU's slots, or in one slot. */
  syncAddress(vcpu: number, slot: number | undefined, vaLow: number, vaHigh: number): void {
    const { pool, reach } = this.pages;
    for (let at = slot ?? 0; at < (slot === undefined ? SLOTS : slot + 1); at++) {
      let frame = reach.slotRoots[0][vcpu * SLOTS + at] as number;
      for (let level = pool.level(frame); level > 1 && pool.unsyncChildren[frame] !== 0; level--) {
        const low = pool.low(frame * 512 + vaIndex(vaLow, vaHigh, level));
        if (low === 0 || this.pages.isLeaf(low, level)) break;
        frame = this.pages.childOf(low);
      }
      if (pool.unsync[frame] === 0) continue;
      this.addresses++;
      this.writes.synchroniseEntry(frame, vaIndex(vaLow, vaHigh, 1));
    }
  }

  /** Brings every root of a vCPU's slots in step. */
  syncAll(vcpu: number): void {
    for (let at = 0; at < SLOTS; at++) {
      const root = this.pages.reach.slotRoots[0][vcpu * SLOTS + at] as number;
      if (root !== 0) this.syncBelow(root);
    }
  }

  state(s: StateIo): void {
    s.fields(this, ['unsynced', 'synced', 'addresses']);
  }
}
