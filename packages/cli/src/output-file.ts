import { constants, rmSync } from 'node:fs';
import { access, type FileHandle, open, realpath, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { UsageError } from './errors.ts';

/** Pieces are gathered up to this size before they are written, characters. */
const BUFFER = 1 << 16;

/**
 * A file that appears when it is complete: written under a temporary name beside its own, then renamed. A device or pipe, such as /dev/null or /dev/stderr, is written
 * as it is; a link stays, and what it leads to is replaced.
 */
export class OutputFile {
  private readonly path: string;
  /** Undefined: it is written in place. */
  private readonly temporary: string | undefined;
  private handle: FileHandle | undefined;
  private buffer = '';
  /** The process ends in the middle of its work, as when its output cannot be written. */
  private readonly onExit = () => {
    if (this.temporary !== undefined) rmSync(this.temporary, { force: true });
  };

  private constructor(path: string, temporary: string | undefined, handle: FileHandle) {
    this.path = path;
    this.temporary = temporary;
    this.handle = handle;
    process.once('exit', this.onExit);
  }

  /**
   * Opens the file, so that a name that cannot be written is known before the work is done.
   *
   * @param option how messages call it
   * @throws UsageError
   */
  static async open(path: string, option: string): Promise<OutputFile> {
    const target = await stat(path).catch(() => undefined);
    if (target?.isDirectory()) throw new UsageError(`${option} ${path}: is a directory; expected a file to write`);
    try {
      if (target === undefined) return await OutputFile.beside(path);
      await access(path, constants.W_OK);
      return target.isFile() ? await OutputFile.beside(await realpath(path)) : new OutputFile(path, undefined, await open(path, 'w'));
    } catch (error) {
      throw new UsageError(`${option} ${path}: cannot be written: ${writeProblem(error, path)}`);
    }
  }

  private static async beside(path: string): Promise<OutputFile> {
    const temporary = `${path}.${process.pid}.tmp`;
    return new OutputFile(path, temporary, await open(temporary, 'wx'));
  }

  /** @throws UsageError */
  async write(piece: string): Promise<void> {
    this.buffer += piece;
    if (this.buffer.length >= BUFFER) await this.flush();
  }

  /** The file is complete and gets its name. @throws UsageError */
  async commit(): Promise<void> {
    await this.flush();
    await this.handle?.close();
    this.handle = undefined;
    if (this.temporary !== undefined) await rename(this.temporary, this.path);
    process.off('exit', this.onExit);
  }

  /** Without `commit` nothing of the file stays; after it, nothing happens. */
  async discard(): Promise<void> {
    if (this.handle === undefined) return;
    await this.handle.close();
    this.handle = undefined;
    if (this.temporary !== undefined) await rm(this.temporary, { force: true });
    process.off('exit', this.onExit);
  }

  private async flush(): Promise<void> {
    const text = this.buffer;
    this.buffer = '';
    try {
      await this.handle?.appendFile(text);
    } catch (error) {
      throw new UsageError(`${this.path}: cannot be written: ${writeProblem(error, this.path)}`);
    }
  }
}

/** Why something cannot be written, in few words. */
export function writeProblem(error: unknown, path = ''): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
  const known: Readonly<Record<string, string>> = {
    ENOENT: `no folder ${dirname(path)}`,
    EACCES: 'permission denied',
    ENOTDIR: `${dirname(path)} is no folder`,
    EROFS: 'read-only file system',
    ENOSPC: 'no space left on the device',
  };
  return known[code] ?? code;
}

/** Writes a whole file at once, under a temporary name first. @throws UsageError */
export async function writeWhole(path: string, option: string, text: string): Promise<void> {
  const file = await OutputFile.open(path, option);
  try {
    await file.write(text);
    await file.commit();
  } finally {
    await file.discard();
  }
}
