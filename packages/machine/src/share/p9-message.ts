import type { BigIntStats } from 'node:fs';
import { EPROTO, FileError } from './host-folder.ts';

/** Identity of a file: type, version, number. */
export interface Qid {
  readonly type: number;
  readonly version: number;
  readonly path: bigint;
}

const QID_DIRECTORY = 0x80;
const QID_SYMLINK = 0x02;
const MESSAGE_LIMIT = 1 << 20;

export function qidOf(stat: BigIntStats): Qid {
  const type = stat.isDirectory() ? QID_DIRECTORY : stat.isSymbolicLink() ? QID_SYMLINK : 0;
  // Folders may span file systems: the device goes into the upper bits.
  return { type, version: Number(BigInt.asUintN(32, stat.mtimeNs ^ (stat.size << 8n))), path: BigInt.asUintN(64, stat.ino ^ (stat.dev << 48n)) };
}

/** Reads the fields of a 9P message. Running over its end is `EPROTO`. */
export class P9Reader {
  private readonly view: DataView;
  private readonly bytes: Uint8Array;
  private at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u8(): number {
    return this.view.getUint8(this.take(1));
  }

  u16(): number {
    return this.view.getUint16(this.take(2), true);
  }

  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  u64(): bigint {
    return this.view.getBigUint64(this.take(8), true);
  }

  /** A character a byte: names of files need not be UTF-8. */
  string(): string {
    const length = this.u16();
    const at = this.take(length);
    return Buffer.from(this.bytes.subarray(at, at + length)).toString('latin1');
  }

  data(length: number): Uint8Array {
    const at = this.take(length);
    return this.bytes.subarray(at, at + length);
  }

  private take(n: number): number {
    const at = this.at;
    if (at + n > this.bytes.length) throw new FileError(EPROTO);
    this.at += n;
    return at;
  }
}

/** Writes a 9P message: size and type and tag first, then its fields. */
export class P9Writer {
  private view = new DataView(new ArrayBuffer(512));
  private length = 7;

  u8(value: number): this {
    const at = this.room(1);
    this.view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    const at = this.room(2);
    this.view.setUint16(at, value, true);
    return this;
  }

  u32(value: number): this {
    const at = this.room(4);
    this.view.setUint32(at, value, true);
    return this;
  }

  u64(value: bigint): this {
    const at = this.room(8);
    this.view.setBigUint64(at, BigInt.asUintN(64, value), true);
    return this;
  }

  /** A character a byte, as `P9Reader.string` has them. */
  string(text: string): this {
    return this.u16(text.length).data(Buffer.from(text, 'latin1'));
  }

  data(bytes: Uint8Array): this {
    const at = this.room(bytes.length);
    new Uint8Array(this.view.buffer).set(bytes, at);
    return this;
  }

  qid(qid: Qid): this {
    return this.u8(qid.type).u32(qid.version).u64(qid.path);
  }

  /** Bytes of fields so far. */
  get size(): number {
    return this.length - 7;
  }

  finish(type: number, tag: number): Uint8Array {
    this.view.setUint32(0, this.length, true);
    this.view.setUint8(4, type);
    this.view.setUint16(5, tag, true);
    return new Uint8Array(this.view.buffer, 0, this.length);
  }

  /** Makes room for `n` bytes more. `view` may be another afterwards. @returns where they go */
  private room(n: number): number {
    const at = this.length;
    this.length += n;
    if (this.length > MESSAGE_LIMIT) throw new FileError(EPROTO);
    if (this.length > this.view.byteLength) {
      const grown = new Uint8Array(Math.max(this.length, this.view.byteLength * 2));
      grown.set(new Uint8Array(this.view.buffer));
      this.view = new DataView(grown.buffer);
    }
    return at;
  }
}
