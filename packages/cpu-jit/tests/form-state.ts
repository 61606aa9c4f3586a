/** States that recorded cases start from: everything user code can see, as 64-bit slots. */
import { Prng, SPECIAL } from './prng.ts';
import { FS_BASE, GS_BASE } from './program.ts';

/** First slot of each part. After the last one comes memory: the window of the encoding, word by word. */
export const SLOT = {
  /** RAX..R15. */
  gpr: 0,
  /** Status flags and DF. */
  flags: 16,
  mxcsr: 17,
  /** XMM0 low, XMM0 high, ... */
  xmm: 18,
  /** ST0 significand, ST0 sign and exponent, ST1... in stack order; the significand of a register is its MMX value. */
  st: 50,
  /** Control word, status word with TOP in bits 16..31, in-use bits by physical register in 32..39, opcode in 48..63. */
  x87: 66,
  fip: 67,
  fdp: 68,
  /** Selectors of ES, DS, FS, GS, 16 bits each. */
  selectors: 69,
  fsBase: 70,
  gsBase: 71,
  /** Selectors of CS and SS, 16 bits each. */
  codeStack: 72,
  /** High halves of YMM0 low, YMM0 high, ... */
  high: 73,
  memory: 105,
} as const;

/** What operands of an instruction are, so that some of the states suit it. */
export type ValueKind = 'int' | 'single' | 'double' | 'extended' | 'bcd' | 'string';
const KINDS: readonly ValueKind[] = ['int', 'single', 'double', 'extended', 'bcd', 'string'];
const STATES_PER_KIND = 40;
export const STATE_COUNT = KINDS.length * STATES_PER_KIND;
export const MEMORY_WORDS = 8;

/** Numbers of the base states of a kind. */
export function statesOf(kind: ValueKind): number[] {
  const first = KINDS.indexOf(kind) * STATES_PER_KIND;
  return Array.from({ length: STATES_PER_KIND }, (_, k) => first + k);
}

/** MXCSR: all exceptions masked, all of their flags set already. */
const MXCSR_STICKY = 0x1fbf;

const DOUBLES = [
  0n,
  0x8000_0000_0000_0000n,
  0x3ff0_0000_0000_0000n,
  0xbff0_0000_0000_0000n,
  0x7ff0_0000_0000_0000n,
  0xfff0_0000_0000_0000n,
  0x7ff8_0000_0000_0000n,
  0xfff8_0000_0000_0123n,
  0x7ff0_0000_0000_0001n,
  1n,
  0x800f_ffff_ffff_ffffn,
  0x0010_0000_0000_0000n,
  0x7fef_ffff_ffff_ffffn,
  0x41df_ffff_ffe0_0000n,
  0xc1e0_0000_0010_0000n,
  0x43e0_0000_0000_0000n,
  0x36a0_0000_0000_0000n,
];
const SINGLES = [
  0, 0x8000_0000, 0x3f80_0000, 0xbf80_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffc0_0123, 0x7f80_0001, 1, 0x807f_ffff, 0x0080_0000, 0x7f7f_ffff,
  0x4eff_ffff, 0x4f00_0000, 0xcf00_0001, 0x5f00_0000,
];
/** Characters of which strings are made: few letters, both sides of 0x80, terminators. */
const LETTERS = [0, 0x61, 0x62, 0x63, 0x61, 0x62, 0x80, 0xff, 0x61, 0x62, 0x61, 0x61, 0x62, 0x62, 0x61, 0x7f];
const EXPONENT_BIAS = 0x3fff;
const INTEGER_BIT = 1n << 63n;

const u64 = (v: bigint) => BigInt.asUintN(64, v);

function single(rng: Prng): bigint {
  if (rng.oneIn(3)) return BigInt(rng.pick(SINGLES));
  const exponent = rng.oneIn(4) ? rng.below(256) : 120 + rng.below(16);
  return (BigInt(exponent) << 23n) | (rng.u64() & 0x807f_ffffn);
}

function double(rng: Prng): bigint {
  if (rng.oneIn(3)) return rng.pick(DOUBLES);
  const exponent = rng.oneIn(4) ? rng.below(2048) : 1010 + rng.below(30);
  return (BigInt(exponent) << 52n) | (rng.u64() & 0x800f_ffff_ffff_ffffn);
}

/** 64 bits of memory or of an XMM register. */
function word(rng: Prng, kind: ValueKind): bigint {
  switch (kind) {
    case 'single':
      return single(rng) | (single(rng) << 32n);
    case 'double':
      return double(rng);
    case 'string': {
      let v = 0n;
      for (let i = 0; i < 8; i++) v = (v << 8n) | BigInt(rng.pick(LETTERS));
      return v;
    }
    case 'bcd': {
      let v = 0n;
      for (let i = 0; i < 16; i++) v = (v << 4n) | BigInt(rng.below(10));
      return v;
    }
    default:
      return rng.interesting();
  }
}

