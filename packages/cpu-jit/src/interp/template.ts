import { immediateOf, rowHasModRm } from '../decoder/lookup.ts';
import type { Insn, OperandForm, Row } from '../decoder/types.ts';
import {
  DECODE_OPCODES,
  DECODE_TEMPLATES,
  FILE_BYTE,
  FILE_GPR,
  FILE_MMX,
  FILE_XMM,
  IMM_64,
  IMM_S8,
  IMM_S16,
  IMM_S32,
  IMM_U8,
  IMM_U16,
  OPCODE_MODRM,
  OPCODE_PLAIN,
  TEMPLATE_END,
  TEMPLATE_HANDLER,
  TEMPLATE_IMM,
  TEMPLATE_NONE,
  TEMPLATE_REG,
  TEMPLATE_RELATIVE,
  TEMPLATE_RM,
} from '../layout.ts';

const MOD_IS_REGISTER = 8;

/** Rows of an opcode may ask for a ModRM.rm, which is not in the key. */
function isByRm({ map, op }: Row): boolean {
  return map === 'x87' || (map === '0f' && (op === 0x01 || op === 0x1e));
}

/** Register file of the operand in `field`, 0: there is none; undefined: one that the runtime does not know. */
function fileOf(operands: readonly OperandForm[], field: 'reg' | 'rm'): number | undefined {
  const found = operands.filter((o) => o.field === field);
  const [o] = found;
  if (o === undefined) return 0;
  if (found.length > 1) return undefined;
  switch (o.kind) {
    case 'gpr':
      return o.size === 1 ? FILE_BYTE : FILE_GPR;
    case 'xmm':
      return FILE_XMM;
    case 'mmx':
      return FILE_MMX;
    default:
      return undefined;
  }
}

/** Kind of the immediate, 0: there is none; undefined: one that the runtime does not know. */
function immediateKind({ row, opSize }: Insn): number | undefined {
  const immediates = row.operands.map(immediateOf).filter((kind) => kind !== null);
  if (immediates.length > 1) return undefined;
  switch (immediates[0]) {
    case undefined:
      return 0;
    case 'b':
      return IMM_U8;
    case 'sb':
      return IMM_S8;
    case 'w':
      return IMM_U16;
    case 'z':
    case 'jz':
      return opSize === 2 ? IMM_S16 : IMM_S32;
    case 'v':
      return opSize === 2 ? IMM_S16 : opSize === 8 ? IMM_64 : IMM_S32;
    case 'far':
      return undefined;
  }
}

/** The template of instructions like `insn`, which `handler` runs; TEMPLATE_NONE: they are not alike enough. */
function templateOf(insn: Insn, handler: number): number {
  const { row, operands } = insn;
  const isPlain = row.vex !== true && !isByRm(row) && !row.operands.some((spec) => spec.startsWith('O')) && !(row.name === 'pop' && insn.isMem);
  const reg = fileOf(operands, 'reg');
  const rm = fileOf(operands, 'rm');
  const imm = immediateKind(insn);
  if (!isPlain || reg === undefined || rm === undefined || imm === undefined) return TEMPLATE_NONE;
  const bits = (row.end === true ? TEMPLATE_END : 0) | (operands.some((o) => o.kind === 'rel') ? TEMPLATE_RELATIVE : 0);
  return bits | (reg << TEMPLATE_REG) | (rm << TEMPLATE_RM) | (imm << TEMPLATE_IMM) | (handler << TEMPLATE_HANDLER);
}

/** Leaves what is known of `insn` for the runtime's decoder, which came to it with the key `key` (DECODED_KEY). */
export function learn(host: { readonly u8: Uint8Array; readonly u32: Uint32Array }, key: number, insn: Insn, handler: number): void {
  const opcode = key >>> 7;
  const hasModRm = insn.row.vex !== true && rowHasModRm(insn.row);
  host.u8[DECODE_OPCODES + opcode] = hasModRm ? OPCODE_MODRM : OPCODE_PLAIN;
  const group = hasModRm ? (insn.reg & 7) | (insn.isMem ? 0 : MOD_IS_REGISTER) : 0;
  // The key has no ModRM yet when this is the first of its opcode.
  const at = (key & ~0x78) | (group << 3);
  host.u32[(DECODE_TEMPLATES >>> 2) + at] = templateOf(insn, handler);
}
