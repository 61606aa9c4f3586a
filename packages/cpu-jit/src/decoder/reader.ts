import type { DecodeFailure } from './types.ts';

/** Longest instruction in bytes (SDM vol. 2, 2.3.11). */
export const MAX_LENGTH = 15;

/** Takes an instruction's bytes one after another. Running out is noted, not thrown: reads then give zero. */
export class Reader {
  private bytes: Uint8Array = new Uint8Array(0);
  private limit = 0;
  private limitIsLength = false;
  start = 0;
  position = 0;
  /** Why the last reads were in vain, or null. */
  failure: DecodeFailure | null = null;

  reset(bytes: Uint8Array, offset: number, available: number): void {
    const have = Math.min(available, bytes.length - offset);
    this.bytes = bytes;
    this.start = offset;
    this.position = offset;
    this.limitIsLength = have >= MAX_LENGTH;
    this.limit = offset + (this.limitIsLength ? MAX_LENGTH : have);
    this.failure = null;
  }
  u8(): number {
    const position = this.position;
    if (position >= this.limit) {
      this.failure = this.limitIsLength ? 'gp' : 'fetch';
      return 0;
    }
    this.position = position + 1;
    return this.bytes[position] ?? 0;
  }
  /** The next byte without taking it. */
  peek(): number {
    const byte = this.u8();
    if (this.failure === null) this.position--;
    return byte;
  }
  s8(): number {
    return (this.u8() << 24) >> 24;
  }
  u16(): number {
    return this.u8() | (this.u8() << 8);
  }
  s16(): number {
    return (this.u16() << 16) >> 16;
  }
  /** 32 bits, signed. */
  s32(): number {
    return this.u16() | (this.u16() << 16);
  }
  get length(): number {
    return this.position - this.start;
  }
}
