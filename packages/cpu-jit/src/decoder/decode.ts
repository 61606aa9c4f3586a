import { readAddress } from './address.ts';
import { type CodeSize, effectiveRep, type SizeClass } from './forms.ts';
import {
  buildMaps,
  type Candidate,
  type Cell,
  candidateOperands,
  type Immediate,
  type Maps,
  NO_REPEAT,
  type OpcodeCells,
  PREFIX_66,
  PREFIX_F2,
  PREFIX_F3,
} from './lookup.ts';
import { Reader } from './reader.ts';
import type { AddrSize, DecodeFailure, Insn, MemOperand, OperandForm, OpSize, Rep, Row } from './types.ts';

export type Decoder = (bytes: Uint8Array, offset: number, available: number, codeSize: CodeSize) => Insn | DecodeFailure;

/** Control registers that exist: CR0, CR2, CR3, CR4, CR8. */
const CONTROL_REGISTERS = 0b1_0001_1101;
const LAST_SEGMENT = 5;
const CS = 1;
const DS = 3;

const REX_W = 8;
const REX_R = 4;
const REX_X = 2;
const REX_B = 1;

/** What the prefixes say. REX and VEX give the same bits; `r`, `x`, `b` are shifted to where they are added. */
class Prefixes {
  /** PREFIX_66, and at most one of PREFIX_F3, PREFIX_F2: the last. In VEX code the pp field. */
  mandatory = 0;
  /** The 66 prefix proper. */
  opSize = false;
  addrSize = false;
  lock = false;
  /** Segment override, -1: none. */
  segment = -1;
  /** The REX byte, 0: none. */
  rex = 0;
  vex = false;
  vexL = 0;
  /** VEX.W, which outside 64-bit mode is no REX.W. */
  vexW = 0;
  vvvv = 0;
  /** VEX.vvvv is not all ones, which it must be where it names no register, outside 64-bit mode with its fourth bit too. */
  namesRegister = false;

  reset(): void {
    this.mandatory = 0;
    this.opSize = false;
    this.addrSize = false;
    this.lock = false;
    this.segment = -1;
    this.rex = 0;
    this.vex = false;
    this.vexL = 0;
    this.vexW = 0;
    this.vvvv = 0;
    this.namesRegister = false;
  }
}

/** Segment register of an override prefix. */
function segmentOf(prefix: number): number {
  return prefix >= 0x64 ? prefix - 0x60 : (prefix >> 3) & 3;
}

/** Take legacy and REX prefixes; returns the first byte that is neither. A REX prefix counts only right before the opcode. */
function readPrefixes(reader: Reader, p: Prefixes, long: boolean): number {
  p.reset();
  for (;;) {
    const byte = reader.u8();
    if (long && (byte & 0xf0) === 0x40) {
      p.rex = byte;
      continue;
    }
    switch (byte) {
      case 0x26:
      case 0x2e:
      case 0x36:
      case 0x3e:
        if (!long) p.segment = segmentOf(byte);
        break;
      case 0x64:
      case 0x65:
        p.segment = segmentOf(byte);
        break;
      case 0x66:
        p.opSize = true;
        p.mandatory |= PREFIX_66;
        break;
      case 0x67:
        p.addrSize = true;
        break;
      case 0xf0:
        p.lock = true;
        break;
      case 0xf2:
        p.mandatory = (p.mandatory & PREFIX_66) | PREFIX_F2;
        break;
      case 0xf3:
        p.mandatory = (p.mandatory & PREFIX_66) | PREFIX_F3;
        break;
      default:
        return byte;
    }
    p.rex = 0;
  }
}

/** Mandatory prefix by VEX.pp. */
const VEX_PP = [0, PREFIX_66, PREFIX_F3, PREFIX_F2] as const;

