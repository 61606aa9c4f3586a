/**
 * Shadow pages as a structure: finding and building them by (guest frame, role), linking and dropping entries, write tracking of the guest frames they are
 * made from, and reclaim. Every operation that takes rights away flushes the TLBs it concerns before it returns.
 */
import type { FramePool } from './frame-pool.ts';
import { ACC_W, PTE_A, PTE_ADDR_LOW, PTE_D, PTE_P, PTE_PS, PTE_U, PTE_W, ROLE_DIRECT } from './paging.ts';
import type { TlbReach } from './tlb-reach.ts';

const DIRECT_BUCKETS = 4096;
/** Writable mappings of one frame after which write protection flushes everything instead of page by page. */
const FLUSH_ALL_FROM = 32;
/** Accessed and dirty are set from the start: nobody reads them, and the walker need not write them. */
const TABLE_BITS = PTE_P | PTE_W | PTE_U | PTE_A;
const LEAF_BITS = PTE_P | PTE_U | PTE_A | PTE_D;

export class ShadowPages {
  built = 0;
  zapped = 0;
  reclaimed = 0;
  tracked = 0;
  readonly pool: FramePool;
  readonly reach: TlbReach;
  /** HPA >> 12 of the first frame of guest RAM. */
  readonly ramBase: number;
  readonly ramFrames: number;
  /** First shadow page made from each RAM frame, then buckets of direct pages by key. */
  readonly pagesOf: Int32Array;
  /** Shadow pages (not direct) made from each RAM frame; such frames are write-protected. */
  readonly tables: Uint16Array;
  /** Tracked frames in each 2 MiB block of RAM: large leaves are allowed where it is 0. */
  readonly blockTracked: Uint16Array;
  /** Called before a root that slots still name is freed. */
  onRootFreed: (frame: number) => void = () => {};
  private hand = 1;

  constructor(pool: FramePool, reach: TlbReach, ramBase: number, ramFrames: number) {
    this.pool = pool;
    this.reach = reach;
    this.ramBase = ramBase;
    this.ramFrames = ramFrames;
    this.pagesOf = new Int32Array(ramFrames + DIRECT_BUCKETS);
    this.tables = new Uint16Array(ramFrames);
    this.blockTracked = new Uint16Array((ramFrames + 511) >>> 9);
  }

  clear(): void {
    this.pool.clear();
    this.pagesOf.fill(0);
    this.tables.fill(0);
    this.blockTracked.fill(0);
    this.tracked = 0;
    this.hand = 1;
  }

  private listOf(key: number, role: number): number {
    return (role & ROLE_DIRECT) === 0 ? key : this.ramFrames + ((key ^ (key >>> 12)) & (DIRECT_BUCKETS - 1));
  }

  /** The shadow page of a guest table (key: RAM frame) or part of a large page (key: gpa >> 21), built empty if there is none. Room must have been made. */
  obtain(key: number, role: number): number {
    const pool = this.pool;
    const list = this.listOf(key, role);
    const first = this.pagesOf[list] as number;
    for (let frame = first; frame !== 0; frame = pool.nextPage[frame] as number) {
      if (pool.role[frame] === role && pool.key[frame] === key) return frame;
    }
    const frame = pool.allocate(role, key);
    if (frame === 0) throw new Error('shadow frame pool is empty although room was made: makeRoom was not called');
    this.built++;
    pool.nextPage[frame] = first;
    pool.prevPage[frame] = 0;
    if (first !== 0) pool.prevPage[first] = frame;
    this.pagesOf[list] = frame;
    if ((role & ROLE_DIRECT) === 0) this.track(key);
    return frame;
  }

  /** Shadow page an entry points to. */
  childOf(low: number): number {
    return (low >>> 12) - this.pool.base;
  }

  isLeaf(low: number, level: number): boolean {
    return level === 1 || (low & PTE_PS) !== 0;
  }

