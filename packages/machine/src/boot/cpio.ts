import { MachineError } from '../errors.ts';

/** A regular file of an initial RAM disk. */
export interface CpioFile {
  /** Path without a leading slash. */
  readonly name: string;
  readonly data: Uint8Array;
  /** Permission bits; default 0644. */
  readonly mode?: number;
}

const S_IFREG = 0o100000;
const TRAILER = 'TRAILER!!!';

/**
 * An uncompressed cpio archive in the "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
 * Files appear in the order given; directories are implied by the names.
 *
 * @throws MachineError `bad-file-name` for an empty name, one with NUL, or the archive's own end mark
 */
export function buildCpio(files: readonly CpioFile[]): Uint8Array {
  const encoder = new TextEncoder();
  const entries = files.map((file) => {
    if (file.name === '' || file.name.includes('\0') || file.name === TRAILER)
      throw new MachineError('bad-file-name', `"${file.name}" cannot be the name of a guest file`);
    return { name: encoder.encode(`${file.name}\0`), data: file.data, mode: S_IFREG | (file.mode ?? 0o644) };
  });
  entries.push({ name: encoder.encode(`${TRAILER}\0`), data: new Uint8Array(0), mode: 0 });
  const size = entries.reduce((sum, e) => sum + align4(110 + e.name.length) + align4(e.data.length), 0);
  const archive = new Uint8Array(size);
  let at = 0;
  entries.forEach((e, i) => {
    archive.set(encoder.encode(header(i + 1, e.mode, e.data.length, e.name.length)), at);
    archive.set(e.name, at + 110);
    at += align4(110 + e.name.length);
    archive.set(e.data, at);
    at += align4(e.data.length);
  });
  return archive;
}

/** Magic, then 13 fields of 8 hex digits: ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check. */
function header(inode: number, mode: number, fileSize: number, nameSize: number): string {
  const fields = [inode, mode, 0, 0, 1, 0, fileSize, 0, 0, 0, 0, nameSize, 0];
  return `070701${fields.map((n) => n.toString(16).padStart(8, '0')).join('')}`;
}

function align4(n: number): number {
  return Math.ceil(n / 4) * 4;
}
