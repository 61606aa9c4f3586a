/** Reader of tests/vectors/sse.bin.gz; the format is described in tests/native/sse-vectors.c, which writes it. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

/** Registers and memory before or after a form, 16 bytes each; `flags` are the status flags. */
export interface VectorState {
  readonly xmm: readonly [Uint8Array, Uint8Array, Uint8Array];
  readonly memory: Uint8Array;
  readonly rax: bigint;
  readonly rcx: bigint;
  readonly rdx: bigint;
  readonly flags: number;
  readonly mm1: bigint;
  readonly mm2: bigint;
  readonly mxcsr: number;
}

export interface VectorCase {
  readonly before: VectorState;
  /** As before, except MXCSR, when the exception was raised. */
  readonly after: VectorState;
  /** #XM was raised. */
  readonly traps: boolean;
}

/** One instruction and what the CPU that recorded it did. */
export interface VectorForm {
  /** AT&T text. */
  readonly text: string;
  readonly code: Uint8Array;
  /** What a memory operand does at an address that is not a multiple of 16; `none`: the form has none. */
  readonly misaligned: 'none' | 'faults' | 'works';
  /** MXCSR before. */
  readonly mxcsr: number;
  readonly cases: readonly VectorCase[];
}

export const INITIAL_FLAGS = 0x8d5;

class Reader {
  private at = 0;
  private readonly view: DataView;
  private readonly bytes: Uint8Array;
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  take(n: number): Uint8Array {
    this.at += n;
    return this.bytes.subarray(this.at - n, this.at);
  }
  u8(): number {
    return this.take(1)[0] ?? 0;
  }
  u16(): number {
    this.at += 2;
    return this.view.getUint16(this.at - 2, true);
  }
  u32(): number {
    this.at += 4;
    return this.view.getUint32(this.at - 4, true);
  }
  u64(): bigint {
    this.at += 8;
    return this.view.getBigUint64(this.at - 8, true);
  }
}

export function readVectors(url: URL): VectorForm[] {
  const r = new Reader(new Uint8Array(gunzipSync(readFileSync(url))));
  const ascii = (n: number) => String.fromCharCode(...r.take(n));
  const magic = ascii(4);
  if (magic !== 'SSEV') throw new TypeError(`${url.pathname}: expected SSEV at the start, got ${JSON.stringify(magic)}`);
  const pool = Array.from({ length: r.u32() }, () => r.take(16));
  const low = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  const pick = () => pool[r.u8()] ?? new Uint8Array(16);
  return Array.from({ length: r.u32() }, () => {
    const text = ascii(r.u8());
    const code = r.take(r.u8());
    const misaligned = (['none', 'faults', 'works'] as const)[r.u8()] ?? 'none';
    const [mxcsr, outputs, count] = [r.u16(), r.u16(), r.u16()];
    const cases = Array.from({ length: count }, (): VectorCase => {
      const [x0, x1, x2, a, c, d] = [pick(), pick(), pick(), pick(), pick(), pick()];
      const before: VectorState = {
        xmm: [x0, x1, x2],
        memory: x2,
        rax: low(a),
        rcx: low(c),
        rdx: low(d),
        flags: INITIAL_FLAGS,
        mm1: low(x1),
        mm2: low(x2),
        mxcsr,
      };
      const has = (bit: number) => ((outputs >> bit) & 1) !== 0;
      const after: VectorState = {
        xmm: [has(0) ? r.take(16) : x0, has(1) ? r.take(16) : x1, has(2) ? r.take(16) : x2],
        memory: has(3) ? r.take(16) : before.memory,
        rax: has(4) ? r.u64() : before.rax,
        rcx: has(5) ? r.u64() : before.rcx,
        rdx: has(6) ? r.u64() : before.rdx,
        flags: has(7) ? r.u16() : before.flags,
        mm1: has(8) ? r.u64() : before.mm1,
        mm2: before.mm2,
        mxcsr: has(9) ? r.u16() : mxcsr,
      };
      return { before, after, traps: has(10) && r.u8() === 1 };
    });
    return { text, code, misaligned, mxcsr, cases };
  });
}
