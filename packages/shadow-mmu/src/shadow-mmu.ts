/**
 * The shadow MMU of one virtual machine, as the run loop sees it.
 */
import { FAULT_FIXED, FAULT_MMIO, FAULT_PF, FAULT_TRACKED, MODE_LA57, type ShadowMmuOptions, type ShadowMmuStats } from './api.ts';
import { checkArea, checkRange } from './arguments.ts';
import { checkShadow } from './check.ts';
import { FramePool } from './frame-pool.ts';
import { GuestWalk } from './guest-walk.ts';
import { ACCESS_KIND, ACCESS_RMW, ACCESS_WRITE } from './paging.ts';
import { PteWrites } from './pte-write.ts';
import { Roots } from './roots.ts';
import { ShadowFill } from './shadow-fill.ts';
import { ShadowPages } from './shadow-pages.ts';
import { TlbReach } from './tlb-reach.ts';

/** Shadow pages one fill may build: a path of five levels less the root. */
const ROOM_FOR_FILL = 4;
const PAGE_OFFSET = 0xfff;

/**
 * Contract with the run loop
 *
 * - One instance per machine, shared by its vCPUs. `load` on CR3 load / LOAD_PGTBL, then use `kernelRoot`, `userRoot` and `slot`: TLB array `slot * 2` with the kernel
 *   root in smod, `slot * 2 + 1` with the user root in umod. They stay valid until the next `load` of that vCPU: a root in use is never freed, only emptied.
 * - The soft TLBs never hold more than the shadow tables allow and those never more than the guest's tables allow: whatever makes a shadow entry lose rights flushes at once.
 *   So a guest's own TLB flushes (INVLPG, TLB_FLUSH, a flushing LOAD_PGTBL) need no work, and a slot is tagged by its pair of tables, not by PCID.
 * - No method allocates on the paths a guest can repeat (`fault`, `prefault`, `emulateWrite`, `load`); results are numbers and fields.
 * - Anything that writes guest RAM other than generated code (devices, `read()`-like loaders, PVCS writes) must call `guestWrote(hpa, length)`; it is cheap when nothing is tracked there.
 */
export class ShadowMmu {
  /** After FAULT_PF: error code of the #PF (P, W, U, RSVD, I/D). U is set for the user root and clear for the kernel root, as PVM reports it. */
  errorCode = 0;
  /** After FAULT_TRACKED: HPA of the first byte accessed. */
  faultHpa = 0;
  /** After FAULT_TRACKED, FAULT_MMIO and a `translate` that found a page: guest-physical address of the first byte accessed. */
  faultGpa = 0;
  private readonly faults = new Float64Array(4);
  private prefaulted = 0;
  private flushesNeedless = 0;
  private readonly gpaToHpa: (gpa: number) => number;
  private readonly isLegal: ((vaLow: number, vaHigh: number, levels: number) => boolean) | undefined;
  private readonly pool: FramePool;
  private readonly reach: TlbReach;
  private readonly pages: ShadowPages;
  private readonly walk: GuestWalk;
  private readonly fill: ShadowFill;
  private readonly pteWrites: PteWrites;
  private readonly roots: Roots;

