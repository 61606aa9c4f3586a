import type { OperandField, OperandForm, OperandKind, OperandSpec, OpSize, VectorLength } from './types.ts';

/** Bytes of an operand by the SDM's size suffix, where the suffix alone tells (SDM vol. 2, A.2.2). */
const FIXED_SIZES: Readonly<Record<string, number>> = { b: 1, w: 2, d: 4, q: 8, dq: 16, ps: 16, pd: 16, ss: 4, sd: 8, t: 10, qq: 32 };

/** Bytes of an operand with size suffix `suffix` ('' = 0: the row's own business) at operand size `opSize` and vector length `vl`. */
function sizeOf(suffix: string, opSize: OpSize, vl: VectorLength): number {
  switch (suffix) {
    case '':
      return 0;
    case 'x':
      return vl;
    case 'xh':
      return vl / 2;
    case 'xq':
      return vl / 4;
    case 'xo':
      return vl / 8;
    case 'v':
      return opSize;
    case 'y':
      return opSize === 8 ? 8 : 4;
    case 'z':
      return opSize === 2 ? 2 : 4;
    // Far pointer: offset and selector.
    case 'p':
      return opSize + 2;
    // Pseudo-descriptor of LGDT, SIDT...: limit and base.
    case 's':
      return opSize === 8 ? 10 : 6;
    // Pair of bounds.
    case 'a':
      return opSize * 2;
    default: {
      const size = FIXED_SIZES[suffix];
      if (size === undefined) throw new TypeError(`unknown operand size suffix "${suffix}"`);
      return size;
    }
  }
}

/** Operands that are one register, or one value, whatever the bytes say. */
function fixedOperand(spec: OperandSpec, opSize: OpSize): OperandForm | null {
  const fixed = (kind: OperandKind, size: number, value: number): OperandForm => ({ kind, field: 'fixed', size, fixed: value });
  switch (spec) {
    case 'AL':
      return fixed('gpr', 1, 0);
    case 'CL':
      return fixed('gpr', 1, 1);
    case 'AX':
      return fixed('gpr', 2, 0);
    case 'DX':
      return fixed('gpr', 2, 2);
    case 'eAX':
      return fixed('gpr', opSize === 2 ? 2 : 4, 0);
    case 'rAX':
      return fixed('gpr', opSize, 0);
    case '1':
      return fixed('imm', 1, 1);
    case 'XMM0':
      return fixed('xmm', 16, 0);
    case 'ST0':
      return fixed('st', 10, 0);
    case 'STi':
      return { kind: 'st', field: 'rm', size: 10 };
    case 'ES':
    case 'CS':
    case 'SS':
    case 'DS':
    case 'FS':
    case 'GS':
      return fixed('seg', 2, ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'].indexOf(spec));
    default:
      return null;
  }
}

/** Register file and encoding field of an addressing method (SDM vol. 2, A.2.1), ModRM.mod = 3 where it matters. */
const REGISTER_METHODS: Readonly<Record<string, readonly [OperandKind, OperandField]>> = {
  B: ['gpr', 'vvvv'],
  C: ['cr', 'reg'],
  D: ['dr', 'reg'],
  E: ['gpr', 'rm'],
  G: ['gpr', 'reg'],
  H: ['xmm', 'vvvv'],
  L: ['xmm', 'is4'],
  N: ['mmx', 'rm'],
  P: ['mmx', 'reg'],
  Q: ['mmx', 'rm'],
  R: ['gpr', 'rm'],
  S: ['seg', 'reg'],
  U: ['xmm', 'rm'],
  V: ['xmm', 'reg'],
  W: ['xmm', 'rm'],
  Z: ['gpr', 'rm'],
};

/** Addressing methods that are memory when ModRM.mod is not 3. */
const MAY_BE_MEMORY = 'EQW';

/**
 * What an operand is at operand size `opSize` and vector length `vl`, with a memory (`isMem`) or register ModRM.rm.
 *
 * Immediates: `sIb` and `Iz` are sign-extended to the operand size, which is their `size`; Ib, Iw, Iv are as wide as written.
 * A `Z` operand's register number (opcode bits 0..2 and REX.B) is in `Insn.rm`.
 * A gpr of size 1 numbered 4..7 is AH, CH, DH, BH unless `Insn.rex`.
 *
 * @throws TypeError for a spec that is not an operand name.
 */
export function operandForm(spec: OperandSpec, opSize: OpSize, isMem: boolean, vl: VectorLength = 16): OperandForm {
  const fixed = fixedOperand(spec, opSize);
  if (fixed !== null) return fixed;
  if (spec === 'sIb') return { kind: 'imm', field: 'imm', size: opSize };
  // The size of a vector-indexed operand is that of one element, which the row's destination does not tell either: see gather.ts.
  if (spec === 'vm32x' || spec === 'vm64x') return { kind: 'mem', field: 'vsib', size: 0 };
  const method = spec.charAt(0);
  const suffix = spec.slice(1);
  switch (method) {
    case 'I':
      return { kind: 'imm', field: 'imm', size: suffix === 'z' ? opSize : sizeOf(suffix, opSize, vl) };
    case 'J':
      return { kind: 'rel', field: 'imm', size: sizeOf(suffix, opSize, vl) };
    case 'A':
      return { kind: 'far', field: 'imm', size: sizeOf(suffix, opSize, vl) };
    case 'M':
    case 'O':
      return { kind: 'mem', field: 'mem', size: sizeOf(suffix, opSize, vl) };
    case 'C':
    case 'D':
      return { kind: method === 'C' ? 'cr' : 'dr', field: 'reg', size: opSize };
  }
  const target = REGISTER_METHODS[method];
  if (target === undefined) throw new TypeError(`unknown operand "${spec}"`);
  const size = sizeOf(suffix, opSize, vl);
  if (isMem && MAY_BE_MEMORY.includes(method)) return { kind: 'mem', field: 'mem', size };
  return { kind: target[0], field: target[1], size };
}

/** Operands of the row that take their size from the operand size: `v` 16/32/64, `y` 32/64, or none do. */
export function sizeDependence(operands: readonly OperandSpec[]): 'v' | 'y' | 'none' {
  let found: 'v' | 'y' | 'none' = 'none';
  for (const spec of operands) {
    if (spec === 'sIb' || spec === 'rAX' || /^[A-Z][vzpa]$/.test(spec)) return 'v';
    if (/^[A-Z]y$/.test(spec)) found = 'y';
  }
  return found;
}

/** Operands whose size is that of the vector, or a fraction of it: VEX.L is a part of the form. */
export function dependsOnVectorLength(operands: readonly OperandSpec[]): boolean {
  return operands.some((spec) => /^(?:[A-Z]x[hqo]?|vm\d\dx)$/.test(spec));
}

/** Whether an instruction with these operands has a ModRM byte. */
export function needsModRm(operands: readonly OperandSpec[]): boolean {
  return operands.some((spec) => spec === 'STi' || spec.startsWith('vm') || /^[BCDEGHMNPQRSUVW][a-z]*$/.test(spec));
}