/** An 80-bit number of any class: significand, sign and exponent. */
function extended(rng: Prng): [bigint, bigint] {
  const sign = rng.oneIn(2) ? 0x8000 : 0;
  const fraction = rng.oneIn(3) ? rng.u64() & ~((1n << BigInt(rng.below(63))) - 1n) : rng.u64();
  const of = (m: bigint, e: number): [bigint, bigint] => [u64(m), BigInt(sign | e)];
  switch (rng.below(14)) {
    case 0:
      return of(0n, 0);
    case 1:
      return of(fraction >> 1n, 0);
    case 2:
      return of(INTEGER_BIT, 0x7fff);
    case 3:
      return of(fraction | INTEGER_BIT, 0x7fff);
    case 4:
      return of(fraction, rng.below(0x8000));
    case 5:
    case 6:
      return of(fraction | INTEGER_BIT, EXPONENT_BIAS + 60 + rng.below(6));
    default:
      return of(fraction | INTEGER_BIT, EXPONENT_BIAS - 8 + rng.below(40));
  }
}

/** Control and status word, in-use bits; the last opcode stays 0. */
function x87Words(rng: Prng): bigint {
  const controls = rng.oneIn(3) ? 0x037f : 0x7f | (rng.below(4) << 10) | (rng.pick([0, 2, 3]) << 8);
  const unmasked = rng.oneIn(8) ? rng.below(64) : 0;
  const top = rng.below(8);
  const status = (rng.below(2) << 8) | (rng.below(2) << 10) | (rng.below(2) << 14) | (rng.oneIn(3) ? rng.below(64) & (rng.oneIn(4) ? -1 : ~unmasked) : 0);
  const tags = rng.pick([0xff, 0xff, 0xff, 0xff, rng.below(256), 0]);
  return BigInt(controls & ~unmasked) | (BigInt(status | (top << 11)) << 16n) | (BigInt(tags) << 32n);
}

function makeState(number: number): BigUint64Array {
  const rng = new Prng(0x5107_0000 + number);
  const kind = KINDS[Math.floor(number / STATES_PER_KIND)] ?? 'int';
  const state = new BigUint64Array(SLOT.memory + MEMORY_WORDS);
  for (let n = 0; n < 16; n++) state[SLOT.gpr + n] = rng.oneIn(3) ? rng.pick(SPECIAL) : rng.interesting();
  // Lengths of explicit strings, in either of the registers and in both directions.
  if (kind === 'string') for (const n of [0, 2]) state[SLOT.gpr + n] = u64(BigInt(rng.below(40) - 20));
  state[SLOT.flags] = BigInt(rng.below(0x1000) & 0x8d5);
  // One state in five runs under other rounding, flush-to-zero or denormals-are-zero; half of the others with no exception noted yet.
  state[SLOT.mxcsr] = BigInt(
    number % 5 !== 4
      ? (number & 1) === 0
        ? MXCSR_STICKY
        : 0x1f80
      : 0x1f80 | (rng.below(4) << 13) | (rng.below(2) << 15) | (rng.below(2) << 6) | (rng.oneIn(4) ? 0x3f : 0),
  );
  for (let i = 0; i < 32; i++) state[SLOT.xmm + i] = word(rng, kind);
  for (let i = 0; i < 16; i += 2) {
    const [m, e] = extended(rng);
    state[SLOT.st + i] = kind === 'int' || rng.oneIn(4) ? rng.interesting() : m;
    state[SLOT.st + i + 1] = e;
  }
  state[SLOT.x87] = x87Words(rng);
  state[SLOT.fsBase] = BigInt(FS_BASE);
  state[SLOT.gsBase] = BigInt(GS_BASE);
  for (let k = 0; k < MEMORY_WORDS; k++) state[SLOT.memory + k] = word(rng, kind);
  if (kind === 'extended') {
    for (let k = 0; k < MEMORY_WORDS; k += 2) {
      const [m, e] = extended(rng);
      state[SLOT.memory + k] = m;
      state[SLOT.memory + k + 1] = e | (rng.u64() << 16n);
    }
  }
  for (let i = 0; i < 32; i++) state[SLOT.high + i] = word(rng, kind);
  return state;
}

const states = new Map<number, BigUint64Array>();

/** A copy of base state `number`, 0..STATE_COUNT-1. What it holds must stay as it is: vectors are recorded from it. */
export function baseState(number: number): BigUint64Array {
  let state = states.get(number);
  if (state === undefined) {
    state = makeState(number);
    states.set(number, state);
  }
  return state.slice();
}
