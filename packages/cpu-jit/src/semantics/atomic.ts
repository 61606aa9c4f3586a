import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { at, mergeFlags, RAX, RBX, RCX, RDX, update, VECTOR, ZF } from './common.ts';

/** CMPXCHG. Memory is always written (its old value when unequal), so it always needs write permission. */
function cmpxchg(e: Emitter): void {
  const size = e.size(0);
  const accumulator = e.reg(RAX, size);
  const source = e.read(1);
  if (e.isMem(0)) {
    const { old, equal } = update(e, 0, (old) => {
      const equal = e.let(e.eq(old, accumulator));
      return { old, equal, stored: e.let(e.select(equal, source, old)) };
    });
    e.if(e.eqz(equal), () => e.setReg(RAX, size, old));
    compareFlags(e, size, accumulator, old);
    return;
  }
  // Only the register that gets a new value is written: the other keeps its upper half even with 32-bit operands.
  const old = e.read(0);
  e.if(
    e.eq(old, accumulator),
    () => e.write(0, source),
    () => e.setReg(RAX, size, old),
  );
  compareFlags(e, size, accumulator, old);
}
function compareFlags(e: Emitter, size: number, a: Val, b: Val): void {
  e.setFlags('sub', size, e.let(e.trunc(e.sub(a, b), size)), b, a);
}

/** XADD: the sum wins when both operands are the same register. */
function xadd(e: Emitter): void {
  const size = e.size(0);
  const b = e.read(1);
  const sumWith = (a: Val) => e.let(e.trunc(e.add(a, b), size));
  if (e.isMem(0)) {
    const { a, stored } = update(e, 0, (a) => ({ a, stored: sumWith(a) }));
    e.write(1, a);
    e.setFlags('add', size, stored, b, a);
    return;
  }
  const a = e.read(0);
  const sum = sumWith(a);
  e.write(1, a);
  e.write(0, sum);
  e.setFlags('add', size, sum, b, a);
}

/** high:low as one i64. */
function pair(e: Emitter, high: number, low: number): Val {
  return e.let(e.or(e.shl(e.zext64(e.reg(high, 4)), e.i64(32)), e.zext64(e.reg(low, 4))));
}

/** CMPXCHG8B: EDX:EAX against memory, ECX:EBX stored; only ZF changes. */
function cmpxchg8b(e: Emitter): void {
  const expected = pair(e, RDX, RAX);
  const desired = pair(e, RCX, RBX);
  const { old, equal } = update(e, 0, (old) => {
    const equal = e.let(e.eq(old, expected));
    return { old, equal, stored: e.let(e.select(equal, desired, old)) };
  });
  e.if(e.eqz(equal), () => {
    e.setReg(RAX, 4, e.let(e.wrap(old)));
    e.setReg(RDX, 4, e.let(e.wrap(e.shrU(old, e.i64(32)))));
  });
  mergeFlags(e, ZF, at(e, ZF, equal));
}

/** CMPXCHG16B: the same with RDX:RAX and RCX:RBX; memory must be 16-byte aligned. */
function cmpxchg16b(e: Emitter): void {
  const address = e.let(e.address(0));
  e.if(e.and(e.wrap(address), e.i32(15)), () => e.raise(VECTOR.GP, 0));
  const lane = (v: Val, i: number) => e.op('i64x2.extract_lane', 'i64', v, i);
  const [a, d, b, c] = [RAX, RDX, RBX, RCX].map((n) => e.reg(n, 8)) as [Val, Val, Val, Val];
  const { low, high, equal } = update(
    e,
    0,
    (old) => {
      const low = e.let(lane(old, 0));
      const high = e.let(lane(old, 1));
      const equal = e.let(e.and(e.eq(low, a), e.eq(high, d)));
      const splat = e.op('i64x2.splat', 'v128', e.select(equal, b, low));
      return { low, high, equal, stored: e.let(e.op('i64x2.replace_lane', 'v128', splat, 1, e.select(equal, c, high))) };
    },
    address,
  );
  // When equal the registers hold these very values.
  e.setReg(RAX, 8, low);
  e.setReg(RDX, 8, high);
  mergeFlags(e, ZF, at(e, ZF, equal));
}

/** Compare-and-exchange and its kin (SDM vol. 2, by mnemonic). */
export const atomics: Record<string, Semantics> = { cmpxchg, xadd, cmpxchg8b, cmpxchg16b };
