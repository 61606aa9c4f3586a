/**
 * tests/vectors/<code mode>-<part>.bin.br: instructions run on silicon from whole states (tests/generate/silicon.ts), in Brotli.
 *
 * "XSIL", u8 number of streams, their lengths as u32, and the streams: columns of what belongs together, for Brotli's sake. A case is a seed, which its input is
 * computed from (inputs.ts), and what came of it.
 *
 * - codes: u32 encodings, then for each u8 length, bytes, i16 offset of the memory operand in the window, u8 area, u8 cases, u8 checksum of the inputs.
 * - seeds: for each case how many seeds after the one before it, u8; those of an encoding begin at its number times SEEDS_PER_ENCODING.
 * - ends: u8 exception vector + 1 (0: none), for those with an error code u16, for page faults u64 address less START.
 * - rips: i32, RIP after it minus RIP before it.
 * - slots: u8 number of changed slots, then which (u8).
 * - kinds: for each changed slot 0..8: that many bytes in `bytes`; 9: i8 in `bytes`, to be added to the old value; 16 + n: the old value of slot n.
 * - bytes. Little-endian.
 */
import { readFileSync } from 'node:fs';
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';
import type { CodeMode } from './code-modes.ts';
import { SLOT } from './form-state.ts';
import { inputOf } from './inputs.ts';
import { type Instance, instanceOf } from './instance.ts';
import { VectorReader, VectorWriter } from './vector-stream.ts';
import { START } from './window.ts';

/** Vectors that push an error code, user code can raise, and are not a page fault (SDM vol. 3, table 6-1). */
const WITH_ERROR: ReadonlySet<number> = new Set([11, 12, 13, 17]);
export const PAGE_FAULT = 14;
export const SEEDS_PER_ENCODING = 256;

export interface Outcome {
  /** By `SLOT`, then memory. */
  readonly state: BigUint64Array;
  /** Exception vector, -1: none. */
  readonly trap: number;
  readonly error: number;
  /** Of a page fault, else 0. */
  readonly address: bigint;
  /** RIP after it minus its address. */
  readonly rip: number;
}
export interface SiliconCase extends Outcome {
  readonly seed: number;
  readonly before: BigUint64Array;
}
/** An instance and the cases recorded with it, which are computed when asked for. */
export interface SiliconEncoding {
  readonly instance: Instance;
  readonly count: number;
  cases(): SiliconCase[];
}

const MAGIC = 'XSIL';
const DELTA = 9;
const OLD_VALUE = 16;
const STREAMS = ['codes', 'seeds', 'ends', 'rips', 'slots', 'kinds', 'bytes'] as const;
type Streams<T> = Record<(typeof STREAMS)[number], T>;

const streams = <T>(make: (name: (typeof STREAMS)[number], i: number) => T): Streams<T> =>
  Object.fromEntries(STREAMS.map((name, i) => [name, make(name, i)])) as Streams<T>;

function checksum(states: readonly BigUint64Array[]): number {
  let sum = 0;
  for (const s of states) for (const word of new Uint32Array(s.buffer, s.byteOffset, s.length * 2)) sum = (Math.imul(sum, 0x0100_0193) ^ word) >>> 0;
  return (sum ^ (sum >>> 8) ^ (sum >>> 16) ^ (sum >>> 24)) & 0xff;
}

export function packVectors(encodings: readonly { readonly instance: Instance; readonly cases: readonly SiliconCase[] }[]): Uint8Array {
  const w = streams(() => new VectorWriter());
  w.codes.u32(encodings.length);
  for (const [number, { instance, cases }] of encodings.entries()) {
    w.codes.u8(instance.code.length);
    for (const byte of instance.code) w.codes.u8(byte);
    w.codes.i16(instance.at);
    w.codes.u8(instance.area);
    w.codes.u8(cases.length);
    w.codes.u8(checksum(cases.map((c) => c.before)));
    let seed = number * SEEDS_PER_ENCODING;
    for (const c of cases) {
      w.seeds.u8(c.seed - seed);
      seed = c.seed;
      packOutcome(w, c);
    }
  }
  const bytes = STREAMS.map((name) => w[name].bytes());
  const header = new VectorWriter();
  header.ascii(MAGIC);
  header.u8(STREAMS.length);
  for (const b of bytes) header.u32(b.length);
  const whole = Buffer.concat([header.bytes(), ...bytes]);
  const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_LGWIN, BROTLI_PARAM_SIZE_HINT, BROTLI_MAX_QUALITY, BROTLI_MAX_WINDOW_BITS } = constants;
  const params = { [BROTLI_PARAM_QUALITY]: BROTLI_MAX_QUALITY, [BROTLI_PARAM_LGWIN]: BROTLI_MAX_WINDOW_BITS, [BROTLI_PARAM_SIZE_HINT]: whole.length };
  return brotliCompressSync(whole, { params });
}

