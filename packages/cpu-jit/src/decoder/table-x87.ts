import type { Row } from './types.ts';

/** Arithmetic of D8, DA, DC, DE by ModRM.reg. */
const ARITHMETIC = ['add', 'mul', 'com', 'comp', 'sub', 'subr', 'div', 'divr'] as const;
/** Constants of D9 E8..EE by ModRM.rm. */
const CONSTANTS = ['fld1', 'fldl2t', 'fldl2e', 'fldpi', 'fldlg2', 'fldln2', 'fldz'] as const;
/** D9 F0..F7 and D9 F8..FF by ModRM.rm. */
const FUNCTIONS_6 = ['f2xm1', 'fyl2x', 'fptan', 'fpatan', 'fxtract', 'fprem1', 'fdecstp', 'fincstp'] as const;
const FUNCTIONS_7 = ['fprem', 'fyl2xp1', 'fsqrt', 'fsincos', 'frndint', 'fscale', 'fsin', 'fcos'] as const;

function memoryArithmetic(op: number, prefix: 'f' | 'fi', suffix: string, operand: string): Row[] {
  return ARITHMETIC.map((name, ext) => ({ map: 'x87', op, ext, mod: 'mem', name: `${prefix}${name}_${suffix}`, operands: [operand] }));
}

/** Register rows chosen by ModRM.reg from `first`; an empty name is an undefined encoding. */
function registers(op: number, first: number, names: readonly string[], operands: readonly string[]): Row[] {
  return names.flatMap((name, i): Row[] => (name === '' ? [] : [{ map: 'x87', op, ext: first + i, mod: 'reg', name, operands }]));
}

/** Register rows without operands, chosen by ModRM.rm. */
function functions(op: number, ext: number, names: readonly string[]): Row[] {
  return names.flatMap((name, rm): Row[] => (name === '' ? [] : [{ map: 'x87', op, ext, mod: 'reg', rm, name, operands: [] }]));
}

