/** Reader of tests/vectors/integer.bin.gz; the format is described in tests/native/integer-vectors.c, which writes it. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

/** Address of the 64 bytes of memory that forms use. */
export const MEMORY = 0x10100;
/** Number in the encoding of each register, in the order of the file. */
const FILE_ORDER = [0, 1, 2, 3, 4, 5, 6, 7, 8] as const;
const POINTERS = [BigInt(MEMORY + 0x20), BigInt(MEMORY + 0x30), BigInt(MEMORY + 8), BigInt(MEMORY + 0x20), 0x1122_3344_5566_7788n];

/** rax rcx rdx rbx rsp rbp rsi rdi r8, status flags, eight words of memory. */
export interface IntegerState {
  readonly registers: readonly bigint[];
  readonly flags: number;
  readonly memory: readonly bigint[];
}
export interface IntegerCase {
  readonly before: IntegerState;
  /** What the processor made of it, or the vector of the exception it raised. */
  readonly after: IntegerState | number;
}
/** One instruction or a few. */
export interface IntegerForm {
  /** AT&T text. */
  readonly text: string;
  readonly code: Uint8Array;
  readonly cases: readonly IntegerCase[];
}

export function readIntegerVectors(url: URL): IntegerForm[] {
  const bytes = gunzipSync(readFileSync(url));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const skip = (n: number) => {
    at += n;
    return at - n;
  };
  const take = (n: number) => bytes.subarray(skip(n), at);
  const u8 = () => view.getUint8(skip(1));
  const u16 = () => view.getUint16(skip(2), true);
  const u32 = () => view.getUint32(skip(4), true);
  const u64 = () => view.getBigUint64(skip(8), true);
  const ascii = (n: number) => String.fromCharCode(...take(n));
  const magic = ascii(4);
  if (magic !== 'INTV') throw new TypeError(`${url.pathname}: expected INTV at the start, got ${JSON.stringify(magic)}`);
  const pool = Array.from({ length: u32() }, u64);
  const pooled = (i: number) => pool[i % pool.length] ?? 0n;
  const readCase = (): IntegerCase => {
    const [a, c, d, b, m] = [u8(), u8(), u8(), u8(), u8()];
    const before: IntegerState = {
      registers: [pooled(a), pooled(c), pooled(d), pooled(b), ...POINTERS],
      flags: u16(),
      memory: Array.from({ length: 8 }, (_, i) => pooled(m + i)),
    };
    const exception = u8();
    if (exception !== 0) return { before, after: exception - 1 };
    const changed = u32();
    const next = (i: number, old: bigint) => ((changed >> i) & 1 ? u64() : old);
    const registers = FILE_ORDER.map((i) => next(i, before.registers[i] ?? 0n));
    const flags = Number(next(9, BigInt(before.flags)));
    return { before, after: { registers, flags, memory: before.memory.map((word, i) => next(10 + i, word)) } };
  };
  return Array.from({ length: u32() }, () => {
    const text = ascii(u8());
    const code = Uint8Array.from(take(u8()));
    return { text, code, cases: Array.from({ length: u8() }, readCase) };
  });
}
