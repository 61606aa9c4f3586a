import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { PvmError } from '../errors.ts';

/** A file that appears under its name only when all of it is on the disk. */
export class AtomicFile {
  private readonly path: string;
  private readonly temporary: string;
  private fd: number;

  /** Opens it under a temporary name beside its own. @throws PvmError `unwritable-file` */
  constructor(path: string) {
    this.path = path;
    this.temporary = `${path}.${process.pid}.tmp`;
    try {
      this.fd = openSync(this.temporary, 'wx', 0o600);
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
      fsyncSync(this.fd);
      closeSync(this.fd);
      this.fd = -1;
      renameSync(this.temporary, this.path);
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
    rmSync(this.temporary, { force: true });
  }
}
