const INITIAL_BYTES = 1 << 16;

/** Bytes in the encodings of the WebAssembly binary format (5.2). */
export class ByteWriter {
  private bytes = new Uint8Array(INITIAL_BYTES);
  at = 0;

  clear(): void {
    this.at = 0;
  }
  /** What was written, copied. */
  take(): Uint8Array<ArrayBuffer> {
    return this.bytes.slice(0, this.at);
  }
  private reserve(n: number): void {
    if (this.at + n <= this.bytes.length) return;
    const larger = new Uint8Array(Math.max(this.bytes.length * 2, this.at + n));
    larger.set(this.bytes);
    this.bytes = larger;
  }
  byte(value: number): void {
    if (this.at === this.bytes.length) this.reserve(1);
    this.bytes[this.at++] = value;
  }
  /** Replaces a byte that was written. */
  patch(at: number, value: number): void {
    this.bytes[at] = value;
  }
  raw(values: ArrayLike<number>): void {
    this.reserve(values.length);
    this.bytes.set(values, this.at);
    this.at += values.length;
  }
  u32(value: number): void {
    let v = value >>> 0;
    while (v >= 0x80) {
      this.byte((v & 0x7f) | 0x80);
      v >>>= 7;
    }
    this.byte(v);
  }
  s32(value: number): void {
    let v = value | 0;
    while (v < -0x40 || v >= 0x40) {
      this.byte((v & 0x7f) | 0x80);
      v >>= 7;
    }
    this.byte(v & 0x7f);
  }
  /** A signed 64-bit number from its halves. */
  s64(low: number, high: number): void {
    let [l, h] = [low | 0, high | 0];
    while (h !== l >> 31 || l < -0x40 || l >= 0x40) {
      this.byte((l & 0x7f) | 0x80);
      l = (l >>> 7) | (h << 25);
      h >>= 7;
    }
    this.byte(l & 0x7f);
  }
  name(text: string): void {
    const encoded = new TextEncoder().encode(text);
    this.u32(encoded.length);
    this.raw(encoded);
  }
  /** `content` behind its length in bytes; returns where it starts. */
  sized(content: () => void): number {
    const start = this.at;
    content();
    const length = this.at - start;
    let size = 1;
    for (let v = length; v >= 0x80; v >>>= 7) size++;
    this.reserve(size);
    this.bytes.copyWithin(start + size, start, this.at);
    this.at = start;
    this.u32(length);
    this.at += length;
    return start + size;
  }
}
