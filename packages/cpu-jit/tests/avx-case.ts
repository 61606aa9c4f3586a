/** Inputs of AVX test cases, computed from a seed so that the vectors need to hold results only. */
import type { Insn } from '../src/decoder/types.ts';
import { random } from '../src/testing/runtime-machine.ts';
import { WINDOW, WINDOW_BYTES } from './window.ts';

export const INPUT_CLASSES = ['integers', 'singles', 'doubles', 'halves'] as const;
export type InputClass = (typeof INPUT_CLASSES)[number];

export interface AvxState {
  readonly gprs: bigint[];
  /** Low halves of the sixteen registers, then high halves. */
  readonly ymm: Uint8Array;
  readonly flags: number;
  readonly mxcsr: number;
  readonly memory: Uint8Array;
}

const DOUBLES = [
  0n, 0x8000000000000000n, 0x3ff0000000000000n, 0xbff0000000000000n, 0x7ff0000000000000n, 0xfff0000000000000n, 0x7ff8000000000000n,
  0xfff8000000000123n, 0x7ff0000000000001n, 0xfff4567800000000n, 1n, 0x800fffffffffffffn, 0x0010000000000000n, 0x7fefffffffffffffn,
  0xffefffffffffffffn, 0x3fe0000000000000n, 0x3ff8000000000000n, 0x4004000000000000n, 0xc004000000000000n, 0x41dfffffffe00000n,
  0xc1e0000000000000n, 0x43e0000000000000n, 0x36a0000000000000n, 0x47efffffefffffffn, 0x3810000000000000n, 0x380fffffdfffffffn,
  0x3ff0000000000001n, 0x3fefffffffffffffn, 0x801fffffffffffffn, 0x0008000000000000n,
]; // biome-ignore format: a table
const SINGLES = [
  0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00123, 0x7f800001, 0xffa45678, 1, 0x807fffff, 0x00800000,
  0x7f7fffff, 0xff7fffff, 0x3f000000, 0x3fc00000, 0x40200000, 0xc0200000, 0x4effffff, 0xcf000000, 0x5f000000, 0x4b7fffff, 0x3f800001,
  0x3f7fffff, 0x00400000, 0x477fe000, 0x477ff000, 0x38800000, 0x387fe000, 0x33000000, 0x33000001, 0x33800000, 0x32ffffff,
]; // biome-ignore format: a table
const INTEGERS = [
  0n, -1n, 0x8000000000000000n, 0x7fffffffffffffffn, 0x8000000080000000n, 0x7fffffff7fffffffn, 0x8000800080008000n, 0x8080808080808080n,
  0x7f7f7f7f7f7f7f7fn, 1n, 0x0000001f00000020n, 63n, 64n, 0x0000000500000007n, 0x00ff00ff00ff00ffn, 0xff80007f8001ff7fn, 0x8001800080017fffn,
  0x0706050403020100n, 0x8f1e2d3c4b5a6978n, 0x0000000100000003n,
]; // biome-ignore format: a table

type Rng = (limit: number) => number;
/** 32 random bits: the generator's own are few when the limit is large. */
const word = (rng: Rng): number => (rng(0x10000) << 16) | rng(0x10000);

/** Exponents mostly about 1, sometimes near the limits of the format. */
function exponent(rng: Rng, bias: number, range: number): number {
  const n = rng(range);
  switch (rng(8)) {
    case 0:
      return n >> 1;
    case 1:
      return (bias >> 1) + (n >> 1);
    case 2:
      return bias + (bias >> 1) + (n >> 1);
    case 3:
      return 2 * bias - (n >> 1);
    default:
      return bias - (range >> 1) + n;
  }
}

