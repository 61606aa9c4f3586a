import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { ES, S_REPEATING, S_RFLAGS, S_SEG, SEG_BASE, SEG_STRIDE } from '../layout.ts';
import { RAX, RDI, RSI } from './common.ts';

/**
 * String instructions. With a REP prefix they are helpers that do a chunk and say whether that was all; alone they
 * are two memory accesses and two increments, emitted here.
 */

/** Linear address of the source, rSI in DS or the overriding segment. */
function sourceAddress(e: Emitter): Val {
  const base = e.op('i64.load', 'i64', 0, 8, e.add(e.expr('i32', e.cpu()), e.segmentOffset()));
  return linear(e, e.add(base, e.zext64(e.reg(RSI, e.form.addrSize))));
}
/** Linear address of the destination, rDI in ES. */
function destinationAddress(e: Emitter): Val {
  const offset = e.zext64(e.reg(RDI, e.form.addrSize));
  return e.codeSize === 64 ? e.let(offset) : linear(e, e.add(e.state(S_SEG + ES * SEG_STRIDE + SEG_BASE, 8), offset));
}
function linear(e: Emitter, address: Val): Val {
  return e.let(e.codeSize === 64 ? address : e.zext64(e.wrap(address)));
}

/** Move rSI or rDI by one element, up or down by DF. */
function advance(e: Emitter, ...registers: number[]): void {
  const asz = e.form.addrSize;
  const size = e.form.opSize;
  const down = e.and(e.state(S_RFLAGS, 4), e.i32(1 << 10));
  const delta = e.let(e.select(down, e.k(asz, -size), e.k(asz, size)));
  for (const n of registers) e.setReg(n, asz, e.let(e.trunc(e.add(e.reg(n, asz), delta), asz)));
}

/** A chunk of a REP instruction: `helper(cpu, size, address size, rep, offset of the source's segment base)` -> 1 when complete. */
function repeated(e: Emitter, helper: string): void {
  const { opSize, addrSize, rep } = e.form;
  const complete = e.call(helper, 'i32', [e.i32(opSize), e.i32(addrSize), e.i32(rep), e.segmentOffset()], { registers: true });
  e.checkException();
  // An event that comes now finds the instruction in the middle: RF says so in the image it saves.
  e.if(e.eqz(complete), () => e.setState(S_REPEATING, 8, e.add(e.retired(), e.i64(1))));
  e.repeatUnless(complete);
}
function string(helper: string, once: (e: Emitter, size: number) => void): Semantics {
  // The helpers check segments too.
  return (e) => (e.form.rep === 0 && e.codeSize === 64 ? once(e, e.form.opSize) : repeated(e, helper));
}

const movs = string('rep_movs', (e, size) => {
  const v = e.load(sourceAddress(e), size);
  e.store(destinationAddress(e), size, v);
  advance(e, RSI, RDI);
});

const stos = string('rep_stos', (e, size) => {
  e.store(destinationAddress(e), size, e.reg(RAX, size));
  advance(e, RDI);
});

const lods = string('rep_lods', (e, size) => {
  const v = e.load(sourceAddress(e), size);
  e.setReg(RAX, size, v);
  advance(e, RSI);
});

const cmps = string('rep_cmps', (e, size) => {
  // As on Intel's processors, which fault for the destination first.
  const b = e.load(destinationAddress(e), size);
  const a = e.load(sourceAddress(e), size);
  advance(e, RSI, RDI);
  e.setFlags('sub', size, e.let(e.trunc(e.sub(a, b), size)), b, a);
});

const scas = string('rep_scas', (e, size) => {
  const a = e.reg(RAX, size);
  const b = e.load(destinationAddress(e), size);
  advance(e, RDI);
  e.setFlags('sub', size, e.let(e.trunc(e.sub(a, b), size)), b, a);
});

/** String instructions but for INS and OUTS (SDM vol. 2, by mnemonic). */
export const strings: Record<string, Semantics> = { movs, stos, lods, cmps, scas };