  /** Links a shadow page under an entry that is not present. */
  link(sidx: number, child: number): void {
    this.pool.put(sidx, this.pool.hpa(child) | TABLE_BITS, 0, this.pool.parentHeads + child);
  }

  /** Low word of a leaf for the RAM frame, with write permission or not. */
  leafLow(ramFrame: number, writable: boolean, level: number): number {
    return ((this.ramBase + ramFrame) << 12) | LEAF_BITS | (writable ? PTE_W : 0) | (level === 2 ? PTE_PS : 0);
  }

  ramFrameOf(low: number): number {
    return (low >>> 12) - this.ramBase;
  }

  /** Makes an entry the given leaf, whatever it was, and flushes when that takes something away. Returns true when the entry changed. */
  setLeaf(sidx: number, level: number, low: number, high: number): boolean {
    const pool = this.pool;
    const word = pool.word0 + sidx * 2;
    const oldLow = pool.words[word] as number;
    const oldHigh = pool.words[word + 1] as number;
    if (oldLow === low && oldHigh === high) return false;
    if (oldLow !== 0) {
      if (this.isLeaf(oldLow, level) && ((oldLow ^ low) & PTE_ADDR_LOW) === 0) {
        const loses = (oldLow & ~low & PTE_W) !== 0 || (oldHigh >= 0 && high < 0);
        if (loses) this.reach.collect(sidx >>> 9);
        pool.words[word + 1] = high;
        pool.words[word] = low;
        if (loses) this.flushCollectedLeaf(sidx, level);
        return true;
      }
      this.drop(sidx);
    }
    const frame = this.ramFrameOf(low);
    pool.put(sidx, low, high, level === 1 ? frame : pool.blockHeads + (frame >>> 9));
    return true;
  }

  private flushCollectedLeaf(sidx: number, level: number): void {
    if (level === 1) this.reach.flushLeaf(sidx & 511);
    else this.reach.flushArrays();
  }

  /** Empties a present entry, flushes what it translated, and frees the page below it if nothing else uses that. */
  drop(sidx: number): void {
    const pool = this.pool;
    const parent = sidx >>> 9;
    const low = pool.low(sidx);
    const level = pool.level(parent);
    this.reach.collect(parent);
    if (this.isLeaf(low, level)) {
      pool.clearEntry(sidx);
      this.flushCollectedLeaf(sidx, level);
      return;
    }
    const child = this.childOf(low);
    pool.clearEntry(sidx);
    if (level === 2) this.reach.flushTable(sidx & 511, child);
    else if (pool.present[child] !== 0) this.reach.flushArrays();
    if (pool.isOrphan(child)) this.free(child);
  }

  /**
   * Takes a shadow page out of every table and frees it with everything only it led to; a root in use stays, empty. Flushes.
   */
  zap(frame: number): void {
    const pool = this.pool;
    this.reach.collect(frame);
    const head = pool.parentHeads + frame;
    for (let sidx = pool.heads[head] as number; sidx !== 0; sidx = pool.heads[head] as number) pool.clearEntry(sidx);
    const flush = pool.present[frame] !== 0;
    if (pool.currentUses[frame] !== 0) this.empty(frame);
    else {
      if (pool.slotUses[frame] !== 0) this.onRootFreed(frame);
      this.free(frame);
    }
    if (flush) this.reach.flushArrays();
  }

  /** Empties all entries without a flush. */
  private empty(frame: number): void {
    const pool = this.pool;
    const level = pool.level(frame);
    for (let sidx = frame * 512; pool.present[frame] !== 0; sidx++) {
      const low = pool.low(sidx);
      if (low === 0) continue;
      pool.clearEntry(sidx);
      if (this.isLeaf(low, level)) continue;
      const child = this.childOf(low);
      if (pool.isOrphan(child)) this.free(child);
    }
  }

