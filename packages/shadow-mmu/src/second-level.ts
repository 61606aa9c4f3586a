import type { Saveable, StateIo } from '@pvm/cpu-jit';
/**
 * A second-level table (EPT): guest-physical address -> frame, built on demand, as a hypervisor keeps it for a CPU that walks two dimensions.
 */
import { checkArea, checkPages, checkRange } from './arguments.ts';
import { DirtyLog, type DirtyLogKind } from './dirty-log.ts';
import { EPT_A, EPT_ADDRESS, EPT_LARGE, EPT_MMIO, EPT_R, EPT_RWX, EPT_W, EPT_WB, entryBytes, misconfigurationOf } from './second-level-entry.ts';
import { SecondLevelTree } from './second-level-tree.ts';

export interface SecondLevelOptions {
  /** The whole linear memory: frame pool and guest RAM are inside it. */
  memory: ArrayBufferLike;
  /** HPA of the frames for tables, 4 KiB aligned, and their number, at least 8. */
  framePoolBase: number;
  framePoolFrames: number;
  /** HPA of a guest-physical address, or -1 when it is not RAM. Contiguous inside each 2 MiB guest page whose first and last 4 KiB are RAM. */
  gpaToHpa: (gpa: number) => number;
  /** Drop every translation of every vCPU (INVEPT): called whenever an entry lost rights, a mark or its frame. */
  flush: () => void;
  /** Level of the largest leaves: 1 (4 KiB), 2 (2 MiB) or 3 (1 GiB, default). */
  largestLevel?: 1 | 2 | 3;
}

/** Answers of {@link SecondLevel.violation} and {@link SecondLevel.misconfiguration}. */
/** The table now allows the access: walk again. */
export const SECOND_LEVEL_FIXED = 0;
/** The address is not RAM: emulate the access. After a violation the next one is an EPT misconfiguration, which needs no walk. */
export const SECOND_LEVEL_MMIO = 1;
/** The address is RAM, and its rights (see {@link SecondLevel.setRights}) forbid the access. */
export const SECOND_LEVEL_DENIED = 2;

export interface SecondLevelStats {
  frames: number;
  framesFree: number;
  /** Tables built, and freed for any reason. */
  tablesBuilt: number;
  tablesZapped: number;
  /** Leaves now in the table, by size; entries that mark device memory. */
  leaves4K: number;
  leaves2M: number;
  leaves1G: number;
  leavesMmio: number;
  splits: number;
  /** Times the pool was empty, so that everything was dropped. */
  reclaims: number;
  flushes: number;
}

interface RightsRange {
  readonly gpa: number;
  readonly end: number;
  readonly rights: number;
}

/**
 * Contract
 *
 * - Program V_EPT_ROOT with `root`; it never changes. On an EPT violation call `violation`, on a misconfiguration `misconfiguration`.
 * - Accessed and dirty bits are the CPU's to set. Splitting hands them to the parts; a dirty page that is dropped is entered in the log.
 * - While a dirty log is on, its range is mapped by 4 KiB pages only.
 */
export class SecondLevel implements Saveable {
  /** HPA of the top-level table. */
  readonly root: number;
  private readonly tree: SecondLevelTree;
  private readonly gpaToHpa: (gpa: number) => number;
  private readonly flushTlbs: () => void;
  private readonly largestLevel: number;
  private ranges: readonly RightsRange[] = [];
  private log: DirtyLog | undefined;
  private flushes = 0;

  /** @throws RangeError when an option is out of range */
  constructor(options: SecondLevelOptions) {
    const { memory, framePoolBase, framePoolFrames } = options;
    checkRange('framePoolFrames', framePoolFrames, 8, 1 << 20);
    checkArea('frame pool', framePoolBase, framePoolFrames * 4096, memory.byteLength);
    this.tree = new SecondLevelTree(memory, framePoolBase, framePoolFrames, (gpa, bytes) => this.log?.mark(gpa, bytes));
    this.gpaToHpa = options.gpaToHpa;
    this.flushTlbs = options.flush;
    this.largestLevel = options.largestLevel ?? 3;
    this.root = this.tree.frames.hpa(this.tree.root);
  }

