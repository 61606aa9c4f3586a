import type { Saveable, StateIo } from '@pvm/cpu-jit';
/**
 * Which guest tables each vCPU has loaded, and the cache of previous ones: 16 TLB slots per vCPU, each with a kernel and a user shadow root.
 */
import { MODE_32BIT, MODE_LEGACY, MODE_NO_PAGING, MODE_PAE, type ShadowFlavour } from './api.ts';
import { entryGpa, PDPTE_RESERVED_HIGH, PDPTE_RESERVED_LOW, shadowLevels } from './guest-walk.ts';
import { ACC_ALL, PTE_P, ROLE_ACC_SHIFT, ROLE_DIRECT, ROLE_TOP3 } from './paging.ts';
import { inheritedRole } from './shadow-fill.ts';
import type { ShadowPages } from './shadow-pages.ts';
import { SLOTS } from './tlb-reach.ts';

const NO_CR3 = -1;
/** PCID in CR3 (SDM Vol. 3, 2.5), and the alignment of PAE's page-directory-pointer table. */
const PCID_MASK = 0xfff;
const PDPT_BYTES = 32;
/** A walk needs at most four pages below its root; two roots come on top. */
export const ROOM_FOR_ROOTS = 2;

export class Roots implements Saveable {
  loads = 0;
  cached = 0;
  /** The last `load` found its tables in a slot. */
  wasCached = false;
  /** Current slot by vCPU, -1 before the first load. */
  readonly slot: Int32Array;
  readonly mode: Int32Array;
  private readonly pages: ShadowPages;
  private readonly gpaToHpa: (gpa: number) => number;
  private readonly vcpus: number;
  private readonly flavour: ShadowFlavour;
  private readonly slots: number;
  /** HPA of the tables that kernel and user root shadow, by slot; -1: not RAM. */
  private readonly tables: [Float64Array, Float64Array];
  /** PAE's page-directory pointers by slot, two words each: read by MOV to CR3 only. */
  readonly pointers: Int32Array;
  private readonly kernelCr3: Float64Array;
  private readonly userCr3: Float64Array;
  private readonly slotMode: Int32Array;
  private readonly lastUse: Float64Array;

  constructor(pages: ShadowPages, gpaToHpa: (gpa: number) => number, options: { vcpus: number; flavour: ShadowFlavour; slots: number }) {
    const { vcpus, flavour, slots } = options;
    this.flavour = flavour;
    this.slots = slots;
    this.pointers = new Int32Array(vcpus * SLOTS * 8);
    this.tables = [new Float64Array(vcpus * SLOTS), new Float64Array(vcpus * SLOTS)];
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
    return slot < 0 ? 0 : (this.pages.reach.slotRoots[this.half(user)][vcpu * SLOTS + slot] as number);
  }

  /** HPA of the guest's top-level table, -1 when it is not RAM. */
  table(vcpu: number, user: number): number {
    return this.tables[this.half(user)][vcpu * SLOTS + (this.slot[vcpu] as number)] as number;
  }

  /** Index of the root that serves a privilege: PVM has two. */
  private half(user: number): 0 | 1 {
    return user !== 0 && this.flavour === 'pvm' ? 1 : 0;
  }

  /** Makes a pair of guest tables current; returns the slot. */
  load(vcpu: number, kernelCr3: number, userCr3: number, mode: number): number {
    this.loads++;
    this.mode[vcpu] = mode;
    let victim = vcpu * SLOTS;
    const current = vcpu * SLOTS + (this.slot[vcpu] as number);
    this.wasCached = false;
    for (let at = vcpu * SLOTS; at < vcpu * SLOTS + this.slots; at++) {
      if (this.kernelCr3[at] === kernelCr3 && this.userCr3[at] === userCr3 && this.slotMode[at] === mode) {
        this.cached++;
        this.wasCached = true;
        this.enter(vcpu, at);
        if ((mode & MODE_PAE) !== 0) this.reloadPointers(vcpu);
        return at - vcpu * SLOTS;
      }
      if (victim === current || (at !== current && (this.lastUse[at] as number) < (this.lastUse[victim] as number))) victim = at;
    }
    // Room first: making it may empty slots, but never those in use, and nothing is freed between here and `enter`.
    this.pages.makeRoom(ROOM_FOR_ROOTS);
    this.release(vcpu, victim);
    this.bind(victim, 0, kernelCr3, mode);
    if (this.flavour === 'pvm') this.bind(victim, 1, userCr3, mode);
    this.kernelCr3[victim] = kernelCr3;
    this.userCr3[victim] = userCr3;
    this.slotMode[victim] = mode;
    this.enter(vcpu, victim);
    if ((mode & MODE_PAE) !== 0) this.reloadPointers(vcpu);
    return victim - vcpu * SLOTS;
  }