  /** @throws RangeError when an option is out of range. */
  constructor(options: ShadowMmuOptions) {
    const { memory, framePoolBase, framePoolFrames, ramBase, ramBytes, gpaToHpa, vcpus } = options;
    const { physicalAddressBits = 46, prefetch = 8, largePages = true } = options;
    checkRange('framePoolFrames', framePoolFrames, 64, 1 << 20);
    checkRange('vcpus', vcpus, 1, 8);
    checkRange('physicalAddressBits', physicalAddressBits, 33, 52);
    checkRange('prefetch', prefetch, 1, 64);
    if ((prefetch & (prefetch - 1)) !== 0) throw new RangeError(`prefetch must be a power of two, got ${prefetch}`);
    checkArea('frame pool', framePoolBase, framePoolFrames * 4096, memory.byteLength);
    checkArea('guest RAM', ramBase, ramBytes, memory.byteLength);
    this.gpaToHpa = gpaToHpa;
    this.isLegal = options.isLegal;
    const ramFrames = ramBytes / 4096;
    this.pool = new FramePool(memory, framePoolBase, framePoolFrames, ramFrames);
    this.reach = new TlbReach(this.pool, options.flush, vcpus);
    this.pages = new ShadowPages(this.pool, this.reach, ramBase / 4096, ramFrames);
    this.walk = new GuestWalk(this.pool.words, gpaToHpa, physicalAddressBits);
    this.fill = new ShadowFill(this.pages, this.walk, gpaToHpa, largePages, prefetch);
    this.pteWrites = new PteWrites(this.pages, this.fill, this.walk, gpaToHpa);
    this.roots = new Roots(this.pages, gpaToHpa, vcpus);
  }

  /**
   * Makes guest tables current on a vCPU (MOV CR3, LOAD_PGTBL) and returns the TLB slot 0..15 that now belongs to them.
   * @param kernelCr3 guest-physical address of the top-level table for smod (bits 12..51 of CR3, low bits clear)
   * @param userCr3 the same for umod; equal to kernelCr3 in ABI v2
   * @param mode MODE_* bits
   * @param flush false for a no-flush load (CR3 bit 63, LOAD_PGTBL without bit 0)
   */
  load(vcpu: number, kernelCr3: number, userCr3: number, mode: number, flush: boolean): number {
    if (flush) this.flushesNeedless++;
    return this.roots.load(vcpu, kernelCr3, userCr3, mode);
  }

  /** Slot made current by the last `load`, -1 before the first. */
  slot(vcpu: number): number {
    return this.roots.slot[vcpu] as number;
  }

  /** HPA of the shadow root for smod. An empty table when CR3 names no RAM or nothing is loaded. Never 0. */
  kernelRoot(vcpu: number): number {
    return this.pool.hpa(this.roots.current(vcpu, 0));
  }

  /** HPA of the shadow root for umod. */
  userRoot(vcpu: number): number {
    return this.pool.hpa(this.roots.current(vcpu, 1));
  }

  /** Levels of the current shadow table: 4 or 5 (goes to V_LEVELS). */
  levels(vcpu: number): number {
    return ((this.roots.mode[vcpu] as number) & MODE_LA57) !== 0 ? 5 : 4;
  }

  /** Drops all roots and slots: before a snapshot is restored or the machine is torn down. `load` again before running. Flushes every TLB. */
  reset(): void {
    this.pages.clear();
    this.roots.clear();
    this.reach.everything();
  }

  /**
   * A translation failed in the shadow tables. `user` 1: umod (user root), 0: smod. `access`: ACCESS_* of the layout.
   * The access must not cross a 4 KiB boundary: (vaLow, vaHigh) names its first byte in the page that failed.
   * @returns FAULT_FIXED, FAULT_PF, FAULT_TRACKED or FAULT_MMIO
   */
  fault(vcpu: number, user: number, vaLow: number, vaHigh: number, access: number): number {
    const result = this.resolve(vcpu, user, vaLow, vaHigh, access);
    this.faults[result] = (this.faults[result] as number) + 1;
    return result;
  }

  private resolve(vcpu: number, user: number, vaLow: number, vaHigh: number, access: number): number {
    const kind = access & ACCESS_KIND;
    const write = kind === ACCESS_WRITE || kind === ACCESS_RMW;
    const levels = this.levels(vcpu);
    do {
      if (!this.find(vcpu, user, vaLow, vaHigh, access)) return FAULT_PF;
    } while (!this.walk.mark(levels, write));
    const hpa = this.gpaToHpa(this.walk.gpa);
    this.faultGpa = this.walk.gpa + (vaLow & PAGE_OFFSET);
    if (hpa < 0) return FAULT_MMIO;
    if (write && this.pages.tables[(hpa >>> 12) - this.pages.ramBase] !== 0) {
      this.faultHpa = hpa + (vaLow & PAGE_OFFSET);
      return FAULT_TRACKED;
    }
    this.pages.makeRoom(ROOM_FOR_FILL);
    this.fill.fill(this.roots.current(vcpu, user), levels, vaLow, vaHigh, hpa);
    return FAULT_FIXED;
  }