  // ------------------------------------------------------------ exits of the CPU
  /** EPT violation at `gpa`; `need`: EPT_R, EPT_W or EPT_X. Maps the largest page that RAM, rights and the dirty log allow. */
  violation(gpa: number, need: number): number {
    if (this.gpaToHpa(gpa) < 0) {
      this.install(gpa - (gpa % 4096), 1, EPT_MMIO);
      return SECOND_LEVEL_MMIO;
    }
    let rights = this.rightsAt(gpa);
    if ((rights & need) === 0) return SECOND_LEVEL_DENIED;
    if (this.log?.isProtecting === true && this.log.overlaps(gpa, 1) && need !== EPT_W) rights &= ~EPT_W;
    let level = this.largestLevel;
    while (level > 1 && !this.mayBeLarge(gpa - (gpa % entryBytes(level)), level)) level--;
    const base = gpa - (gpa % entryBytes(level));
    this.install(base, level, (this.gpaToHpa(base) & EPT_ADDRESS) | EPT_WB | rights | (level > 1 ? EPT_LARGE : 0));
    return SECOND_LEVEL_FIXED;
  }

  /**
   * EPT misconfiguration at `gpa`: device memory, or RAM by now (the entry is dropped: walk again).
   * @throws Error when an entry is misconfigured that was not meant to be: the table was overwritten
   */
  misconfiguration(gpa: number): number {
    const { low, high, level } = this.tree.lookup(gpa);
    const isMmio = level === 1 && low === EPT_MMIO && high === 0;
    const reason = (low & EPT_RWX) === 0 || isMmio ? undefined : misconfigurationOf(low, high, level);
    if (reason !== undefined) throw new Error(`second-level entry 0x${(low >>> 0).toString(16)} for gpa 0x${gpa.toString(16)} at level ${level}: ${reason}`);
    if (this.gpaToHpa(gpa) < 0) return SECOND_LEVEL_MMIO;
    this.unmap(gpa - (gpa % 4096), 4096);
    return SECOND_LEVEL_FIXED;
  }

  // ------------------------------------------------------------ changes from outside
  /** Rights (EPT_R | EPT_W | EPT_X) of the RAM in [gpa, gpa + bytes), whole 4 KiB pages; everything else allows all. Takes effect at once. */
  setRights(gpa: number, bytes: number, rights: number): void {
    checkPages(gpa, bytes);
    if ((rights & (EPT_R | EPT_W)) === EPT_W || (rights & ~EPT_RWX) !== 0) {
      throw new RangeError(`rights must be made of EPT_R, EPT_W and EPT_X, EPT_W only beside EPT_R, got ${rights}`);
    }
    const end = gpa + bytes;
    const others = this.ranges.flatMap((r) => [
      { ...r, end: Math.min(r.end, gpa) },
      { ...r, gpa: Math.max(r.gpa, end) },
    ]);
    this.ranges = [...others, { gpa, end, rights }].filter((r) => r.gpa < r.end && r.rights !== EPT_RWX);
    this.unmap(gpa, bytes);
  }

  /** Removes the mappings of [gpa, gpa + bytes), whole 4 KiB pages, and flushes when there were any; a violation brings them back. */
  unmap(gpa: number, bytes: number): void {
    checkPages(gpa, bytes);
    this.tree.dropRange(gpa, gpa + bytes);
    this.flushIfStale();
  }

  /** Removes every mapping. */
  zapAll(): void {
    this.unmap(0, 2 ** 48);
  }

  // ------------------------------------------------------------ accessed and dirty
  /**
   * Starts to log writes to [gpa, gpa + bytes), whole 4 KiB pages, in place of an earlier log. Nothing is dirty yet. `write-protect` costs an exit for
   * the first write to each page and works without dirty bits.
   */
  startDirtyLog(gpa: number, bytes: number, kind: DirtyLogKind = 'dirty-bit'): void {
    checkPages(gpa, bytes);
    this.log = new DirtyLog(gpa, bytes, kind);
    this.tree.splitRange(gpa, gpa + bytes);
    this.takeDirty();
  }

  /** Ends the log; its range may get large pages again, as violations come. */
  stopDirtyLog(): void {
    const { log } = this;
    this.log = undefined;
    if (log !== undefined) this.unmap(log.gpa, log.end - log.gpa);
  }