function packOutcome(w: Streams<VectorWriter>, c: SiliconCase): void {
  w.ends.u8(c.trap + 1);
  if (WITH_ERROR.has(c.trap) || c.trap === PAGE_FAULT) w.ends.u16(c.error);
  if (c.trap === PAGE_FAULT) w.ends.u64(BigInt.asUintN(64, c.address - BigInt(START)));
  w.rips.i32(c.rip);
  const changed = [...c.state.keys()].filter((i) => c.before[i] !== c.state[i]);
  w.slots.u8(changed.length);
  for (const i of changed) {
    w.slots.u8(i);
    packValue(w, c.before, i, c.state[i] ?? 0n);
  }
}

function packValue(w: Streams<VectorWriter>, before: BigUint64Array, slot: number, value: bigint): void {
  const size = value === 0n ? 0 : Math.ceil(value.toString(16).length / 2);
  const delta = BigInt.asIntN(64, value - (before[slot] ?? 0n));
  const old = before.indexOf(value);
  if (size > 1 && delta >= -128n && delta < 128n) {
    w.kinds.u8(DELTA);
    w.bytes.u8(Number(BigInt.asUintN(8, delta)));
  } else if (size > 2 && old >= 0) w.kinds.u8(OLD_VALUE + old);
  else {
    w.kinds.u8(size);
    for (let i = 0; i < size; i++) w.bytes.u8(Number((value >> BigInt(8 * i)) & 0xffn));
  }
}

function readValue(r: Streams<VectorReader>, before: BigUint64Array, slot: number): bigint {
  const kind = r.kinds.u8();
  if (kind >= OLD_VALUE) return before[kind - OLD_VALUE] ?? 0n;
  if (kind === DELTA) return BigInt.asUintN(64, (before[slot] ?? 0n) + BigInt.asIntN(8, BigInt(r.bytes.u8())));
  let value = 0n;
  for (let i = 0; i < kind; i++) value |= BigInt(r.bytes.u8()) << BigInt(8 * i);
  return value;
}

/** The file of a code mode and a part of its forms. */
export const vectorFile = (name: string): URL => new URL(`./vectors/${name}.bin.br`, import.meta.url);

/**
 * Reads a file; `cases` of its encodings must be asked for once each, in order. Throws `TypeError` for a file that is something else, or whose inputs are not what
 * inputs.ts computes now.
 */
export function readSiliconVectors(mode: CodeMode, file: URL): SiliconEncoding[] {
  const bytes = brotliDecompressSync(readFileSync(file));
  const header = new VectorReader(bytes);
  header.expect(MAGIC, file.pathname);
  const lengths = Array.from({ length: header.u8() }, () => header.u32());
  let at = bytes.length - lengths.reduce((a, b) => a + b, 0);
  const r = streams((_, i) => {
    at += lengths[i] ?? 0;
    return new VectorReader(bytes.subarray(at - (lengths[i] ?? 0), at));
  });
  return Array.from({ length: r.codes.u32() }, (_, number): SiliconEncoding => {
    const code = r.codes.take(r.codes.u8());
    const instance = instanceOf(mode, code, r.codes.i16(), r.codes.u8());
    const [count, sum] = [r.codes.u8(), r.codes.u8()];
    return { instance, count, cases: () => readCases(r, instance, number, count, sum, file) };
  });
}

function readCases(r: Streams<VectorReader>, instance: Instance, number: number, count: number, sum: number, file: URL): SiliconCase[] {
  let seed = number * SEEDS_PER_ENCODING;
  const cases = Array.from({ length: count }, (): SiliconCase => {
    seed += r.seeds.u8();
    const before = inputOf(instance, seed) ?? new BigUint64Array(SLOT.memory);
    const trap = r.ends.u8() - 1;
    const error = WITH_ERROR.has(trap) || trap === PAGE_FAULT ? r.ends.u16() : 0;
    const address = trap === PAGE_FAULT ? BigInt.asUintN(64, r.ends.u64() + BigInt(START)) : 0n;
    const rip = r.rips.i32();
    const state = before.slice();
    for (let n = r.slots.u8(); n > 0; n--) {
      const slot = r.slots.u8();
      state[slot] = readValue(r, before, slot);
    }
    return { seed, before, trap, error, address, rip, state };
  });
  if (checksum(cases.map((c) => c.before)) !== sum)
    throw new TypeError(`${file.pathname}: the inputs of ${Buffer.from(instance.code).toString('hex')} are not those recorded; run tests/generate/silicon.ts`);
  return cases;
}
