import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { amount, bit, signBit, update } from './common.ts';

/** Carries out of every bit of a + b + c with sum r: CF is its top bit, AF bit 3. */
function carries(e: Emitter, a: Val, b: Val, r: Val): Val {
  return e.or(e.and(a, b), e.and(e.or(a, b), e.not(r)));
}
/** Borrows out of every bit of a - b - c with difference r. */
function borrows(e: Emitter, a: Val, b: Val, r: Val): Val {
  return e.or(e.and(e.not(a), b), e.and(e.or(e.not(a), b), r));
}

/** a + b + carry: the flags a plain ADD would give cannot be recovered lazily once a carry came in. */
export function setAdcFlags(e: Emitter, size: number, a: Val, b: Val, r: Val): void {
  const inputs = [a, b, r];
  e.setFlagsExplicit({
    cf: e.later('i32', inputs, () => signBit(e, carries(e, a, b, r), size)),
    of: e.later('i32', inputs, () => signBit(e, e.and(e.xor(a, r), e.xor(b, r)), size)),
    af: e.later('i32', inputs, () => bit(e, e.xor(e.xor(a, b), r), 4)),
    result: r,
    size,
  });
}

function add(e: Emitter): void {
  const size = e.size(0);
  const b = e.read(1);
  const { a, stored } = update(e, 0, (a) => ({ a, stored: e.let(e.trunc(e.add(a, b), size)) }));
  e.setFlags('add', size, stored, b, a);
}

function adc(e: Emitter): void {
  const size = e.size(0);
  const b = e.read(1);
  const c = e.let(amount(e, size, e.flag('c')));
  const { a, stored } = update(e, 0, (a) => ({ a, stored: e.let(e.trunc(e.add(e.add(a, b), c), size)) }));
  setAdcFlags(e, size, a, b, stored);
}

function sub(e: Emitter): void {
  const size = e.size(0);
  const b = e.read(1);
  const { a, stored } = update(e, 0, (a) => ({ a, stored: e.let(e.trunc(e.sub(a, b), size)) }));
  e.setFlags('sub', size, stored, b, a);
}

function sbb(e: Emitter): void {
  const size = e.size(0);
  const b = e.read(1);
  const c = e.let(amount(e, size, e.flag('c')));
  const { a, stored: r } = update(e, 0, (a) => ({ a, stored: e.let(e.trunc(e.sub(e.sub(a, b), c), size)) }));
  const inputs = [a, b, r];
  e.setFlagsExplicit({
    cf: e.later('i32', inputs, () => signBit(e, borrows(e, a, b, r), size)),
    of: e.later('i32', inputs, () => signBit(e, e.and(e.xor(a, b), e.xor(a, r)), size)),
    af: e.later('i32', inputs, () => bit(e, e.xor(e.xor(a, b), r), 4)),
    result: r,
    size,
  });
}

function cmp(e: Emitter): void {
  const size = e.size(0);
  const a = e.read(0);
  const b = e.read(1);
  e.setFlags('sub', size, e.let(e.trunc(e.sub(a, b), size)), b, a);
}

/** AND, OR, XOR: CF = OF = 0, and AF = 0, which the SDM leaves undefined and Intel's cores clear. */
function logic(op: 'and' | 'or' | 'xor'): Semantics {
  return (e) => {
    const size = e.size(0);
    const b = e.read(1);
    const { a, stored } = update(e, 0, (a) => ({ a, stored: e.let(e[op](a, b)) }));
    e.setFlags('logic', size, stored, e.k(size, 0), a);
  };
}

function test(e: Emitter): void {
  const size = e.size(0);
  const a = e.read(0);
  const b = e.read(1);
  e.setFlags('logic', size, e.let(e.and(a, b)), e.k(size, 0), a);
}

/** INC and DEC keep CF. */
function step(kind: 'inc' | 'dec'): Semantics {
  return (e) => {
    const size = e.size(0);
    const carry = e.let(e.flag('c'));
    const one = e.k(size, 1);
    const { a, stored } = update(e, 0, (a) => ({ a, stored: e.let(e.trunc(kind === 'inc' ? e.add(a, one) : e.sub(a, one), size)) }));
    e.setFlags(kind, size, stored, carry, a);
  };
}

function neg(e: Emitter): void {
  const size = e.size(0);
  const zero = e.k(size, 0);
  const { a, stored } = update(e, 0, (a) => ({ a, stored: e.let(e.trunc(e.sub(zero, a), size)) }));
  e.setFlags('sub', size, stored, a, zero);
}

function not(e: Emitter): void {
  e.rmw(0, (a) => e.trunc(e.not(a), e.size(0)));
}

/** Integer arithmetic and logic (SDM vol. 2, by mnemonic). */
export const alu: Record<string, Semantics> = {
  add,
  adc,
  sub,
  sbb,
  cmp,
  and: logic('and'),
  or: logic('or'),
  xor: logic('xor'),
  test,
  inc: step('inc'),
  dec: step('dec'),
  neg,
  not,
};
