import type { Saveable, StateIo } from '@pvm/cpu-jit';

/** Bytes that wait to be taken, in the order in which they came; pieces are kept as they are until then. */
export class ByteQueue implements Saveable {
  private pieces: Uint8Array[] = [];
  private total = 0;

  get length(): number {
    return this.total;
  }

  /** Adds a copy of `data`. */
  put(data: Uint8Array): void {
    if (data.length === 0) return;
    this.pieces.push(data.slice());
    this.total += data.length;
  }

  /** Up to `max` bytes from the front. */
  take(max: number): Uint8Array {
    const bytes = new Uint8Array(Math.min(max, this.total));
    for (let at = 0; at < bytes.length; ) {
      const head = this.pieces[0];
      if (head === undefined) break;
      const n = Math.min(head.length, bytes.length - at);
      bytes.set(head.subarray(0, n), at);
      at += n;
      if (n === head.length) this.pieces.shift();
      else this.pieces[0] = head.subarray(n);
    }
    this.total -= bytes.length;
    return bytes;
  }

  clear(): void {
    this.pieces = [];
    this.total = 0;
  }

  state(s: StateIo): void {
    s.fields(this, ['pieces', 'total']);
  }
}
