import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { EXIT_PRIVILEGED, INTERCEPT_PRIVILEGED, S_CPL, S_CR0, S_CR4, S_RFLAGS, V_INTERCEPTS, V_NATIVE } from '../layout.ts';
import { VECTOR } from './common.ts';

/** CR4 bits that instructions ask for (SDM vol. 3, 2.5). */
export const CR4 = { TSD: 1 << 2, PCE: 1 << 8, UMIP: 1 << 11, FSGSBASE: 1 << 16, OSXSAVE: 1 << 18, PKE: 1 << 22 } as const;

/** #GP(0) unless CPL is 0. `intercept`: the bits of the control block that take the instruction away from the CPU, 0: none. */
export function requireCpl0(e: Emitter, intercept = INTERCEPT_PRIVILEGED): void {
  e.if(e.state(S_CPL, 4), () => e.raise(VECTOR.GP, 0));
  if (intercept !== 0) interceptable(e, intercept, EXIT_PRIVILEGED);
}
/** Whether CPL is 0 to 2, where a guest's kernel runs, and the control block has a bit of `intercept` set: i32. */
export function interceptedInKernel(e: Emitter, intercept: number): Val {
  return e.and(e.ltU(e.state(S_CPL, 4), e.i32(3)), e.ne(e.and(e.state(V_INTERCEPTS, 4), e.i32(intercept)), e.i32(0)));
}

/** #UD in real and virtual-8086 mode, which have no descriptors. */
export function requireProtected(e: Emitter): void {
  if (e.codeSize === 64) return;
  const isVirtual = e.and(e.state(S_RFLAGS, 4), e.i32(1 << 17));
  const isReal = e.eqz(e.and(e.state(S_CR0, 4), e.i32(1)));
  e.if(e.or(isVirtual, isReal), () => e.raise(VECTOR.UD));
}

/** Whether a bit of CR4 is set, i32 zero or not. */
export function cr4(e: Emitter, mask: number): Val {
  return e.and(e.wrap(e.state(S_CR4, 8)), e.i32(mask));
}
/** #UD unless the operating system has switched the feature on in CR4. */
export function requireCr4(e: Emitter, mask: number): void {
  e.if(e.eqz(cr4(e, mask)), () => e.raise(VECTOR.UD));
}
/** #GP(0) outside CPL 0 when a CR4 bit restricts the instruction (UMIP, TSD). */
export function restrictedBy(e: Emitter, mask: number): void {
  e.if(e.and(e.ne(cr4(e, mask), e.i32(0)), e.ne(e.state(S_CPL, 4), e.i32(0))), () => e.raise(VECTOR.GP, 0));
}

/** Leave the guest with `reason` at this instruction when the control block intercepts it. */
export function interceptable(e: Emitter, intercept: number, reason: number): void {
  e.if(e.and(e.state(V_INTERCEPTS, 4), e.i32(intercept)), () => e.exit(reason, 'this'));
}

/** An instruction of CPL 0 that TypeScript does, or that is a VM exit: RIP stays at it, S_EXIT_INSN_LEN is its length. */
export function privileged(reason: number): Semantics {
  return (e) => {
    requireCpl0(e, 0);
    e.exit(reason, 'this');
  };
}
/** An instruction of any privilege that TypeScript does. */
export function delegated(reason: number): Semantics {
  return (e) => e.exit(reason, 'this');
}

/** Whether the CPU does such instructions itself (V_NATIVE), i32. */
export function native(e: Emitter): Val {
  return e.state(V_NATIVE, 4);
}
/** Leave with `reason` at this instruction unless the CPU does it itself. */
export function unlessNative(e: Emitter, reason: number): void {
  e.if(e.eqz(native(e)), () => e.exit(reason, 'this'));
}
/** An instruction that runtime helper `helper` does, or that leaves with `reason`. The arguments are computed only for the helper. */
export function transferred(reason: number, helper: string, args: (e: Emitter) => readonly Val[] = () => []): Semantics {
  return (e) => {
    unlessNative(e, reason);
    e.transfer(helper, args(e));
  };
}
/** The same for CPL 0 alone; `intercept`: the bits of the control block that make it leave all the same. */
export function transferredAtCpl0(reason: number, helper: string, args?: (e: Emitter) => readonly Val[], intercept = INTERCEPT_PRIVILEGED): Semantics {
  const transfer = transferred(reason, helper, args);
  return (e) => {
    requireCpl0(e, intercept);
    transfer(e);
  };
}
