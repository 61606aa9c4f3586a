/**
 * What all SSE and AVX semantics share: lanes, constants, shuffles (operands by role are in vector.ts).
 *
 * Register operands are read and written whole (16 bytes) even by scalar instructions: in the interpreter a wide load
 * after a narrow store to the same register would miss store forwarding, in compiled code whole registers are locals.
 */
import type { Emitter } from '../emit/emitter.ts';
import type { Val, ValType } from '../emit/val.ts';

export type FloatType = 'f32' | 'f64';

/** Vector shape that holds lanes of `type`. */
export const shapeOf = (type: FloatType): 'f32x4' | 'f64x2' => (type === 'f32' ? 'f32x4' : 'f64x2');

/** v128 constant of sixteen equal bytes, eight words, four doublewords. */
export const bytes16 = (byte: number): number[] => new Array<number>(16).fill(byte & 0xff);
export function words8(words: readonly number[]): number[] {
  return words.flatMap((w) => [w & 0xff, (w >> 8) & 0xff]);
}
export function dwords4(dwords: readonly number[]): number[] {
  return dwords.flatMap((d) => [d & 0xff, (d >> 8) & 0xff, (d >> 16) & 0xff, (d >>> 24) & 0xff]);
}
/** 0, 1, ... 15. */
export const IOTA: readonly number[] = Array.from({ length: 16 }, (_, i) => i);

export function zero(e: Emitter): Val {
  return e.v128(bytes16(0));
}

/** A vector instruction; result v128. */
export function v(e: Emitter, name: string, ...args: (Val | number)[]): Val {
  return e.op(name, 'v128', ...args);
}

/** Vector constant with every lane equal to `bits` (lanes of 1, 2, 4 bytes). */
export function splat(e: Emitter, laneBytes: 1 | 2 | 4, bits: number): Val {
  const lane = laneBytes === 1 ? [bits] : laneBytes === 2 ? [bits, bits >> 8] : [bits, bits >> 8, bits >> 16, bits >> 24];
  return e.v128(Array.from({ length: 16 }, (_, i) => (lane[i % laneBytes] ?? 0) & 0xff));
}

export function bitsToFloat(e: Emitter, type: FloatType, bits: Val): Val {
  return e.op(`${type}.reinterpret`, type, bits);
}

/** Lowest lane of a vector. */
export function lowLane(e: Emitter, type: FloatType, vector: Val): Val {
  return e.op(`${shapeOf(type)}.extract_lane`, type, vector, 0);
}
/** `a` with its low lane replaced by that of `b`. */
export function merged(e: Emitter, type: FloatType, a: Val, b: Val): Val {
  const n = type === 'f32' ? 4 : 8;
  return shuffle(
    e,
    a,
    b,
    IOTA.map((i) => (i < n ? 16 + i : i)),
  );
}
/** i8x16.shuffle: byte i of the result is byte mask[i] of the 32 bytes `a`, `b`. Operands must be reusable or distinct. */
export function shuffle(e: Emitter, a: Val, b: Val, mask: readonly number[]): Val {
  return e.expr('v128', e.m.i8x16.shuffle(a.take(), b.take(), [...mask]));
}
/** Byte mask of a shuffle that moves whole lanes of `laneBytes`. */
export function laneMask(laneBytes: number, lanes: readonly number[]): number[] {
  return lanes.flatMap((lane) => Array.from({ length: laneBytes }, (_, i) => lane * laneBytes + i));
}
/** Shuffle of whole lanes: lane indexes count through `a`, then `b`. */
export function shuffleLanes(e: Emitter, a: Val, b: Val, laneBytes: number, lanes: readonly number[]): Val {
  return shuffle(e, a, b, laneMask(laneBytes, lanes));
}
/** i8x16.swizzle: byte i of the result is vector[index[i]], 0 where the index is 16 or more. */
export function swizzle(e: Emitter, vector: Val, index: Val): Val {
  return v(e, 'i8x16.swizzle', vector, index);
}

/** The 8-bit immediate, 0..255: a constant in compiled code, a reusable value in the interpreter. */
export function imm8(e: Emitter): Val {
  const imm = e.imm(1);
  return imm.constant === undefined ? e.let(e.and(imm, e.i32(0xff))) : e.i32(imm.constant & 0xff);
}

/** The part of an immediate that belongs to a half, where each takes `bits` of its own: imm >> bits for the high one. */
export function immOfHalf(e: Emitter, imm: Val, bits: number, half: number): Val {
  if (half === 0) return imm;
  return imm.constant === undefined ? e.let(e.shrU(imm, e.i32(bits))) : e.i32(imm.constant >>> bits);
}

/** Write an integer result (i32 or i64) to a general register or memory operand, zero-extending to its size. */
export function writeInteger(e: Emitter, i: number, value: Val): void {
  const bound = e.let(value);
  e.write(i, e.size(i) === 8 ? e.zext64(bound) : e.wrap(bound));
}

/** Conversions whose Binaryen names have three parts, e.g. convert(e, 'i32', 'trunc_s_sat', 'f64', x). */
export function convert(e: Emitter, to: ValType, name: string, from: ValType, value: Val): Val {
  const groups = e.m as unknown as Record<string, Record<string, Record<string, ((x: number) => number) | undefined> | undefined> | undefined>;
  const build = groups[to]?.[name]?.[from];
  if (build === undefined) throw new Error(`Binaryen has no instruction ${to}.${name}.${from}`);
  return e.expr(to, build(value.take()));
}
