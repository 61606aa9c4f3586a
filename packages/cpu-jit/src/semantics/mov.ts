import { CONDITIONS } from '../decoder/families.ts';
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { AF, amount, CF, mergeFlags, PF, RAX, RBP, RBX, RDX, RSP, SF, update, ZF } from './common.ts';
import { leave, push, setStack, stackAddress, stackAt, stackMoved } from './stack.ts';

function mov(e: Emitter): void {
  e.write(0, e.read(1));
}

/** An integer of `from` bytes, zero- or sign-extended to `to` bytes. */
export function extend(e: Emitter, v: Val, from: number, to: number, signed: boolean): Val {
  if (to === 8) return signed ? e.sext64(v, from) : e.zext64(v);
  return signed ? e.trunc(e.sext32(v, from), to) : v;
}
function movx(signed: boolean): Semantics {
  return (e) => e.write(0, e.let(extend(e, e.read(1), e.size(1), e.size(0), signed)));
}

function lea(e: Emitter): void {
  const size = e.size(0);
  const a = e.address(1, { segment: false });
  e.write(0, size === 8 ? a : e.let(e.trunc(e.wrap(a), size)));
}

/** XCHG writes memory first: the register changes only when that did not fault. */
function xchg(e: Emitter): void {
  const b = e.read(1);
  const { old } = update(e, 0, (old) => ({ old, stored: b }));
  e.write(1, old);
}

/** Bytes of `v` reversed. */
export function byteSwap(e: Emitter, v: Val, size: number): Val {
  const x = e.let(v);
  if (size === 2) return e.or(e.shrU(x, e.i32(8)), e.and(e.shl(x, e.i32(8)), e.i32(0xff00)));
  if (size === 4) return e.or(e.and(e.rotl(x, e.i32(8)), e.i32(0x00ff00ff)), e.and(e.rotr(x, e.i32(8)), e.i32(0xff00ff00)));
  const bytes = e.i64(0x00ff00ff, 0x00ff00ff);
  const words = e.i64(0x0000ffff, 0x0000ffff);
  const y = e.let(e.or(e.shl(e.and(x, bytes), e.i64(8)), e.and(e.shrU(x, e.i64(8)), bytes)));
  const z = e.or(e.shl(e.and(y, words), e.i64(16)), e.and(e.shrU(y, e.i64(16)), words));
  return e.rotl(z, e.i64(32));
}
/** With a 16-bit operand the manual leaves the result open; Intel's processors make it zero. */
function bswap(e: Emitter): void {
  if (e.size(0) === 2) e.write(0, e.i32(0));
  else e.write(0, e.let(byteSwap(e, e.read(0), e.size(0))));
}
function movbe(e: Emitter): void {
  e.write(0, e.let(byteSwap(e, e.read(1), e.size(1))));
}

/** The source is read and a 32-bit destination zero-extended whether the condition holds or not. */
function cmovcc(cc: number): Semantics {
  return (e) => {
    const source = e.read(1);
    const old = e.read(0);
    e.write(0, e.let(e.select(e.condition(cc), source, old)));
  };
}
function setcc(cc: number): Semantics {
  return (e) => e.write(0, e.condition(cc));
}

/** PUSH of a segment register: in 64-bit code zero-extended; with a 32-bit operand the upper half of the slot is left alone, as Intel's processors do. */
function pushSeg(e: Emitter): void {
  const size = e.form.opSize;
  if (size !== 4) return push(e, size, e.let(extend(e, e.read(0), 2, size, false)));
  const p = stackAt(e, -size);
  e.store(stackAddress(e, p), 2, e.read(0));
  setStack(e, p);
}
function pushOperand(e: Emitter): void {
  push(e, e.form.opSize, e.read(0));
}

function popOperand(e: Emitter): void {
  const size = e.form.opSize;
  const v = e.load(stackAddress(e, stackAt(e, 0)), size);
  const after = stackAt(e, size);
  // A memory destination may fault, so it comes first (its address already accounts for the new RSP);
  // POP RSP keeps the value popped, so a register comes last.
  if (e.isMem(0)) e.write(0, v);
  setStack(e, after);
  if (!e.isMem(0)) e.write(0, v);
}

