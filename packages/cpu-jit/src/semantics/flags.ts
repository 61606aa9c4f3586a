import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { EXIT_PRIVILEGED, INTERCEPT_SENSITIVE, NEXT_CHECK, S_CPL, S_DEBUG_SHADOW, S_INTR, S_RFLAGS, S_SHADOW, V_INTERCEPTS } from '../layout.ts';
import { CF, mergeFlags, STATUS, VECTOR } from './common.ts';
import { interceptable } from './privilege.ts';
import { push, setStack, stackAddress, stackAt } from './stack.ts';

/** RFLAGS bits beside the status flags (SDM vol. 1, 3.4.3). */
const TF = 1 << 8;
const IF = 1 << 9;
const DF = 1 << 10;
const IOPL = 3 << 12;
const NT = 1 << 14;
const RF = 1 << 16;
const VM = 1 << 17;
export const AC = 1 << 18;
const ID = 1 << 21;
/** Bits that exist in a 16-, 32- or 64-bit FLAGS image. */
const IMAGE = 0x00ff_ffff;

/** Virtual-8086 mode without IOPL 3 leaves PUSHF, POPF (and INT n, IRET) to its monitor: #GP(0). CR4.VME is not offered. */
function requireVirtualPrivilege(e: Emitter): void {
  // That mode is 16-bit code, which is not compiled.
  if (e.codeSize === 64 || e.flat) return;
  const flags = e.state(S_RFLAGS, 4);
  e.if(e.and(e.ne(e.and(flags, e.i32(VM)), e.i32(0)), e.ne(e.and(flags, e.i32(IOPL)), e.i32(IOPL))), () => e.raise(VECTOR.GP, 0));
}

/** I/O privilege: whether CPL <= IOPL, i32 0/1. */
export function ioPrivilege(e: Emitter): Val {
  const iopl = e.and(e.shrU(e.state(S_RFLAGS, 4), e.i32(12)), e.i32(3));
  return e.let(e.leU(e.state(S_CPL, 4), iopl));
}

/** Change bits of S_RFLAGS. */
export function setSystemFlags(e: Emitter, set: number, clear: number): void {
  const old = e.state(S_RFLAGS, 4);
  e.setState(S_RFLAGS, 4, e.or(e.and(old, e.i32(~clear)), e.i32(set)));
}

/** PUSHF: RF and VM read as 0. */
function pushf(e: Emitter): void {
  requireVirtualPrivilege(e);
  const size = e.form.opSize;
  const image = e.let(e.or(e.and(e.state(S_RFLAGS, 4), e.i32(IMAGE & ~(RF | VM))), e.statusFlags()));
  push(e, size, size === 8 ? e.let(e.zext64(image)) : e.let(e.trunc(image, size)));
}

/** POPF: IF changes only with I/O privilege, IOPL only at CPL 0; otherwise both silently stay. */
function popf(e: Emitter): void {
  requireVirtualPrivilege(e);
  const size = e.form.opSize;
  const image = e.let(e.wrap(e.load(stackAddress(e, stackAt(e, 0)), size)));
  const always = TF | DF | NT | (size === 2 ? 0 : AC | ID);
  const cpl = e.state(S_CPL, 4);
  const mask = e.let(e.or(e.select(ioPrivilege(e), e.i32(always | IF), e.i32(always)), e.select(cpl, e.i32(0), e.i32(IOPL))));
  const old = e.let(e.and(e.state(S_RFLAGS, 4), e.i32(size === 2 ? -1 : ~RF)));
  const hidden = e.and(e.and(e.xor(old, image), mask), e.i32(IF | IOPL));
  const intercepted = e.ne(e.and(e.state(V_INTERCEPTS, 4), e.i32(INTERCEPT_SENSITIVE)), e.i32(0));
  e.if(e.and(intercepted, e.ne(hidden, e.i32(0))), () => e.exit(EXIT_PRIVILEGED, 'this'));
  setStack(e, stackAt(e, size));
  e.setState(S_RFLAGS, 4, e.or(e.and(old, e.not(mask)), e.and(image, mask)));
  if (size !== 2) e.if(e.and(e.xor(old, image), e.i32(AC)), () => e.call('alignment', 'none', []));
  e.setStatusFlags(e.let(e.and(image, e.i32(STATUS))));
  // An event may be due now, or single-stepping begins.
  e.if(e.or(eventPending(e), e.ne(e.and(image, e.i32(TF)), e.i32(0))), () => e.exit(NEXT_CHECK, 'next'));
}

/** Whether an interrupt or NMI waits (S_INTR and S_NMI, which follows it), i32 0/1. */
function eventPending(e: Emitter): Val {
  return e.ne(e.state(S_INTR, 8), e.i64(0));
}
/** Events are held off until the instruction after this one is done (SDM vol. 3, 7.8.3). */
export function holdEvents(e: Emitter): void {
  e.setState(S_SHADOW, 8, e.add(e.retired(), e.i64(1)));
}

/** After a load of SS debug traps wait too, lest they find half a stack pointer. */
export function holdTraps(e: Emitter): void {
  holdEvents(e);
  e.setState(S_DEBUG_SHADOW, 8, e.add(e.retired(), e.i64(1)));
}

/** CLI and STI need I/O privilege. */
function cli(e: Emitter): void {
  e.if(e.eqz(ioPrivilege(e)), () => e.raise(VECTOR.GP, 0));
  interceptable(e, INTERCEPT_SENSITIVE, EXIT_PRIVILEGED);
  setSystemFlags(e, 0, IF);
}
/** One more instruction runs before an event that was held back by IF = 0 (the HLT of `sti; hlt`). */
function sti(e: Emitter): void {
  e.if(e.eqz(ioPrivilege(e)), () => e.raise(VECTOR.GP, 0));
  interceptable(e, INTERCEPT_SENSITIVE, EXIT_PRIVILEGED);
  e.if(e.eqz(e.and(e.state(S_RFLAGS, 4), e.i32(IF))), () => holdEvents(e));
  setSystemFlags(e, IF, 0);
  e.if(eventPending(e), () => e.exit(NEXT_CHECK, 'next'));
}

/** Flag instructions (SDM vol. 2, by mnemonic). LAHF and SAHF are with the moves. */
export const flagInstructions: Record<string, Semantics> = {
  pushf,
  popf,
  clc: (e) => mergeFlags(e, CF, e.i32(0)),
  stc: (e) => mergeFlags(e, CF, e.i32(CF)),
  cmc: (e) => e.setStatusFlags(e.let(e.xor(e.statusFlags(), e.i32(CF)))),
  cld: (e) => setSystemFlags(e, 0, DF),
  std: (e) => setSystemFlags(e, DF, 0),
  cli,
  sti,
};
