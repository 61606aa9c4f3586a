import type { Saveable, StateIo } from '@pvm/cpu-jit';
/**
 * Shadow pages as a structure: finding and building them by (guest frame, role), linking and dropping entries, write tracking of the guest frames they are
 * made from, and reclaim. Every operation that takes rights away flushes the TLBs it concerns before it returns.
 */

import type { ShadowFlavour } from './api.ts';
import type { FramePool } from './frame-pool.ts';
import { ACC_U, ACC_W, PTE_A, PTE_ADDR_LOW, PTE_D, PTE_P, PTE_PS, PTE_U, PTE_W, ROLE_UNTRACKED } from './paging.ts';
import type { TlbReach } from './tlb-reach.ts';

const DIRECT_BUCKETS = 4096;
/** Writable mappings of one frame after which write protection flushes everything instead of page by page. */
const FLUSH_ALL_FROM = 32;
/** Accessed and dirty are set from the start: nobody reads them, and the walker need not write them. */
const TABLE_BITS = PTE_P | PTE_W | PTE_U | PTE_A;
const LEAF_BITS = PTE_P | PTE_A | PTE_D;

/** Values of `ShadowPages.logged`: no log, write-protected until it is written, written. */
export const LOG_OFF = 0;
export const LOG_CLEAN = 1;
export const LOG_DIRTY = 2;

export class ShadowPages implements Saveable {
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
  /** Shadow pages (not direct) made from each RAM frame. */
  readonly tables: Uint16Array;
  /** Those of them that are in step with the guest's table; frames that have any are write-protected. */
  readonly inSync: Uint16Array;
  /** Tracked frames in each 2 MiB block of RAM: large leaves are allowed where it is 0. */
  readonly blockTracked: Uint16Array;
  /** Dirty log by RAM frame, LOG_*. */
  readonly logged: Uint8Array;
  /** 1 for each 2 MiB block of RAM with frames in the log. */
  readonly blockLogged: Uint8Array;
  /** Called before a root that slots still name is freed. */
  onRootFreed: (frame: number) => void = () => {};
  /** Called for a page that is about to be linked a second time, if it is out of step. */
  onStaleReuse: (frame: number) => void = () => {};
  /** U bit of leaves that are not the user's. */
  private readonly alwaysUser: number;
  private hand = 1;
  /** Frames of the pool that stay free. */
  private reserve = 0;

  constructor(pool: FramePool, reach: TlbReach, ramBase: number, ramFrames: number, flavour: ShadowFlavour) {
    this.pool = pool;
    // PVM's guest kernel runs at privilege 3 too.
    this.alwaysUser = flavour === 'pvm' ? PTE_U : 0;
    this.reach = reach;
    this.ramBase = ramBase;
    this.ramFrames = ramFrames;
    this.pagesOf = new Int32Array(ramFrames + DIRECT_BUCKETS);
    this.tables = new Uint16Array(ramFrames);
    this.logged = new Uint8Array(ramFrames);
    this.blockLogged = new Uint8Array((ramFrames >>> 9) + 1);
    this.inSync = new Uint16Array(ramFrames);
    this.blockTracked = new Uint16Array((ramFrames + 511) >>> 9);
  }

  clear(): void {
    this.pool.clear();
    this.pagesOf.fill(0);
    this.tables.fill(0);
    this.inSync.fill(0);
    this.blockTracked.fill(0);
    this.tracked = 0;
    this.hand = 1;
  }

  private listOf(key: number, role: number): number {
    return (role & ROLE_UNTRACKED) === 0 ? key : this.ramFrames + ((key ^ (key >>> 12)) & (DIRECT_BUCKETS - 1));
  }

  /** The shadow page of a guest table (key: RAM frame) or part of a large page (key: gpa >> 21), built empty if there is none. Room must have been made. */
  obtain(key: number, role: number): number {
    const pool = this.pool;
    const list = this.listOf(key, role);
    const first = this.pagesOf[list] as number;
    for (let frame = first; frame !== 0; frame = pool.nextPage[frame] as number) {
      if (pool.role[frame] !== role || pool.key[frame] !== key) continue;
      if (pool.unsync[frame] !== 0 || pool.unsyncChildren[frame] !== 0) this.onStaleReuse(frame);
      return frame;
    }
    const frame = pool.allocate(role, key);
    if (frame === 0) throw new Error('shadow frame pool is empty although room was made: makeRoom was not called');
    this.built++;
    pool.nextPage[frame] = first;
    pool.prevPage[frame] = 0;
    if (first !== 0) pool.prevPage[first] = frame;
    this.pagesOf[list] = frame;
    if ((role & ROLE_UNTRACKED) === 0) this.track(key);
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
    if (this.pool.unsync[child] !== 0 || this.pool.unsyncChildren[child] !== 0) this.markUnsyncAbove(sidx);
  }

