import type { Saveable, StateIo } from '@pvm/cpu-jit';
/**
 * The shadow MMU of one virtual machine, as the run loop sees it.
 */
import { FAULT_FIXED, FAULT_MMIO, FAULT_PF, FAULT_TRACKED, MODE_32BIT, type ShadowMmuOptions, type ShadowMmuStats } from './api.ts';
import { checkArea, checkRange } from './arguments.ts';
import { checkShadow } from './check.ts';
import { FramePool } from './frame-pool.ts';
import { GuestWalk, shadowLevels } from './guest-walk.ts';
import { ACCESS_KIND, ACCESS_RMW, ACCESS_WRITE, PF_P, PF_RSVD } from './paging.ts';
import { PteWrites } from './pte-write.ts';
import { Roots } from './roots.ts';
import { ShadowFill } from './shadow-fill.ts';
import { ShadowPages } from './shadow-pages.ts';
import { SLOTS, TlbReach } from './tlb-reach.ts';
import { Unsync } from './unsync.ts';
import { WriteLog } from './write-log.ts';

/** Shadow pages one fill may build: a path of five levels less the root. */
const ROOM_FOR_FILL = 4;
const PAGE_OFFSET = 0xfff;

/**
 * Contract with the run loop
 *
 * - One instance per machine, shared by its vCPUs. `load` on CR3 load / LOAD_PGTBL, then use `kernelRoot`, `userRoot` and `slot`: TLB array `slot * 2` with the kernel
 *   root in smod, `slot * 2 + 1` with the user root in umod. They stay valid until the next `load` of that vCPU: a root in use is never freed, only emptied.
 * - Flavour `kvm`: one root for all privileges, the same from `kernelRoot` and `userRoot`; both TLB arrays of the slot are for it. CR3 is passed with its PCID in
 *   the low 12 bits, if PCIDs are on.
 * - The soft TLBs never hold more than the shadow tables allow, and those, without `unsync`, never more than the guest's tables allow: whatever makes a shadow entry lose
 *   rights flushes at once. So a guest's own TLB flushes (INVLPG, TLB_FLUSH, a flushing LOAD_PGTBL) need no work, and a slot is tagged by its pair of tables, not by PCID.
 * - With `unsync` last-level shadow pages may hold what the guest's tables held earlier, until it flushes: `load`, `invlpg` and the flush methods bring them in step.
 * - No method allocates on the paths a guest can repeat (`fault`, `prefault`, `emulateWrite`, `load`); results are numbers and fields.
 * - Anything that writes guest RAM other than generated code (devices, `read()`-like loaders, PVCS writes) must call `guestWrote(hpa, length)`; it is cheap when nothing is tracked there.
 */
export class ShadowMmu implements Saveable {
  /** After FAULT_PF: error code of the #PF (P, W, U, RSVD, I/D). U is set for the user root and clear for the kernel root, as PVM reports it. */
  errorCode = 0;
  /** After FAULT_TRACKED: HPA of the first byte accessed. */
  faultHpa = 0;
  /** After FAULT_TRACKED, FAULT_MMIO and a `translate` that found a page: guest-physical address of the first byte accessed. */
  faultGpa = 0;
  /** After FAULT_FIXED: the fault let the guest write a last-level table, which is out of step from now on. */
  faultUnsynced = false;
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
  private readonly unsync: Unsync | undefined;
  private readonly isKvm: boolean;
  private readonly writeLog: WriteLog;

