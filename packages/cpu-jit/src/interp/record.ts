import type { Insn, MemOperand, OperandForm } from '../decoder/types.ts';
import {
  R_BASE,
  R_DISP,
  R_HANDLER,
  R_IDX,
  R_IMM,
  R_INDEX,
  R_LEN,
  R_OFF,
  R_REG,
  R_RM,
  R_SCALE,
  R_SEG,
  R_VVVV,
  REC_SIZE,
  S_BLOCK_RIP,
  S_CR0,
  S_CR2,
  S_CR8,
  S_DR,
  S_EA,
  S_GPR,
  S_SEG,
  S_X87,
  S_XMM,
  S_ZERO,
  SEG_BASE,
  SEG_SELECTOR,
  SEG_STRIDE,
} from '../layout.ts';
import { PSEUDO } from './handler-table.ts';

const NO_REGISTER = -1;
const RIP = 16;

/** State-block offset of a general register of `size` bytes; AH CH DH BH are the second bytes of RAX..RBX. */
export function gprOffset(n: number, size: number, rex: boolean): number {
  return size === 1 && !rex && n >= 4 && n < 8 ? S_GPR + (n - 4) * 8 + 1 : S_GPR + n * 8;
}

function registerOffset(o: OperandForm, n: number, rex: boolean): number {
  switch (o.kind) {
    case 'gpr':
      return gprOffset(n, o.size, rex);
    case 'xmm':
      return S_XMM + n * 16;
    case 'mmx':
      return S_X87 + (n & 7) * 16;
    case 'seg':
      return S_SEG + n * SEG_STRIDE + SEG_SELECTOR;
    case 'cr':
      return controlOffset(n);
    case 'dr':
      return debugOffset(n);
    default:
      return n;
  }
}

/** State-block offset of control register 0, 2, 3, 4 or 8 (the decoder lets no other through). */
export function controlOffset(n: number): number {
  return n === 0 ? S_CR0 : n === 8 ? S_CR8 : S_CR2 + (n - 2) * 8;
}

/** State-block offset of a debug register. */
export function debugOffset(n: number): number {
  return S_DR + n * 8;
}

/** State-block offset of the base of a segment that has one in 64-bit mode; S_ZERO for the flat ones. */
export function segmentBaseOffset(seg: number, codeSize: number): number {
  return codeSize === 64 && seg < 4 ? S_ZERO : S_SEG + seg * SEG_STRIDE + SEG_BASE;
}

/** POP to memory computes its address after RSP was incremented (SDM, POP). */
export function popAdjustment(insn: Insn): number {
  return insn.row.name === 'pop' && insn.mem?.base === 4 ? insn.opSize : 0;
}

/**
 * Writes the records of one instruction at `at` (room for two) and returns the address after them.
 * `offset`: bytes from the start of the block; `index`: instructions before it in the block.
 */