/** x87 escapes D8..DF (SDM vol. 2, tables ), with the undocumented aliases that real processors have. */
export const tableX87 = [
  ...memoryArithmetic(0xd8, 'f', 'm32', 'Md'),
  ...registers(0xd8, 0, ['fadd_st0_sti', 'fmul_st0_sti'], ['ST0', 'STi']),
  ...registers(0xd8, 2, ['fcom_sti', 'fcomp_sti'], ['STi']),
  ...registers(0xd8, 4, ['fsub_st0_sti', 'fsubr_st0_sti', 'fdiv_st0_sti', 'fdivr_st0_sti'], ['ST0', 'STi']),

  { map: 'x87', op: 0xd9, ext: 0, mod: 'mem', name: 'fld_m32', operands: ['Md'] },
  { map: 'x87', op: 0xd9, ext: 2, mod: 'mem', name: 'fst_m32', operands: ['Md'] },
  { map: 'x87', op: 0xd9, ext: 3, mod: 'mem', name: 'fstp_m32', operands: ['Md'] },
  { map: 'x87', op: 0xd9, ext: 4, mod: 'mem', name: 'fldenv', operands: ['M'], size: 'z' },
  { map: 'x87', op: 0xd9, ext: 5, mod: 'mem', name: 'fldcw', operands: ['Mw'] },
  { map: 'x87', op: 0xd9, ext: 6, mod: 'mem', name: 'fnstenv', operands: ['M'], size: 'z' },
  { map: 'x87', op: 0xd9, ext: 7, mod: 'mem', name: 'fnstcw', operands: ['Mw'] },
  ...registers(0xd9, 0, ['fld_sti', 'fxch'], ['STi']),
  ...functions(0xd9, 2, ['fnop']),
  ...registers(0xd9, 3, ['fstp1'], ['STi']),
  ...functions(0xd9, 4, ['fchs', 'fabs', '', '', 'ftst', 'fxam']),
  ...functions(0xd9, 5, CONSTANTS),
  ...functions(0xd9, 6, FUNCTIONS_6),
  ...functions(0xd9, 7, FUNCTIONS_7),

  ...memoryArithmetic(0xda, 'fi', 'm32', 'Md'),
  ...registers(0xda, 0, ['fcmovb', 'fcmove', 'fcmovbe', 'fcmovu'], ['ST0', 'STi']),
  ...functions(0xda, 5, ['', 'fucompp']),

  { map: 'x87', op: 0xdb, ext: 0, mod: 'mem', name: 'fild_m32', operands: ['Md'] },
  { map: 'x87', op: 0xdb, ext: 1, mod: 'mem', name: 'fisttp_m32', operands: ['Md'], feature: 'sse3' },
  { map: 'x87', op: 0xdb, ext: 2, mod: 'mem', name: 'fist_m32', operands: ['Md'] },
  { map: 'x87', op: 0xdb, ext: 3, mod: 'mem', name: 'fistp_m32', operands: ['Md'] },
  { map: 'x87', op: 0xdb, ext: 5, mod: 'mem', name: 'fld_m80', operands: ['Mt'] },
  { map: 'x87', op: 0xdb, ext: 7, mod: 'mem', name: 'fstp_m80', operands: ['Mt'] },
  ...registers(0xdb, 0, ['fcmovnb', 'fcmovne', 'fcmovnbe', 'fcmovnu', '', 'fucomi', 'fcomi'], ['ST0', 'STi']),
  // DB E0, E1, E4 are FENI, FDISI, FSETPM of the 8087 and 80287: no operation since the 80387.
  ...functions(0xdb, 4, ['fneni', 'fneni', 'fnclex', 'fninit', 'fneni']),

  ...memoryArithmetic(0xdc, 'f', 'm64', 'Mq'),
  ...registers(0xdc, 0, ['fadd_sti_st0', 'fmul_sti_st0'], ['STi', 'ST0']),
  ...registers(0xdc, 2, ['fcom_sti', 'fcomp_sti'], ['STi']),
  ...registers(0xdc, 4, ['fsubr_sti_st0', 'fsub_sti_st0', 'fdivr_sti_st0', 'fdiv_sti_st0'], ['STi', 'ST0']),

  { map: 'x87', op: 0xdd, ext: 0, mod: 'mem', name: 'fld_m64', operands: ['Mq'] },
  { map: 'x87', op: 0xdd, ext: 1, mod: 'mem', name: 'fisttp_m64', operands: ['Mq'], feature: 'sse3' },
  { map: 'x87', op: 0xdd, ext: 2, mod: 'mem', name: 'fst_m64', operands: ['Mq'] },
  { map: 'x87', op: 0xdd, ext: 3, mod: 'mem', name: 'fstp_m64', operands: ['Mq'] },
  { map: 'x87', op: 0xdd, ext: 4, mod: 'mem', name: 'frstor', operands: ['M'], size: 'z' },
  { map: 'x87', op: 0xdd, ext: 6, mod: 'mem', name: 'fnsave', operands: ['M'], size: 'z' },
  { map: 'x87', op: 0xdd, ext: 7, mod: 'mem', name: 'fnstsw', operands: ['Mw'] },
  ...registers(0xdd, 0, ['ffree', 'fxch', 'fst_sti', 'fstp_sti', 'fucom', 'fucomp'], ['STi']),

  ...memoryArithmetic(0xde, 'fi', 'm16', 'Mw'),
  ...registers(0xde, 0, ['faddp', 'fmulp'], ['STi', 'ST0']),
  ...registers(0xde, 2, ['fcomp_sti'], ['STi']),
  ...functions(0xde, 3, ['', 'fcompp']),
  ...registers(0xde, 4, ['fsubrp', 'fsubp', 'fdivrp', 'fdivp'], ['STi', 'ST0']),

  { map: 'x87', op: 0xdf, ext: 0, mod: 'mem', name: 'fild_m16', operands: ['Mw'] },
  { map: 'x87', op: 0xdf, ext: 1, mod: 'mem', name: 'fisttp_m16', operands: ['Mw'], feature: 'sse3' },
  { map: 'x87', op: 0xdf, ext: 2, mod: 'mem', name: 'fist_m16', operands: ['Mw'] },
  { map: 'x87', op: 0xdf, ext: 3, mod: 'mem', name: 'fistp_m16', operands: ['Mw'] },
  { map: 'x87', op: 0xdf, ext: 4, mod: 'mem', name: 'fbld', operands: ['Mt'] },
  { map: 'x87', op: 0xdf, ext: 5, mod: 'mem', name: 'fild_m64', operands: ['Mq'] },
  { map: 'x87', op: 0xdf, ext: 6, mod: 'mem', name: 'fbstp', operands: ['Mt'] },
  { map: 'x87', op: 0xdf, ext: 7, mod: 'mem', name: 'fistp_m64', operands: ['Mq'] },
  ...registers(0xdf, 0, ['ffreep', 'fxch', 'fstp_sti', 'fstp_sti'], ['STi']),
  { map: 'x87', op: 0xdf, ext: 4, mod: 'reg', rm: 0, name: 'fnstsw_ax', operands: ['AX'] },
  ...registers(0xdf, 5, ['fucomip', 'fcomip'], ['ST0', 'STi']),
] as const satisfies readonly Row[];
