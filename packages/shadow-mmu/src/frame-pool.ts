import type { Saveable, StateIo } from '@pvm/cpu-jit';
/**
 * The frames shadow pages live in, their metadata by frame number, and the intrusive lists that tie entries together.
 *
 * Everything is typed arrays indexed by small integers, so the hot paths allocate nothing and several threads can share it. A shadow entry is named by
 * `sidx` = frame * 512 + index. Each present entry is in exactly one list: a leaf in the reverse map (rmap) of the guest frame it maps, any other in the
 * parent list of the shadow page it points to. Frame 0 is never handed out: it is the empty table that stands for "no root", and makes sidx 0 mean "none".
 */
import { ROLE_LEVEL } from './paging.ts';

export class FramePool implements Saveable {
  /** The linear memory as 32-bit words. */
  readonly words: Int32Array;
  /** Word index of entry 0 of frame 0: entry `sidx` is at `word0 + sidx * 2`. */
  readonly word0: number;
  /** HPA >> 12 of frame 0. */
  readonly base: number;
  readonly frames: number;
  /** Role of the shadow page in each frame, 0: free. */
  readonly role: Int32Array;
  /** RAM frame number of the guest table shadowed; for direct pages the guest-physical address >> 21. */
  readonly key: Int32Array;
  /** Present entries of each frame. */
  readonly present: Int32Array;
  /** Slots of any vCPU whose root this is; vCPUs for which it is the root of the current slot. */
  readonly slotUses: Int32Array;
  readonly currentUses: Int32Array;
  /** Used since the reclaim hand passed. */
  readonly referenced: Uint8Array;
  /** 1: the guest table may be written without us, and was perhaps. */
  readonly unsync: Uint8Array;
  /** Entries that lead, perhaps over more tables, to unsync pages: their number by frame, and a bit for each. */
  readonly unsyncChildren: Int32Array;
  readonly unsyncBits: Int32Array;
  /** Emulated writes to the guest table since a fault last went through this page. */
  readonly writes: Uint16Array;
  /** Next shadow page made from the same guest frame, or next free frame; 0: end. */
  readonly nextPage: Int32Array;
  readonly prevPage: Int32Array;
  /** Heads of the entry lists: rmap by RAM frame, rmap of large leaves by 2 MiB block, parents by pool frame. */
  readonly heads: Int32Array;
  readonly blockHeads: number;
  readonly parentHeads: number;
  readonly next: Int32Array;
  /** Previous entry, or ~(index of the head) for the first. */
  readonly prev: Int32Array;
  free = 0;
  private firstFree = 0;

  /** The frames in `memory` must be zero, as new memory is: writing to them would make all of them resident. */
  constructor(memory: ArrayBufferLike, base: number, frames: number, ramFrames: number) {
    this.words = new Int32Array(memory);
    this.word0 = base >>> 2;
    this.base = base >>> 12;
    this.frames = frames;
    this.role = new Int32Array(frames);
    this.key = new Int32Array(frames);
    this.present = new Int32Array(frames);
    this.slotUses = new Int32Array(frames);
    this.currentUses = new Int32Array(frames);
    this.referenced = new Uint8Array(frames);
    this.unsync = new Uint8Array(frames);
    this.unsyncChildren = new Int32Array(frames);
    this.unsyncBits = new Int32Array(frames * 16);
    this.writes = new Uint16Array(frames);
    this.nextPage = new Int32Array(frames);
    this.prevPage = new Int32Array(frames);
    this.blockHeads = ramFrames;
    this.parentHeads = ramFrames + ((ramFrames + 511) >>> 9);
    this.heads = new Int32Array(this.parentHeads + frames);
    this.next = new Int32Array(frames * 512);
    this.prev = new Int32Array(frames * 512);
    this.freeAll();
  }

  /** Forgets every shadow page and empties the frames. */
  clear(): void {
    this.words.fill(0, this.word0, this.word0 + this.frames * 1024);
    for (const array of [
      this.role,
      this.key,
      this.present,
      this.slotUses,
      this.currentUses,
      this.nextPage,
      this.prevPage,
      this.heads,
      this.next,
      this.prev,
      this.unsyncChildren,
      this.unsyncBits,
    ]) {
      array.fill(0);
    }
    this.referenced.fill(0);
    this.unsync.fill(0);
    this.writes.fill(0);
    this.freeAll();
  }

