import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import {
  DS,
  ES,
  EXIT_EMULATE,
  EXIT_PRIVILEGED,
  FS,
  GS,
  INTERCEPT_SENSITIVE,
  S_SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SELECTOR,
  SEG_STRIDE,
  SS,
} from '../layout.ts';
import { VECTOR } from './common.ts';
import { holdTraps } from './flags.ts';
import { interceptedInKernel, native, requireProtected, transferredAtCpl0, unlessNative } from './privilege.ts';
import { setStack, stackAddress, stackAt } from './stack.ts';

/** Segment attributes of a null selector: bit 16, unusable, as in a VMCS (SDM vol. 3, 24.4.1). */
const UNUSABLE = 1 << 16;

/** A word, of whatever operand size it came with. */
function selector(e: Emitter, v: Val): Val {
  return e.let(e.and(e.wrap(v), e.i32(0xffff)));
}

/** A selector that is not null names a descriptor of the guest's own table: its kernel's loads of one leave when they are intercepted. */
function leaveForSelector(e: Emitter, value: Val): void {
  const named = e.ne(e.and(value, e.i32(0xfffc)), e.i32(0));
  e.if(e.and(interceptedInKernel(e, INTERCEPT_SENSITIVE), named), () => e.exit(EXIT_PRIVILEGED, 'this'));
}

/** Load the segment register of operand `i`; faults leave the instruction. */
function loadSegment(e: Emitter, i: number, value: Val): void {
  leaveForSelector(e, value);
  const record = e.segmentRecord(i);
  const number = e.let(e.shrU(e.sub(record, e.i32(S_SEG)), e.i32(Math.log2(SEG_STRIDE))));
  e.call('load_segment', 'none', [number, value]);
  e.checkException();
  // Loading SS holds events off until the stack pointer is loaded too.
  e.if(e.eq(number, e.i32(SS)), () => holdTraps(e));
}

/** MOV to a segment register. */
function movToSegment(e: Emitter): void {
  e.if(native(e), () => {
    loadSegment(e, 0, selector(e, e.read(1)));
    e.endBlock();
  });
  if (e.codeSize === 64) loadNull(e);
  else e.exit(EXIT_EMULATE, 'this');
}
/** In 64-bit mode a null selector needs no descriptor, SS apart; everything else is TypeScript's. */
function loadNull(e: Emitter): void {
  const value = e.read(1);
  const record = e.segmentRecord(0);
  // CS is no destination (the decoder refuses it), SS checks privilege.
  const isSs = e.eq(record, e.i32(S_SEG + SS * SEG_STRIDE));
  e.if(e.or(e.gtU(value, e.i32(3)), isSs), () => e.exit(EXIT_EMULATE, 'this'));
  const address = e.let(e.add(e.expr('i32', e.cpu()), record));
  const set = (field: number, v: number | Val) => e.emit(e.m.i32.store(field, 4, address.take(), typeof v === 'number' ? e.m.i32.const(v) : v.take()));
  set(SEG_BASE, 0);
  set(SEG_BASE + 4, 0);
  set(SEG_LIMIT, 0);
  set(SEG_ATTR, UNUSABLE);
  set(SEG_SELECTOR, value);
  e.endBlock();
}

function popSegment(e: Emitter): void {
  unlessNative(e, EXIT_EMULATE);
  const size = e.form.opSize;
  const value = selector(e, e.load(stackAddress(e, stackAt(e, 0)), size));
  const after = stackAt(e, size);
  loadSegment(e, 0, value);
  setStack(e, after);
  e.endBlock();
}

/** Memory operand `i` in two parts, of the operand size and of `second` bytes, each of which must lie within the segment when it is read. */
function twoParts(e: Emitter, i: number, second: number): readonly [Val, () => Val] {
  const size = e.form.opSize;
  const offset = e.let(e.address(i, { segment: false }));
  const part = (at: Val, bytes: number) => e.load(e.linear(at, bytes), bytes);
  return [part(offset, size), () => part(e.let(e.add(offset, e.i64(size))), second)];
}
/** Far pointer in memory operand `i`: offset, then selector. */
function farPointer(e: Emitter, i: number): { offset: Val; selector: Val } {
  const [offset, selector] = twoParts(e, i, 2);
  return { offset, selector: selector() };
}

/** LES, LDS, LSS, LFS, LGS. */
function loadFarPointer(segment: number): Semantics {
  return (e) => {
    unlessNative(e, EXIT_EMULATE);
    const pointer = farPointer(e, 1);
    leaveForSelector(e, pointer.selector);
    e.call('load_segment', 'none', [e.i32(segment), pointer.selector]);
    e.checkException();
    e.write(0, pointer.offset);
    e.endBlock();
  };
}

