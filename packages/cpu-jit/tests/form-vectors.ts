/**
 * tests/vectors/forms.bin.gz: instructions beyond the integer ones (SSE, MMX, x87, state images, segment registers, privileged ones that
 * fault in user mode), and other segments for integer ones, run on silicon from whole states (tests/generate/forms.ts).
 *
 * "XFRM", u32 encodings, then for each: u8 length, bytes, u8 area (0 the window, 1 the image), u8 cases, then for each case: u8 base state
 * (form-state.ts), u8 overrides (u8 slot, u64 value), u8 exception vector + 1 (0: none), when it is one with an error code u16 error code, for page faults u64
 * address, i32 RIP after it relative to its start, u8 number of changed slots, for each u8 slot, u64 value. Little-endian.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync, gzipSync } from 'node:zlib';
import { baseState, MEMORY_WORDS, SLOT } from './form-state.ts';
import { WINDOW } from './int-vectors.ts';
import { DATA } from './program.ts';
import { VectorReader, VectorWriter } from './vector-stream.ts';

/** Memory that an encoding works on. */
export interface Area {
  readonly at: number;
  readonly words: number;
}
/** The window of 64 bytes across two pages, and room for an XSAVE image with x87, SSE and header. */
export const AREAS: readonly [Area, Area] = [
  { at: WINDOW, words: MEMORY_WORDS },
  { at: DATA + 0x900, words: 80 },
];
/** Vectors that push an error code, user code can raise, and are not a page fault (SDM vol. 3, table 6-1). */
const WITH_ERROR: ReadonlySet<number> = new Set([11, 12, 13, 17]);
export const PAGE_FAULT = 14;

export interface FormOutcome {
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
export interface FormCase extends FormOutcome {
  readonly base: number;
  readonly before: BigUint64Array;
}
export interface FormEncoding {
  readonly code: Uint8Array;
  readonly area: number;
  readonly cases: readonly FormCase[];
}

export const FORM_VECTORS = new URL('./vectors/forms.bin.gz', import.meta.url);
const MAGIC = 'XFRM';

/** Base state `number` with the memory of `area`: the words of the window, repeated. */
export function startState(number: number, area: number): BigUint64Array {
  const base = baseState(number);
  const words = AREAS[area]?.words ?? 0;
  const state = new BigUint64Array(SLOT.memory + words);
  state.set(base.subarray(0, SLOT.memory));
  for (let k = 0; k < words; k++) state[SLOT.memory + k] = base[SLOT.memory + (k % MEMORY_WORDS)] ?? 0n;
  return state;
}

/** Slots in which two states differ. */
export function changedSlots(before: BigUint64Array, after: BigUint64Array): number[] {
  return [...after.keys()].filter((i) => before[i] !== after[i]);
}

export function packFormVectors(encodings: readonly FormEncoding[]): Uint8Array {
  const w = new VectorWriter();
  const slots = (from: BigUint64Array, to: BigUint64Array) => {
    const changed = changedSlots(from, to);
    w.u8(changed.length);
    for (const i of changed) {
      w.u8(i);
      w.u64(to[i] ?? 0n);
    }
  };
  w.ascii(MAGIC);
  w.u32(encodings.length);
  for (const { code, area, cases } of encodings) {
    w.u8(code.length);
    for (const byte of code) w.u8(byte);
    w.u8(area);
    w.u8(cases.length);
    for (const c of cases) {
      w.u8(c.base);
      slots(startState(c.base, area), c.before);
      w.u8(c.trap + 1);
      if (WITH_ERROR.has(c.trap) || c.trap === PAGE_FAULT) w.u16(c.error);
      if (c.trap === PAGE_FAULT) w.u64(c.address);
      w.i32(c.rip);
      slots(c.before, c.state);
    }
  }
  return gzipSync(w.bytes(), { level: 9 });
}

/** Throws `TypeError` for a file that is something else. */
export function readFormVectors(url: URL = FORM_VECTORS): FormEncoding[] {
  const r = new VectorReader(gunzipSync(readFileSync(url)));
  r.expect(MAGIC, url.pathname);
  const change = (from: BigUint64Array): BigUint64Array => {
    const to = from.slice();
    for (let n = r.u8(); n > 0; n--) {
      const i = r.u8();
      to[i] = r.u64();
    }
    return to;
  };
  return Array.from({ length: r.u32() }, () => {
    const code = r.take(r.u8());
    const area = r.u8();
    const cases = Array.from({ length: r.u8() }, (): FormCase => {
      const base = r.u8();
      const before = change(startState(base, area));
      const trap = r.u8() - 1;
      const error = WITH_ERROR.has(trap) || trap === PAGE_FAULT ? r.u16() : 0;
      const address = trap === PAGE_FAULT ? r.u64() : 0n;
      const rip = r.i32();
      return { base, before, trap, error, address, rip, state: change(before) };
    });
    return { code, area, cases };
  });
}
