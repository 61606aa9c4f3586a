import type { Saveable, StateIo } from '@pvm/cpu-jit';
/** A pool of zeroed 4 KiB frames for tables that are a plain tree: each frame has one parent. */
export class TableFrames implements Saveable {
  /** The linear memory as 32-bit words. */
  readonly words: Int32Array;
  /** HPA >> 12 of frame 0. */
  readonly base: number;
  readonly frames: number;
  /** Present entries of each frame; -1: the frame is free. */
  readonly present: Int32Array;
  private readonly stack: Int32Array;
  free = 0;

  constructor(memory: ArrayBufferLike, base: number, frames: number) {
    this.words = new Int32Array(memory);
    this.base = base >>> 12;
    this.frames = frames;
    this.present = new Int32Array(frames);
    this.stack = new Int32Array(frames);
    this.clear();
  }

  /** Empties and frees every frame. */
  clear(): void {
    this.words.fill(0, this.base * 1024, (this.base + this.frames) * 1024);
    this.present.fill(-1);
    for (let i = 0; i < this.frames; i++) this.stack[i] = this.frames - 1 - i;
    this.free = this.frames;
  }

  /** Takes an empty frame, -1 when there is none. */
  allocate(): number {
    if (this.free === 0) return -1;
    const frame = this.stack[--this.free] as number;
    this.present[frame] = 0;
    return frame;
  }

  /** Gives back a frame without present entries. */
  release(frame: number): void {
    this.present[frame] = -1;
    this.stack[this.free++] = frame;
  }

  hpa(frame: number): number {
    return (this.base + frame) * 4096;
  }

  /** Index in `words` of the low word of an entry. */
  word(frame: number, index: number): number {
    return (this.base + frame) * 1024 + index * 2;
  }

  state(s: StateIo): void {
    s.fields(this, ['present', 'stack', 'free']);
  }
}
