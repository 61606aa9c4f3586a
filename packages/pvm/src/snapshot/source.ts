import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { fileProblem } from '@pvm/machine';
import { PvmError } from '../errors.ts';
import { badSnapshot } from './format.ts';

const READ_SIZE = 4 << 20;

/** The bytes of a snapshot, in a file or in memory. */
export class SnapshotSource {
  /** For messages. */
  readonly name: string;
  readonly size: number;
  private readonly bytes: Uint8Array<ArrayBuffer> | undefined;
  private fd = -1;

  /** @throws PvmError `unreadable-file` */
  constructor(from: string | Uint8Array) {
    if (typeof from !== 'string') {
      this.name = 'snapshot';
      // Not a Buffer, whose slices would be views.
      this.bytes = new Uint8Array(from.buffer as ArrayBuffer, from.byteOffset, from.byteLength);
      this.size = from.length;
      return;
    }
    this.name = from;
    try {
      // Not to wait for the writer of a pipe.
      this.fd = openSync(from, constants.O_RDONLY | constants.O_NONBLOCK);
      this.size = fstatSync(this.fd).size;
      const stat = fstatSync(this.fd);
      if (!stat.isFile()) throw new PvmError('unreadable-file', `${from}: is ${stat.isDirectory() ? 'a directory' : 'not a regular file'}`);
    } catch (cause) {
      this.close();
      if (cause instanceof PvmError) throw cause;
      throw new PvmError('unreadable-file', `${from}: ${fileProblem(cause)}`, { cause });
    }
  }

  /** @throws PvmError `bad-snapshot` when there are not so many bytes */
  read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    if (offset + length > this.size) throw badSnapshot(`${this.name}: is cut off: it ends after ${this.size} bytes`);
    if (this.bytes !== undefined) return this.bytes.subarray(offset, offset + length);
    return this.fill(new Uint8Array(length), offset);
  }

  /** The memory of what `read` gave is free at once: the garbage collector would run several times for it. */
  release(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.bytes === undefined) bytes.buffer.transfer(0);
  }

  /** SHA-256 of the first `length` bytes. */
  digest(length: number): Uint8Array {
    const hash = createHash('sha256');
    if (this.bytes !== undefined) return hash.update(this.bytes.subarray(0, length)).digest();
    const buffer = new Uint8Array(Math.min(READ_SIZE, length));
    for (let at = 0; at < length; at += READ_SIZE) hash.update(this.fill(buffer.subarray(0, length - at), at));
    this.release(buffer);
    return hash.digest();
  }

  close(): void {
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = -1;
  }

  private fill(buffer: Uint8Array<ArrayBuffer>, offset: number): Uint8Array<ArrayBuffer> {
    const { length } = buffer;
    for (let done = 0; done < length; ) {
      const n = readSync(this.fd, buffer, done, length - done, offset + done);
      if (n === 0) throw badSnapshot(`${this.name}: became shorter while it was read`);
      done += n;
    }
    return buffer;
  }
}
