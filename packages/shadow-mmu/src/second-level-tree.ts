import type { Saveable, StateIo } from '@pvm/cpu-jit';
/**
 * The structure of a second-level table: a tree of frames whose entries are leaves or lead to the next level. It does not know why something is mapped.
 */
import { EPT_A, EPT_ADDRESS, EPT_D, EPT_LARGE, EPT_MMIO, EPT_RWX, entryBytes, gpaIndex, isLeaf, misconfigurationOf } from './second-level-entry.ts';
import { TableFrames } from './table-frames.ts';

const TOP_LEVEL = 4;
/** Frames that mapping one page may take: a path of three below the root. */
const ROOM_FOR_PATH = 3;

export type LeafVisitor = (word: number, gpa: number, level: number) => void;

export class SecondLevelTree implements Saveable {
  readonly frames: TableFrames;
  readonly root: number;
  built = 0;
  zapped = 0;
  splits = 0;
  reclaims = 0;
  /** Leaves in the tree by level; entries that mark device memory. */
  readonly leaves = new Float64Array(TOP_LEVEL);
  mmioLeaves = 0;
  /** An entry lost something since this was last cleared: TLBs may be stale. */
  isStale = false;
  private readonly onDirtyDropped: (gpa: number, bytes: number) => void;

  /** `onDirtyDropped`: a page leaves the tree with its dirty bit set. */
  constructor(memory: ArrayBufferLike, poolBase: number, poolFrames: number, onDirtyDropped: (gpa: number, bytes: number) => void) {
    this.frames = new TableFrames(memory, poolBase, poolFrames);
    this.onDirtyDropped = onDirtyDropped;
    this.root = this.frames.allocate();
  }

  /** The entry that decides about `gpa`: not present (low & 7 === 0), a leaf, or misconfigured; and its level 1..4. */
  lookup(gpa: number): { low: number; high: number; level: number } {
    let frame = this.root;
    for (let level = TOP_LEVEL; ; level--) {
      const word = this.frames.word(frame, gpaIndex(gpa, level));
      const low = this.frames.words[word] as number;
      const high = this.frames.words[word + 1] as number;
      if ((low & EPT_RWX) === 0 || isLeaf(low, level) || misconfigurationOf(low, high, level) !== undefined) return { low, high, level };
      frame = this.childOf(low);
    }
  }

  childOf(low: number): number {
    return (low >>> 12) - this.frames.base;
  }

  /** Puts a leaf in place of whatever the tree holds for [base, base + size of the level). */
  install(base: number, level: number, leaf: number): void {
    this.makeRoom();
    let frame = this.root;
    for (let at = TOP_LEVEL; at > level; at--) {
      const index = gpaIndex(base, at);
      const low = this.frames.words[this.frames.word(frame, index)] as number;
      if (low === 0) frame = this.addTable(frame, index, at);
      else frame = isLeaf(low, at) ? this.split(frame, index, at) : this.childOf(low);
    }
    const index = gpaIndex(base, level);
    const word = this.frames.word(frame, index);
    const old = this.frames.words[word] as number;
    // The same frame with more rights keeps its marks; anything else is dropped first, whatever it is.
    const grows = ((old ^ leaf) & (EPT_ADDRESS | EPT_LARGE)) === 0 && (old & EPT_RWX & ~leaf) === 0;
    if (old !== 0 && old !== EPT_MMIO && leaf !== EPT_MMIO && isLeaf(old, level) && grows) Atomics.or(this.frames.words, word, leaf);
    else if (old !== leaf) {
      if (old !== 0) this.drop(frame, index, level, base);
      this.put(frame, index, level, leaf);
    }
  }

  private makeRoom(): void {
    if (this.frames.free >= ROOM_FOR_PATH) return;
    this.reclaims++;
    this.dropRange(0, entryBytes(TOP_LEVEL) * 512);
  }

  private take(): number {
    const frame = this.frames.allocate();
    if (frame < 0) throw new Error('second-level frame pool is empty although room was made');
    this.built++;
    return frame;
  }

