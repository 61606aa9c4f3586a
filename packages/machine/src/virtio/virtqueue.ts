import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { GuestRam } from '../ram.ts';

// Virtual I/O Device (VIRTIO) 1.2, section 2.7: split virtqueues.
const DESCRIPTOR_SIZE = 16;
const DESC_NEXT = 1;
const DESC_WRITE = 2;
const DESC_INDIRECT = 4;
const AVAIL_NO_INTERRUPT = 1;
/** Largest queue a device offers. */
export const MAX_QUEUE_SIZE = 256;
/** Longest list of descriptors in an indirect table that is walked. */
const MAX_INDIRECT = 1024;

/** The driver's rings are malformed. The device stops and asks for a reset; the machine goes on. */
export class VirtqueueError extends Error {
  override readonly name = 'VirtqueueError';
}

/** A buffer in guest RAM; checked to lie inside it. */
export interface Segment {
  readonly gpa: number;
  readonly length: number;
}

/** A descriptor chain: what the device may read, then what it may write. */
export interface Chain {
  readonly head: number;
  readonly readable: readonly Segment[];
  readonly writable: readonly Segment[];
}

/** One split virtqueue, the device's side. All ring memory is the guest's and believed only after checks. */
export class Virtqueue implements Saveable {
  readonly maxSize: number;
  size: number;
  ready = false;
  /** Guest-physical addresses of descriptor table, driver area (available ring) and device area (used ring). */
  descriptors = 0n;
  driver = 0n;
  device = 0n;
  private readonly ram: GuestRam;
  private table = 0;
  private available = 0;
  private used = 0;
  private nextAvailable = 0;
  private nextUsed = 0;
  private signalled = 0;
  private eventIndex = false;
  private indirect = false;

  constructor(ram: GuestRam, maxSize = MAX_QUEUE_SIZE) {
    this.ram = ram;
    this.maxSize = maxSize;
    this.size = maxSize;
  }

  reset(): void {
    this.size = this.maxSize;
    this.ready = false;
    this.descriptors = 0n;
    this.driver = 0n;
    this.device = 0n;
    this.nextAvailable = 0;
    this.nextUsed = 0;
    this.signalled = 0;
  }

  /**
   * The driver enables the queue with the features it accepted.
   *
   * @throws VirtqueueError when size or addresses are impossible
   */
  enable(eventIndex: boolean, indirect: boolean): void {
    const { size } = this;
    if (size === 0 || size > this.maxSize || (size & (size - 1)) !== 0)
      throw new VirtqueueError(`queue size ${size} is not a power of two up to ${this.maxSize}`);
    this.table = this.place(this.descriptors, DESCRIPTOR_SIZE * size, 16, 'descriptor table');
    this.available = this.place(this.driver, 6 + 2 * size, 2, 'available ring');
    this.used = this.place(this.device, 6 + 8 * size, 4, 'used ring');
    this.eventIndex = eventIndex;
    this.indirect = indirect;
    this.ready = true;
  }

  /** Next chain the driver made available, undefined: none. @throws VirtqueueError */
  pop(): Chain | undefined {
    if (!this.ready) return undefined;
    const { view } = this.ram;
    const index = view.getUint16(this.available + 2, true);
    const waiting = (index - this.nextAvailable) & 0xffff;
    if (waiting === 0) {
      // Ask to be told about the next chain, then look again: it may have come in between.
      if (this.eventIndex) view.setUint16(this.used + 4 + 8 * this.size, this.nextAvailable, true);
      return undefined;
    }
    if (waiting > this.size) throw new VirtqueueError(`available index ${index} is ${waiting} ahead in a queue of ${this.size}`);
    const head = view.getUint16(this.available + 4 + 2 * (this.nextAvailable % this.size), true);
    const chain = this.walk(head);
    this.nextAvailable = (this.nextAvailable + 1) & 0xffff;
    return chain;
  }

  /** Give a chain back with `written` bytes in its writable part. */
  push(chain: Chain, written: number): void {
    const { view } = this.ram;
    const at = this.used + 4 + 8 * (this.nextUsed % this.size);
    view.setUint32(at, chain.head, true);
    view.setUint32(at + 4, written, true);
    this.nextUsed = (this.nextUsed + 1) & 0xffff;
    view.setUint16(this.used + 2, this.nextUsed, true);
  }

  /** Whether the chains given back since the last call need an interrupt (2.7.7). */
  takeInterrupt(): boolean {
    if (!this.ready || this.signalled === this.nextUsed) return false;
    const { view } = this.ram;
    const before = this.signalled;
    this.signalled = this.nextUsed;
    if (!this.eventIndex) return (view.getUint16(this.available, true) & AVAIL_NO_INTERRUPT) === 0;
    const event = view.getUint16(this.available + 4 + 2 * this.size, true);
    return ((this.nextUsed - event - 1) & 0xffff) < ((this.nextUsed - before) & 0xffff);
  }