/** Rest of a VEX prefix after C4 (three bytes) or C5 (two); returns its opcode map, null: none. */
function readVex(reader: Reader, p: Prefixes, first: number, maps: Maps, long: boolean): OpcodeCells | null {
  const legacy = p.mandatory !== 0 || p.lock || p.rex !== 0;
  const one = reader.u8();
  const last = first === 0xc4 ? reader.u8() : one;
  const map = first === 0xc4 ? one & 0x1f : 1;
  let rex = one & 0x80 ? 0 : REX_R;
  if (first === 0xc4) rex |= (one & 0x40 ? 0 : REX_X) | (one & 0x20 ? 0 : REX_B) | (last & 0x80 ? REX_W : 0);
  p.rex = long ? rex : 0;
  p.vex = true;
  p.vvvv = (~last >> 3) & (long ? 15 : 7);
  p.namesRegister = ((last >> 3) & 15) !== 15;
  p.vexL = (last >> 2) & 1;
  p.vexW = first === 0xc4 ? last & 0x80 : 0;
  p.mandatory = VEX_PP[last & 3] ?? 0;
  if (legacy) return null;
  return map === 1 ? maps.vexOf : map === 2 ? maps.vexOf38 : map === 3 ? maps.vexOf3a : null;
}

/** Operand size in bytes of a row of class `size` under these prefixes. */
function operandSize(size: SizeClass, p: Prefixes, codeSize: CodeSize): OpSize {
  const long = codeSize === 64;
  switch (size) {
    case 'b':
      return 1;
    case 'none':
    case 'w0':
      return 4;
    case 'w1':
      return 8;
    case 'y':
      return p.rex & REX_W ? 8 : 4;
    case 'n64':
      return long ? 8 : 4;
    case 'd64':
      if (long) return p.opSize && !(p.rex & REX_W) ? 2 : 8;
      break;
    case 'f64':
      if (long) return 8;
      break;
    case 'v':
      if (p.rex & REX_W) return 8;
      break;
    case 'z':
      if (p.rex & REX_W) return 4;
      break;
  }
  return p.opSize !== (codeSize === 16) ? 2 : 4;
}

/** The first row, most demanding first, that these bytes satisfy. */
function select(candidates: readonly Candidate[], p: Prefixes, rm: number): Candidate | null {
  for (const c of candidates) {
    const { row } = c;
    // F2 and F3 win over 66, which then keeps its usual meaning.
    if (c.prefix === NO_REPEAT && p.mandatory > PREFIX_66) continue;
    if (c.prefix >= 0 && c.prefix !== (p.mandatory > PREFIX_66 ? p.mandatory & ~PREFIX_66 : p.mandatory)) continue;
    if (row.rm !== undefined && row.rm !== rm) continue;
    if (row.w !== undefined && (row.w === 1) !== ((p.vex && !c.wideRegister ? p.vexW : p.rex & REX_W) !== 0)) continue;
    if (p.vex && ((row.l !== undefined && row.l !== p.vexL) || (!c.usesVvvv && p.namesRegister))) continue;
    return c;
  }
  return null;
}

/** Whether the register numbers exist and LOCK is allowed. */
function isValid(c: Candidate, p: Prefixes, reg: number, operands: readonly OperandForm[], mem: MemOperand | null): boolean {
  if (p.lock && !(c.lock && operands[0]?.kind === 'mem')) return false;
  switch (c.check) {
    case 'none':
      return true;
    case 'cr':
      return ((CONTROL_REGISTERS >> reg) & 1) === 1;
    case 'dr':
      return reg < 8;
    case 'seg':
      return (reg & 7) <= LAST_SEGMENT;
    case 'seg-load':
      return (reg & 7) <= LAST_SEGMENT && (reg & 7) !== CS;
    case 'gather':
      return mem !== null && mem.index >= 0 && reg !== p.vvvv && reg !== mem.index && p.vvvv !== mem.index;
  }
}