const ALL = [0, 1, 2, 3, 4, 5, 6, 7];
/** PUSHA: the eight stores come before RSP moves. */
function pusha(e: Emitter): void {
  const size = e.form.opSize;
  for (const n of ALL) e.store(stackAddress(e, stackAt(e, -size * (n + 1))), size, e.reg(n, size));
  setStack(e, stackAt(e, -size * ALL.length));
}
/** POPA skips the stored SP. */
function popa(e: Emitter): void {
  const size = e.form.opSize;
  const loaded: Val[] = [];
  for (const n of ALL.toReversed()) loaded[n] = e.load(stackAddress(e, stackAt(e, size * (7 - n))), size);
  const after = stackAt(e, size * ALL.length);
  for (const n of ALL) {
    const v = loaded[n];
    if (v !== undefined && n !== RSP) e.setReg(n, size, v);
  }
  setStack(e, after);
}

/** AL = byte at DS:rBX + AL, at the address size of the instruction. */
function xlat(e: Emitter): void {
  const asz = e.form.addrSize;
  const offset = e.let(e.trunc(e.add(e.reg(RBX, asz), amount(e, asz, e.reg(RAX, 1))), asz));
  e.setReg(RAX, 1, e.load(e.linear(e.let(e.zext64(offset)), 1), 1));
}

const LAHF_FLAGS = SF | ZF | AF | PF | CF;
function lahf(e: Emitter): void {
  const ah = e.let(e.or(e.and(e.statusFlags(), e.i32(LAHF_FLAGS)), e.i32(2)));
  e.setReg(RAX, 2, e.let(e.or(e.shl(ah, e.i32(8)), e.reg(RAX, 1))));
}
function sahf(e: Emitter): void {
  mergeFlags(e, LAHF_FLAGS, e.and(e.shrU(e.reg(RAX, 2), e.i32(8)), e.i32(LAHF_FLAGS)));
}

/** CBW, CWDE, CDQE by operand size. */
function cbw(e: Emitter): void {
  const size = e.form.opSize;
  const half = size / 2;
  e.setReg(RAX, size, e.let(extend(e, e.reg(RAX, half), half, size, true)));
}
/** CWD, CDQ, CQO by operand size. */
function cwd(e: Emitter): void {
  const size = e.form.opSize;
  const a = e.reg(RAX, size);
  const signs = size === 8 ? e.shrS(a, e.i64(63)) : e.trunc(e.shrS(e.sext32(a, size), e.i32(31)), size);
  e.setReg(RDX, size, e.let(signs));
}

function enter(e: Emitter): void {
  const level = e.let(e.and(e.imm2(), e.i32(31)));
  const size = e.form.opSize;
  // Nesting levels copy frame pointers; only level 0 is in use by compilers.
  e.if(level, () => e.transfer('sys_enter', [e.i32(size), e.let(e.and(e.imm(4), e.i32(0xffff))), level]));
  const frame = stackAt(e, -size);
  const after = stackMoved(e, frame, e.let(e.sub(e.i32(0), e.and(e.imm(4), e.i32(0xffff)))));
  e.store(stackAddress(e, frame), size, e.reg(RBP, size));
  e.setReg(RBP, size, size === 8 ? frame.value : e.let(e.trunc(e.wrap(frame.whole), size)));
  setStack(e, after);
}

/** Data movement (SDM vol. 2, by mnemonic). */
export const moves: Record<string, Semantics> = {
  mov,
  movzx: movx(false),
  movsx: movx(true),
  movsxd: movx(true),
  lea,
  xchg,
  bswap,
  movbe,
  movnti: mov,
  ...Object.fromEntries(CONDITIONS.map((name, cc) => [`cmov${name}`, cmovcc(cc)])),
  ...Object.fromEntries(CONDITIONS.map((name, cc) => [`set${name}`, setcc(cc)])),
  mov_r_seg: movx(false),
  push: pushOperand,
  push_seg: pushSeg,
  pop: popOperand,
  pusha,
  popa,
  xlat,
  lahf,
  sahf,
  cbw,
  cwd,
  enter,
  leave: (e) => leave(e, e.form.opSize),
};
