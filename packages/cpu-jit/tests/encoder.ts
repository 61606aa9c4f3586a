/** Encoder for tests: a decoder row and register numbers to bytes. */
import { type CodeSize, sizeClass } from '../src/decoder/forms.ts';
import { needsModRm } from '../src/decoder/operands.ts';
import type { AddrSize, Form } from '../src/decoder/types.ts';

/** A memory operand: seg:[base + index * 2^scale + disp]. */
export interface MemoryChoice {
  /** GPR number, 16: RIP, -1: none. */
  readonly base: number;
  /** GPR number except RSP, -1: none. */
  readonly index: number;
  readonly scale: number;
  /** Signed 32 bits; for `Ob`, `Ov` operands a whole address. */
  readonly disp: number;
  readonly segment?: SegmentOverride;
}
/** Those of ES to DS mean nothing in 64-bit code. */
export type SegmentOverride = 'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs';

/** What an encoding is made of besides its form. */
export interface Fields {
  /** ModRM.reg, ModRM.rm or the opcode's register, VEX.vvvv; 0..15. */
  readonly reg: number;
  readonly rm: number;
  readonly vvvv: number;
  readonly mem: MemoryChoice | null;
  /** Immediate or branch displacement, truncated to its field. */
  readonly imm: bigint;
  readonly lock?: boolean;
  /** Segment of the implicit memory operand of string instructions, XLAT, MASKMOV. */
  readonly segment?: SegmentOverride;
  /** Emit a REX prefix even if no bit of it is needed (then byte registers 4..7 are SPL, BPL, SIL, DIL). */
  readonly rex?: boolean;
  /** Bytes of addresses; absent: the default. Forms that have an address size have that. */
  readonly addrSize?: AddrSize;
}

/** Bytes of an instruction; `ripField`: offset of a RIP-relative displacement, -1: none. */
export interface Encoded {
  readonly bytes: Uint8Array;
  readonly ripField: number;
}

const RIP = 16;
const SEGMENT_PREFIX = { es: 0x26, cs: 0x2e, ss: 0x36, ds: 0x3e, fs: 0x64, gs: 0x65 } as const;
const PREFIX = { np: 0, nfx: 0, '66': 0x66, f3: 0xf3, f2: 0xf2 } as const;

/** Encodes one instruction. The caller checks the result by decoding it: some combinations of fields have no encoding. */
export function encode(form: Form, f: Fields, codeSize: CodeSize = 64): Encoded {
  const { row, opSize } = form;
  const size = sizeClass(row);
  const isVex = row.vex === true;
  const hasModRm = row.map === 'x87' || row.ext !== undefined || row.mod !== undefined || row.rm !== undefined || needsModRm(row.operands);
  const moffs = row.operands.some((o) => o.startsWith('O'));
  const opcodeRegister = row.operands.some((o) => o.startsWith('Z'));
  const mem = form.isMem ? f.mem : null;

  let w = row.w === 1 || size === 'w1';
  if ((size === 'v' || size === 'y') && opSize === 8) w = true;
  const bytes: number[] = [];
  if (f.lock === true) bytes.push(0xf0);
  const segment = mem?.segment ?? f.segment;
  if (segment !== undefined) bytes.push(SEGMENT_PREFIX[segment]);
  const defaultAddr = (codeSize / 8) as AddrSize;
  const addrSize = row.asz === true ? form.addrSize : (f.addrSize ?? defaultAddr);
  if (addrSize !== defaultAddr) bytes.push(0x67);
  if (!isVex) {
    const sized = size === 'v' || size === 'z' || size === 'd64' || (size === 'f64' && codeSize !== 64);
    if (sized && opSize === (codeSize === 16 ? 4 : 2) && row.pfx !== '66') bytes.push(0x66);
    const mandatory = PREFIX[row.pfx ?? 'np'];
    if (mandatory !== 0) bytes.push(mandatory);
    if (form.rep !== 0) bytes.push(form.rep === 2 ? 0xf2 : 0xf3);
  }
  const r = hasModRm && row.ext === undefined && f.reg >= 8 ? 4 : 0;
  const x = mem !== null && mem.index >= 8 ? 2 : 0;
  const b = (mem !== null ? mem.base >= 8 && mem.base < RIP : (hasModRm || opcodeRegister) && row.rm === undefined && f.rm >= 8) ? 1 : 0;
  const escapes = row.map === '0f' ? [0x0f] : row.map === '0f38' ? [0x0f, 0x38] : row.map === '0f3a' ? [0x0f, 0x3a] : [];
  if (isVex) {
    const map = row.map === '0f' ? 1 : row.map === '0f38' ? 2 : 3;
    const pp = row.pfx === '66' ? 1 : row.pfx === 'f3' ? 2 : row.pfx === 'f2' ? 3 : 0;
    const usesVvvv = row.operands.some((o) => /^[BH]/.test(o));
    bytes.push(0xc4, ((~(r | x | b) & 7) << 5) | map, (w ? 0x80 : 0) | ((usesVvvv ? ~f.vvvv & 15 : 15) << 3) | ((form.vl === 32 ? 1 : (row.l ?? 0)) << 2) | pp);
  } else {
    const rex = (w ? 8 : 0) | r | x | b;
    if (rex !== 0 || f.rex === true) bytes.push(0x40 | rex);
    bytes.push(...escapes);
  }
  bytes.push(opcodeRegister ? row.op | (f.rm & 7) : row.op);
  let ripField = -1;
  if (moffs && mem !== null) {
    pushInt(bytes, BigInt(mem.disp), addrSize);
  } else if (hasModRm) {
    const reg = (row.ext ?? f.reg & 7) << 3;
    if (mem === null) bytes.push(0xc0 | reg | (row.rm ?? f.rm & 7));
    else {
      const at = bytes.length;
      bytes.push(...(addrSize === 2 ? memoryBytes16(mem, reg) : memoryBytes(mem, reg)));
      if (mem.base === RIP) ripField = at + 1;
    }
  }
  let rest = f.imm;
  for (const o of row.operands) {
    const n = immediateBytes(o, opSize);
    if (n === 0) continue;
    pushInt(bytes, rest, n);
    if (n < 8) rest >>= BigInt(n * 8);
  }
  return { bytes: Uint8Array.from(bytes), ripField };
}