  /** Notes in the tables above that an entry leads to an unsync page. */
  private markUnsyncAbove(sidx: number): void {
    const frame = sidx >>> 9;
    const isFirst = this.pool.unsyncChildren[frame] === 0;
    if (this.pool.setUnsyncChild(sidx) && isFirst) this.markParentsUnsync(frame);
  }

  /** Notes in every table that leads to a page that something below them is unsync. */
  markParentsUnsync(frame: number): void {
    const { pool } = this;
    for (let sidx = pool.heads[pool.parentHeads + frame] as number; sidx !== 0; sidx = pool.next[sidx] as number) this.markUnsyncAbove(sidx);
  }

  /** Low word of a leaf for the RAM frame with these rights; no write to frames in use as page tables, nor to those whose first write is to be noticed. */
  leafLow(ramFrame: number, rights: number, level: number): number {
    const writable = (rights & ACC_W) !== 0 && this.inSync[ramFrame] === 0 && this.logged[ramFrame] !== LOG_CLEAN ? PTE_W : 0;
    const user = (rights & ACC_U) !== 0 ? PTE_U : this.alwaysUser;
    return ((this.ramBase + ramFrame) << 12) | LEAF_BITS | writable | user | (level === 2 ? PTE_PS : 0);
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
        // U given to a page that only the supervisor had takes its execution away under SMEP, and its accesses under SMAP.
        const loses = (oldLow & ~low & PTE_W) !== 0 || ((oldLow ^ low) & PTE_U) !== 0 || (oldHigh >= 0 && high < 0);
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
    if ((role & ROLE_UNTRACKED) === 0) this.untrack(key, pool.unsync[frame] === 0);
    pool.unsync[frame] = 0;
    pool.release(frame);
  }

  private track(ramFrame: number): void {
    const pages = this.tables[ramFrame] as number;
    this.tables[ramFrame] = pages + 1;
    if (pages === 0) {
      this.tracked++;
      const block = ramFrame >>> 9;
      const inBlock = this.blockTracked[block] as number;
      this.blockTracked[block] = inBlock + 1;
      if (inBlock === 0) this.dropLarge(block);
    }
    this.protect(ramFrame);
  }

  /** Drops the large leaves of a 2 MiB block of RAM. */
  dropLarge(block: number): void {
    const { pool } = this;
    const head = pool.blockHeads + block;
    for (let sidx = pool.heads[head] as number; sidx !== 0; sidx = pool.heads[head] as number) this.drop(sidx);
  }

  /** Whether a 2 MiB block of RAM may have large leaves: none of its frames is a page table or logged. */
  mayBeLarge(block: number): boolean {
    return this.blockTracked[block] === 0 && this.blockLogged[block] === 0;
  }

  /** A frame is about to be written, or was. */
  written(ramFrame: number): void {
    if (this.logged[ramFrame] === LOG_CLEAN) this.logged[ramFrame] = LOG_DIRTY;
  }

  /** One more page in step with the frame: takes away every right to write it. */
  protect(ramFrame: number): void {
    const pages = this.inSync[ramFrame] as number;
    this.inSync[ramFrame] = pages + 1;
    if (pages === 0) this.removeWrites(ramFrame);
  }

  /** No leaf of the frame lets it be written any more. */
  removeWrites(ramFrame: number): void {
    const pool = this.pool;
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

  private untrack(ramFrame: number, wasInSync: boolean): void {
    if (wasInSync) this.inSync[ramFrame] = (this.inSync[ramFrame] as number) - 1;
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
    const least = count + this.reserve;
    if (pool.free >= least) return;
    const target = Math.max(least, this.reserve + (pool.frames >>> 6));
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
    if (pool.free < least) throw new Error(`shadow frame pool of ${pool.frames - this.reserve} frames has no room for one walk`);
  }

  /** Most frames in use from now on; what is more is zapped. */
  setLimit(frames: number): void {
    this.reserve = this.pool.frames - frames;
    this.makeRoom(0);
  }

  state(s: StateIo): void {
    s.fields(this, [
      'built',
      'zapped',
      'reclaimed',
      'tracked',
      'pool',
      'pagesOf',
      'tables',
      'inSync',
      'blockTracked',
      'logged',
      'blockLogged',
      'hand',
      'reserve',
    ]);
  }
}
