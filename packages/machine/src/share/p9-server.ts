import { closeSync, constants, fstatSync, fsyncSync, readSync, writeSync } from 'node:fs';
import { type Saveable, StateError, type StateIo } from '@pvm/cpu-jit';
import {
  EBADF,
  EEXIST,
  EINVAL,
  ENOENT,
  ENOTDIR,
  EOPNOTSUPP,
  EROFS,
  FileError,
  type HostFolder,
  isComponent,
  type SharedPath,
  toFileError,
} from './host-folder.ts';
import { P9Reader, P9Writer, qidOf } from './p9-message.ts';

// 9P2000.L as Linux speaks it (include/net/9p/9p.h, and diod's protocol.md). Request types; the answer's is one higher.
const RLERROR = 7;
const HEADER_SIZE = 7;
const MIN_MSIZE = 4096;
export const MAX_MSIZE = 512 * 1024;
/** A guest that caches names holds a fid for each; one costs some 200 bytes here. */
const MAX_FIDS = 2 ** 18;
const MAX_NAMES = 16;
const NO_TAG = 0xffff;
// Bits of Tsetattr.
const SET_MODE = 1;
const SET_UID = 2;
const SET_GID = 4;
const SET_SIZE = 8;
const SET_ATIME = 16;
const SET_MTIME = 32;
const SET_ATIME_VALUE = 128;
const SET_MTIME_VALUE = 256;
const GETATTR_BASIC = 0x7ffn;
const AT_REMOVEDIR = 0x200;
const LOCK_SUCCESS = 0;
const UNLOCK = 2;
const V9FS_MAGIC = 0x0102_1997;
/** Open flags that a guest may use; numbers are those of Linux on x86 on both sides. */
const { O_ACCMODE, O_APPEND, O_CREAT, O_DIRECTORY, O_DSYNC, O_EXCL, O_SYNC, O_TRUNC, O_RDONLY } = { O_ACCMODE: 3, ...constants };
const OPEN_FLAGS = O_ACCMODE | O_APPEND | O_TRUNC | O_DSYNC | O_SYNC | O_DIRECTORY;

interface Fid {
  path: SharedPath;
  /** Descriptor once opened, -1 before. */
  fd: number;
  /** How it was opened. */
  flags: number;
  /** Directory as it was when reading started. */
  names: readonly string[] | undefined;
}

type Handler = (m: P9Reader, out: P9Writer) => void;

/** Serves one shared folder over 9P2000.L. Requests and answers are whole messages. */
export class P9Server implements Saveable {
  private readonly folder: HostFolder;
  private readonly fids = new Map<number, Fid>();
  private readonly handlers: ReadonlyMap<number, Handler>;
  private msize = MAX_MSIZE;
  /** Longest answer to the request being served. */
  private room = MAX_MSIZE;

  constructor(folder: HostFolder) {
    this.folder = folder;
    this.handlers = new Map<number, Handler>([
      [8, (m, out) => this.statfs(m, out)],
      [12, (m, out) => this.lopen(m, out)],
      [14, (m, out) => this.lcreate(m, out)],
      [16, (m, out) => this.symlink(m, out)],
      [18, () => fail(EOPNOTSUPP)], // mknod
      [20, (m) => this.rename(m)],
      [22, (m, out) => void out.string(this.folder.readLink(this.fid(m.u32()).path))],
      [24, (m, out) => this.getattr(m, out)],
      [26, (m) => this.setattr(m)],
      [30, () => fail(EOPNOTSUPP)], // xattrwalk
      [32, () => fail(EOPNOTSUPP)], // xattrcreate
      [40, (m, out) => this.readdir(m, out)],
      [50, (m) => this.fsync(m)],
      [52, (m, out) => this.lock(m, out)],
      [54, (m, out) => this.getlock(m, out)],
      [70, (m) => this.link(m)],
      [72, (m, out) => this.mkdir(m, out)],
      [74, (m) => this.renameat(m)],
      [76, (m) => this.unlinkat(m)],
      [100, (m, out) => this.version(m, out)],
      [102, () => fail(EOPNOTSUPP)], // auth
      [104, (m, out) => this.attach(m, out)],
      [108, () => undefined], // flush: requests are served in order, nothing is in flight
      [110, (m, out) => this.walk(m, out)],
      [116, (m, out) => this.read(m, out)],
      [118, (m, out) => this.write(m, out)],
      [120, (m) => this.clunk(m.u32())],
      [122, (m) => this.removeFid(m)],
    ]);
  }