  /** Walks the guest's tables and checks rights; false: `errorCode` is set. */
  private find(vcpu: number, user: number, vaLow: number, vaHigh: number, access: number): boolean {
    const mode = this.roots.mode[vcpu] as number;
    const levels = this.levels(vcpu);
    const root = this.roots.current(vcpu, user);
    if (root === 0 || (this.isLegal !== undefined && !this.isLegal(vaLow, vaHigh, levels))) this.walk.error = 0;
    else {
      const table = (this.pages.ramBase + (this.pool.key[root] as number)) * 4096;
      if (this.walk.walk(table, levels, vaLow, vaHigh, mode) && this.walk.permits(user, access, mode)) return true;
    }
    this.errorCode = this.walk.errorCode(user, access, mode);
    return false;
  }

  /**
   * Fills the shadow of one page before it is touched (ERETU after a page fault). Never changes guest memory: an entry whose accessed
   * bit (for writes: dirty bit) the guest has not set is left for the real fault.
   * @returns true when the shadow now allows the access
   */
  prefault(vcpu: number, user: number, vaLow: number, vaHigh: number, access: number): boolean {
    const kind = access & ACCESS_KIND;
    const write = kind === ACCESS_WRITE || kind === ACCESS_RMW;
    const levels = this.levels(vcpu);
    if (!this.find(vcpu, user, vaLow, vaHigh, access) || !this.walk.isMarked(levels, write)) return false;
    const hpa = this.gpaToHpa(this.walk.gpa);
    if (hpa < 0 || (write && this.isTracked(hpa))) return false;
    this.pages.makeRoom(ROOM_FOR_FILL);
    this.fill.fill(this.roots.current(vcpu, user), levels, vaLow, vaHigh, hpa);
    this.prefaulted++;
    return true;
  }

  /**
   * Walks the guest's tables without any side effect. On success `faultGpa` is set and the HPA is returned; -1 when the guest forbids it
   * (`errorCode` set) and -2 when the page is not RAM (`faultGpa` set).
   */
  translate(vcpu: number, user: number, vaLow: number, vaHigh: number, access: number): number {
    if (!this.find(vcpu, user, vaLow, vaHigh, access)) return -1;
    this.faultGpa = this.walk.gpa + (vaLow & PAGE_OFFSET);
    const hpa = this.gpaToHpa(this.walk.gpa);
    return hpa < 0 ? -2 : hpa + (vaLow & PAGE_OFFSET);
  }

  /**
   * Performs a store to a guest page table: copies `size` bytes (1..64, inside one 4 KiB page) from linear-memory address `source` to `hpa`,
   * then brings the shadow tables and the TLBs in step. Does not look for translated code: call CpuCore.dirtyCode for that.
   * @throws RangeError when `hpa` is not in guest RAM
   */
  emulateWrite(hpa: number, size: number, source: number): void {
    const frame = (hpa >>> 12) - this.pages.ramBase;
    if (frame < 0 || frame >= this.pages.ramFrames) throw new RangeError(`emulateWrite needs an address in guest RAM, got 0x${hpa.toString(16)}`);
    this.pteWrites.emulate(hpa, size, source);
  }

  /** Guest RAM [hpa, hpa + length) was changed by something other than guest code: brings the shadow in step if page tables are in it. */
  guestWrote(hpa: number, length: number): void {
    const end = hpa + length;
    for (let at = hpa; at < end; ) {
      const pageEnd = Math.min(end, at - (at & PAGE_OFFSET) + 4096);
      if (this.isTracked(at)) this.pteWrites.synchronise((at >>> 12) - this.pages.ramBase, (at >>> 3) & 511, ((pageEnd - 1) >>> 3) & 511, false);
      at = pageEnd;
    }
  }

