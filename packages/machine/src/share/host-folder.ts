import {
  type BigIntStats,
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  statfsSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
} from 'node:fs';

/** Linux errno values that the server itself returns. */
export const EPERM = 1;
export const ENOENT = 2;
export const EIO = 5;
export const EBADF = 9;
export const EACCES = 13;
export const EEXIST = 17;
export const ENOTDIR = 20;
export const EINVAL = 22;
export const EROFS = 30;
export const ENOTEMPTY = 39;
export const ELOOP = 40;
export const EPROTO = 71;
export const EOPNOTSUPP = 95;

/** A failed file operation, by its Linux errno. */
export class FileError extends Error {
  override readonly name = 'FileError';
  readonly errno: number;
  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}

/** open(2): a handle that only names a file; Linux x86 value, which `fs.constants` lacks. */
const O_PATH = 0x20_0000;
const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants;

/**
 * Path inside the shared folder, one element a component; empty: the folder itself. Names are bytes on both sides: a character here is one byte (`latin1`),
 * so that those which are not UTF-8 pass unharmed.
 */
export type SharedPath = readonly string[];

/** Attributes to change; absent ones stay. Times in seconds. */
export interface AttributeChange {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  readonly atime?: number;
  readonly mtime?: number;
}

/**
 * A folder of the host as a guest may see it. No operation ever follows a symbolic link: the guest's kernel does that, with
 * names that come back here. Each component is opened relative to the handle of the one before (`/proc/self/fd/N/name` is
 * Linux's openat), so that a link put in place by anybody at any time cannot lead out. Errors are `FileError`s.
 */
export class HostFolder {
  readonly readOnly: boolean;
  private readonly root: number;

  /** Throws the file system's `Error` when `folder` is not an accessible directory. */
  constructor(folder: string, readOnly: boolean) {
    this.root = openSync(folder, O_PATH | O_DIRECTORY);
    this.readOnly = readOnly;
  }

  close(): void {
    closeSync(this.root);
  }

  stat(path: SharedPath): BigIntStats {
    return this.at(path, (name) => lstatSync(name, { bigint: true }));
  }

