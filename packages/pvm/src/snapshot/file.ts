import { closeSync, fsyncSync, openSync, realpathSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { PvmError } from '../errors.ts';

/** A file that appears under its name only when all of it is on the disk. A device or pipe is written as it is; a link stays, and what it leads to is replaced. */
export class AtomicFile {
  private readonly path: string;
  /** Undefined: it is written in place. */
  private readonly temporary: string | undefined;
  private fd: number;

  /** Opens it under a temporary name beside its own. @throws PvmError `unwritable-file` */
  constructor(path: string) {
    try {
      const there = statSync(path, { throwIfNoEntry: false });
      this.path = there?.isFile() === true ? realpathSync(path) : path;
      this.temporary = there === undefined || there.isFile() ? `${this.path}.${process.pid}.tmp` : undefined;
      this.fd = this.temporary === undefined ? openSync(path, 'w') : openSync(this.temporary, 'wx', 0o600);
    } catch (cause) {
      const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
      const known: Readonly<Record<string, string>> = {
        ENOENT: `no folder ${dirname(path)}`,
        EACCES: 'permission denied',
        ENOTDIR: `${dirname(path)} is no folder`,
      };
      throw new PvmError('unwritable-file', `${path}: cannot be written: ${known[code] ?? code}`, { cause });
    }
  }

  /** Writes all of it and gives it its name; when that fails, nothing stays. */
  write(pieces: Iterable<Uint8Array>): void {
    try {
      for (const piece of pieces) for (let at = 0; at < piece.length; ) at += writeSync(this.fd, piece, at);
      if (this.temporary !== undefined) fsyncSync(this.fd);
      closeSync(this.fd);
      this.fd = -1;
      if (this.temporary !== undefined) renameSync(this.temporary, this.path);
    } catch (cause) {
      this.discard();
      if (cause instanceof PvmError || !(cause instanceof Error && 'code' in cause)) throw cause;
      throw new PvmError('unwritable-file', `${this.path}: cannot be written: ${String(cause.code)}`, { cause });
    }
  }

  /** Nothing of it stays. */
  discard(): void {
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = -1;
    if (this.temporary !== undefined) rmSync(this.temporary, { force: true });
  }
}
