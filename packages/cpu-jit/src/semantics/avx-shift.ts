/** AVX2 shifts with a count for each lane. Wasm has none: lanes are shifted one by one. Counts past the lane give 0 or the sign. */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { v } from './sse-operands.ts';
import { packed } from './vector.ts';

type ShiftName = 'shl' | 'shrU' | 'shrS';

function shiftLane(e: Emitter, op: ShiftName, a: Val, count: Val, bits: number): Val {
  const k = (n: number): Val => (bits === 64 ? e.i64(n) : e.i32(n));
  const inside = e.ltU(count, k(bits));
  if (op === 'shrS') return e.shrS(a, e.select(inside, count, k(bits - 1)));
  return e.select(inside, e[op](a, count), k(0));
}
const variableShift = (bits: 32 | 64, op: ShiftName): Semantics =>
  packed((e, a, b) => {
    const [shape, type] = bits === 32 ? (['i32x4', 'i32'] as const) : (['i64x2', 'i64'] as const);
    let result = a;
    for (let lane = 0; lane < 128 / bits; lane++) {
      const extract = (vector: Val) => e.let(e.op(`${shape}.extract_lane`, type, vector, lane));
      result = v(e, `${shape}.replace_lane`, result, lane, shiftLane(e, op, extract(a), extract(b), bits));
    }
    return result;
  });

export const avxShift: Record<string, Semantics> = {
  vpsllvd: variableShift(32, 'shl'),
  vpsllvq: variableShift(64, 'shl'),
  vpsrlvd: variableShift(32, 'shrU'),
  vpsrlvq: variableShift(64, 'shrU'),
  vpsravd: variableShift(32, 'shrS'),
};