function fillVector(rng: Rng, kind: InputClass, view: DataView, at: number): void {
  for (let i = 0; i < 16; i += 8) {
    if (kind === 'doubles') {
      const high = (word(rng) & 0x800f_ffff) | (exponent(rng, 1023, 40) << 20);
      view.setBigUint64(at + i, rng(3) === 0 ? (DOUBLES[rng(DOUBLES.length)] ?? 0n) : (BigInt(high >>> 0) << 32n) | BigInt(word(rng) >>> 0), true);
    } else if (kind === 'integers') {
      const value = rng(3) === 0 ? (INTEGERS[rng(INTEGERS.length)] ?? 0n) : (BigInt(word(rng) >>> 0) << 32n) | BigInt(word(rng) >>> 0);
      view.setBigUint64(at + i, BigInt.asUintN(64, value), true);
    } else {
      for (let j = i; j < i + 8; j += 4) {
        if (kind === 'halves') view.setUint32(at + j, rng(4) === 0 ? word(rng) & 0x83ff_83ff : rng(4) === 0 ? word(rng) | 0x7c00_7c00 : word(rng), true);
        else {
          // Exponents of halves lie within those about 1.
          const value = (word(rng) & 0x807f_ffff) | (exponent(rng, 127, 36) << 23);
          view.setUint32(at + j, rng(3) === 0 ? (SINGLES[rng(SINGLES.length)] ?? 0) : value, true);
        }
      }
    }
  }
}

const POOL_SIZE = 96;
const pools = new Map<InputClass, Uint8Array>();
/** Vectors of 16 bytes that registers and memory are made from. */
function poolOf(kind: InputClass): Uint8Array {
  let pool = pools.get(kind);
  if (pool === undefined) {
    pool = new Uint8Array(POOL_SIZE * 16);
    const rng = random(0x1234_5678 + INPUT_CLASSES.indexOf(kind));
    const view = new DataView(pool.buffer);
    for (let i = 0; i < POOL_SIZE; i++) fillVector(rng, kind, view, i * 16);
    pools.set(kind, pool);
  }
  return pool;
}

/** Where the memory operand of a case lies in the window: on a multiple of 32, or anywhere. */
function placeOf(rng: Rng): number {
  return rng(2) === 0 ? 32 * rng(2) : rng(33);
}

/** The state that case `seed` of an instruction starts from. Its memory operand has a base register, or is at DS:rDI. */
export function initialState(insn: Insn, kind: InputClass, mxcsr: number, seed: number): AvxState {
  const rng = random(seed * 0x9e37_79b1 + 0x7f4a_7c15);
  for (let i = 0; i < 4; i++) rng(2);
  const pool = poolOf(kind);
  const pick = () => {
    const i = rng(POOL_SIZE) * 16;
    return pool.subarray(i, i + 16);
  };
  const ymm = new Uint8Array(512);
  for (let at = 0; at < 512; at += 16) ymm.set(pick(), at);
  const memory = new Uint8Array(WINDOW_BYTES);
  for (let at = 0; at < WINDOW_BYTES; at += 16) memory.set(pick(), at);
  const poolView = new DataView(pool.buffer);
  const gprs = Array.from({ length: 16 }, () => poolView.getBigUint64(rng(POOL_SIZE) * 16, true));
  const { mem } = insn;
  if (insn.operands.some((o) => o.field === 'vsib') && mem !== null) placeGather(rng, insn, gprs, ymm);
  else if (mem !== null) gprs[mem.base] = BigInt.asUintN(64, BigInt(WINDOW + placeOf(rng) - mem.disp));
  else if (insn.row.asz === true) gprs[7] = BigInt(WINDOW + rng(49));
  return { gprs, ymm, flags: 0x8d5, mxcsr, memory };
}

/** Indexes that lead into the window from its middle, which the base register points to. */
function placeGather(rng: Rng, insn: Insn, gprs: bigint[], ymm: Uint8Array): void {
  const { mem } = insn;
  if (mem === null) return;
  gprs[mem.base] = BigInt.asUintN(64, BigInt(WINDOW + 28 - mem.disp));
  const reach = 28 >> mem.scale;
  const view = new DataView(ymm.buffer);
  const wide = insn.row.operands[1] === 'vm64x';
  for (let half = 0; half < 2; half++) {
    const at = half * 256 + mem.index * 16;
    for (let i = 0; i < 16; i += wide ? 8 : 4) {
      const index = rng(2 * reach + 1) - reach;
      if (wide) view.setBigInt64(at + i, BigInt(index), true);
      else view.setInt32(at + i, index, true);
    }
  }
}
