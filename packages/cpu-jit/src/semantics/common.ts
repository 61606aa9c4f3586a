import type { Emitter } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';

/** Status flags at their RFLAGS positions (SDM vol. 1, 3.4.3). */
export const CF = 1 << 0;
export const PF = 1 << 2;
export const AF = 1 << 4;
export const ZF = 1 << 6;
export const SF = 1 << 7;
export const OF = 1 << 11;
export const STATUS = CF | PF | AF | ZF | SF | OF;

/** Exception vectors raised by instructions (SDM vol. 3, 6.3). */
export const VECTOR = { DE: 0, BR: 5, UD: 6, NM: 7, SS: 12, GP: 13 } as const;

/** GPR numbers in encoding order. */
export const RAX = 0;
export const RCX = 1;
export const RDX = 2;
export const RBX = 3;
export const RSP = 4;
export const RBP = 5;
export const RSI = 6;
export const RDI = 7;
export const R11 = 11;

/** Bit `n` of `v` as an i32 0/1. */
export function bit(e: Emitter, v: Val, n: number): Val {
  const width = v.type === 'i64' ? 64 : 32;
  const shifted = n === 0 ? v : e.shrU(v, v.type === 'i64' ? e.i64(n) : e.i32(n));
  const low = e.wrap(shifted);
  return n === width - 1 ? low : e.and(low, e.i32(1));
}

/** Most significant bit of a `size`-byte value as an i32 0/1; what lies above it in the i32 does not matter. */
export function signBit(e: Emitter, v: Val, size: number): Val {
  return bit(e, v, size * 8 - 1);
}

/** Wasm shift amounts have the type of the shifted value. */
export function amount(e: Emitter, size: number, count: Val): Val {
  return size === 8 ? e.zext64(count) : count;
}

/** Read-modify-write of operand `i` for semantics that need more than the stored value afterwards: what `f` returns comes back.
 *  `address` stands for the address of a memory operand. */
export function update<T extends { readonly stored: Val }>(e: Emitter, i: number, f: (old: Val) => T, address?: Val): T {
  const results: T[] = [];
  const apply = (old: Val) => {
    const r = f(old);
    results.push(r);
    return r.stored;
  };
  e.rmw(i, apply, address);
  const [r] = results;
  if (r === undefined) throw new Error(`${e.form.row.name}: rmw() did not compute its result`);
  return r;
}

/** Replace the status flags in `mask` (RFLAGS positions) by `bits`, keep the others. */
export function mergeFlags(e: Emitter, mask: number, bits: Val): void {
  if (mask === CF) return e.setCarry(bits);
  if (mask === (CF | OF)) {
    const b = e.let(bits);
    return e.setCarry(e.and(b, e.i32(CF)), bit(e, b, 11));
  }
  const kept = e.let(e.and(e.statusFlags(), e.i32(STATUS & ~mask)));
  e.setStatusFlags(e.let(e.or(kept, bits)));
}

/** 0/1 moved to a flag's position. */
export function at(e: Emitter, flag: number, v: Val): Val {
  const position = 31 - Math.clz32(flag);
  return position === 0 ? v : e.shl(v, e.i32(position));
}

/** PF of the low byte of `v`, i32 0/1. */
export function parity(e: Emitter, v: Val): Val {
  const ones = e.op('i32.popcnt', 'i32', e.and(e.wrap(v), e.i32(0xff)));
  return e.and(e.xor(ones, e.i32(1)), e.i32(1));
}
