import type { Saveable, StateIo } from '@pvm/cpu-jit';
/**
 * Which TLB arrays, at which virtual addresses, may hold translations made through a shadow page: found by climbing the parent lists to the roots in
 * slots. A page shared by several tables, or twice by one, is reached on several paths.
 */
import type { ShadowFlavour, TlbFlush } from './api.ts';
import type { FramePool } from './frame-pool.ts';
import { ROLE_LA57, ROLE_TOP3, ROLE_USER, vaHighOf, vaLowOf } from './paging.ts';

/** Most paths kept apart; with more, everything is flushed. */
const MAX_PATHS = 128;
/** Most links climbed: a guest can nest tables so that paths multiply by 512 at each level. Also roots in no slot cost a step. */
const MAX_STEPS = 2048;
/** Most single pages invalidated before a whole array is. */
const MAX_PAGES = 16;
export const SLOTS = 16;

export class TlbReach implements Saveable {
  flushPage = 0;
  flushArray = 0;
  flushAll = 0;
  /** Root frame by [vcpu * SLOTS + slot] for kernel and user, 0: none. Kept by the roots. With one root for both only the first is used. */
  readonly slotRoots: [Int32Array, Int32Array];
  private readonly pool: FramePool;
  private readonly hooks: TlbFlush;
  private readonly vcpus: number;
  /** One root serves both privileges, so that its translations are in both TLB arrays of the slot. */
  private readonly hasBoth: boolean;
  /** Paths found; MAX_PATHS + 1 when there are more or it took too long to find them. */
  private count = 0;
  private steps = 0;
  private readonly pathVcpu = new Int32Array(MAX_PATHS);
  private readonly pathArray = new Int32Array(MAX_PATHS);
  private readonly pathLow = new Int32Array(MAX_PATHS);
  private readonly pathHigh = new Int32Array(MAX_PATHS);
  private readonly arraysDone = new Int32Array(8);

  constructor(pool: FramePool, hooks: TlbFlush, vcpus: number, flavour: ShadowFlavour) {
    this.pool = pool;
    this.hooks = hooks;
    this.vcpus = vcpus;
    this.hasBoth = flavour === 'kvm';
    this.slotRoots = [new Int32Array(vcpus * SLOTS), new Int32Array(vcpus * SLOTS)];
  }

  /** Finds the paths to a shadow page. Call before its parents are unlinked, then one of the `flush...` methods after the entries changed. */
  collect(frame: number): void {
    this.count = 0;
    this.steps = 0;
    this.climb(frame, 0, 0);
  }

  private climb(frame: number, low: number, high: number): void {
    const pool = this.pool;
    if (pool.slotUses[frame] !== 0) this.addRoot(frame, low, high);
    for (let sidx = pool.heads[pool.parentHeads + frame] as number; sidx !== 0; sidx = pool.next[sidx] as number) {
      if (++this.steps > MAX_STEPS || this.count > MAX_PATHS) {
        this.count = MAX_PATHS + 1;
        return;
      }
      const parent = sidx >>> 9;
      const level = pool.level(parent);
      this.climb(parent, low | vaLowOf(sidx & 511, level), high | vaHighOf(sidx & 511, level));
    }
  }

  private addRoot(root: number, low: number, high: number): void {
    const role = this.pool.role[root] as number;
    const user = (role & ROLE_USER) !== 0 ? 1 : 0;
    // Sign extension from bit 47 or 56.
    const extended = (role & ROLE_LA57) !== 0 ? (high << 7) >> 7 : (role & ROLE_TOP3) !== 0 ? 0 : (high << 16) >> 16;
    const roots = this.slotRoots[user];
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      for (let slot = 0; slot < SLOTS; slot++) {
        if (roots[vcpu * SLOTS + slot] !== root) continue;
        const at = this.count++;
        if (at >= MAX_PATHS) {
          this.count = MAX_PATHS + 1;
          return;
        }
        this.pathVcpu[at] = vcpu;
        this.pathArray[at] = slot * 2 + user;
        this.pathLow[at] = low;
        this.pathHigh[at] = extended;
      }
    }
  }

  /** Flushes what entry `index` of the collected page translated, when that is one 4 KiB page. */
  flushLeaf(index: number): void {
    if (this.count > MAX_PATHS) {
      this.everything();
      return;
    }
    for (let at = 0; at < this.count; at++) this.page(at, index << 12);
  }

  /** Flushes one page on a path; `offset` from its address there. */
  private page(at: number, offset: number): void {
    const vcpu = this.pathVcpu[at] as number;
    const array = this.pathArray[at] as number;
    const low = (this.pathLow[at] as number) | offset;
    const high = this.pathHigh[at] as number;
    this.flushPage++;
    this.hooks.invlpg(vcpu, array, low, high);
    if (this.hasBoth) this.hooks.invlpg(vcpu, array + 1, low, high);
  }

  /**
   * Flushes what entry `index` (at level 2) of the collected page translated through the level-1 page `child`: its present entries one by one when they are
   * few, else the arrays. Call while the child still holds its entries.
   */
  flushTable(index: number, child: number): void {
    const pool = this.pool;
    let left = pool.present[child] as number;
    if (left === 0 || this.count === 0) return;
    if (left > MAX_PAGES || this.count > MAX_PATHS) {
      this.flushArrays();
      return;
    }
    for (let i = 0; left > 0; i++) {
      if (pool.low(child * 512 + i) === 0) continue;
      left--;
      for (let at = 0; at < this.count; at++) this.page(at, (index << 21) | (i << 12));
    }
  }

  /** Flushes every TLB array on the paths collected. */
  flushArrays(): void {
    if (this.count > MAX_PATHS) {
      this.everything();
      return;
    }
    this.arraysDone.fill(0);
    for (let at = 0; at < this.count; at++) {
      const vcpu = this.pathVcpu[at] as number;
      const array = this.pathArray[at] as number;
      const done = this.arraysDone[vcpu] as number;
      if ((done & (1 << array)) !== 0) continue;
      this.arraysDone[vcpu] = done | (1 << array);
      this.array(vcpu, array);
    }
  }

  array(vcpu: number, array: number): void {
    this.flushArray++;
    this.hooks.flushArray(vcpu, array);
    if (this.hasBoth) this.hooks.flushArray(vcpu, array + 1);
  }

  everything(): void {
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      this.flushAll++;
      this.hooks.flushAll(vcpu);
    }
  }

  state(s: StateIo): void {
    s.fields(this, ['flushPage', 'flushArray', 'flushAll', 'slotRoots']);
  }
}