/** One immediate; leaves it in `imm` as [low, high]. */
function readImmediate(reader: Reader, kind: Immediate, opSize: OpSize, imm: [number, number, number]): void {
  let low: number;
  switch (kind) {
    case 'b':
      low = reader.u8();
      break;
    case 'sb':
      low = reader.s8();
      break;
    case 'w':
      low = reader.u16();
      break;
    case 'z':
    case 'jz':
      low = opSize === 2 ? reader.s16() : reader.s32();
      break;
    case 'v':
      low = opSize === 2 ? reader.s16() : reader.s32();
      if (opSize === 8) {
        imm[0] = low;
        imm[1] = reader.s32();
        return;
      }
      break;
    case 'far':
      imm[0] = opSize === 2 ? reader.u16() : reader.s32();
      imm[1] = 0;
      imm[2] = reader.u16();
      return;
  }
  imm[0] = low;
  imm[1] = low >> 31;
}

/** Offset of a moffs operand: as wide as the address size. */
function readMoffs(reader: Reader, addrSize: AddrSize, segment: number): MemOperand {
  const seg = segment >= 0 ? segment : DS;
  if (addrSize === 2) return { base: -1, index: -1, scale: 0, disp: reader.u16(), seg };
  const disp = reader.s32();
  // A 32-bit offset is zero-extended: the upper half is given so that it is not taken for a signed displacement.
  return { base: -1, index: -1, scale: 0, disp, dispHigh: addrSize === 8 ? reader.s32() : 0, seg };
}

/** Decoding of one code size: its lookup tables and the working state of the instruction at hand. */
class CodeDecoder {
  private readonly codeSize: CodeSize;
  private readonly long: boolean;
  private readonly maps: Maps;
  private readonly reader = new Reader();
  private readonly p = new Prefixes();

  constructor(codeSize: CodeSize, accept: (row: Row) => boolean) {
    this.codeSize = codeSize;
    this.long = codeSize === 64;
    this.maps = buildMaps(codeSize, accept);
  }

  decode(bytes: Uint8Array, offset: number, available: number): Insn | DecodeFailure {
    const { reader, p } = this;
    reader.reset(bytes, offset, available);
    const first = readPrefixes(reader, p, this.long);
    const cell = this.readOpcode(first);
    if (reader.failure !== null) return reader.failure;
    if (cell === null) return 'ud';
    // Bits 0..2 of the last opcode byte are the register of opcode-register operands.
    let modrm = 0xc0 | (this.opcode & 7);
    let group = 0;
    if (cell.hasModRm) {
      modrm = reader.u8();
      if (reader.failure !== null) return reader.failure;
      group = ((modrm >> 3) & 7) | (modrm >= 0xc0 ? 8 : 0);
    }
    const candidates = cell.groups[group];
    if (candidates === undefined) return 'ud';
    const candidate = select(candidates, p, modrm & 7);
    if (candidate === null) return 'ud';
    // 90 is NOP only without REX.B; the row after it is XCHG with the opcode's register.
    if (candidate.row.name === 'nop' && !cell.hasModRm && p.rex & REX_B) return this.finish(candidates[candidates.length - 1] ?? candidate, cell, modrm);
    return this.finish(candidate, cell, modrm);
  }

  private opcode = 0;

  private take(map: OpcodeCells): Cell | null {
    this.opcode = this.reader.u8();
    return map.at(this.opcode);
  }

  private readOpcode(first: number): Cell | null {
    const { reader, p, maps } = this;
    // In 16/32-bit modes C4 and C5 are LES and LDS unless ModRM would be a register.
    if ((first === 0xc4 || first === 0xc5) && (this.long || reader.peek() >= 0xc0)) {
      const map = readVex(reader, p, first, maps, this.long);
      return map === null ? null : this.take(map);
    }
    if (first !== 0x0f) {
      this.opcode = first;
      return maps.one.at(first);
    }
    const cell = this.take(maps.of);
    if (this.opcode === 0x38) return this.take(maps.of38);
    if (this.opcode === 0x3a) return this.take(maps.of3a);
    return cell;
  }

