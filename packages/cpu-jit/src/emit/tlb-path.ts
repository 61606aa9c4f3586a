import { TLB_ADDEND, TLB_ARRAY_SIZE, TLB_ENTRY_SIZE, TLB_EXEC, TLB_READ, TLB_WRITE } from '../layout.ts';
import type { Expr, WasmModule, WasmTypes } from '../wasm/types.ts';

/** Offset of the tag that an access compares. A page with a write tag has a read tag as well. */
export const TAG = { read: TLB_READ, write: TLB_WRITE, exec: TLB_EXEC } as const;
export const PAGE_MASK = ~0xfffn;
export const PAGE_SIZE = 4096;

/** Address of the TLB entry for virtual address `va` (i64), given the array pointer: index = bits 12..21. */
export function tlbEntry(m: WasmModule, va: Expr, array: Expr): Expr {
  const shift = 12 - Math.log2(TLB_ENTRY_SIZE);
  const scaled = m.i32.shr_u(m.i32.wrap(va), m.i32.const(shift));
  return m.i32.add(m.i32.and(scaled, m.i32.const(TLB_ARRAY_SIZE - TLB_ENTRY_SIZE)), array);
}

/**
 * i32: does the entry in local `entry` allow the access? Its tag and the address may differ in the offset only, which must leave room for the access. (The page of the last
 * byte says less: after the last page comes page 0, which the empty last entry has as its tag, and the page after an even one is what SMAP makes of its tag.)
 */
export function tlbHit(b: WasmTypes, m: WasmModule, va: number, entry: number, size: number, kind: 'read' | 'write'): Expr {
  const difference = m.i64.xor(m.local.get(va, b.i64), m.i64.load(TAG[kind], 8, m.local.get(entry, b.i32)));
  return m.i64.le_u(difference, m.i64.const(BigInt(PAGE_SIZE - size)));
}

/** i32 host address of the access, given that the entry hits. */
export function tlbAddress(b: WasmTypes, m: WasmModule, va: number, entry: number): Expr {
  return m.i32.add(m.i32.wrap(m.local.get(va, b.i64)), m.i32.load(TLB_ADDEND, 4, m.local.get(entry, b.i32)));
}

/** Unchecked load from linear memory: 1, 2, 4 bytes zero-extended to i32, 8 to i64, 16 to v128. */
export function hostLoad(m: WasmModule, size: number, at: Expr, offset = 0): Expr {
  switch (size) {
    case 1:
      return m.i32.load8_u(offset, 1, at);
    case 2:
      return m.i32.load16_u(offset, 1, at);
    case 4:
      return m.i32.load(offset, 1, at);
    case 8:
      return m.i64.load(offset, 1, at);
    case 16:
      return m.v128.load(offset, 1, at);
    default:
      throw new RangeError(`no load of ${size} bytes`);
  }
}

/** Unchecked store to linear memory, sizes as `hostLoad`. */
export function hostStore(m: WasmModule, size: number, at: Expr, value: Expr, offset = 0): Expr {
  switch (size) {
    case 1:
      return m.i32.store8(offset, 1, at, value);
    case 2:
      return m.i32.store16(offset, 1, at, value);
    case 4:
      return m.i32.store(offset, 1, at, value);
    case 8:
      return m.i64.store(offset, 1, at, value);
    case 16:
      return m.v128.store(offset, 1, at, value);
    default:
      throw new RangeError(`no store of ${size} bytes`);
  }
}

/** Wasm type of a memory access or integer of `size` bytes. */
export function typeOfSize(size: number): 'i32' | 'i64' | 'v128' {
  return size === 16 ? 'v128' : size === 8 ? 'i64' : 'i32';
}