  /** Forget every fid, as when the device is reset. */
  reset(): void {
    for (const fid of [...this.fids.keys()]) this.clunk(fid);
  }

  /** @returns the answer, at most `room` bytes */
  handle(request: Uint8Array, room: number): Uint8Array {
    let tag = NO_TAG;
    try {
      const message = new P9Reader(request);
      const size = message.u32();
      const type = message.u8();
      tag = message.u16();
      if (size > request.length) fail(EINVAL);
      const handler = this.handlers.get(type) ?? fail(EOPNOTSUPP);
      this.room = Math.min(room, this.msize);
      const out = new P9Writer();
      handler(message, out);
      const answer = out.finish(type + 1, tag);
      if (answer.length > room) fail(EINVAL);
      return answer;
    } catch (e) {
      return new P9Writer().u32(toFileError(e).errno).finish(RLERROR, tag);
    }
  }

  // ------------------------------------------------------------ session
  private version(m: P9Reader, out: P9Writer): void {
    const msize = m.u32();
    const version = m.string();
    this.reset();
    if (msize < MIN_MSIZE) fail(EINVAL);
    this.msize = Math.min(msize, MAX_MSIZE);
    out.u32(this.msize).string(version === '9P2000.L' ? version : 'unknown');
  }

  private attach(m: P9Reader, out: P9Writer): void {
    const fid = m.u32();
    m.u32();
    m.string();
    // Whatever name the guest attaches to, it is this folder.
    m.string();
    const qid = qidOf(this.folder.stat([]));
    this.add(fid, []);
    out.qid(qid);
  }

  private walk(m: P9Reader, out: P9Writer): void {
    const from = this.fid(m.u32());
    const newFid = m.u32();
    const count = m.u16();
    if (count > MAX_NAMES) fail(EINVAL);
    const names = Array.from({ length: count }, () => m.string());
    let path = from.path;
    const qids = [];
    for (const name of names) {
      const next = name === '..' ? path.slice(0, -1) : name === '.' ? path : [...path, this.component(name)];
      try {
        qids.push(qidOf(this.folder.stat(next)));
      } catch (e) {
        if (qids.length === 0) throw e;
        break;
      }
      path = next;
    }
    if (qids.length === names.length) {
      const same = this.fids.get(newFid);
      if (same === from) from.path = path;
      else this.add(newFid, path);
    }
    out.u16(qids.length);
    for (const qid of qids) out.qid(qid);
  }

  private clunk(number: number): void {
    const fid = this.fids.get(number) ?? fail(EBADF);
    if (fid.fd >= 0) closeSync(fid.fd);
    this.fids.delete(number);
  }

  private removeFid(m: P9Reader): void {
    const number = m.u32();
    const { path } = this.fid(number);
    try {
      this.writable();
      if (path.length === 0) fail(EINVAL);
      this.folder.remove(path, this.folder.stat(path).isDirectory());
    } finally {
      this.clunk(number);
    }
  }

  // ------------------------------------------------------------ files
  private lopen(m: P9Reader, out: P9Writer): void {
    const fid = this.fid(m.u32());
    const flags = m.u32() & OPEN_FLAGS;
    if (fid.fd >= 0) fail(EINVAL);
    if ((flags & O_ACCMODE) !== O_RDONLY || (flags & O_TRUNC) !== 0) this.writable();
    fid.fd = this.folder.open(fid.path, flags & ~O_APPEND);
    fid.flags = flags;
    out.qid(qidOf(fstatSync(fid.fd, { bigint: true }))).u32(this.msize - 24);
  }

  private lcreate(m: P9Reader, out: P9Writer): void {
    const fid = this.fid(m.u32());
    const path = [...fid.path, this.component(m.string())];
    const flags = m.u32() & (OPEN_FLAGS | O_EXCL);
    const mode = m.u32();
    this.writable();
    if (fid.fd >= 0) fail(EINVAL);
    fid.fd = this.folder.create(path, flags & ~O_APPEND, mode);
    fid.path = path;
    fid.flags = flags;
    out.qid(qidOf(fstatSync(fid.fd, { bigint: true }))).u32(this.msize - 24);
  }