  private bind(at: number, user: 0 | 1, cr3: number, mode: number): void {
    const table = cr3 - (cr3 % ((mode & MODE_PAE) !== 0 ? PDPT_BYTES : PCID_MASK + 1));
    const hpa = this.gpaToHpa(table);
    this.tables[user][at] = hpa;
    if (hpa < 0 && (mode & MODE_NO_PAGING) === 0) return;
    const role = shadowLevels(mode) | (ACC_ALL << ROLE_ACC_SHIFT) | inheritedRole(user, mode, this.flavour);
    const ramFrame = (hpa >>> 12) - this.pages.ramBase;
    let frame: number;
    if ((mode & MODE_LEGACY) === 0) frame = this.pages.obtain(ramFrame, role);
    else if ((mode & MODE_NO_PAGING) !== 0) frame = this.pages.obtain(0, role | ROLE_DIRECT);
    else frame = this.pages.obtain((mode & MODE_32BIT) !== 0 ? ramFrame : hpa / PDPT_BYTES, role | ROLE_TOP3);
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

  /** Where the pointers of a vCPU's slot are. */
  pointersAt(vcpu: number): number {
    return (vcpu * SLOTS + Math.max(0, this.slot[vcpu] as number)) * 8;
  }

  /** MOV to CR3 in PAE mode reads the four page-directory pointers, which may have changed. */
  private reloadPointers(vcpu: number): void {
    const root = this.current(vcpu, 0);
    if (root === 0) return;
    const { pool } = this.pages;
    const table = this.table(vcpu, 0) >>> 2;
    const at = this.pointersAt(vcpu);
    for (let i = 0; i < 8; i++) this.pointers[at + i] = pool.words[table + i] as number;
    for (let index = 0; index < 4; index++) {
      const sidx = root * 512 + index;
      if (pool.low(sidx) === 0) continue;
      const low = pool.words[table + index * 2] as number;
      const high = pool.words[table + index * 2 + 1] as number;
      const child = (pool.key[this.pages.childOf(pool.low(sidx))] as number) + this.pages.ramBase;
      const isUsable = (low & (PTE_P | PDPTE_RESERVED_LOW)) === PTE_P && (high & PDPTE_RESERVED_HIGH) === 0;
      if (!isUsable || this.gpaToHpa(entryGpa(low, high)) !== child * 4096) this.pages.drop(sidx);
    }
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
      if (user === 0 || this.flavour === 'pvm') reach.array(vcpu, (at - vcpu * SLOTS) * 2 + user);
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

  /** Slots of a vCPU whose CR3 names a PCID. */
  slotsOf(vcpu: number, pcid: number): number[] {
    const slots: number[] = [];
    for (let slot = 0; slot < SLOTS; slot++) {
      const cr3 = this.kernelCr3[vcpu * SLOTS + slot] as number;
      if (cr3 !== NO_CR3 && cr3 % (PCID_MASK + 1) === pcid) slots.push(slot);
    }
    return slots;
  }

  /** Empties the slots of a vCPU, except the current one, whose CR3 names a PCID. */
  forgetPcid(vcpu: number, pcid: number): void {
    for (const slot of this.slotsOf(vcpu, pcid)) if (slot !== this.slot[vcpu]) this.release(vcpu, vcpu * SLOTS + slot);
  }

  /** PCID of the tables a vCPU has loaded. */
  pcid(vcpu: number): number {
    const slot = this.slot[vcpu] as number;
    return slot < 0 ? 0 : (this.kernelCr3[vcpu * SLOTS + slot] as number) % (PCID_MASK + 1);
  }

  clear(): void {
    this.slot.fill(-1);
    this.kernelCr3.fill(NO_CR3);
    this.userCr3.fill(NO_CR3);
    this.lastUse.fill(0);
    for (const roots of this.pages.reach.slotRoots) roots.fill(0);
  }

  state(s: StateIo): void {
    s.fields(this, ['loads', 'cached', 'wasCached', 'slot', 'mode', 'tables', 'pointers', 'kernelCr3', 'userCr3', 'slotMode', 'lastUse']);
  }
}
