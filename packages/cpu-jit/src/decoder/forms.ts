import { dependsOnVectorLength, operandForm, sizeDependence } from './operands.ts';
import { rows } from './rows.ts';
import type { AddrSize, Form, OperandForm, OpSize, Rep, Row, VectorLength } from './types.ts';

export type CodeSize = 16 | 32 | 64;

/** How a row's operand size comes about: as `Row.size`, or fixed by REX.W (`w0`, `w1`), or the same always. */
export type SizeClass = NonNullable<Row['size']> | 'w0' | 'w1' | 'none';

export function sizeClass(row: Row): SizeClass {
  if (row.size !== undefined) return row.size;
  if (row.w !== undefined && (row.vex !== true || hasGeneralRegister(row))) return row.w === 1 ? 'w1' : 'w0';
  return sizeDependence(row.operands);
}

/** Operand sizes in bytes that a row of this class can have in code of this size. */
function operandSizes(size: SizeClass, codeSize: CodeSize): readonly OpSize[] {
  const long = codeSize === 64;
  switch (size) {
    case 'b':
      return [1];
    case 'none':
    case 'w0':
      return [4];
    case 'w1':
      return long ? [8] : [];
    case 'v':
      return long ? [2, 4, 8] : [2, 4];
    case 'z':
      return [2, 4];
    case 'y':
      return long ? [4, 8] : [4];
    case 'd64':
      return long ? [2, 8] : [2, 4];
    case 'f64':
      return long ? [8] : [2, 4];
    case 'n64':
      return long ? [8] : [4];
  }
}

/** Names of the string instructions that test ZF: REPE and REPNE differ. For the others REPNE acts as REP. */
const COMPARING_STRINGS: ReadonlySet<string> = new Set(['cmps', 'scas']);

/** The repeat prefix as part of a form: F2 is folded into F3 where both mean the same. */
export function effectiveRep(row: Row, rep: Rep): Rep {
  if (row.rep === undefined || rep === 0) return 0;
  return COMPARING_STRINGS.has(row.name) ? rep : 3;
}

/** Whether ModRM.rm may be a register, or memory, or there is none (register). Moffs operands are memory. */
export function memoryChoices(row: Row): readonly boolean[] {
  if (row.operands.some((spec) => /^(?:M|O|vm)/.test(spec))) return [true];
  if (row.mod !== undefined) return [row.mod === 'mem'];
  return row.operands.some((spec) => /^[EQW][a-z]/.test(spec)) ? [false, true] : [false];
}

/** Whether VEX.W means the width of a general register: outside 64-bit mode it is then taken to be 0. */
export function hasGeneralRegister(row: Row): boolean {
  return row.operands.some((spec) => /^[BEGR][dqyv]$/.test(spec));
}

/** Rows that exist in code of this size. */
export function existsIn(row: Row, codeSize: CodeSize): boolean {
  if (codeSize === 64) return row.mode !== 'i64';
  return row.mode !== 'o64' && (row.w !== 1 || (row.vex === true && !hasGeneralRegister(row)));
}

/** Vector lengths that a row has as forms of their own; where VEX.L is ignored, the shorter stands for both. */
export function vectorLengths(row: Row): readonly VectorLength[] {
  if (row.vex !== true) return [16];
  if (row.l !== undefined) return [row.l === 1 ? 32 : 16];
  return dependsOnVectorLength(row.operands) ? [16, 32] : [16];
}

const operandCache = new Map<number, readonly OperandForm[]>();
const LOG2: Readonly<Record<number, number>> = { 1: 0, 2: 1, 4: 2, 8: 3 };

/** Operand forms of a row; the same array for the same arguments. */
export function operandForms(rowIndex: number, row: Row, opSize: OpSize, isMem: boolean, vl: VectorLength): readonly OperandForm[] {
  const key = ((rowIndex * 2 + (vl === 32 ? 1 : 0)) * 4 + (LOG2[opSize] ?? 0)) * 2 + (isMem ? 1 : 0);
  let forms = operandCache.get(key);
  if (forms === undefined) {
    forms = row.operands.map((spec) => operandForm(spec, opSize, isMem, vl));
    operandCache.set(key, forms);
  }
  return forms;
}

/**
 * Number of the form an instruction belongs to: equal for two instructions exactly when one handler serves both.
 * Between 0 and `rows.length * 128`.
 */
export function formKey(form: Form): number {
  const addr = form.row.asz === true ? (LOG2[form.addrSize] ?? 0) : 0;
  // No instruction with a repeat prefix has vectors.
  const variant = form.vl === 32 ? 1 : form.rep;
  return (((form.rowIndex * 4 + (LOG2[form.opSize] ?? 0)) * 2 + (form.isMem ? 1 : 0)) * 4 + variant) * 4 + addr;
}

/**
 * Every form that instructions in code of this size can have: row x operand size x register/memory x vector length, and x repeat
 * prefix, x address size for rows where those are part of the form. `addrSize` of other rows is the default.
 */
export function* forms(codeSize: CodeSize = 64): Generator<Form> {
  const defaultAddr = (codeSize / 8) as AddrSize;
  const otherAddr: AddrSize = codeSize === 32 ? 2 : 4;
  for (const [rowIndex, row] of rows.entries()) {
    if (!existsIn(row, codeSize)) continue;
    const reps = row.rep === undefined ? [0 as const] : COMPARING_STRINGS.has(row.name) ? [0 as const, 2 as const, 3 as const] : [0 as const, 3 as const];
    // A vector of indexes needs a SIB byte, which 16-bit addresses lack.
    const isPossible = (size: AddrSize) => size !== 2 || !row.operands.some((spec) => spec.startsWith('vm'));
    const addrSizes = row.asz === undefined ? [defaultAddr] : [defaultAddr, otherAddr].filter(isPossible);
    for (const opSize of operandSizes(sizeClass(row), codeSize)) {
      for (const isMem of memoryChoices(row)) {
        for (const rep of reps) {
          for (const addrSize of addrSizes) {
            for (const vl of vectorLengths(row)) {
              yield { row, rowIndex, opSize, addrSize, isMem, rep, vl, operands: operandForms(rowIndex, row, opSize, isMem, vl) };
            }
          }
        }
      }
    }
  }
}