  /** Open a regular file or directory that is there. `flags` as open(2). @returns a file descriptor */
  open(path: SharedPath, flags: number): number {
    // Without O_NONBLOCK a FIFO would stop the machine.
    const fd = this.at(path, (name) => openSync(name, (flags & ~O_CREAT) | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
    const stat = fstatSync(fd);
    if (stat.isFile() || stat.isDirectory()) return fd;
    closeSync(fd);
    throw new FileError(EACCES);
  }

  /** Create a regular file with this mode, or, without O_EXCL, open the one that is there. @returns a file descriptor */
  create(path: SharedPath, flags: number, mode: number): number {
    let fd: number;
    try {
      fd = this.at(path, (name) => openSync(name, flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY, 0o600));
    } catch (e) {
      if ((flags & O_EXCL) !== 0 || toFileError(e).errno !== EEXIST) throw e;
      return this.open(path, flags);
    }
    // The guest has applied its umask; ours is none of its business.
    fchmodSync(fd, mode & 0o7777);
    return fd;
  }

  /** @returns names, a character a byte */
  list(path: SharedPath): string[] {
    return this.directory(path, (handle) => readdirSync(handle, { encoding: 'latin1' }));
  }

  /** @returns where it leads, a character a byte */
  readLink(path: SharedPath): string {
    return this.at(path, (name) => readlinkSync(name, { encoding: 'latin1' }));
  }

  makeDirectory(path: SharedPath, mode: number): void {
    this.at(path, (name) => mkdirSync(name, { mode: mode & 0o7777 }));
    this.handle(path, (name) => chmodSync(name, mode & 0o7777));
  }

  makeLink(path: SharedPath, target: string): void {
    this.at(path, (name) => symlinkSync(Buffer.from(target, 'latin1'), name));
  }

  /** Hard link `path` to the file `existing`. */
  link(path: SharedPath, existing: SharedPath): void {
    this.at(existing, (from) => this.at(path, (name) => linkSync(from, name)));
  }

  rename(from: SharedPath, to: SharedPath): void {
    this.at(from, (a) => this.at(to, (b) => renameSync(a, b)));
  }

  remove(path: SharedPath, isDirectory: boolean): void {
    this.at(path, (name) => (isDirectory ? rmdirSync(name) : unlinkSync(name)));
  }

  change(path: SharedPath, change: AttributeChange): void {
    const { mode, uid, gid, size, atime, mtime } = change;
    if (this.stat(path).isSymbolicLink()) {
      if (mode !== undefined || size !== undefined) throw new FileError(EOPNOTSUPP);
      this.at(path, (name) => {
        if (uid !== undefined || gid !== undefined) lchownSync(name, uid ?? -1, gid ?? -1);
        if (atime !== undefined && mtime !== undefined) lutimesSync(name, atime, mtime);
      });
      return;
    }
    this.handle(path, (name) => changeFile(name, change));
  }

  /** The same for a file that is open, whatever has become of its name. */
  changeOpen(fd: number, change: AttributeChange): void {
    guard(() => changeFile(magic(fd), change));
  }

  space(): ReturnType<typeof statfsSync> {
    return guard(() => statfsSync(magic(this.root)));
  }

  /** Run `use` on a name of `path` whose last component is not resolved yet. */
  private at<T>(path: SharedPath, use: (name: Buffer) => T): T {
    const last = path.at(-1);
    if (last === undefined) return guard(() => use(Buffer.from(`${magic(this.root)}/.`)));
    return this.directory(path.slice(0, -1), (handle) => use(Buffer.from(`${handle}/${last}`, 'latin1')));
  }

  /** Run `use` on a name of the directory `path` itself. */
  private directory<T>(path: SharedPath, use: (handle: string) => T): T {
    return guard(() => this.open1(path, O_DIRECTORY, use));
  }

  /** Run `use` on a name of the file `path` itself, which must not be a symbolic link. */
  private handle<T>(path: SharedPath, use: (handle: string) => T): T {
    return guard(() => this.open1(path, 0, use));
  }

  private open1<T>(path: SharedPath, lastFlags: number, use: (handle: string) => T): T {
    let fd = this.root;
    try {
      for (const [i, component] of path.entries()) {
        const flags = i === path.length - 1 ? lastFlags : O_DIRECTORY;
        const next = openSync(Buffer.from(`${magic(fd)}/${component}`, 'latin1'), O_PATH | O_NOFOLLOW | flags);
        if (fd !== this.root) closeSync(fd);
        fd = next;
      }
      return use(magic(fd));
    } finally {
      if (fd !== this.root) closeSync(fd);
    }
  }
}

/** Whether a name from the guest is one component and no more. */
export function isComponent(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !name.includes('/') && !name.includes('\0');
}

/** The kernel's name for what a descriptor refers to. */
function magic(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

/** @param name a handle in /proc */
function changeFile(name: string, { mode, uid, gid, size, atime, mtime }: AttributeChange): void {
  const stat = lstatSyncFollowing(name);
  if (size !== undefined) {
    if (!stat.isFile()) throw new FileError(EINVAL);
    truncateSync(name, size);
  }
  if (uid !== undefined || gid !== undefined) chownSync(name, uid ?? -1, gid ?? -1);
  if (mode !== undefined) chmodSync(name, mode & 0o7777);
  if (atime !== undefined || mtime !== undefined) utimesSync(name, atime ?? Number(stat.atimeMs) / 1e3, mtime ?? Number(stat.mtimeMs) / 1e3);
}

function lstatSyncFollowing(name: string): BigIntStats {
  // The name is a handle in /proc; "/." would need a directory, so the handle's own link is followed by stat.
  const fd = openSync(name, O_PATH);
  try {
    return fstatSync(fd, { bigint: true });
  } finally {
    closeSync(fd);
  }
}

/** Turn the file system's errors into `FileError`s. */
function guard<T>(work: () => T): T {
  try {
    return work();
  } catch (e) {
    throw toFileError(e);
  }
}

/** @returns the `FileError` for what a call of `node:fs` threw */
export function toFileError(e: unknown): FileError {
  if (e instanceof FileError) return e;
  // libuv numbers errors as the negated errno of the host, which is Linux here.
  if (e instanceof Error && 'errno' in e && typeof e.errno === 'number') return new FileError(Math.abs(e.errno));
  if (e instanceof TypeError || e instanceof RangeError) return new FileError(EINVAL);
  return new FileError(EIO);
}