  private freeAll(): void {
    for (let frame = 1; frame < this.frames - 1; frame++) this.nextPage[frame] = frame + 1;
    this.firstFree = 1;
    this.free = this.frames - 1;
  }

  /** Takes an empty frame; 0 when there is none. */
  allocate(role: number, key: number): number {
    const frame = this.firstFree;
    if (frame === 0) return 0;
    this.firstFree = this.nextPage[frame] as number;
    this.free--;
    this.role[frame] = role;
    this.key[frame] = key;
    this.referenced[frame] = 1;
    this.writes[frame] = 0;
    return frame;
  }

  /** Gives back a frame that holds no present entry and is in no list. */
  release(frame: number): void {
    this.role[frame] = 0;
    this.nextPage[frame] = this.firstFree;
    this.firstFree = frame;
    this.free++;
  }

  /** Byte address of a frame. */
  hpa(frame: number): number {
    return (this.base + frame) * 4096;
  }

  level(frame: number): number {
    return (this.role[frame] as number) & ROLE_LEVEL;
  }

  low(sidx: number): number {
    return this.words[this.word0 + sidx * 2] as number;
  }

  /** Writes a present entry that was not present. The low word, which has the present bit, goes last. */
  put(sidx: number, low: number, high: number, head: number): void {
    const word = this.word0 + sidx * 2;
    this.words[word + 1] = high;
    this.words[word] = low;
    this.present[sidx >>> 9] = (this.present[sidx >>> 9] as number) + 1;
    const first = this.heads[head] as number;
    this.next[sidx] = first;
    this.prev[sidx] = ~head;
    if (first !== 0) this.prev[first] = sidx;
    this.heads[head] = sidx;
  }

  /** Empties a present entry and takes it out of its list. */
  clearEntry(sidx: number): void {
    const word = this.word0 + sidx * 2;
    this.words[word] = 0;
    this.words[word + 1] = 0;
    this.present[sidx >>> 9] = (this.present[sidx >>> 9] as number) - 1;
    const next = this.next[sidx] as number;
    const prev = this.prev[sidx] as number;
    if (prev < 0) this.heads[~prev] = next;
    else this.next[prev] = next;
    if (next !== 0) this.prev[next] = prev;
    this.prev[sidx] = 0;
    this.next[sidx] = 0;
    if (this.unsyncChildren[sidx >>> 9] !== 0) this.clearUnsyncChild(sidx);
  }

  /** Notes that an entry leads to an unsync page; false when that was known. */
  setUnsyncChild(sidx: number): boolean {
    const bits = this.unsyncBits[sidx >>> 5] as number;
    const bit = 1 << (sidx & 31);
    if ((bits & bit) !== 0) return false;
    this.unsyncBits[sidx >>> 5] = bits | bit;
    this.unsyncChildren[sidx >>> 9] = (this.unsyncChildren[sidx >>> 9] as number) + 1;
    return true;
  }

  clearUnsyncChild(sidx: number): void {
    const bits = this.unsyncBits[sidx >>> 5] as number;
    const bit = 1 << (sidx & 31);
    if ((bits & bit) === 0) return;
    this.unsyncBits[sidx >>> 5] = bits & ~bit;
    this.unsyncChildren[sidx >>> 9] = (this.unsyncChildren[sidx >>> 9] as number) - 1;
  }

  /** True when no shadow entry and no slot refers to a page. */
  isOrphan(frame: number): boolean {
    return this.heads[this.parentHeads + frame] === 0 && this.slotUses[frame] === 0;
  }

  state(s: StateIo): void {
    s.fields(this, [
      'role',
      'key',
      'present',
      'slotUses',
      'currentUses',
      'referenced',
      'unsync',
      'unsyncChildren',
      'unsyncBits',
      'writes',
      'nextPage',
      'prevPage',
      'heads',
      'next',
      'prev',
      'free',
      'firstFree',
    ]);
  }
}
