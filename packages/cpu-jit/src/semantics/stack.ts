import type { Emitter } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { S_SEG, SEG_ATTR, SEG_BASE, SEG_FIRST, SEG_LAST, SEG_STRIDE, SS } from '../layout.ts';
import { RBP, RSP, VECTOR } from './common.ts';

/** D/B bit of a segment's attributes (SDM vol. 3, 3.4.5; attributes are bits 8..23 of the descriptor's upper half). */
const ATTR_DB = 1 << 14;

/** A stack access has its own address size, SS.B, outside 64-bit mode: the bits of RSP that take part, i32. */
function stackMask(e: Emitter): Val {
  const attr = e.state(S_SEG + SS * SEG_STRIDE + SEG_ATTR, 4);
  return e.let(e.select(e.and(attr, e.i32(ATTR_DB)), e.i32(-1), e.i32(0xffff)));
}

/** Stack pointer (or RBP) as it is used in an address: i64 in 64-bit mode, else an i32 within the stack's address size. */
export interface StackPointer {
  readonly value: Val;
  /** RSP with `value` put in, to be written with `setStack`. */
  readonly whole: Val;
}

function pointer(e: Emitter, whole: Val): StackPointer {
  if (e.codeSize === 64 || e.flat) return { value: whole, whole };
  const mask = stackMask(e);
  const kept = e.and(e.reg(RSP, 4), e.not(mask));
  const value = e.let(e.and(whole, mask));
  return { value, whole: e.let(e.or(kept, value)) };
}

/** RSP + `delta` bytes. */
export function stackAt(e: Emitter, delta: number, from = RSP): StackPointer {
  if (e.codeSize === 64) {
    const base = e.reg(from, 8);
    return pointer(e, delta === 0 ? base : e.let(e.add(base, e.i64(delta))));
  }
  const base = e.reg(from, 4);
  return pointer(e, delta === 0 ? base : e.let(e.add(base, e.i32(delta))));
}
/** `p` moved by a run-time number of bytes, a signed i32. */
export function stackMoved(e: Emitter, p: StackPointer, delta: Val): StackPointer {
  return pointer(e, e.let(e.add(p.value, e.codeSize === 64 ? e.sext64(delta, 4) : delta)));
}

/** Linear address of a stack slot of `size` bytes, which must lie within SS. */
export function stackAddress(e: Emitter, p: StackPointer, size: number = e.form.opSize): Val {
  if (e.codeSize === 64) return p.value;
  if (e.flat) return e.let(e.zext64(p.value));
  const limit = (field: number) => e.zext64(e.state(S_SEG + SS * SEG_STRIDE + field, 4));
  const offset = e.let(e.zext64(p.value));
  e.if(e.or(e.ltU(offset, limit(SEG_FIRST)), e.gtU(e.add(offset, e.i64(size - 1)), limit(SEG_LAST))), () => e.raise(VECTOR.SS));
  const base = e.state(S_SEG + SS * SEG_STRIDE + SEG_BASE, 8);
  return e.let(e.zext64(e.add(e.wrap(base), p.value)));
}

/** Write RSP. */
export function setStack(e: Emitter, p: StackPointer): void {
  e.setReg(RSP, e.codeSize === 64 ? 8 : 4, p.whole);
}

/** PUSH: stores before RSP changes, so that a fault leaves RSP alone. */
export function push(e: Emitter, size: number, v: Val): void {
  const p = stackAt(e, -size);
  e.store(stackAddress(e, p), size, v);
  setStack(e, p);
}

/** POP: loads `size` bytes; RSP moves on by them. Only for instructions that cannot fault afterwards. */
export function pop(e: Emitter, size: number): Val {
  const v = e.load(stackAddress(e, stackAt(e, 0)), size);
  setStack(e, stackAt(e, size));
  return v;
}

/** LEAVE: RSP = RBP, then POP RBP. */
export function leave(e: Emitter, size: number): void {
  const v = e.load(stackAddress(e, stackAt(e, 0, RBP)), size);
  setStack(e, stackAt(e, size, RBP));
  e.setReg(RBP, size, v);
}