  /** Frees a page nothing refers to; the TLBs it was reached from have been or will be flushed by the caller. */
  private free(frame: number): void {
    const pool = this.pool;
    this.empty(frame);
    this.zapped++;
    const role = pool.role[frame] as number;
    const key = pool.key[frame] as number;
    const next = pool.nextPage[frame] as number;
    const prev = pool.prevPage[frame] as number;
    if (prev === 0) this.pagesOf[this.listOf(key, role)] = next;
    else pool.nextPage[prev] = next;
    if (next !== 0) pool.prevPage[next] = prev;
    if ((role & ROLE_DIRECT) === 0) this.untrack(key);
    pool.release(frame);
  }

  private track(ramFrame: number): void {
    const pages = this.tables[ramFrame] as number;
    this.tables[ramFrame] = pages + 1;
    if (pages !== 0) return;
    this.tracked++;
    const pool = this.pool;
    const block = ramFrame >>> 9;
    const inBlock = this.blockTracked[block] as number;
    this.blockTracked[block] = inBlock + 1;
    if (inBlock === 0) {
      const head = pool.blockHeads + block;
      for (let sidx = pool.heads[head] as number; sidx !== 0; sidx = pool.heads[head] as number) this.drop(sidx);
    }
    let protectedEntries = 0;
    for (let sidx = pool.heads[ramFrame] as number; sidx !== 0; sidx = pool.next[sidx] as number) {
      const word = pool.word0 + sidx * 2;
      const low = pool.words[word] as number;
      if ((low & PTE_W) === 0) continue;
      pool.words[word] = low & ~PTE_W;
      if (++protectedEntries > FLUSH_ALL_FROM) continue;
      this.reach.collect(sidx >>> 9);
      this.reach.flushLeaf(sidx & 511);
    }
    if (protectedEntries > FLUSH_ALL_FROM) this.reach.everything();
  }

  private untrack(ramFrame: number): void {
    const pages = (this.tables[ramFrame] as number) - 1;
    this.tables[ramFrame] = pages;
    if (pages !== 0) return;
    this.tracked--;
    this.blockTracked[ramFrame >>> 9] = (this.blockTracked[ramFrame >>> 9] as number) - 1;
  }

  /** Zaps every shadow page made from a guest frame. Roots in use stay, empty, and keep the frame tracked. */
  zapTablesOf(ramFrame: number): void {
    for (let frame = this.firstZappable(ramFrame); frame !== 0; frame = this.firstZappable(ramFrame)) this.zap(frame);
  }

  private firstZappable(ramFrame: number): number {
    const pool = this.pool;
    let frame = this.pagesOf[ramFrame] as number;
    while (frame !== 0 && pool.currentUses[frame] !== 0 && pool.present[frame] === 0) frame = pool.nextPage[frame] as number;
    return frame;
  }

  /** Makes sure `count` frames are free, by zapping pages that were not used lately. Call before, never during, a fill. */
  makeRoom(count: number): void {
    const pool = this.pool;
    if (pool.free >= count) return;
    const target = Math.max(count, pool.frames >>> 6);
    // Two laps clear every reference bit and then meet every page.
    for (let steps = pool.frames * 3; pool.free < target && steps > 0; steps--) {
      const frame = this.hand;
      this.hand = frame + 1 === pool.frames ? 1 : frame + 1;
      if (pool.role[frame] === 0 || pool.currentUses[frame] !== 0) continue;
      if (pool.referenced[frame] !== 0) {
        pool.referenced[frame] = 0;
        continue;
      }
      this.reclaimed++;
      this.zap(frame);
    }
    if (pool.free < count) throw new Error(`shadow frame pool of ${pool.frames} frames has no room for one walk`);
  }

  /** Rights bits a leaf for the RAM frame may have: no write to frames in use as page tables. */
  mayWrite(ramFrame: number, rights: number): boolean {
    return (rights & ACC_W) !== 0 && this.tables[ramFrame] === 0;
  }
}