  /**
   * Pages written since the log started or was last taken: bit n of word w is page w * 32 + n of the range. Their dirty bits are clear (or they are read-only) afterwards.
   * @throws Error when no log is on
   */
  takeDirty(): Uint32Array {
    const { log, tree } = this;
    if (log === undefined) throw new Error('no dirty log is on: call startDirtyLog first');
    tree.eachLeaf(log.gpa, log.end, (word, at, level) => {
      if (tree.clearMark(word, log.marks)) log.mark(at, entryBytes(level));
    });
    this.flushIfStale();
    return log.take();
  }

  /** RAM was written by something other than the guest's CPU (a device): the log must say so. */
  markDirty(gpa: number, bytes: number): void {
    this.log?.mark(gpa, bytes);
  }

  /** Counts the leaves of [gpa, gpa + bytes) used since the last call, and clears their accessed bits. */
  takeAccessed(gpa: number, bytes: number): number {
    let used = 0;
    this.tree.eachLeaf(gpa, gpa + bytes, (word) => {
      if (this.tree.clearMark(word, EPT_A)) used++;
    });
    this.flushIfStale();
    return used;
  }

  // ------------------------------------------------------------ questions
  /** The entry that decides about `gpa`: not present (low & 7 === 0), a leaf, or misconfigured; and its level 1..4. */
  lookup(gpa: number): { low: number; high: number; level: number } {
    return this.tree.lookup(gpa);
  }

  stats(): SecondLevelStats {
    const { frames, built, zapped, splits, reclaims, leaves, mmioLeaves } = this.tree;
    return {
      frames: frames.frames,
      framesFree: frames.free,
      tablesBuilt: built,
      tablesZapped: zapped,
      leaves4K: leaves[1] as number,
      leaves2M: leaves[2] as number,
      leaves1G: leaves[3] as number,
      leavesMmio: mmioLeaves,
      splits,
      reclaims,
      flushes: this.flushes,
    };
  }

  /** @throws Error naming the first broken invariant; for tests and `--check-mmu` (walks the whole table) */
  check(): void {
    this.tree.check((gpa, level, low) => {
      const hpa = this.gpaToHpa(gpa);
      if (low === EPT_MMIO) return hpa >= 0 ? 'RAM is marked as device memory' : undefined;
      if (level > 1 && !this.mayBeLarge(gpa, level)) return 'page is larger than RAM, rights or the dirty log allow';
      if (hpa !== (low & EPT_ADDRESS) >>> 0) return 'leaf maps another frame';
      return (low & EPT_RWX & ~this.rightsAt(gpa)) !== 0 ? 'leaf has rights that its range does not' : undefined;
    });
  }

  private rightsAt(gpa: number): number {
    return this.ranges.find((r) => gpa >= r.gpa && gpa < r.end)?.rights ?? EPT_RWX;
  }

  /** Whether all of the page at `base` is RAM, contiguous and aligned in linear memory, with one set of rights, and not logged. */
  private mayBeLarge(base: number, level: number): boolean {
    const bytes = entryBytes(level);
    const end = base + bytes;
    if (level > this.largestLevel || this.log?.overlaps(base, bytes) === true) return false;
    if (this.ranges.some((r) => r.gpa < end && r.end > base && (r.gpa > base || r.end < end))) return false;
    const hpa = this.gpaToHpa(base);
    if (hpa < 0 || hpa % bytes !== 0) return false;
    const block = entryBytes(2);
    for (let at = 0; at < bytes; at += block) {
      if (this.gpaToHpa(base + at) !== hpa + at || this.gpaToHpa(base + at + block - 4096) !== hpa + at + block - 4096) return false;
    }
    return true;
  }

  private install(base: number, level: number, leaf: number): void {
    this.tree.install(base, level, leaf);
    this.flushIfStale();
  }

  private flushIfStale(): void {
    if (!this.tree.isStale) return;
    this.tree.isStale = false;
    this.flushes++;
    this.flushTlbs();
  }

  /** The tables themselves are in the frame pool, which whoever saves the machine saves with it. */
  state(s: StateIo): void {
    s.fields(this, ['tree', 'flushes']);
    this.ranges = s.value(
      'ranges',
      this.ranges.map((range) => ({ ...range })),
    );
    const log = s.value('log', this.log === undefined ? undefined : { gpa: this.log.gpa, end: this.log.end, isProtecting: this.log.isProtecting });
    if (s.restoring) this.log = log === undefined ? undefined : new DirtyLog(log.gpa, log.end - log.gpa, log.isProtecting ? 'write-protect' : 'dirty-bit');
    if (this.log !== undefined) s.part('written', this.log);
  }
}
