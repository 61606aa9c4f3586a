import { MachineError } from '../errors.ts';

/** A regular file of an initial RAM disk. */
export interface CpioFile {
  /** Path without a leading slash. */
  readonly name: string;
  readonly data: Uint8Array;
  /** Permission bits; default 0644. */
  readonly mode?: number;
}

/** Anything an archive can hold. */
export interface CpioEntry {
  /** Path without a leading slash. */
  readonly name: string;
  /** Type and permission bits, as stat(2) has them. */
  readonly mode: number;
  /** Contents of a file, target of a symbolic link. */
  readonly data: Uint8Array;
  readonly uid?: number;
  readonly gid?: number;
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
  return new Uint8Array(Buffer.concat([...cpioPieces(files.map(({ name, data, mode = 0o644 }) => ({ name, data, mode: S_IFREG | mode })))]));
}

/** The same of any entries, piece by piece; directories come before what is in them. @throws MachineError `bad-file-name` */
export function* cpioPieces(entries: Iterable<CpioEntry>): Generator<Uint8Array, void> {
  let inode = 0;
  for (const entry of entries) {
    if (entry.name === '' || entry.name.includes('\0') || entry.name === TRAILER)
      throw new MachineError('bad-file-name', `"${entry.name}" cannot be the name of a guest file`);
    yield* piece(++inode, entry);
  }
  yield* piece(++inode, { name: TRAILER, mode: 0, data: new Uint8Array(0) });
}

/** Header and name together end at a multiple of 4 bytes, and so do the data. */
function* piece(inode: number, { name, mode, data, uid = 0, gid = 0 }: CpioEntry): Generator<Uint8Array, void> {
  const text = new TextEncoder().encode(`${name}\0`);
  // Magic, then 13 fields of 8 hex digits: ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check.
  const fields = [inode, mode, uid, gid, 1, 0, data.length, 0, 0, 0, 0, text.length, 0];
  const head = new Uint8Array(align4(110 + text.length));
  new TextEncoder().encodeInto(`070701${fields.map((n) => n.toString(16).padStart(8, '0')).join('')}`, head);
  head.set(text, 110);
  yield head;
  yield data;
  if (data.length % 4 !== 0) yield new Uint8Array(align4(data.length) - data.length);
}

function align4(n: number): number {
  return Math.ceil(n / 4) * 4;
}
