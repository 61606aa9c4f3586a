import { type CodeSize, existsIn, hasGeneralRegister, operandForms, type SizeClass, sizeClass, vectorLengths } from './forms.ts';
import { needsModRm, operandForm } from './operands.ts';
import { rows } from './rows.ts';
import type { OperandForm, OpSize, Row, VectorLength } from './types.ts';

/** A row with what the decoder needs of it worked out once. */
export interface Candidate {
  readonly row: Row;
  readonly index: number;
  readonly size: SizeClass;
  /** Operands by operand size (log2) and register 0 / memory 1, filled as they are met. */
  readonly operands: (readonly OperandForm[] | undefined)[];
  /** Mandatory prefix: -1 any, NO_REPEAT neither F2 nor F3, else PREFIX_* bits that must be equal. */
  readonly prefix: number;
  /** Bits of the register number that count: 7 for mmx, st and segment registers, 15 otherwise. */
  readonly regMask: number;
  readonly rmMask: number;
  /** Immediates in encoding order, as the letters of their size; `far` for ptr16:16 / ptr16:32. */
  readonly immediates: readonly Immediate[];
  readonly moffs: boolean;
  /** Register number check: which control, debug and segment registers exist; `gather`: its three registers differ. */
  readonly check: 'none' | 'cr' | 'dr' | 'seg' | 'seg-load' | 'gather';
  readonly lock: boolean;
  readonly usesVvvv: boolean;
  /** VEX.W is that of a general register (see `hasGeneralRegister`). */
  readonly wideRegister: boolean;
  /** The vector length by VEX.L. */
  readonly lengths: readonly [VectorLength, VectorLength];
}

export type Immediate = 'b' | 'sb' | 'w' | 'z' | 'v' | 'far' | 'jz';

export const PREFIX_66 = 1;
export const PREFIX_F3 = 2;
export const PREFIX_F2 = 4;

/** What an opcode byte leads to. `groups` is indexed by ModRM.reg, plus 8 when ModRM.mod = 3. */
export interface Cell {
  readonly hasModRm: boolean;
  readonly groups: readonly (readonly Candidate[])[];
}

/** 256 cells per opcode map; null: no such opcode. */
export interface Maps {
  readonly one: readonly (Cell | null)[];
  readonly of: readonly (Cell | null)[];
  readonly of38: readonly (Cell | null)[];
  readonly of3a: readonly (Cell | null)[];
  readonly vexOf: readonly (Cell | null)[];
  readonly vexOf38: readonly (Cell | null)[];
  readonly vexOf3a: readonly (Cell | null)[];
}

export const NO_REPEAT = -2;

const PREFIX_CODE = { np: 0, '66': PREFIX_66, f3: PREFIX_F3, f2: PREFIX_F2, nfx: NO_REPEAT } as const;

function immediateOf(spec: string): Immediate | null {
  switch (spec) {
    case 'Ib':
    case 'Lx':
      return 'b';
    case 'sIb':
    case 'Jb':
      return 'sb';
    case 'Iw':
      return 'w';
    case 'Iz':
      return 'z';
    case 'Jz':
      return 'jz';
    case 'Iv':
      return 'v';
    case 'Ap':
      return 'far';
    default:
      return null;
  }
}

function checkOf(row: Row): Candidate['check'] {
  if (row.operands.includes('Cd')) return 'cr';
  if (row.operands.includes('Dd')) return 'dr';
  if (row.operands[0] === 'Sw') return 'seg-load';
  if (row.operands.some((spec) => spec.startsWith('vm'))) return 'gather';
  return row.operands.includes('Sw') ? 'seg' : 'none';
}

function compile(row: Row, index: number): Candidate {
  const shapes = row.operands.map((spec) => operandForm(spec, 4, false));
  const narrow = (field: 'reg' | 'rm') => (shapes.some((o) => o.field === field && (o.kind === 'mmx' || o.kind === 'st' || o.kind === 'seg')) ? 7 : 15);
  const [length = 16, longest = length] = vectorLengths(row);
  return {
    row,
    index,
    size: sizeClass(row),
    operands: [],
    prefix: row.pfx === undefined ? -1 : PREFIX_CODE[row.pfx],
    regMask: narrow('reg'),
    rmMask: narrow('rm'),
    immediates: row.operands.map(immediateOf).filter((i) => i !== null),
    moffs: row.operands.some((spec) => spec.startsWith('O')),
    check: checkOf(row),
    lock: row.lock === true,
    usesVvvv: shapes.some((o) => o.field === 'vvvv'),
    wideRegister: hasGeneralRegister(row),
    lengths: [length, longest],
  };
}

/** The more a row asks for, the earlier it is tried. */
function specificity(row: Row): number {
  return (row.rm === undefined ? 0 : 8) + (row.pfx === undefined ? 0 : 4) + (row.w === undefined ? 0 : 2);
}

function rowHasModRm(row: Row): boolean {
  return row.map === 'x87' || row.ext !== undefined || row.mod !== undefined || row.rm !== undefined || needsModRm(row.operands);
}

function cellOf(candidates: readonly Candidate[]): Cell | null {
  const first = candidates[0];
  if (first === undefined) return null;
  const hasModRm = candidates.some((c) => rowHasModRm(c.row));
  if (!hasModRm) return { hasModRm, groups: [candidates] };
  const groups = Array.from({ length: 16 }, (_, i) =>
    candidates.filter(({ row }) => (row.ext === undefined || row.ext === (i & 7)) && (row.mod === undefined || (row.mod === 'reg') === i >= 8)),
  );
  return { hasModRm, groups };
}

/** Opcodes a row covers: eight when the opcode's low bits are a register. */
function covers(row: Row, op: number): boolean {
  const low = row.operands.some((spec) => spec.startsWith('Z')) ? op & ~7 : op;
  return row.op === low;
}

/** Lookup tables for code of this size, from the rows `accept` lets through. */
export function buildMaps(codeSize: CodeSize, accept: (row: Row) => boolean): Maps {
  const all = rows.map(compile).filter(({ row }) => existsIn(row, codeSize) && accept(row));
  const table = (maps: readonly Row['map'][], vex: boolean) => {
    const mine = all.filter(({ row }) => maps.includes(row.map) && (row.vex === true) === vex);
    mine.sort((a, b) => specificity(b.row) - specificity(a.row));
    return Array.from({ length: 256 }, (_, op) => cellOf(mine.filter(({ row }) => covers(row, op))));
  };
  return {
    one: table(['1', 'x87'], false),
    of: table(['0f'], false),
    of38: table(['0f38'], false),
    of3a: table(['0f3a'], false),
    vexOf: table(['0f'], true),
    vexOf38: table(['0f38'], true),
    vexOf3a: table(['0f3a'], true),
  };
}

/** Operand forms of a candidate, cached beside it. */
export function candidateOperands(c: Candidate, opSize: OpSize, isMem: boolean, vl: VectorLength): readonly OperandForm[] {
  const slot = (opSize * 2 + (isMem ? 1 : 0)) * 2 + (vl === 32 ? 1 : 0);
  let operands = c.operands[slot];
  if (operands === undefined) c.operands[slot] = operands = operandForms(c.index, c.row, opSize, isMem, vl);
  return operands;
}
