/**
 * The way out of host arithmetic. With MXCSR's default controls (round to nearest, no FTZ, no DAZ, all exceptions masked) and while its
 * exception flags are not noted (assembly/mxcsr.ts says when) a floating-point instruction is Wasm's own; else a helper of the runtime
 * (assembly/sse-float.ts) that rounds, flushes, signals and raises #XM as asked.
 *
 * The interpreter tests MXCSR each time. Plain compiled code is entered with the default controls and without noting only, so there the
 * choice costs nothing. Tracked compiled code (`Emitter.tracksFloat`) is for rounding to nearest with masked exceptions: its arithmetic is
 * the host's too, and a `Watch` over operands and result finds what the helper must do: all that may signal more than an inexact result
 * once that has been noted, and all that FTZ and DAZ are about.
 */
import type { Emitter } from '../emit/emitter.ts';
import type { Val, ValType } from '../emit/val.ts';
import { S_SOFT_HALF } from '../layout.ts';
import type { Watch } from './float-watch.ts';
import type { FloatType } from './sse-operands.ts';

/** Operations of the helper `sse_arith`. */
export const OPERATION = { add: 0, sub: 1, mul: 2, div: 3, sqrt: 4, min: 5, max: 6, addsub: 7 } as const;
export type Operation = keyof typeof OPERATION;
/** Those that are one Wasm instruction. */
export type SingleOperation = Exclude<Operation, 'addsub'>;

/** `fast`, or where that is not all, what `soft` computes by a helper that may raise. */
export function orSoft(e: Emitter, fast: Val, watch: Watch, soft: () => Val): Val {
  const test = e.softFloat();
  if (test === undefined && !e.tracksFloat) return e.let(fast);
  const result = e.variable(fast);
  e.if(test ?? watch(e, result.get()), () => {
    const value = soft();
    // Tracked code runs with masked exceptions.
    if (!e.tracksFloat) e.checkException();
    result.set(value);
  });
  return result.get();
}

/** Bit set of all lanes of a vector. */
export const allLanes = (type: FloatType): number => (type === 'f32' ? 15 : 3);

export function softCall(e: Emitter, helper: string, result: ValType, ...args: readonly (Val | number)[]): Val {
  const values = args.map((a) => (typeof a === 'number' ? e.i32(a) : a));
  // Exceptions of a 256-bit instruction are those of both halves together, which matters when one is unmasked.
  if (e.half !== undefined && !e.tracksFloat) e.setState(S_SOFT_HALF, 4, e.i32(e.half + 1));
  return e.call(helper, result, values);
}

/** Lanes of `a` and `b` (all, or those of the bit set) through an operation; the other lanes are those of `a`. */
export function softArith(e: Emitter, op: Operation, type: FloatType, lanes: number | Val, a: Val, b: Val): Val {
  return softCall(e, 'sse_arith', 'v128', OPERATION[op], type === 'f64' ? 1 : 0, lanes, a, b);
}