  private put(frame: number, index: number, level: number, low: number): void {
    this.frames.words[this.frames.word(frame, index)] = low;
    this.frames.present[frame] = (this.frames.present[frame] as number) + 1;
    this.count(low, level, 1);
  }

  private count(low: number, level: number, by: number): void {
    if (low === EPT_MMIO) this.mmioLeaves += by;
    else if (isLeaf(low, level)) this.leaves[level] = (this.leaves[level] as number) + by;
  }

  private addTable(frame: number, index: number, level: number): number {
    const child = this.take();
    this.put(frame, index, level, this.frames.hpa(child) | EPT_RWX | EPT_A);
    return child;
  }

  /** Replaces a large leaf by a table of its parts, which inherit rights and marks. The translations stay the same: nothing is stale. */
  private split(frame: number, index: number, level: number): number {
    const word = this.frames.word(frame, index);
    const low = this.frames.words[word] as number;
    const part = (low & ~EPT_LARGE) | (level > 2 ? EPT_LARGE : 0);
    const child = this.take();
    this.splits++;
    for (let i = 0; i < 512; i++) this.put(child, i, level - 1, part + i * entryBytes(level - 1));
    this.count(low, level, -1);
    const marks = Atomics.exchange(this.frames.words, word, this.frames.hpa(child) | EPT_RWX | EPT_A) & (EPT_A | EPT_D);
    // A vCPU may have set a mark since the entry was read.
    if ((marks & ~low) !== 0) for (let i = 0; i < 512; i++) Atomics.or(this.frames.words, this.frames.word(child, i), marks);
    return child;
  }

  /** Splits the large leaves that [gpa, end) meets down to 4 KiB; drops everything when there is no room for that. */
  splitRange(gpa: number, end: number): void {
    for (let at = gpa; at < end; ) {
      const { low, level } = this.lookup(at);
      if ((low & EPT_RWX) === 0 || level === 1) at += entryBytes(level) - (at % entryBytes(level));
      else {
        this.makeRoom();
        if (this.lookup(at).level === level) this.split(this.tableAt(at, level), gpaIndex(at, level), level);
      }
    }
  }

  /** The table of a level on the path to `gpa`, which is there. */
  private tableAt(gpa: number, level: number): number {
    let frame = this.root;
    for (let at = TOP_LEVEL; at > level; at--) frame = this.childOf(this.frames.words[this.frames.word(frame, gpaIndex(gpa, at))] as number);
    return frame;
  }

  /** Empties an entry and frees the tables below it. */
  private drop(frame: number, index: number, level: number, gpa: number): void {
    const word = this.frames.word(frame, index);
    const low = Atomics.exchange(this.frames.words, word, 0);
    this.frames.words[word + 1] = 0;
    this.frames.present[frame] = (this.frames.present[frame] as number) - 1;
    this.isStale = true;
    this.count(low, level, -1);
    if (low === EPT_MMIO) return;
    if (isLeaf(low, level)) {
      if ((low & EPT_D) !== 0) this.onDirtyDropped(gpa, entryBytes(level));
      return;
    }
    const child = this.childOf(low);
    for (let i = 0; this.frames.present[child] !== 0; i++) {
      if (this.frames.words[this.frames.word(child, i)] !== 0) this.drop(child, i, level - 1, gpa + i * entryBytes(level - 1));
    }
    this.zapped++;
    this.frames.release(child);
  }

  /** Drops what [gpa, end) maps. A large leaf that reaches out of it is split, or dropped as a whole when there is no frame to split it into. */
  dropRange(gpa: number, end: number): void {
    this.dropIn(this.root, TOP_LEVEL, 0, gpa, end);
  }

  private dropIn(frame: number, level: number, base: number, gpa: number, end: number): void {
    const bytes = entryBytes(level);
    const last = lastIndex(base, bytes, end);
    for (let index = firstIndex(base, bytes, gpa); index <= last; index++) {
      const low = this.frames.words[this.frames.word(frame, index)] as number;
      const at = base + index * bytes;
      if (low === 0) continue;
      const isWhole = at >= gpa && at + bytes <= end;
      if (isWhole || (isLeaf(low, level) && this.frames.free === 0)) this.drop(frame, index, level, at);
      else this.dropIn(isLeaf(low, level) ? this.split(frame, index, level) : this.childOf(low), level - 1, at, gpa, end);
    }
  }