/** Far JMP and CALL: through an immediate or a pointer in memory. */
function farTransfer(helper: string, more: (e: Emitter) => readonly Val[]): Semantics {
  return (e) => {
    leaveForFarTransfer(e);
    const size = e.form.opSize;
    const to = e.isMem(0) ? farPointer(e, 0) : { offset: e.let(e.trunc(e.imm(4), size)), selector: e.farSelector() };
    e.transfer(helper, [to.selector, e.let(e.zext64(to.offset)), ...more(e)]);
  };
}
function leaveForFarTransfer(e: Emitter): void {
  unlessNative(e, EXIT_EMULATE);
  e.if(interceptedInKernel(e, INTERCEPT_SENSITIVE), () => e.exit(EXIT_PRIVILEGED, 'this'));
}
function farReturn(e: Emitter): void {
  leaveForFarTransfer(e);
  const release = e.form.operands.length === 0 ? e.i32(0) : e.let(e.and(e.imm(4), e.i32(0xffff)));
  e.transfer('sys_retf', [operandSize(e), release]);
}
const operandSize = (e: Emitter): Val => e.i32(e.form.opSize);

const LAR = 0;
const LSL = 1;
const VERR = 2;
const VERW = 3;
/** LAR, LSL, VERR, VERW: ZF says whether the selector passes; only then LAR and LSL write their register. */
function access(what: number): Semantics {
  return (e) => {
    unlessNative(e, EXIT_EMULATE);
    requireProtected(e);
    const writes = what <= LSL;
    const value = e.call('sys_access', 'i32', [selector(e, e.read(writes ? 1 : 0)), e.i32(what)], { registers: true });
    e.checkException();
    if (!writes) return;
    const size = e.size(0);
    e.if(e.flag('z'), () => e.write(0, size === 8 ? e.let(e.zext64(value)) : e.let(e.trunc(value, size))));
  };
}

/** #UD comes before the check of CPL, which is 3 in virtual-8086 mode. */
function inProtectedMode(f: Semantics): Semantics {
  return (e) => {
    requireProtected(e);
    f(e);
  };
}

/** ARPL: raise the RPL of the first selector to that of the second. */
function arpl(e: Emitter): void {
  unlessNative(e, EXIT_EMULATE);
  requireProtected(e);
  const old = e.read(0);
  const rpl = e.let(e.and(e.read(1), e.i32(3)));
  const raise = e.let(e.ltU(e.and(old, e.i32(3)), rpl));
  e.write(0, e.let(e.select(raise, e.or(e.and(old, e.i32(0xfffc)), rpl), old)));
  const flags = e.let(e.and(e.statusFlags(), e.i32(~0x40)));
  e.setStatusFlags(e.let(e.or(flags, e.shl(raise, e.i32(6)))));
}

/** BOUND: #BR unless lower <= index <= upper, signed. The upper bound is read only after the lower one was found to hold. */
function bound(e: Emitter): void {
  const size = e.form.opSize;
  const index = e.let(e.sext32(e.read(0), size));
  const [lower, upper] = twoParts(e, 1, size);
  const outOfRange = (isOutside: Val) => e.if(isOutside, () => e.raise(VECTOR.BR));
  outOfRange(e.ltS(index, e.let(e.sext32(lower, size))));
  outOfRange(e.gtS(index, e.let(e.sext32(upper(), size))));
}

/** Segment registers, descriptors and far transfers (SDM vol. 2, by mnemonic). */
export const descriptors: Record<string, Semantics> = {
  mov_seg_r: movToSegment,
  pop_seg: popSegment,
  les: loadFarPointer(ES),
  lds: loadFarPointer(DS),
  lss: loadFarPointer(SS),
  lfs: loadFarPointer(FS),
  lgs: loadFarPointer(GS),
  jmpf: farTransfer('sys_jmpf', () => []),
  callf: farTransfer('sys_callf', (e) => [operandSize(e)]),
  retf: farReturn,
  lldt: inProtectedMode(transferredAtCpl0(EXIT_EMULATE, 'sys_lldt', (e) => [selector(e, e.read(0))])),
  ltr: inProtectedMode(transferredAtCpl0(EXIT_EMULATE, 'sys_ltr', (e) => [selector(e, e.read(0))])),
  lar: access(LAR),
  lsl: access(LSL),
  verr: access(VERR),
  verw: access(VERW),
  arpl,
  bound,
};