  private read(m: P9Reader, out: P9Writer): void {
    const fid = this.opened(m);
    const offset = m.u64();
    const count = Math.min(m.u32(), this.room - HEADER_SIZE - 4);
    const buffer = new Uint8Array(Math.max(0, count));
    const n = readSync(fid.fd, buffer, 0, buffer.length, offset);
    out.u32(n).data(buffer.subarray(0, n));
  }

  private write(m: P9Reader, out: P9Writer): void {
    const fid = this.opened(m);
    const offset = m.u64();
    const data = m.data(m.u32());
    this.writable();
    out.u32(writeSync(fid.fd, data, 0, data.length, Number(offset)));
  }

  private fsync(m: P9Reader): void {
    fsyncSync(this.opened(m).fd);
  }

  private readdir(m: P9Reader, out: P9Writer): void {
    const fid = this.opened(m);
    const offset = Number(m.u64());
    const count = Math.min(m.u32(), this.room - HEADER_SIZE - 4);
    if (offset === 0 || fid.names === undefined) fid.names = ['.', '..', ...this.folder.list(fid.path)];
    const entries = new P9Writer();
    for (let i = offset; i < fid.names.length; i++) {
      const name = fid.names[i] ?? '';
      if (entries.size + 24 + name.length > count) break;
      const path = name === '.' ? fid.path : name === '..' ? fid.path.slice(0, -1) : [...fid.path, name];
      try {
        const qid = qidOf(this.folder.stat(path));
        // d_type: DT_DIR 4, DT_LNK 10, DT_REG 8.
        entries
          .qid(qid)
          .u64(BigInt(i + 1))
          .u8(qid.type === 0x80 ? 4 : qid.type === 2 ? 10 : 8)
          .string(name);
      } catch (e) {
        // Gone since the directory was listed.
        if (toFileError(e).errno !== ENOENT) throw e;
      }
    }
    out.u32(entries.size).data(entries.finish(0, 0).slice(HEADER_SIZE));
  }

  // ------------------------------------------------------------ attributes
  private getattr(m: P9Reader, out: P9Writer): void {
    const fid = this.fid(m.u32());
    const s = fid.fd >= 0 ? fstatSync(fid.fd, { bigint: true }) : this.folder.stat(fid.path);
    out.u64(GETATTR_BASIC).qid(qidOf(s)).u32(Number(s.mode)).u32(Number(s.uid)).u32(Number(s.gid));
    out.u64(s.nlink).u64(s.rdev).u64(s.size).u64(s.blksize).u64(s.blocks);
    for (const ns of [s.atimeNs, s.mtimeNs, s.ctimeNs, 0n]) out.u64(ns / 1_000_000_000n).u64(ns % 1_000_000_000n);
    out.u64(0n).u64(0n);
  }

  private setattr(m: P9Reader): void {
    const { path, fd } = this.fid(m.u32());
    const valid = m.u32();
    const [mode, uid, gid] = [m.u32(), m.u32(), m.u32()];
    const size = Number(m.u64());
    const atime = Number(m.u64()) + Number(m.u64()) / 1e9;
    const mtime = Number(m.u64()) + Number(m.u64()) / 1e9;
    this.writable();
    const now = Date.now() / 1e3;
    const change = {
      ...((valid & SET_MODE) !== 0 && { mode }),
      ...((valid & SET_UID) !== 0 && { uid }),
      ...((valid & SET_GID) !== 0 && { gid }),
      ...((valid & SET_SIZE) !== 0 && { size }),
      ...((valid & SET_ATIME) !== 0 && { atime: (valid & SET_ATIME_VALUE) !== 0 ? atime : now }),
      ...((valid & SET_MTIME) !== 0 && { mtime: (valid & SET_MTIME_VALUE) !== 0 ? mtime : now }),
    };
    if (fd >= 0) this.folder.changeOpen(fd, change);
    else this.folder.change(path, change);
  }

  private statfs(m: P9Reader, out: P9Writer): void {
    this.fid(m.u32());
    const s = this.folder.space();
    out.u32(V9FS_MAGIC).u32(Number(s.bsize));
    for (const n of [s.blocks, s.bfree, s.bavail, s.files, s.ffree]) out.u64(BigInt(n));
    out.u64(0n).u32(255);
  }

