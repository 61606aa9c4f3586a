/**
 * tests/vectors/int.bin.gz: integer instructions of every form of the decoder's tables, run on silicon (tests/generate/int.ts).
 *
 * "XINT", u32 size of the pool, the pool (u64 each), u32 encodings, then for each: u8 length, bytes, u8 cases, then for each case:
 *   pool indexes u8 of the 16 registers and of the first word of memory (word k is the k-th entry after it, wrapping), u16 flags, u8 overrides
 *   (u8 register, or 16 + word of memory; u64 value), u8 exception vector + 1 (0: none), for page faults u8 error code and u64 address, i16 RIP after it relative to its start, u32 mask of what
 *   changed (0..15 registers, 16 flags, 17..24 words of memory) and the new values (u64, flags u16).
 * Little-endian.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync, gzipSync } from 'node:zlib';
import { CODE, DATA } from './program.ts';
import { VectorReader, VectorWriter } from './vector-stream.ts';

/** Where the instruction is; HLT is all around it. */
export const START = CODE + 0x2000;
/** 64 bytes of memory, half in one page and half in the next. */
export const WINDOW = DATA + 0xfe0;
export const WINDOW_BYTES = 64;
/** Status flags and DF. */
export const FLAGS = 0xcd5;

/** Sixteen registers, flags and the eight words of the window. */
export interface IntState {
  readonly gprs: readonly bigint[];
  readonly flags: number;
  readonly memory: readonly bigint[];
}
export interface IntCase {
  readonly before: IntState;
  readonly after: IntState;
  /** Exception vector, -1: none. */
  readonly trap: number;
  /** Error code and address of a page fault, else 0. */
  readonly error: number;
  readonly address: bigint;
  /** RIP after it minus START. */
  readonly rip: number;
}
export interface IntEncoding {
  readonly code: Uint8Array;
  readonly cases: readonly IntCase[];
}

export const INT_VECTORS = new URL('./vectors/int.bin.gz', import.meta.url);
const MAGIC = 'XINT';
export const PAGE_FAULT = 14;

/** Packs vectors; values that are not in `pool` (at most 256 entries) become overrides. */
export function packIntVectors(pool: readonly bigint[], encodings: readonly IntEncoding[]): Uint8Array {
  const w = new VectorWriter();
  const index = new Map(pool.map((v, i) => [v, i]));
  w.ascii(MAGIC);
  w.u32(pool.length);
  for (const v of pool) w.u64(v);
  w.u32(encodings.length);
  for (const { code, cases } of encodings) {
    w.u8(code.length);
    for (const byte of code) w.u8(byte);
    w.u8(cases.length);
    for (const c of cases) packCase(w, c, pool, index);
  }
  return gzipSync(w.bytes(), { level: 9 });
}

function packCase(w: VectorWriter, { before, after, trap, error, address, rip }: IntCase, pool: readonly bigint[], index: ReadonlyMap<bigint, number>): void {
  const overrides: [number, bigint][] = [];
  for (const [n, v] of before.gprs.entries()) {
    const i = index.get(v);
    if (i === undefined) overrides.push([n, v]);
    w.u8(i ?? 0);
  }
  const first = before.memory.map((v) => index.get(v)).find((i) => i !== undefined) ?? 0;
  const word = before.memory.findIndex((v) => index.get(v) === first);
  const start = (first - Math.max(word, 0) + pool.length) % pool.length;
  for (const [k, v] of before.memory.entries()) if (pool[(start + k) % pool.length] !== v) overrides.push([16 + k, v]);
  w.u8(start);
  w.u16(before.flags);
  w.u8(overrides.length);
  for (const [n, v] of overrides) {
    w.u8(n);
    w.u64(v);
  }
  w.u8(trap + 1);
  if (trap === PAGE_FAULT) {
    w.u8(error);
    w.u64(address);
  }
  w.i16(rip);
  const values = (s: IntState) => [...s.gprs, BigInt(s.flags), ...s.memory];
  const [old, now] = [values(before), values(after)];
  let mask = 0;
  for (const [i, v] of now.entries()) if (v !== old[i]) mask |= 1 << i;
  w.u32(mask);
  for (const [i, v] of now.entries()) {
    if (((mask >> i) & 1) === 0) continue;
    if (i === 16) w.u16(Number(v));
    else w.u64(v);
  }
}

/** Throws `TypeError` for a file that is something else. */
export function readIntVectors(url: URL = INT_VECTORS): IntEncoding[] {
  const r = new VectorReader(gunzipSync(readFileSync(url)));
  r.expect(MAGIC, url.pathname);
  const pool = Array.from({ length: r.u32() }, () => r.u64());
  const pick = (i: number) => pool[i % pool.length] ?? 0n;
  const readCase = (): IntCase => {
    const gprs = Array.from({ length: 16 }, () => pick(r.u8()));
    const start = r.u8();
    const memory = Array.from({ length: 8 }, (_, k) => pick(start + k));
    const flags = r.u16();
    for (let n = r.u8(); n > 0; n--) {
      const i = r.u8();
      if (i < 16) gprs[i] = r.u64();
      else memory[i - 16] = r.u64();
    }
    const trap = r.u8() - 1;
    const error = trap === PAGE_FAULT ? r.u8() : 0;
    const address = trap === PAGE_FAULT ? r.u64() : 0n;
    const rip = r.i16();
    const mask = r.u32();
    const values = [...gprs, BigInt(flags), ...memory].map((v, i) => (((mask >> i) & 1) === 0 ? v : i === 16 ? BigInt(r.u16()) : r.u64()));
    return {
      before: { gprs, flags, memory },
      after: { gprs: values.slice(0, 16), flags: Number(values[16]), memory: values.slice(17) },
      trap,
      error,
      address,
      rip,
    };
  };
  return Array.from({ length: r.u32() }, () => {
    const code = r.take(r.u8());
    return { code, cases: Array.from({ length: r.u8() }, readCase) };
  });
}
