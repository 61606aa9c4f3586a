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

/** The cells of an opcode map. They are made when an instruction first needs them: a guest has a fraction of all. */
export class OpcodeCells {
  private readonly rowsOf: readonly (readonly number[])[];
  private readonly cells: (Cell | null | undefined)[] = new Array<undefined>(256).fill(undefined);

  /** `rowsOf`: indices of the rows by opcode. */
  constructor(rowsOf: readonly (readonly number[])[]) {
    this.rowsOf = rowsOf;
  }

  /** null: no such opcode. */
  at(op: number): Cell | null {
    const cell = this.cells[op];
    return cell === undefined ? this.make(op) : cell;
  }

  private make(op: number): Cell | null {
    const candidates = (this.rowsOf[op] ?? []).flatMap((index) => {
      const row = rows[index];
      return row === undefined ? [] : [compile(row, index)];
    });
    candidates.sort((a, b) => specificity(b.row) - specificity(a.row));
    const cell = cellOf(candidates);
    this.cells[op] = cell;
    return cell;
  }
}

export interface Maps {
  readonly one: OpcodeCells;
  readonly of: OpcodeCells;
  readonly of38: OpcodeCells;
  readonly of3a: OpcodeCells;
  readonly vexOf: OpcodeCells;
  readonly vexOf38: OpcodeCells;
  readonly vexOf3a: OpcodeCells;
}

export const NO_REPEAT = -2;

const PREFIX_CODE = { np: 0, '66': PREFIX_66, f3: PREFIX_F3, f2: PREFIX_F2, nfx: NO_REPEAT } as const;

/** The immediate that an operand is, null: none. */
export function immediateOf(spec: string): Immediate | null {
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

/** Do instructions of the row have a ModRM byte? All rows of an opcode agree. */
export function rowHasModRm(row: Row): boolean {
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

/** How many opcodes a row covers: eight when the opcode's low bits are a register. */
function opcodesOf(row: Row): number {
  return row.operands.some((spec) => spec.startsWith('Z')) ? 8 : 1;
}

/** Which map a row is in. */
function mapOf(row: Row): keyof Maps {
  switch (row.map) {
    case '1':
    case 'x87':
      return 'one';
    case '0f':
      return row.vex === true ? 'vexOf' : 'of';
    case '0f38':
      return row.vex === true ? 'vexOf38' : 'of38';
    case '0f3a':
      return row.vex === true ? 'vexOf3a' : 'of3a';
  }
}

/** Lookup tables for code of this size, from the rows `accept` lets through. */
export function buildMaps(codeSize: CodeSize, accept: (row: Row) => boolean): Maps {
  const empty = (): number[][] => Array.from({ length: 256 }, () => []);
  const found = { one: empty(), of: empty(), of38: empty(), of3a: empty(), vexOf: empty(), vexOf38: empty(), vexOf3a: empty() };
  for (const [index, row] of rows.entries()) {
    if (!existsIn(row, codeSize) || !accept(row)) continue;
    for (let op = row.op, end = op + opcodesOf(row); op < end; op++) found[mapOf(row)][op]?.push(index);
  }
  const { one, of, of38, of3a, vexOf, vexOf38, vexOf3a } = found;
  return {
    ...{ one: new OpcodeCells(one), of: new OpcodeCells(of), of38: new OpcodeCells(of38), of3a: new OpcodeCells(of3a) },
    ...{ vexOf: new OpcodeCells(vexOf), vexOf38: new OpcodeCells(vexOf38), vexOf3a: new OpcodeCells(vexOf3a) },
  };
}

/** Operand forms of a candidate, cached beside it. */
export function candidateOperands(c: Candidate, opSize: OpSize, isMem: boolean, vl: VectorLength): readonly OperandForm[] {
  const slot = (opSize * 2 + (isMem ? 1 : 0)) * 2 + (vl === 32 ? 1 : 0);
  let operands = c.operands[slot];
  if (operands === undefined) c.operands[slot] = operands = operandForms(c.index, c.row, opSize, isMem, vl);
  return operands;
}