  private finish(c: Candidate, cell: Cell, modrm: number): Insn | DecodeFailure {
    const { reader, p, codeSize } = this;
    const addrSize = this.addressSize();
    const opSize = operandSize(c.size, p, codeSize);
    const rexB = (p.rex & REX_B) << 3;
    // MOV to and from control and debug registers has no memory form whatever ModRM.mod is.
    const isMem = (cell.hasModRm && modrm < 0xc0 && c.check !== 'cr' && c.check !== 'dr') || c.moffs;
    let mem: MemOperand | null = null;
    if (c.moffs) mem = readMoffs(reader, addrSize, p.segment);
    else if (isMem) mem = readAddress(reader, modrm, addrSize, rexB, (p.rex & REX_X) << 2, p.segment, this.long, c.check === 'gather');
    const imm: [number, number, number] = [0, 0, 0];
    this.readImmediates(c, opSize, imm);
    if (reader.failure !== null) return reader.failure;
    const vl = c.lengths[p.vexL === 1 ? 1 : 0];
    const operands = candidateOperands(c, opSize, isMem, vl);
    const reg = cell.hasModRm ? (((modrm >> 3) & 7) | ((p.rex & REX_R) << 1)) & c.regMask : 0;
    if (!isValid(c, p, reg, operands, mem)) return 'ud';
    const usesRm = !isMem && c.row.rm === undefined;
    return {
      row: c.row,
      rowIndex: c.index,
      opSize,
      addrSize,
      isMem,
      rep: effectiveRep(c.row, this.rep()),
      vl,
      operands,
      length: reader.length,
      lock: p.lock,
      rex: p.rex !== 0,
      reg,
      rm: usesRm ? ((modrm & 7) | rexB) & c.rmMask : 0,
      vvvv: p.vvvv,
      mem,
      seg: mem !== null ? mem.seg : p.segment >= 0 ? p.segment : DS,
      immLow: imm[0],
      immHigh: imm[1],
      imm2: imm[2],
    };
  }

  private readImmediates(c: Candidate, opSize: OpSize, imm: [number, number, number]): void {
    const [first, second] = c.immediates;
    if (first === undefined) return;
    readImmediate(this.reader, first, opSize, imm);
    // ENTER is the only instruction with two immediates.
    if (second !== undefined) imm[2] = this.reader.u8();
  }

  private addressSize(): AddrSize {
    const flip = this.p.addrSize;
    switch (this.codeSize) {
      case 64:
        return flip ? 4 : 8;
      case 32:
        return flip ? 2 : 4;
      case 16:
        return flip ? 4 : 2;
    }
  }

  private rep(): Rep {
    return this.p.mandatory & PREFIX_F3 ? 3 : this.p.mandatory & PREFIX_F2 ? 2 : 0;
  }
}

export interface DecoderOptions {
  /** Names of CPUID features (`Row.feature`) whose instructions exist. Absent: all that the tables have. */
  readonly features?: ReadonlySet<string>;
}

/**
 * A decoder for a processor with these features.
 *
 * The function it returns decodes the instruction at `offset` of `bytes`, of which `available` bytes may be used, in code
 * of `codeSize` bits. It never throws; see `DecodeFailure` for what it returns instead of an instruction.
 */
export function createDecoder(options: DecoderOptions = {}): Decoder {
  const { features } = options;
  const accept = (row: Row): boolean => features === undefined || row.feature === undefined || features.has(row.feature);
  const decoders = new Map<CodeSize, CodeDecoder>();
  return (bytes, offset, available, codeSize) => {
    let decoder = decoders.get(codeSize);
    if (decoder === undefined) {
      decoder = new CodeDecoder(codeSize, accept);
      decoders.set(codeSize, decoder);
    }
    return decoder.decode(bytes, offset, available);
  };
}

/** Decoder with every instruction of the tables. */
export const decode: Decoder = createDecoder();