function immediateBytes(operand: string, opSize: number): number {
  switch (operand) {
    case 'Ib':
    case 'Lx':
    case 'sIb':
    case 'Jb':
      return 1;
    case 'Iw':
      return 2;
    case 'Iz':
      return opSize === 2 ? 2 : 4;
    case 'Jz':
      return opSize === 2 ? 2 : 4;
    case 'Iv':
      return opSize;
    case 'Ap':
      return opSize + 2;
    default:
      return 0;
  }
}

function pushInt(bytes: number[], value: bigint, size: number): void {
  for (let i = 0; i < size; i++) bytes.push(Number((value >> BigInt(i * 8)) & 0xffn));
}

/** ModRM, SIB and displacement, in the shortest form there is. */
function memoryBytes({ base, index, scale, disp }: MemoryChoice, reg: number): number[] {
  const out: number[] = [];
  if (base === RIP) {
    out.push(reg | 5);
    pushInt(out, BigInt(disp), 4);
    return out;
  }
  const mod = base < 0 ? 0 : disp === 0 && (base & 7) !== 5 ? 0 : disp >= -128 && disp < 128 ? 1 : 2;
  const needsSib = index >= 0 || base < 0 || (base & 7) === 4;
  if (needsSib) out.push((mod << 6) | reg | 4, (scale << 6) | (((index < 0 ? 4 : index) & 7) << 3) | (base < 0 ? 5 : base & 7));
  else out.push((mod << 6) | reg | (base & 7));
  if (mod === 1) out.push(disp & 0xff);
  else if (mod === 2 || base < 0) pushInt(out, BigInt(disp), 4);
  return out;
}

/** Base and index by ModRM.rm: -1 none (SDM vol. 2, table 2-1). */
export const ADDRESSES_16: readonly (readonly [base: number, index: number])[] = [
  [3, 6],
  [3, 7],
  [5, 6],
  [5, 7],
  [6, -1],
  [7, -1],
  [5, -1],
  [3, -1],
];

/** ModRM and displacement of a 16-bit address. Throws `RangeError` for registers that none has. */
function memoryBytes16({ base, index, disp }: MemoryChoice, reg: number): number[] {
  const out: number[] = [];
  if (base < 0) {
    out.push(reg | 6);
    pushInt(out, BigInt(disp), 2);
    return out;
  }
  const rm = ADDRESSES_16.findIndex(([b, i]) => b === base && i === index);
  if (rm < 0) throw new RangeError(`no 16-bit address has registers ${base} and ${index}`);
  const mod = disp === 0 && rm !== 6 ? 0 : disp >= -128 && disp < 128 ? 1 : 2;
  out.push((mod << 6) | reg | rm);
  if (mod > 0) pushInt(out, BigInt(disp), mod === 1 ? 1 : 2);
  return out;
}