  /** @throws RangeError when an option is out of range. */
  constructor(options: ShadowMmuOptions) {
    const { memory, framePoolBase, framePoolFrames, ramBase, ramBytes, gpaToHpa, vcpus } = options;
    const { physicalAddressBits = 46, prefetch = 8, largePages = true, flavour = 'pvm', unsync = false, cachedRoots = SLOTS } = options;
    checkRange('framePoolFrames', framePoolFrames, 64, 1 << 20);
    checkRange('vcpus', vcpus, 1, 8);
    checkRange('physicalAddressBits', physicalAddressBits, 33, 52);
    checkRange('prefetch', prefetch, 1, 64);
    checkRange('cachedRoots', cachedRoots, 1, SLOTS);
    if (unsync && flavour !== 'kvm') throw new RangeError("unsync is for the flavour 'kvm': PVM's guests do not report every flush");
    if ((prefetch & (prefetch - 1)) !== 0) throw new RangeError(`prefetch must be a power of two, got ${prefetch}`);
    checkArea('frame pool', framePoolBase, framePoolFrames * 4096, memory.byteLength);
    checkArea('guest RAM', ramBase, ramBytes, memory.byteLength);
    this.gpaToHpa = gpaToHpa;
    this.isKvm = flavour === 'kvm';
    this.isLegal = options.isLegal;
    const ramFrames = ramBytes / 4096;
    this.pool = new FramePool(memory, framePoolBase, framePoolFrames, ramFrames);
    this.reach = new TlbReach(this.pool, options.flush, vcpus, flavour);
    this.pages = new ShadowPages(this.pool, this.reach, ramBase / 4096, ramFrames, flavour);
    this.walk = new GuestWalk(this.pool.words, gpaToHpa, physicalAddressBits, flavour);
    this.fill = new ShadowFill(this.pages, this.walk, gpaToHpa, { largePages, prefetch, flavour });
    this.pteWrites = new PteWrites(this.pages, this.fill, this.walk, gpaToHpa);
    this.roots = new Roots(this.pages, gpaToHpa, { vcpus, flavour, slots: cachedRoots });
    this.walk.pointers = this.roots.pointers;
    this.writeLog = new WriteLog(this.pages, gpaToHpa);
    if (unsync) this.unsync = new Unsync(this.pages, this.pteWrites);
  }

