import type { StateIo } from '@pvm/cpu-jit';
import { MachineError } from '../errors.ts';
import { type BlockBackend, checkSize, SECTOR } from './block-backend.ts';

/** A disk in host memory. Writes go into the array it was made of. */
export class MemoryBackend implements BlockBackend {
  readonly size: number;
  readonly readOnly: boolean;
  private readonly bytes: Uint8Array;

  /** @throws MachineError `bad-disk` when the size is not a positive multiple of a sector */
  constructor(bytes: Uint8Array, readOnly = false) {
    if (bytes.length === 0 || bytes.length % SECTOR !== 0)
      throw new MachineError('bad-disk', `a disk has whole sectors of ${SECTOR} bytes, got ${bytes.length}`);
    this.bytes = bytes;
    this.size = bytes.length;
    this.readOnly = readOnly;
  }

  read(offset: number, buffers: readonly Uint8Array[]): void {
    let at = offset;
    for (const buffer of buffers) {
      buffer.set(this.bytes.subarray(at, at + buffer.length));
      at += buffer.length;
    }
  }

  write(offset: number, buffers: readonly Uint8Array[]): void {
    let at = offset;
    for (const buffer of buffers) {
      this.bytes.set(buffer, at);
      at += buffer.length;
    }
  }

  flush(): void {
    // Nothing is cached.
  }

  writeZeroes(offset: number, length: number): void {
    this.bytes.fill(0, offset, offset + length);
  }

  discard(offset: number, length: number): void {
    this.writeZeroes(offset, length);
  }

  close(): void {
    // Nothing to let go.
  }

  /** All of it, unless nothing can change it. */
  state(s: StateIo): void {
    checkSize(s, this.size);
    if (!this.readOnly) s.fields(this, ['bytes']);
  }
}