  private lock(m: P9Reader, out: P9Writer): void {
    this.fid(m.u32());
    out.u8(LOCK_SUCCESS);
  }

  private getlock(m: P9Reader, out: P9Writer): void {
    this.fid(m.u32());
    m.u8();
    // Nobody else holds locks: the share belongs to one guest.
    out.u8(UNLOCK).u64(m.u64()).u64(m.u64()).u32(m.u32()).string(m.string());
  }

  // ------------------------------------------------------------ names
  private symlink(m: P9Reader, out: P9Writer): void {
    const path = this.child(m);
    const target = m.string();
    this.writable();
    this.folder.makeLink(path, target);
    out.qid(qidOf(this.folder.stat(path)));
  }

  private mkdir(m: P9Reader, out: P9Writer): void {
    const path = this.child(m);
    const mode = m.u32();
    this.writable();
    this.folder.makeDirectory(path, mode);
    out.qid(qidOf(this.folder.stat(path)));
  }

  private link(m: P9Reader): void {
    const directory = this.fid(m.u32());
    const existing = this.fid(m.u32());
    const path = [...directory.path, this.component(m.string())];
    this.writable();
    this.folder.link(path, existing.path);
  }

  private rename(m: P9Reader): void {
    const fid = this.fid(m.u32());
    const to = this.child(m);
    this.move(fid.path, to);
  }

  private renameat(m: P9Reader): void {
    const from = this.child(m);
    const to = this.child(m);
    this.move(from, to);
  }

  private move(from: SharedPath, to: SharedPath): void {
    this.writable();
    if (from.length === 0) fail(EINVAL);
    this.folder.rename(from, to);
    // Fids name files by path: those below the moved one move along.
    for (const fid of this.fids.values()) {
      if (from.every((component, i) => fid.path[i] === component)) fid.path = [...to, ...fid.path.slice(from.length)];
    }
  }

  private unlinkat(m: P9Reader): void {
    const path = this.child(m);
    const flags = m.u32();
    this.writable();
    this.folder.remove(path, (flags & AT_REMOVEDIR) !== 0);
  }

  // ------------------------------------------------------------ helpers
  private child(m: P9Reader): SharedPath {
    const directory = this.fid(m.u32());
    return [...directory.path, this.component(m.string())];
  }

  private component(name: string): string {
    return isComponent(name) ? name : fail(name.includes('/') ? EINVAL : ENOTDIR);
  }

  private fid(number: number): Fid {
    return this.fids.get(number) ?? fail(EBADF);
  }

  private opened(m: P9Reader): Fid {
    const fid = this.fid(m.u32());
    return fid.fd >= 0 ? fid : fail(EBADF);
  }

  private add(number: number, path: SharedPath): void {
    if (this.fids.has(number)) fail(EEXIST);
    if (this.fids.size >= MAX_FIDS) fail(EBADF);
    this.fids.set(number, { path, fd: -1, flags: 0, names: undefined });
  }

  private writable(): void {
    if (this.folder.readOnly) fail(EROFS);
  }

  /** Fids are saved by path. One that cannot be opened again (its file is gone) fails when it is used, as on a server that was restarted. */
  state(s: StateIo): void {
    s.fields(this, ['msize']);
    const fids = s.value(
      'fids',
      [...this.fids].map(([number, { path, fd, flags, names }]) => ({ number, path: [...path], isOpen: fd >= 0, flags, names: names && [...names] })),
    );
    if (!s.restoring) return;
    this.reset();
    for (const { number, path, isOpen, flags, names } of fids.slice(0, MAX_FIDS)) {
      if (!path.every((component) => typeof component === 'string' && isComponent(component)))
        throw new StateError('a fid of a shared folder has an impossible path');
      this.fids.set(number, { path, fd: isOpen ? this.reopen(path, flags) : -1, flags, names });
    }
  }

  private reopen(path: SharedPath, flags: number): number {
    try {
      return this.folder.open(path, flags & ~(O_APPEND | O_CREAT | O_EXCL | O_TRUNC));
    } catch (e) {
      // Whatever the host says, the guest hears EBADF when it uses the fid.
      toFileError(e);
      return -1;
    }
  }
}

function fail(errno: number): never {
  throw new FileError(errno);
}
