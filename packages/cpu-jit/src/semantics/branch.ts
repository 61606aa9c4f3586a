import { CONDITIONS } from '../decoder/families.ts';
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { RCX } from './common.ts';
import { push, setStack, stackAddress, stackAt, stackMoved } from './stack.ts';

/** A branch target or return address of the operand size, as an i64. */
function target(e: Emitter, v: Val): Val {
  return e.let(e.zext64(v));
}

/** Near calls push the return address before the branch, and before RSP changes. */
function pushReturn(e: Emitter): void {
  const size = e.form.opSize;
  const next = e.nextRip();
  push(e, size, size === 8 ? next : e.let(e.trunc(e.wrap(next), size)));
}
function call(e: Emitter): void {
  e.requireTarget();
  pushReturn(e);
  e.branch();
}
function callIndirect(e: Emitter): void {
  const to = target(e, e.read(0));
  e.requireTarget(to);
  pushReturn(e);
  // What was pushed stays below the stack pointer, where nothing counts on it.
  e.branchTo(to, 'call', () => setStack(e, stackAt(e, e.form.opSize)));
}
function jmpIndirect(e: Emitter): void {
  const to = target(e, e.read(0));
  e.requireTarget(to);
  e.branchTo(to, 'jmp');
}

/** RET, and RET imm16, which drops that many bytes of arguments. */
function ret(e: Emitter): void {
  const size = e.form.opSize;
  const to = target(e, e.load(stackAddress(e, stackAt(e, 0)), size));
  e.requireTarget(to);
  const after = stackAt(e, size);
  const drops = e.form.operands.length > 0;
  const dropped = () => e.let(e.and(e.imm(4), e.i32(0xffff)));
  setStack(e, drops ? stackMoved(e, after, dropped()) : after);
  e.branchTo(to, 'ret', () => {
    const before = stackAt(e, -size);
    setStack(e, drops ? stackMoved(e, before, e.let(e.sub(e.i32(0), dropped()))) : before);
  });
}

function jcc(cc: number): Semantics {
  return (e) => e.branchIf(e.condition(cc));
}

/** LOOPcc count in CX, ECX or RCX by address size and change no flags. */
function loop(also?: 'z' | 'nz'): Semantics {
  return (e) => {
    const size = e.form.addrSize;
    const zf = also === undefined ? undefined : e.let(e.flag('z'));
    const count = e.let(e.trunc(e.sub(e.reg(RCX, size), e.k(size, 1)), size));
    const more = e.ne(count, e.k(size, 0));
    const taken = e.let(zf === undefined ? more : e.and(more, also === 'z' ? zf : e.eqz(zf)));
    if (e.checksTargets) e.if(taken, () => e.requireTarget());
    e.setReg(RCX, size, count);
    e.branchIf(taken);
  };
}

/** Near control transfers (SDM vol. 2, by mnemonic). */
export const branches: Record<string, Semantics> = {
  ...Object.fromEntries(CONDITIONS.map((name, cc) => [`j${name}`, jcc(cc)])),
  jmp: (e) => {
    e.requireTarget();
    e.branch();
  },
  jmp_ind: jmpIndirect,
  call,
  call_ind: callIndirect,
  ret,
  loop: loop(),
  loope: loop('z'),
  loopne: loop('nz'),
  jrcxz: (e) => e.branchIf(e.let(e.eqz(e.reg(RCX, e.form.addrSize)))),
};
