import { closeSync, constants, fdatasyncSync, fstatSync, openSync, readvSync, writevSync } from 'node:fs';
import type { StateIo } from '@pvm/cpu-jit';
import { fileProblem, MachineError } from '../errors.ts';
import { type BlockBackend, checkSize, SECTOR } from './block-backend.ts';

const ZEROES = new Uint8Array(1 << 16);

/** A raw disk image. A size that is no multiple of a sector is rounded up; the rest reads as zeros. */
export class FileBackend implements BlockBackend {
  readonly size: number;
  readonly readOnly: boolean;
  private fd: number;

  /** @throws MachineError `bad-disk` */
  constructor(path: string, readOnly: boolean) {
    try {
      // Not to wait for the other end of a pipe.
      this.fd = openSync(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK);
    } catch (cause) {
      const problem = fileProblem(cause);
      const advice = readOnly || !/denied|permitted|read-only/.test(problem) ? '' : ' for writing; readonly=on or snapshot=on leaves it as it is';
      throw new MachineError('bad-disk', `${path}: ${problem}${advice}; expected a raw disk image`);
    }
    const stat = fstatSync(this.fd);
    this.readOnly = readOnly;
    this.size = Math.ceil(stat.size / SECTOR) * SECTOR;
    if (!stat.isFile() || this.size === 0) {
      closeSync(this.fd);
      throw new MachineError('bad-disk', `${path}: ${stat.isFile() ? 'is empty' : 'is not a regular file'}; expected a raw disk image`);
    }
  }

  read(offset: number, buffers: readonly Uint8Array[]): void {
    let at = offset;
    let rest = [...buffers];
    while (rest.length > 0) {
      const n = readvSync(this.fd, rest, at);
      if (n === 0) {
        for (const buffer of rest) buffer.fill(0);
        return;
      }
      at += n;
      rest = skip(rest, n);
    }
  }

  write(offset: number, buffers: readonly Uint8Array[]): void {
    let at = offset;
    let rest = [...buffers];
    while (rest.length > 0) {
      const n = writevSync(this.fd, rest, at);
      at += n;
      rest = skip(rest, n);
    }
  }

  flush(): void {
    if (!this.readOnly) fdatasyncSync(this.fd);
  }

  writeZeroes(offset: number, length: number): void {
    for (let at = 0; at < length; at += ZEROES.length) this.write(offset + at, [ZEROES.subarray(0, Math.min(ZEROES.length, length - at))]);
  }

  discard(): void {
    // Node offers no hole punching; keeping the content is allowed.
  }

  close(): void {
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = -1;
  }

  /** The image is the file; a snapshot finds it complete there. */
  state(s: StateIo): void {
    if (!s.restoring) this.flush();
    checkSize(s, this.size);
  }
}

/** What remains of a list of buffers after its first `n` bytes. */
function skip(buffers: readonly Uint8Array[], n: number): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let left = n;
  for (const buffer of buffers) {
    if (left >= buffer.length) left -= buffer.length;
    else {
      rest.push(buffer.subarray(left));
      left = 0;
    }
  }
  return rest;
}
