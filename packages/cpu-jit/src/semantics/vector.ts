/**
 * The shape that SSE and AVX instructions share. What an instruction computes is a function of 128-bit halves; the drivers here
 * read its sources, apply the function once, or for VEX.256 to each half, and write the destination when nothing can fault any more.
 *
 * Operand 0 is the destination. Legacy SSE takes it as first source too and keeps bits 255:128 of its register; VEX forms have
 * a first source of their own in VEX.vvvv, if any, and clear what is above their result.
 */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { bitsToFloat, type FloatType, merged, shapeOf, v, zero } from './sse-operands.ts';

export type Unary = (e: Emitter, b: Val, half: number) => Val;
export type Binary = (e: Emitter, a: Val, b: Val, half: number) => Val;

/** Emits the code of each half in turn; for helpers that signal exceptions a half of two knows which it is (`Emitter.half`). */
export function eachHalf<T>(e: Emitter, sources: readonly T[], f: (source: T, half: number) => Val): Val[] {
  if (sources.length === 1) return sources.map(f);
  const results = sources.map((source, half) => {
    e.half = half;
    return e.let(f(source, half));
  });
  e.half = undefined;
  return results;
}

const isVex = (e: Emitter): boolean => e.form.row.vex === true;
/** Position of the operand in VEX.vvvv, -1 when there is none. */
const vvvvIndex = (e: Emitter): number => e.form.operands.findIndex((o) => o.kind === 'xmm' && o.field === 'vvvv');

/** Position of the second source: after the first source of three-operand forms, else after the destination. */
export function secondIndex(e: Emitter): number {
  return vvvvIndex(e) === 1 ? 2 : 1;
}
/** First source: VEX.vvvv, or operand 0. Shifts by an immediate have their destination in VEX.vvvv and this one in ModRM.rm. */
export function first(e: Emitter, half = 0): Val {
  return e.let(e.readXmm(vvvvIndex(e) === -1 ? 0 : 1, half));
}
/** Register operand `i` by halves, as many as its size has. */
export function registerHalves(e: Emitter, i: number): Val[] {
  const low = e.let(e.readXmm(i));
  return e.size(i) === 32 ? [low, e.let(e.readXmm(i, 1))] : [low];
}
/** Register or memory operand `i` by halves, as many as its size has. */
export function halves(e: Emitter, i: number, alignment: 'aligned' | 'unaligned' = 'unaligned'): Val[] {
  if (!e.isMem(i)) return registerHalves(e, i);
  const address = alignedAddress(e, i, alignment);
  return e.size(i) === 32 ? [...e.loadPair(address)] : [e.let(e.load(address, 16))];
}
/** Second source by halves. In memory it must be aligned for legacy SSE, and may lie anywhere for VEX (SDM vol. 1, 14.9). */
export function second(e: Emitter): Val[] {
  return halves(e, secondIndex(e), isVex(e) ? 'unaligned' : 'aligned');
}
/** The same where it is 16 bytes. */
export function second128(e: Emitter): Val {
  return second(e)[0] ?? zero(e);
}
/** Second source with the operand in its low bytes; the rest is undefined. The size of a memory operand is the row's. */
export function lowSecond(e: Emitter): Val {
  return lowVector(e, secondIndex(e));
}

/** Address of memory operand `i`, which must be a multiple of its size if `aligned`; that is found out before segment limits are looked at. */
export function alignedAddress(e: Emitter, i: number, alignment: 'aligned' | 'unaligned', write = false): Val {
  if (alignment === 'unaligned') return e.let(e.address(i, { write }));
  const address = e.let(e.address(i, { write, align: e.size(i) }));
  if (e.codeSize === 64 || e.flat) e.requireAligned(address, e.size(i));
  return address;
}

/** Vector with operand `i` in its low bytes; the rest is undefined. */
export function lowVector(e: Emitter, i: number): Val {
  if (!e.isMem(i)) return e.let(e.readXmm(i));
  const size = e.size(i);
  const bits = e.read(i);
  if (size === 16) return e.let(bits);
  return e.let(v(e, size === 8 ? 'i64x2.splat' : size === 4 ? 'i32x4.splat' : size === 2 ? 'i16x8.splat' : 'i8x16.splat', bits));
}

/** Scalar second source as the low lane of a vector (other lanes undefined). */
export function scalarSecond(e: Emitter, type: FloatType): Val {
  const i = secondIndex(e);
  return e.let(e.isMem(i) ? v(e, `${shapeOf(type)}.splat`, bitsToFloat(e, type, e.read(i))) : e.readXmm(i));
}

/** Destination register: the result, and for VEX what is above it (zero without `high`). */
export function writeVector(e: Emitter, low: Val, high?: Val): void {
  const above = isVex(e) ? e.let(high ?? zero(e)) : undefined;
  e.writeXmm(0, low);
  if (above !== undefined) e.writeXmm(0, above, 1);
}
/** Destination register by halves, the higher one if it is written. */
export function writeHalves(e: Emitter, [low, high]: readonly Val[]): void {
  if (low !== undefined) writeVector(e, low, high);
}

/** dst = first source with its low lane replaced by that of `vector`. */
export function writeMerged(e: Emitter, type: FloatType, vector: Val): void {
  writeVector(e, merged(e, type, first(e), vector));
}

/** dst = f(first, second), half by half. The arguments may be used many times. */
export const packed =
  (f: Binary): Semantics =>
  (e) =>
    writeHalves(
      e,
      eachHalf(e, second(e), (b, half) => f(e, first(e, half), b, half)),
    );
/** The same for one Wasm instruction. */
export const direct = (name: string): Semantics => packed((e, a, b) => v(e, name, a, b));
/** dst = f(second), half by half. */
export const unary =
  (f: Unary): Semantics =>
  (e) =>
    writeHalves(
      e,
      eachHalf(e, second(e), (b, half) => f(e, b, half)),
    );
/** dst = f(first), half by half, in instructions whose other operand is no vector. */
export const onFirst =
  (f: Unary): Semantics =>
  (e) => {
    const sources = Array.from({ length: e.form.vl / 16 }, (_, half) => first(e, half));
    writeHalves(
      e,
      eachHalf(e, sources, (a, half) => f(e, a, half)),
    );
  };
