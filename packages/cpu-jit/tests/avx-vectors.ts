/**
 * tests/vectors/avx.bin.gz, avx-modes.bin.gz: every form of AVX, AVX2, FMA and F16C run on silicon (tests/generate/avx.ts). Inputs are
 * computed (avx-case.ts), so only results are kept:
 *
 * "AVXV", u32 encodings, then for each: u8 length, bytes, u8 input class, u16 MXCSR, u16 seed of its first case (the others follow), u8 cases,
 *   then for each case: u8 exception vector + 1 (0: none), u32 mask of changed ymm registers (bit 31: flags, 30: memory, 29: MXCSR,
 *   16 general registers follow as u16), then their new values in that order: 32 bytes a register, u16, 64 bytes, u16, u64.
 * Little-endian.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync, gzipSync } from 'node:zlib';
import { decode } from '../src/decoder/index.ts';
import type { Insn } from '../src/decoder/types.ts';
import { type AvxState, INPUT_CLASSES, type InputClass, initialState } from './avx-case.ts';
import { WINDOW_BYTES } from './window.ts';

export interface AvxCase {
  readonly before: AvxState;
  readonly after: AvxState;
  /** Exception vector, -1: none. */
  readonly trap: number;
}
export interface AvxEncoding {
  readonly code: Uint8Array;
  readonly insn: Insn;
  readonly inputs: InputClass;
  readonly mxcsr: number;
  readonly firstSeed: number;
  readonly cases: readonly AvxCase[];
}

export const AVX_VECTORS = new URL('./vectors/avx.bin.gz', import.meta.url);
/** Controls of MXCSR other than the default ones. */
export const AVX_MODES_VECTORS = new URL('./vectors/avx-modes.bin.gz', import.meta.url);
const MAGIC = 'AVXV';
const FLAGS = 2 ** 31;
const MEMORY = 2 ** 30;
const MXCSR = 2 ** 29;

export function decodeCode(code: Uint8Array): Insn {
  const bytes = new Uint8Array(16);
  bytes.set(code);
  const insn = decode(bytes, 0, 16, 64);
  if (typeof insn === 'string') throw new TypeError(`${Buffer.from(code).toString('hex')} does not decode (${insn})`);
  return insn;
}

/** The two halves of register `n` of `ymm`. */
const halvesOf = (ymm: Uint8Array, n: number) => Buffer.concat([ymm.subarray(n * 16, n * 16 + 16), ymm.subarray(256 + n * 16, 272 + n * 16)]);

function packCase({ before, after, trap }: AvxCase): Buffer {
  const values: Buffer[] = [];
  let mask = 0;
  for (let n = 0; n < 16; n++) {
    const now = halvesOf(after.ymm, n);
    if (now.equals(halvesOf(before.ymm, n))) continue;
    mask += 2 ** n;
    values.push(now);
  }
  const u16 = (v: number) => {
    const b = Buffer.alloc(2);
    b.writeUInt16LE(v);
    values.push(b);
  };
  if (after.flags !== before.flags) {
    mask += FLAGS;
    u16(after.flags);
  }
  if (!Buffer.from(after.memory).equals(before.memory)) {
    mask += MEMORY;
    values.push(Buffer.from(after.memory));
  }
  if (after.mxcsr !== before.mxcsr) {
    mask += MXCSR;
    u16(after.mxcsr);
  }
  let general = 0;
  for (const [n, v] of after.gprs.entries()) {
    if (v === before.gprs[n]) continue;
    general |= 1 << n;
    const b = Buffer.alloc(8);
    b.writeBigUInt64LE(v);
    values.push(b);
  }
  const head = Buffer.alloc(7);
  head.writeUInt8(trap + 1, 0);
  head.writeUInt32LE(mask, 1);
  head.writeUInt16LE(general, 5);
  return Buffer.concat([head, ...values]);
}

export function packAvxVectors(encodings: readonly AvxEncoding[]): Uint8Array {
  const count = Buffer.alloc(4);
  count.writeUInt32LE(encodings.length);
  const parts = encodings.flatMap((e) => {
    const head = Buffer.alloc(6);
    head.writeUInt8(INPUT_CLASSES.indexOf(e.inputs), 0);
    head.writeUInt16LE(e.mxcsr, 1);
    head.writeUInt16LE(e.firstSeed, 3);
    head.writeUInt8(e.cases.length, 5);
    return [Buffer.from([e.code.length]), Buffer.from(e.code), head, ...e.cases.map(packCase)];
  });
  return gzipSync(Buffer.concat([Buffer.from(MAGIC), count, ...parts]), { level: 9 });
}

/** Throws `TypeError` for a file that is something else. */
export function readAvxVectors(url: URL): AvxEncoding[] {
  const bytes = gunzipSync(readFileSync(url));
  let at = 4;
  if (bytes.toString('latin1', 0, 4) !== MAGIC) throw new TypeError(`${url.pathname}: expected ${MAGIC} at the start`);
  const take = (n: number) => {
    at += n;
    return bytes.subarray(at - n, at);
  };
  const readCase = (insn: Insn, inputs: InputClass, mxcsr: number, seed: number): AvxCase => {
    const before = initialState(insn, inputs, mxcsr, seed);
    const trap = take(1).readUInt8() - 1;
    const mask = take(4).readUInt32LE();
    const general = take(2).readUInt16LE();
    const ymm = before.ymm.slice();
    for (let n = 0; n < 16; n++) {
      if (((mask >>> n) & 1) === 0) continue;
      ymm.set(take(16), n * 16);
      ymm.set(take(16), 256 + n * 16);
    }
    const flags = (mask & FLAGS) === 0 ? before.flags : take(2).readUInt16LE();
    const memory = (mask & MEMORY) === 0 ? before.memory : take(WINDOW_BYTES);
    const after = (mask & MXCSR) === 0 ? mxcsr : take(2).readUInt16LE();
    const gprs = before.gprs.map((v, n) => (((general >>> n) & 1) === 0 ? v : take(8).readBigUInt64LE()));
    return { before, trap, after: { gprs, ymm, flags, memory, mxcsr: after } };
  };
  return Array.from({ length: take(4).readUInt32LE() }, () => {
    const code = take(take(1).readUInt8());
    const insn = decodeCode(code);
    const inputs = INPUT_CLASSES[take(1).readUInt8()] ?? 'integers';
    const mxcsr = take(2).readUInt16LE();
    const firstSeed = take(2).readUInt16LE();
    const cases = Array.from({ length: take(1).readUInt8() }, (_, i) => readCase(insn, inputs, mxcsr, firstSeed + i));
    return { code, insn, inputs, mxcsr, firstSeed, cases };
  });
}
