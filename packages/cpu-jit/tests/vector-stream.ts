/** Little-endian numbers in and out of vector files. */

export class VectorWriter {
  private readonly chunks: Buffer[] = [];
  private buffer = Buffer.alloc(1 << 16);
  private at = 0;
  private room(n: number): number {
    if (this.at + n > this.buffer.length) {
      this.chunks.push(this.buffer.subarray(0, this.at));
      this.buffer = Buffer.alloc(1 << 16);
      this.at = 0;
    }
    this.at += n;
    return this.at - n;
  }
  u8(v: number): void {
    const at = this.room(1);
    this.buffer.writeUInt8(v, at);
  }
  u16(v: number): void {
    const at = this.room(2);
    this.buffer.writeUInt16LE(v, at);
  }
  i16(v: number): void {
    const at = this.room(2);
    this.buffer.writeInt16LE(v, at);
  }
  u32(v: number): void {
    const at = this.room(4);
    this.buffer.writeUInt32LE(v, at);
  }
  i32(v: number): void {
    const at = this.room(4);
    this.buffer.writeInt32LE(v, at);
  }
  u64(v: bigint): void {
    const at = this.room(8);
    this.buffer.writeBigUInt64LE(v, at);
  }
  ascii(text: string): void {
    for (const c of text) this.u8(c.charCodeAt(0));
  }
  bytes(): Buffer {
    return Buffer.concat([...this.chunks, this.buffer.subarray(0, this.at)]);
  }
}

export class VectorReader {
  private readonly data: Uint8Array;
  private readonly view: DataView;
  private at = 0;
  constructor(bytes: Uint8Array) {
    this.data = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  private skip(n: number): number {
    this.at += n;
    return this.at - n;
  }
  take(n: number): Uint8Array {
    return this.data.subarray(this.skip(n), this.at);
  }
  u8(): number {
    return this.view.getUint8(this.skip(1));
  }
  u16(): number {
    return this.view.getUint16(this.skip(2), true);
  }
  i16(): number {
    return this.view.getInt16(this.skip(2), true);
  }
  u32(): number {
    return this.view.getUint32(this.skip(4), true);
  }
  i32(): number {
    return this.view.getInt32(this.skip(4), true);
  }
  u64(): bigint {
    return this.view.getBigUint64(this.skip(8), true);
  }
  /** Throws `TypeError` when the next characters are not `magic`; `name` of the file is for the message. */
  expect(magic: string, name: string): void {
    const got = String.fromCharCode(...this.take(magic.length));
    if (got !== magic) throw new TypeError(`${name}: expected ${magic} at the start, got ${JSON.stringify(got)}`);
  }
}