  /**
   * Makes guest tables current on a vCPU (MOV CR3, LOAD_PGTBL) and returns the TLB slot 0..15 that now belongs to them.
   * @param kernelCr3 guest-physical address of the top-level table for smod (bits 12..51 of CR3; with PCIDs its low 12 bits, in PAE mode bits 5..11 as well)
   * @param userCr3 the same for umod; equal to kernelCr3 in ABI v2, and not used by the flavour `kvm`
   * @param mode MODE_* bits
   * @param flush false for a no-flush load (CR3 bit 63, LOAD_PGTBL without bit 0); while PCIDs are on, call `flushPcid` as well for one that flushes
   */
  load(vcpu: number, kernelCr3: number, userCr3: number, mode: number, flush: boolean): number {
    const slot = this.roots.load(vcpu, kernelCr3, userCr3, mode);
    if (!flush) return slot;
    if (this.unsync === undefined) this.flushesNeedless++;
    else this.unsync.syncBelow(this.roots.current(vcpu, 0));
    return slot;
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

  /** Levels of the current shadow table: 3, 4 or 5 (goes to V_LEVELS). */
  levels(vcpu: number): number {
    return shadowLevels(this.roots.mode[vcpu] as number);
  }

  /** Drops all roots and slots, and calls all pages dirty: before the guest goes on after having run without shadow tables, or the machine is torn down. `load` again before running. Flushes every TLB. */
  reset(): void {
    this.writeLog.markAll();
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
    const mode = this.roots.mode[vcpu] as number;
    this.faultUnsynced = false;
    this.walk.markedLevels = 0;
    do {
      if (!this.find(vcpu, user, vaLow, vaHigh, access)) {
        // A #PF forgets what the TLB held for the address (SDM Vol. 3, 5.10.4.1).
        this.unsync?.syncAddress(vcpu, this.roots.slot[vcpu] as number, vaLow, vaHigh);
        return FAULT_PF;
      }
    } while (!this.walk.mark(write));
    this.logMarks();
    if ((mode & MODE_32BIT) !== 0) this.followMarks32();
    const hpa = this.gpaToHpa(this.walk.gpa);
    this.faultGpa = this.walk.gpa + (vaLow & PAGE_OFFSET);
    if (hpa < 0) {
      this.unsync?.syncAddress(vcpu, this.roots.slot[vcpu] as number, vaLow, vaHigh);
      return FAULT_MMIO;
    }
    if (write && (this.walk.mustEmulate(user, write, mode) || !this.mayMapWritable((hpa >>> 12) - this.pages.ramBase))) {
      this.faultHpa = hpa + (vaLow & PAGE_OFFSET);
      return FAULT_TRACKED;
    }
    if (write) this.pages.written((hpa >>> 12) - this.pages.ramBase);
    this.pages.makeRoom(ROOM_FOR_FILL);
    this.fill.fill(this.roots.current(vcpu, user), vaLow, vaHigh, hpa, this.walk.leafRights(user, write, mode));
    return FAULT_FIXED;
  }

  /** The walk just done may have set marks in the guest's tables. */
  private logMarks(): void {
    for (let levels = this.walk.markedLevels, level = 0; levels !== 0; levels >>>= 1, level++) {
      if ((levels & 1) !== 0) this.writeLog.mark((this.walk.word[level] as number) * 4, 4);
    }
  }

  /** Marks in 4-byte entries are address bits to shadow pages that take the frame for a table of 8-byte ones. */
  private followMarks32(): void {
    for (let level = 2; level >= this.walk.leafLevel; level--) {
      const word = this.walk.word[level] as number;
      this.pteWrites.synchronise((word >>> 10) - this.pages.ramBase, (word & 1023) * 4, (word & 1023) * 4 + 3, false);
    }
  }

  /** Whether a frame is no table in step, or can be let out of step. */
  private mayMapWritable(ramFrame: number): boolean {
    if (this.pages.inSync[ramFrame] === 0) return true;
    if (this.unsync === undefined) return false;
    this.faultUnsynced = this.unsync.allowWrites(ramFrame);
    return this.faultUnsynced;
  }

  /** Walks the guest's tables and checks rights; false: `errorCode` is set. */
  private find(vcpu: number, user: number, vaLow: number, vaHigh: number, access: number): boolean {
    const mode = this.roots.mode[vcpu] as number;
    const levels = this.levels(vcpu);
    this.walk.pointersAt = this.roots.pointersAt(vcpu);
    if (this.isLegal !== undefined && !this.isLegal(vaLow, vaHigh, levels)) this.walk.error = 0;
    else if (this.roots.current(vcpu, user) === 0) this.walk.error = PF_P | PF_RSVD;
    else if (this.walk.walk(this.roots.table(vcpu, user), vaLow, vaHigh, mode) && this.walk.permits(user, access, mode)) return true;
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
    if (!this.find(vcpu, user, vaLow, vaHigh, access) || !this.walk.isMarked(write)) return false;
    const mode = this.roots.mode[vcpu] as number;
    const hpa = this.gpaToHpa(this.walk.gpa);
    if (hpa < 0 || (write && (this.isTracked(hpa) || this.walk.mustEmulate(user, write, mode)))) return false;
    if (write) this.pages.written((hpa >>> 12) - this.pages.ramBase);
    this.pages.makeRoom(ROOM_FOR_FILL);
    this.fill.fill(this.roots.current(vcpu, user), vaLow, vaHigh, hpa, this.walk.leafRights(user, write, mode));
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
    this.pages.written(frame);
    this.pteWrites.emulate(hpa, size, source);
  }

  /** Guest RAM [hpa, hpa + length) was changed by something other than guest code: brings the shadow in step if page tables are in it. */
  guestWrote(hpa: number, length: number): void {
    this.writeLog.mark(hpa, length);
    const end = hpa + length;
    for (let at = hpa; at < end; ) {
      const pageEnd = Math.min(end, at - (at & PAGE_OFFSET) + 4096);
      if (this.isTracked(at)) this.pteWrites.synchronise((at >>> 12) - this.pages.ramBase, at & PAGE_OFFSET, (pageEnd - 1) & PAGE_OFFSET, false);
      at = pageEnd;
    }
  }

  /** True when the guest frame that holds `hpa` is in use as a page table (mapped read-only everywhere, unless it is out of step). */
  isTracked(hpa: number): boolean {
    const frame = (hpa >>> 12) - this.pages.ramBase;
    return frame >= 0 && frame < this.pages.ramFrames && this.pages.tables[frame] !== 0;
  }

  /** Guest INVLPG / TLB_INVLPG: one address, every tag of this vCPU. Without `unsync` nothing can be stale (see the contract), so this and the next three only count. */
  invlpg(vcpu: number, vaLow: number, vaHigh: number): void {
    if (this.unsync === undefined) this.flushesNeedless++;
    else this.unsync.syncAddress(vcpu, undefined, vaLow, vaHigh);
  }

  /** TLB_FLUSH_CURRENT: the current PCID of this vCPU. */
  flushCurrent(vcpu: number): void {
    if (this.unsync === undefined) this.flushesNeedless++;
    else this.unsync.syncBelow(this.roots.current(vcpu, 0));
  }

  /** INVPCID of one address of one PCID. */
  invlpgPcid(vcpu: number, pcid: number, vaLow: number, vaHigh: number): void {
    if (this.unsync === undefined) this.flushesNeedless++;
    else for (const slot of this.roots.slotsOf(vcpu, pcid)) this.unsync.syncAddress(vcpu, slot, vaLow, vaHigh);
  }

  /** INVPCID of one PCID, or a load of CR3 that flushes it: other roots that were loaded with it are forgotten. */
  flushPcid(vcpu: number, pcid: number): void {
    if (this.unsync === undefined) {
      this.flushesNeedless++;
      return;
    }
    if (this.roots.pcid(vcpu) === pcid) this.flushCurrent(vcpu);
    this.roots.forgetPcid(vcpu, pcid);
  }

  /** TLB_FLUSH, INVPCID of all PCIDs, a change of CR4.PGE: everything of this vCPU. */
  flushAll(vcpu: number): void {
    if (this.unsync === undefined) this.flushesNeedless++;
    else this.unsync.syncAll(vcpu);
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

  /** Pages and single addresses brought in step so far: whether a flush had something to do. */
  get resyncs(): number {
    return this.unsync === undefined ? 0 : this.unsync.synced + this.unsync.addresses;
  }

  /**
   * Logs writes to the guest-physical range [gpa, gpa + bytes), whole 4 KiB pages, in place of an earlier log; nothing is dirty yet. The first write to each page is
   * a fault, and the range has no large pages meanwhile. Page tables are dirty as well when a walk sets their accessed and dirty bits.
   */
  startDirtyLog(gpa: number, bytes: number): void {
    this.writeLog.start(gpa, bytes);
  }
  /** Pages written since the log started or was last taken: bit n of word w is page w * 32 + n of the range. @throws Error when no log is on */
  takeDirty(): Uint32Array {
    return this.writeLog.take();
  }
  stopDirtyLog(): void {
    this.writeLog.stop();
  }
  /** The guest ran without shadow tables: all of the range may have been written. */
  dirtyEverything(): void {
    this.writeLog.markAll();
  }

  /** Most shadow pages from now on, 64 up to the pool; more are reclaimed at once, roots in use excepted, which are emptied. */
  setPageLimit(pages: number): void {
    checkRange('pages', pages, 64, this.pool.frames);
    this.pages.setLimit(pages);
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
      pagesUnsynced: this.unsync?.unsynced ?? 0,
      pagesSynced: this.unsync?.synced ?? 0,
      unsync: this.pool.unsync.reduce((n, unsync) => n + unsync, 0),
      loads: this.roots.loads,
      loadsCached: this.roots.cached,
      tracked: this.pages.tracked,
      rmapMax,
    };
  }

  /**
   * For tests and `--check-mmu` (walks the whole pool).
   *
   * @param isFollowed false: the guest may have written to its tables unseen, so only the structure is looked at
   * @throws Error naming the first broken invariant
   */
  check(isFollowed = true): void {
    const { pages, walk, gpaToHpa, isKvm } = this;
    checkShadow({ pages, walk, gpaToHpa, isKvm, isFollowed });
  }

  /** The tables themselves are in the frame pool, which whoever saves the machine saves with it. */
  state(s: StateIo): void {
    s.fields(this, ['faults', 'prefaulted', 'flushesNeedless', 'pages', 'reach', 'fill', 'pteWrites', 'roots', 'writeLog']);
    if (this.unsync !== undefined) s.part('unsync', this.unsync);
  }
}
