import type binaryen from 'binaryen';
import { S_ICOUNT, S_RIP } from '../layout.ts';
import { typeOfSize } from './tlb-path.ts';

/** Low bits of the i64 that says where in a region an access is: instructions of the block before it; above them, its byte offset. */
export const PLACE_INDEX_BITS = 10;

/** Name of the function that compiled code calls when the TLB misses: (cpu, va, rip and retired count of the region, place in it[, value]). */
export function exactName(op: 'load' | 'loadw' | 'store', size: number): string {
  return `exact_${op}${size * 8}`;
}

/**
 * Adds those functions to the module of the interpreter, which imports the runtime's slow paths: they make RIP and the count of
 * retired instructions exact before the runtime looks at them.
 */
export function addExactPaths(b: typeof binaryen, m: binaryen.Module): void {
  for (const size of [1, 2, 4, 8, 16]) {
    for (const op of ['load', 'loadw', 'store'] as const) {
      const type = b[typeOfSize(size)];
      const isStore = op === 'store';
      const params = [b.i32, b.i64, b.i64, b.i64, b.i64, ...(isStore ? [type] : [])];
      const cpu = () => m.local.get(0, b.i32);
      const place = () => m.local.get(4, b.i64);
      const args = [cpu(), m.local.get(1, b.i64), ...(isStore ? [m.local.get(5, type)] : [])];
      const result = isStore ? b.none : type;
      const body = m.block(
        null,
        [
          m.i64.store(S_RIP, 8, cpu(), m.i64.add(m.local.get(2, b.i64), m.i64.shr_s(place(), m.i64.const(BigInt(PLACE_INDEX_BITS))))),
          m.i64.store(S_ICOUNT, 8, cpu(), m.i64.add(m.local.get(3, b.i64), m.i64.and(place(), m.i64.const((1n << BigInt(PLACE_INDEX_BITS)) - 1n)))),
          m.call(`${op}${size * 8}`, args, result),
        ],
        result,
      );
      const name = exactName(op, size);
      m.addFunction(name, b.createType(params), result, [], body);
      m.addFunctionExport(name, name);
    }
  }
}
