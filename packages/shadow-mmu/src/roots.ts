/**
 * Which guest tables each vCPU has loaded, and the cache of previous ones: 16 TLB slots per vCPU, each with a kernel and a user shadow root.
 */
import { MODE_LA57 } from './api.ts';
import { ACC_ALL, ROLE_ACC_SHIFT } from './paging.ts';
import { inheritedRole } from './shadow-fill.ts';
import type { ShadowPages } from './shadow-pages.ts';
import { SLOTS } from './tlb-reach.ts';

const NO_CR3 = -1;
/** A walk needs at most four pages below its root; two roots come on top. */
export const ROOM_FOR_ROOTS = 2;

export class Roots {
  loads = 0;
  cached = 0;
  /** Current slot by vCPU, -1 before the first load. */
  readonly slot: Int32Array;
  readonly mode: Int32Array;
  private readonly pages: ShadowPages;
  private readonly gpaToHpa: (gpa: number) => number;
  private readonly vcpus: number;
  private readonly kernelCr3: Float64Array;
  private readonly userCr3: Float64Array;
  private readonly slotMode: Int32Array;
  private readonly lastUse: Float64Array;

  constructor(pages: ShadowPages, gpaToHpa: (gpa: number) => number, vcpus: number) {
    this.pages = pages;
    this.gpaToHpa = gpaToHpa;
    this.vcpus = vcpus;
    this.slot = new Int32Array(vcpus).fill(-1);
    this.mode = new Int32Array(vcpus);
    this.kernelCr3 = new Float64Array(vcpus * SLOTS).fill(NO_CR3);
    this.userCr3 = new Float64Array(vcpus * SLOTS).fill(NO_CR3);
    this.slotMode = new Int32Array(vcpus * SLOTS);
    this.lastUse = new Float64Array(vcpus * SLOTS);
    pages.onRootFreed = (frame) => this.forget(frame);
  }

  /** Frame of the current root, 0 when nothing is loaded or CR3 names no RAM. */
  current(vcpu: number, user: number): number {
    const slot = this.slot[vcpu] as number;
    return slot < 0 ? 0 : (this.pages.reach.slotRoots[user === 0 ? 0 : 1][vcpu * SLOTS + slot] as number);
  }

  /** Makes a pair of guest tables current; returns the slot. */
  load(vcpu: number, kernelCr3: number, userCr3: number, mode: number): number {
    this.loads++;
    this.mode[vcpu] = mode;
    let victim = vcpu * SLOTS;
    const current = vcpu * SLOTS + (this.slot[vcpu] as number);
    for (let at = vcpu * SLOTS; at < (vcpu + 1) * SLOTS; at++) {
      if (this.kernelCr3[at] === kernelCr3 && this.userCr3[at] === userCr3 && this.slotMode[at] === mode) {
        this.cached++;
        this.enter(vcpu, at);
        return at - vcpu * SLOTS;
      }
      if (victim === current || (at !== current && (this.lastUse[at] as number) < (this.lastUse[victim] as number))) victim = at;
    }
    // Room first: making it may empty slots, but never those in use, and nothing is freed between here and `enter`.
    this.pages.makeRoom(ROOM_FOR_ROOTS);
    this.release(vcpu, victim);
    this.bind(victim, 0, kernelCr3, mode);
    this.bind(victim, 1, userCr3, mode);
    this.kernelCr3[victim] = kernelCr3;
    this.userCr3[victim] = userCr3;
    this.slotMode[victim] = mode;
    this.enter(vcpu, victim);
    return victim - vcpu * SLOTS;
  }

  private bind(at: number, user: 0 | 1, cr3: number, mode: number): void {
    const hpa = this.gpaToHpa(cr3);
    if (hpa < 0) return;
    const levels = (mode & MODE_LA57) !== 0 ? 5 : 4;
    const frame = this.pages.obtain((hpa >>> 12) - this.pages.ramBase, levels | (ACC_ALL << ROLE_ACC_SHIFT) | inheritedRole(user, mode));
    this.pages.reach.slotRoots[user][at] = frame;
    this.pages.pool.slotUses[frame] = (this.pages.pool.slotUses[frame] as number) + 1;
  }

  private enter(vcpu: number, at: number): void {
    const { pool } = this.pages;
    for (const roots of this.pages.reach.slotRoots) {
      const frame = roots[at] as number;
      if (frame === 0) continue;
      pool.currentUses[frame] = (pool.currentUses[frame] as number) + 1;
      pool.referenced[frame] = 1;
      pool.writes[frame] = 0;
    }
    this.leave(vcpu);
    this.slot[vcpu] = at - vcpu * SLOTS;
    this.lastUse[at] = this.loads;
  }

  private leave(vcpu: number): void {
    const slot = this.slot[vcpu] as number;
    if (slot < 0) return;
    for (const roots of this.pages.reach.slotRoots) {
      const frame = roots[vcpu * SLOTS + slot] as number;
      if (frame !== 0) this.pages.pool.currentUses[frame] = (this.pages.pool.currentUses[frame] as number) - 1;
    }
  }

  /** Empties a slot; its roots stay in the cache of shadow pages. */
  private release(vcpu: number, at: number): void {
    if (this.kernelCr3[at] === NO_CR3) return;
    const { pool, reach } = this.pages;
    reach.slotRoots.forEach((roots, user) => {
      const frame = roots[at] as number;
      if (frame !== 0) pool.slotUses[frame] = (pool.slotUses[frame] as number) - 1;
      roots[at] = 0;
      reach.array(vcpu, (at - vcpu * SLOTS) * 2 + user);
    });
    this.kernelCr3[at] = NO_CR3;
    this.userCr3[at] = NO_CR3;
    this.lastUse[at] = 0;
  }

  /** Empties every slot that names a root about to be freed. Such a slot is not current. */
  private forget(frame: number): void {
    const [kernel, user] = this.pages.reach.slotRoots;
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      for (let at = vcpu * SLOTS; at < (vcpu + 1) * SLOTS; at++) {
        if (kernel[at] === frame || user[at] === frame) this.release(vcpu, at);
      }
    }
  }

  clear(): void {
    this.slot.fill(-1);
    this.kernelCr3.fill(NO_CR3);
    this.userCr3.fill(NO_CR3);
    this.lastUse.fill(0);
    for (const roots of this.pages.reach.slotRoots) roots.fill(0);
  }
}