  /** True when the guest frame that holds `hpa` is in use as a page table (mapped read-only everywhere). */
  isTracked(hpa: number): boolean {
    const frame = (hpa >>> 12) - this.pages.ramBase;
    return frame >= 0 && frame < this.pages.ramFrames && this.pages.tables[frame] !== 0;
  }

  /** Guest INVLPG / TLB_INVLPG: one address, every tag of this vCPU. Nothing can be stale (see the contract), so this only counts. */
  invlpg(_vcpu: number, _vaLow: number, _vaHigh: number): void {
    this.flushesNeedless++;
  }

  /** TLB_FLUSH_CURRENT: the current PCID of this vCPU. As `invlpg`. */
  flushCurrent(_vcpu: number): void {
    this.flushesNeedless++;
  }

  /** TLB_FLUSH: everything of this vCPU. As `invlpg`. */
  flushAll(_vcpu: number): void {
    this.flushesNeedless++;
  }

  /** Removes every shadow entry of every root; roots in use stay loaded and become empty. Flushes every TLB. */
  zapAll(): void {
    for (let frame = 1; frame < this.pool.frames; frame++) {
      if (this.pool.role[frame] !== 0) this.pages.zap(frame);
    }
    this.reach.everything();
  }

  /** Removes every shadow leaf that maps the 4 KiB guest frame at `gpa`, and every shadow page built from it; flushes what they covered. */
  zapGfn(gpa: number): void {
    const hpa = this.gpaToHpa(gpa);
    if (hpa < 0) return;
    const frame = (hpa >>> 12) - this.pages.ramBase;
    const { heads } = this.pool;
    for (let sidx = heads[frame] as number; sidx !== 0; sidx = heads[frame] as number) this.pages.drop(sidx);
    const block = this.pool.blockHeads + (frame >>> 9);
    for (let sidx = heads[block] as number; sidx !== 0; sidx = heads[block] as number) this.pages.drop(sidx);
    this.pages.zapTablesOf(frame);
  }

  stats(): ShadowMmuStats {
    let rmapMax = 0;
    for (let head = 0; head < this.pool.parentHeads; head++) {
      let length = 0;
      for (let sidx = this.pool.heads[head] as number; sidx !== 0; sidx = this.pool.next[sidx] as number) length++;
      if (length > rmapMax) rmapMax = length;
    }
    return {
      frames: this.pool.frames,
      framesFree: this.pool.free,
      pagesBuilt: this.pages.built,
      pagesZapped: this.pages.zapped,
      pagesReclaimed: this.pages.reclaimed,
      pagesFlooded: this.pteWrites.flooded,
      faultsFixed: this.faults[FAULT_FIXED] as number,
      faultsGuest: this.faults[FAULT_PF] as number,
      faultsTracked: this.faults[FAULT_TRACKED] as number,
      faultsMmio: this.faults[FAULT_MMIO] as number,
      leavesFilled: this.fill.filled,
      leavesPrefetched: this.fill.prefetched,
      leavesPrefaulted: this.prefaulted,
      pteWrites: this.pteWrites.writes,
      pteWritesVisible: this.pteWrites.visible,
      flushPage: this.reach.flushPage,
      flushArray: this.reach.flushArray,
      flushAll: this.reach.flushAll,
      flushesNeedless: this.flushesNeedless,
      loads: this.roots.loads,
      loadsCached: this.roots.cached,
      tracked: this.pages.tracked,
      rmapMax,
    };
  }

  /** @throws Error naming the first broken invariant; for tests and `--check` runs (walks the whole pool). */
  check(): void {
    checkShadow(this.pages, this.walk, this.gpaToHpa);
  }
}