  private walk(head: number): Chain {
    const readable: Segment[] = [];
    const writable: Segment[] = [];
    let table = this.table;
    let entries = this.size;
    let index = head;
    let inIndirect = false;
    let total = 0;
    for (let steps = 0; ; steps++) {
      if (steps > entries) throw new VirtqueueError(`descriptor chain from ${head} loops`);
      if (index >= entries) throw new VirtqueueError(`descriptor index ${index} in a table of ${entries}`);
      const at = table + index * DESCRIPTOR_SIZE;
      const { view } = this.ram;
      const address = view.getBigUint64(at, true);
      const length = view.getUint32(at + 8, true);
      const flags = view.getUint16(at + 12, true);
      const next = view.getUint16(at + 14, true);
      if ((flags & DESC_INDIRECT) !== 0) {
        if (!this.indirect || inIndirect) throw new VirtqueueError('indirect descriptor where none is allowed');
        if ((flags & DESC_NEXT) !== 0 || length === 0 || length % DESCRIPTOR_SIZE !== 0) throw new VirtqueueError(`indirect table of ${length} bytes`);
        entries = length / DESCRIPTOR_SIZE;
        if (entries > MAX_INDIRECT) throw new VirtqueueError(`indirect table of ${entries} entries; at most ${MAX_INDIRECT}`);
        table = this.place(address, length, 1, 'indirect table');
        index = 0;
        inIndirect = true;
        steps = -1;
        continue;
      }
      const segment = { gpa: this.place(address, length, 1, 'buffer'), length };
      // Such a chain overlaps itself: no driver makes one, and serving it could take the host hours.
      total += length;
      if (total > this.ram.size) throw new VirtqueueError(`descriptor chain from ${head} is longer than RAM`);
      if ((flags & DESC_WRITE) !== 0) writable.push(segment);
      else if (writable.length > 0) throw new VirtqueueError('readable descriptor after a writable one');
      else readable.push(segment);
      if ((flags & DESC_NEXT) === 0) return { head, readable, writable };
      index = next;
    }
  }

  private place(address: bigint, length: number, alignment: number, what: string): number {
    const gpa = Number(address);
    if (address % BigInt(alignment) !== 0n || address >= BigInt(this.ram.size) || !this.ram.contains(gpa, length)) {
      throw new VirtqueueError(`${what} at 0x${address.toString(16)}, ${length} bytes, is not ${alignment === 1 ? '' : 'aligned '}RAM`);
    }
    return gpa;
  }

  state(s: StateIo): void {
    s.fields(this, [
      'size',
      'ready',
      'descriptors',
      'driver',
      'device',
      'table',
      'available',
      'used',
      'nextAvailable',
      'nextUsed',
      'signalled',
      'eventIndex',
      'indirect',
    ]);
  }
}

/** Total bytes of a list of segments. */
export function totalLength(segments: readonly Segment[]): number {
  return segments.reduce((sum, s) => sum + s.length, 0);
}

/** The part [offset, offset + length) of a list of segments; shorter when the list ends before. */
export function subSegments(segments: readonly Segment[], offset: number, length: number): Segment[] {
  const result: Segment[] = [];
  let skip = offset;
  let left = length;
  for (const s of segments) {
    if (left <= 0) break;
    if (skip >= s.length) {
      skip -= s.length;
      continue;
    }
    const n = Math.min(s.length - skip, left);
    result.push({ gpa: s.gpa + skip, length: n });
    left -= n;
    skip = 0;
  }
  return result;
}

/** Copy the first `max` bytes of readable segments out of guest RAM. */
export function readSegments(ram: GuestRam, segments: readonly Segment[], max: number): Uint8Array {
  const bytes = new Uint8Array(Math.min(max, totalLength(segments)));
  let at = 0;
  for (const s of segments) {
    const n = Math.min(s.length, bytes.length - at);
    bytes.set(ram.slice(s.gpa, n), at);
    at += n;
  }
  return bytes;
}

/** Copy bytes into writable segments. @returns how many fitted */
export function writeSegments(ram: GuestRam, segments: readonly Segment[], bytes: Uint8Array): number {
  let at = 0;
  for (const s of segments) {
    const n = Math.min(s.length, bytes.length - at);
    if (n > 0) ram.write(s.gpa, bytes.subarray(at, at + n));
    at += n;
  }
  return at;
}
