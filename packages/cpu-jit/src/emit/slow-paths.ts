import type binaryen from 'binaryen';
import { S_CC_KIND, S_CC_RES, S_CC_SRC, S_EXC, S_ICOUNT, S_REGION_RIP, S_RIP, S_TLB } from '../layout.ts';
import { hostLoad, hostStore, tlbAddress, tlbEntry, tlbHit, typeOfSize } from './tlb-path.ts';

/** Low bits of the i64 that says where in a region an access is: instructions of the block before it; above them, its byte offset. */
export const PLACE_INDEX_BITS = 10;
/** Low bits of the i32 about an access: what S_CC_KIND becomes when it faults, 0 when the flags are in the state block; above them, how far it is from the address given. */
export const ACCESS_KIND_BITS = 10;

/**
 * Name of the function that compiled code calls when the TLB misses: (cpu, address, retired count of the region, place in it, i32 about the access[, values of S_CC_RES and S_CC_SRC
 * for a fault][, value to store]), with results [what was loaded, ] and whether it has faulted.
 */
export function exactName(op: 'load' | 'loadw' | 'store', size: number, hasFlags: boolean): string {
  return `exact_${op}${size * 8}${hasFlags ? '_flags' : ''}`;
}

/**
 * Adds those functions to the module of the interpreter, which imports the runtime's slow paths: they make RIP and the count of
 * retired instructions exact before the runtime looks at them, and the flags after a fault. They come here also from groups of accesses
 * that run over a page boundary, each of which the TLB may well allow, so that is tried first.
 */
export function addExactPaths(b: typeof binaryen, m: binaryen.Module): void {
  for (const size of [1, 2, 4, 8, 16])
    for (const op of ['load', 'loadw', 'store'] as const) for (const hasFlags of [false, true]) addExactPath(b, m, op, size, hasFlags);
}

function addExactPath(b: typeof binaryen, m: binaryen.Module, op: 'load' | 'loadw' | 'store', size: number, hasFlags: boolean): void {
  const type = b[typeOfSize(size)];
  const isStore = op === 'store';
  const params = [b.i32, b.i64, b.i64, b.i64, b.i32, ...(hasFlags ? [b.i64, b.i64] : []), ...(isStore ? [type] : [])];
  const [cpu, va, about] = [() => m.local.get(0, b.i32), () => m.local.get(1, b.i64), () => m.local.get(4, b.i32)];
  const place = () => m.local.get(3, b.i64);
  const value = () => m.local.get(params.length - 1, type);
  const [entry, loaded] = [params.length, params.length + 1];
  const result = isStore ? b.i32 : b.createType([type, b.i32]);
  const results = (fault: binaryen.ExpressionRef, found: () => binaryen.ExpressionRef) => (isStore ? fault : m.tuple.make([found(), fault]));
  const exc = () => m.i32.load(S_EXC, 4, cpu());
  const at = () => tlbAddress(b, m, 1, entry);
  const fast = m.return(results(m.i32.const(0), () => hostLoad(m, size, at())));
  const done = isStore ? m.block(null, [hostStore(m, size, at(), value()), fast]) : fast;
  const call = m.call(`${op}${size * 8}`, [cpu(), va(), ...(isStore ? [value()] : [])], isStore ? b.none : type);
  const kind = () => m.i32.and(about(), m.i32.const((1 << ACCESS_KIND_BITS) - 1));
  const values = [S_CC_RES, S_CC_SRC].map((offset, i) => m.i64.store(offset, 8, cpu(), m.local.get(5 + i, b.i64)));
  const flags = m.block(null, [...(hasFlags ? values : []), m.i32.store(S_CC_KIND, 4, cpu(), kind())]);
  const body = [
    m.local.set(1, m.i64.add(va(), m.i64.extend_s(m.i32.shr_s(about(), m.i32.const(ACCESS_KIND_BITS))))),
    m.local.set(entry, tlbEntry(m, va(), m.i32.load(S_TLB, 4, cpu()))),
    m.if(tlbHit(b, m, 1, entry, size, op === 'load' ? 'read' : 'write'), done),
    m.i64.store(S_RIP, 8, cpu(), m.i64.add(m.i64.load(S_REGION_RIP, 8, cpu()), m.i64.shr_s(place(), m.i64.const(BigInt(PLACE_INDEX_BITS))))),
    m.i64.store(S_ICOUNT, 8, cpu(), m.i64.add(m.local.get(2, b.i64), m.i64.and(place(), m.i64.const((1n << BigInt(PLACE_INDEX_BITS)) - 1n)))),
    isStore ? call : m.local.set(loaded, call),
    m.if(exc(), m.if(kind(), flags)),
    results(exc(), () => m.local.get(loaded, type)),
  ];
  const name = exactName(op, size, hasFlags);
  m.addFunction(name, b.createType(params), result, isStore ? [b.i32] : [b.i32, type], m.block(null, body, result));
  m.addFunctionExport(name, name);
}
