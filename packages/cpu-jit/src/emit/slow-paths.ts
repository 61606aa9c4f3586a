import type binaryen from 'binaryen';
import { S_EXC, S_ICOUNT, S_REGION_RIP, S_RIP, S_TLB, SLOW_EXC } from '../layout.ts';
import { hostLoad, hostStore, tlbAddress, tlbEntry, tlbHit, typeOfSize } from './tlb-path.ts';

/** Low bits of the i64 that says where in a region an access is: instructions of the block before it; above them, its byte offset. */
export const PLACE_INDEX_BITS = 10;

/** Name of the function that compiled code calls when the TLB misses: (cpu, va, retired count of the region, place in it[, value]). SLOW_EXC says whether it has faulted. */
export function exactName(op: 'load' | 'loadw' | 'store', size: number): string {
  return `exact_${op}${size * 8}`;
}

/**
 * Adds those functions to the module of the interpreter, which imports the runtime's slow paths: they make RIP and the count of
 * retired instructions exact before the runtime looks at them. They come here also from groups of accesses that run over a page
 * boundary, each of which the TLB may well allow, so that is tried first.
 */
export function addExactPaths(b: typeof binaryen, m: binaryen.Module): void {
  for (const size of [1, 2, 4, 8, 16]) {
    for (const op of ['load', 'loadw', 'store'] as const) {
      const type = b[typeOfSize(size)];
      const isStore = op === 'store';
      const params = [b.i32, b.i64, b.i64, b.i64, ...(isStore ? [type] : [])];
      const cpu = () => m.local.get(0, b.i32);
      const place = () => m.local.get(3, b.i64);
      const args = [cpu(), m.local.get(1, b.i64), ...(isStore ? [m.local.get(4, type)] : [])];
      const result = isStore ? b.none : type;
      const entry = 4 + (isStore ? 1 : 0);
      const loaded = entry + 1;
      const exc = () => m.i32.load(S_EXC, 4, cpu());
      const note = (value: binaryen.ExpressionRef) => m.i32.store(SLOW_EXC, 4, m.i32.const(0), value);
      const at = () => tlbAddress(b, m, 1, entry);
      const done = isStore ? m.block(null, [hostStore(m, size, at(), m.local.get(4, type)), m.return()]) : m.return(hostLoad(m, size, at()));
      const call = m.call(`${op}${size * 8}`, args, result);
      const body = m.block(
        null,
        [
          m.local.set(entry, tlbEntry(m, m.local.get(1, b.i64), m.i32.load(S_TLB, 4, cpu()))),
          note(m.i32.const(0)),
          m.if(tlbHit(b, m, 1, entry, size, op === 'load' ? 'read' : 'write'), done),
          m.i64.store(S_RIP, 8, cpu(), m.i64.add(m.i64.load(S_REGION_RIP, 8, cpu()), m.i64.shr_s(place(), m.i64.const(BigInt(PLACE_INDEX_BITS))))),
          m.i64.store(S_ICOUNT, 8, cpu(), m.i64.add(m.local.get(2, b.i64), m.i64.and(place(), m.i64.const((1n << BigInt(PLACE_INDEX_BITS)) - 1n)))),
          ...(isStore ? [call, note(exc())] : [m.local.set(loaded, call), note(exc()), m.local.get(loaded, type)]),
        ],
        result,
      );
      const name = exactName(op, size);
      m.addFunction(name, b.createType(params), result, isStore ? [b.i32] : [b.i32, type], body);
      m.addFunctionExport(name, name);
    }
  }
}
