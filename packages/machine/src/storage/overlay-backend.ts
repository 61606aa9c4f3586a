import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { StateError, type StateIo } from '@pvm/cpu-jit';
import { type BlockBackend, checkSize, SECTOR } from './block-backend.ts';
import { FileBackend } from './file-backend.ts';

/** Written sectors go into a snapshot in pieces of at most so many bytes. */
const SAVED_PIECE = 1 << 20;

/**
 * Copy on write: reads come from `base` until a sector is written; writes go to a sparse temporary file that is deleted at
 * once, so that nothing of them outlives the process. Host memory: one bit per sector.
 */
export class OverlayBackend implements BlockBackend {
  readonly size: number;
  readonly readOnly = false;
  private readonly base: BlockBackend;
  private readonly overlay: FileBackend;
  private readonly written: Uint32Array;

  constructor(base: BlockBackend) {
    this.base = base;
    this.size = base.size;
    this.written = new Uint32Array(Math.ceil(base.size / SECTOR / 32));
    const folder = mkdtempSync(join(tmpdir(), 'pvm-snapshot-'));
    try {
      const path = join(folder, 'overlay');
      writeFileSync(path, '', { mode: 0o600 });
      truncateSync(path, base.size);
      this.overlay = new FileBackend(path, false);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  read(offset: number, buffers: readonly Uint8Array[]): void {
    let at = offset;
    for (const buffer of buffers) {
      for (let done = 0; done < buffer.length; ) {
        const n = this.run(at, buffer.length - done);
        const source = this.has(at / SECTOR) ? this.overlay : this.base;
        source.read(Math.floor(at), [buffer.subarray(done, done + n)]);
        done += n;
        at += n;
      }
    }
  }

  write(offset: number, buffers: readonly Uint8Array[]): void {
    this.overlay.write(offset, buffers);
    this.mark(
      offset,
      buffers.reduce((sum, b) => sum + b.length, 0),
    );
  }

  flush(): void {
    // A snapshot does not survive anyway.
  }

  writeZeroes(offset: number, length: number): void {
    this.overlay.writeZeroes(offset, length);
    this.mark(offset, length);
  }

  discard(): void {
    // Keeping the content is allowed.
  }

  close(): void {
    this.overlay.close();
    this.base.close();
  }

  private has(sector: number): boolean {
    const i = Math.floor(sector);
    return (((this.written[i >>> 5] ?? 0) >>> (i & 31)) & 1) !== 0;
  }

  private mark(offset: number, length: number): void {
    for (let s = offset / SECTOR; s < (offset + length) / SECTOR; s++) this.written[s >>> 5] = (this.written[s >>> 5] ?? 0) | (1 << (s & 31));
  }

  /** Bytes from `at` on, at most `max`, that come from the same place. Buffers may cut sectors. */
  private run(at: number, max: number): number {
    const from = this.has(at / SECTOR);
    let end = (Math.floor(at / SECTOR) + 1) * SECTOR;
    while (end < at + max && this.has(end / SECTOR) === from) end += SECTOR;
    return Math.min(end - at, max);
  }

  /** The sectors that were written. What the base has is expected to be there still. */
  state(s: StateIo): void {
    checkSize(s, this.size);
    if (s.restoring) this.restorePieces(s);
    else this.savePieces(s);
  }

  private savePieces(s: StateIo): void {
    const pieces = this.pieces();
    s.value('pieces', pieces.length);
    for (const { offset, length } of pieces) {
      const bytes = new Uint8Array(length);
      this.overlay.read(offset, [bytes]);
      s.value('offset', offset);
      s.value('bytes', bytes);
    }
  }

  private restorePieces(s: StateIo): void {
    this.written.fill(0);
    const count = s.value('pieces', 0);
    for (let i = 0; i < count; i++) {
      const offset = s.value('offset', 0);
      const bytes = s.value('bytes', new Uint8Array(0));
      const isInside = offset % SECTOR === 0 && bytes.length % SECTOR === 0 && offset >= 0 && offset + bytes.length <= this.size;
      if (!isInside) throw new StateError(`a piece of ${bytes.length} bytes at ${offset} is not on a disk of ${this.size}`);
      this.write(offset, [bytes]);
    }
  }

  /** Runs of written sectors, cut into pieces. */
  private pieces(): { offset: number; length: number }[] {
    const found: { offset: number; length: number }[] = [];
    for (let at = 0; at < this.size; ) {
      const sector = at / SECTOR;
      if (this.written[sector >>> 5] === 0) {
        at = (Math.floor(sector / 32) + 1) * 32 * SECTOR;
      } else if (this.has(sector)) {
        const length = Math.min(this.run(at, SAVED_PIECE), this.size - at);
        found.push({ offset: at, length });
        at += length;
      } else at += SECTOR;
    }
    return found;
  }
}