export function writeRecord(view: DataView, at: number, insn: Insn, handler: number, offset: number, index: number, codeSize: number): number {
  let rec = at;
  const isVectorIndexed = insn.operands.some((o) => o.field === 'vsib');
  let mem = isVectorIndexed && insn.mem !== null ? { ...insn.mem, index: NO_REGISTER } : insn.mem;
  if (mem !== null && needsEaRecord(insn, mem, offset)) {
    clearRecord(view, rec, insn, offset, index);
    view.setUint32(rec + R_HANDLER, insn.addrSize === 8 ? PSEUDO.ea64 : insn.addrSize === 4 ? PSEUDO.ea32 : PSEUDO.ea16, true);
    writeBaseIndex(view, rec, mem);
    const relative = mem.base === RIP ? offset + insn.length : 0;
    const low = BigInt(mem.disp) + BigInt(relative + popAdjustment(insn));
    const value = mem.dispHigh === undefined ? low : (BigInt(mem.dispHigh) << 32n) | BigInt(mem.disp >>> 0);
    view.setBigInt64(rec + R_IMM, BigInt.asIntN(64, value), true);
    rec += REC_SIZE;
    mem = { base: NO_REGISTER, index: NO_REGISTER, scale: 0, disp: 0, seg: mem.seg };
    clearRecord(view, rec, insn, offset, index);
    view.setUint16(rec + R_BASE, S_EA, true);
  } else {
    clearRecord(view, rec, insn, offset, index);
    if (mem !== null) {
      writeBaseIndex(view, rec, mem);
      view.setInt32(rec + R_DISP, mem.disp + (mem.base === RIP ? offset + insn.length : 0) + popAdjustment(insn), true);
    }
  }
  view.setUint32(rec + R_HANDLER, handler, true);
  const seg = mem?.seg ?? insn.seg;
  view.setUint16(rec + R_SEG, segmentBaseOffset(seg, codeSize), true);
  let isRelative = false;
  let isFar = false;
  for (const o of insn.operands) {
    if (o.field === 'reg') view.setUint16(rec + R_REG, registerOffset(o, insn.reg, insn.rex), true);
    else if (o.field === 'rm') view.setUint16(rec + R_RM, registerOffset(o, insn.rm, insn.rex), true);
    else if (o.field === 'vvvv') view.setUint8(rec + R_VVVV, insn.vvvv);
    else if (o.field === 'vsib' && insn.mem !== null) {
      view.setUint16(rec + R_RM, S_XMM + insn.mem.index * 16, true);
      view.setUint8(rec + R_SCALE, insn.mem.scale);
    }
    if (o.kind === 'rel') isRelative = true;
    if (o.kind === 'far') isFar = true;
  }
  if (insn.row.name === 'enter') view.setUint8(rec + R_VVVV, insn.imm2);
  if (isRelative) {
    view.setBigInt64(rec + R_IMM, BigInt(insn.immLow + offset + insn.length), true);
  } else {
    view.setInt32(rec + R_IMM, insn.immLow, true);
    view.setInt32(rec + R_IMM + 4, isFar ? insn.imm2 : insn.immHigh, true);
  }
  return rec + REC_SIZE;
}

/** A record without operands, for pseudo-handlers that end a block. */
export function writePseudo(view: DataView, at: number, handler: number, offset: number, index: number): number {
  for (let i = 0; i < REC_SIZE; i += 4) view.setUint32(at + i, 0, true);
  view.setUint32(at + R_HANDLER, handler, true);
  view.setUint16(at + R_OFF, offset, true);
  view.setUint8(at + R_IDX, index);
  return at + REC_SIZE;
}

/** 16- and 32-bit addresses wrap, 64-bit displacements and RIP-relative ones that overflow 32 bits do not fit R_DISP. */
function needsEaRecord(insn: Insn, mem: MemOperand, offset: number): boolean {
  if (insn.addrSize !== 8 || mem.dispHigh !== undefined) return true;
  const disp = mem.disp + (mem.base === RIP ? offset + insn.length : 0) + popAdjustment(insn);
  return disp !== (disp | 0);
}

function writeBaseIndex(view: DataView, rec: number, mem: MemOperand): void {
  const offsetOf = (n: number) => (n === NO_REGISTER ? S_ZERO : n === RIP ? S_BLOCK_RIP : S_GPR + n * 8);
  view.setUint16(rec + R_BASE, offsetOf(mem.base), true);
  view.setUint16(rec + R_INDEX, offsetOf(mem.index), true);
  view.setUint8(rec + R_SCALE, mem.scale);
}

function clearRecord(view: DataView, rec: number, insn: Insn, offset: number, index: number): void {
  writePseudo(view, rec, 0, offset, index);
  view.setUint16(rec + R_BASE, S_ZERO, true);
  view.setUint16(rec + R_INDEX, S_ZERO, true);
  view.setUint8(rec + R_LEN, insn.length);
}