  /** Calls `visit` for every leaf of RAM that [gpa, end) meets; `word` is the index of its low word. */
  eachLeaf(gpa: number, end: number, visit: LeafVisitor): void {
    this.eachIn(this.root, TOP_LEVEL, 0, gpa, end, visit);
  }

  private eachIn(frame: number, level: number, base: number, gpa: number, end: number, visit: LeafVisitor): void {
    const bytes = entryBytes(level);
    const last = lastIndex(base, bytes, end);
    for (let index = firstIndex(base, bytes, gpa); index <= last; index++) {
      const word = this.frames.word(frame, index);
      const low = this.frames.words[word] as number;
      if (low === 0 || low === EPT_MMIO) continue;
      if (isLeaf(low, level)) visit(word, base + index * bytes, level);
      else this.eachIn(this.childOf(low), level - 1, base + index * bytes, gpa, end, visit);
    }
  }

  /** Clears a mark of an entry; whether it was set. The TLBs are stale then. */
  clearMark(word: number, mark: number): boolean {
    const wasSet = (Atomics.and(this.frames.words, word, ~mark) & mark) !== 0;
    this.isStale ||= wasSet;
    return wasSet;
  }

  /**
   * Checks the tree against its counts, and each leaf with `checkLeaf`.
   * @throws Error naming the first broken invariant
   */
  check(checkLeaf: (gpa: number, level: number, low: number) => string | undefined): void {
    const leaves = new Float64Array(TOP_LEVEL);
    let mmio = 0;
    let tables = 1;
    const visit = (frame: number, level: number, base: number): void => {
      let present = 0;
      for (let index = 0; index < 512; index++) {
        const word = this.frames.word(frame, index);
        const low = this.frames.words[word] as number;
        const high = this.frames.words[word + 1] as number;
        if ((low | high) === 0) continue;
        present++;
        const gpa = base + index * entryBytes(level);
        const fail = (what: string): never => broken(`${what} (gpa 0x${gpa.toString(16)} level ${level} entry 0x${(low >>> 0).toString(16)})`);
        const isMmio = level === 1 && low === EPT_MMIO && high === 0;
        const problem = isMmio ? undefined : misconfigurationOf(low, high, level);
        if (problem !== undefined) fail(problem);
        if (isMmio) mmio++;
        else if (isLeaf(low, level)) leaves[level] = (leaves[level] as number) + 1;
        else {
          const child = this.childOf(low);
          if (child <= 0 || child >= this.frames.frames || this.frames.present[child] === -1) fail('entry leads to a free frame');
          if (++tables > this.frames.frames) fail('tables form a loop');
          visit(child, level - 1, gpa);
          continue;
        }
        const wrong = checkLeaf(gpa, level, low);
        if (wrong !== undefined) fail(wrong);
      }
      if (present !== this.frames.present[frame]) broken(`frame ${frame} has ${present} entries, ${this.frames.present[frame]} counted`);
    };
    visit(this.root, TOP_LEVEL, 0);
    const used = this.frames.frames - this.frames.free;
    if (tables !== used) broken(`${tables} tables in the tree, ${used} in use`);
    if (mmio !== this.mmioLeaves || leaves.some((n, level) => n !== this.leaves[level])) broken('leaves are miscounted');
  }

  state(s: StateIo): void {
    s.fields(this, ['frames', 'built', 'zapped', 'splits', 'reclaims', 'leaves', 'mmioLeaves', 'isStale']);
  }
}

function broken(what: string): never {
  throw new Error(`second-level invariant broken: ${what}`);
}

function firstIndex(base: number, bytes: number, gpa: number): number {
  return Math.max(0, Math.floor((gpa - base) / bytes));
}
function lastIndex(base: number, bytes: number, end: number): number {
  return Math.min(511, Math.ceil((end - base) / bytes) - 1);
}
