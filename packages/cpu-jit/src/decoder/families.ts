import type { Row } from './types.ts';

/** Condition suffixes in encoding order (SDM vol. 1, appendix B; first spelling). */
export const CONDITIONS = ['o', 'no', 'b', 'ae', 'z', 'nz', 'be', 'a', 's', 'ns', 'p', 'np', 'l', 'ge', 'le', 'g'] as const;

type Shape = Omit<Row, 'op' | 'name'>;

/** Sixteen rows, one for each condition, with the condition appended to the name. */
export function conditional(op: number, prefix: string, shape: Shape): Row[] {
  return CONDITIONS.map((condition, index) => ({ ...shape, op: op + index, name: prefix + condition }));
}

/** Group rows: `names[i]` is selected by ModRM.reg = i; empty names are undefined encodings. */
export function group(op: number, names: readonly string[], shape: Shape): Row[] {
  return names.flatMap((name, ext) => (name === '' ? [] : [{ ...shape, op, ext, name }]));
}

/** The eight arithmetic instructions of opcodes 00..3F, in order; also ModRM.reg of group 1. */
export const ARITHMETIC = ['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp'] as const;

/** Flags and LOCK of an arithmetic instruction: AND, OR, XOR leave AF undefined; CMP writes no destination. */
function arithmeticTraits(name: string, lockable: boolean): Pick<Row, 'undef' | 'lock'> {
  return {
    ...(name === 'and' || name === 'or' || name === 'xor' ? { undef: 'a' } : {}),
    ...(lockable && name !== 'cmp' ? { lock: true as const } : {}),
  };
}

/** Opcodes 00..3F: six forms of each arithmetic instruction. */
export function arithmetic(): Row[] {
  return ARITHMETIC.flatMap((name, i): Row[] => {
    const op = i * 8;
    const toMem = arithmeticTraits(name, true);
    const toReg = arithmeticTraits(name, false);
    return [
      { map: '1', op, name, operands: ['Eb', 'Gb'], size: 'b', ...toMem },
      { map: '1', op: op + 1, name, operands: ['Ev', 'Gv'], ...toMem },
      { map: '1', op: op + 2, name, operands: ['Gb', 'Eb'], size: 'b', ...toReg },
      { map: '1', op: op + 3, name, operands: ['Gv', 'Ev'], ...toReg },
      { map: '1', op: op + 4, name, operands: ['AL', 'Ib'], size: 'b', ...toReg },
      { map: '1', op: op + 5, name, operands: ['rAX', 'Iz'], ...toReg },
    ];
  });
}

/** Group 1, opcodes 80..83: arithmetic with an immediate. */
export function arithmeticImmediate(): Row[] {
  return ARITHMETIC.flatMap((name, ext): Row[] => {
    const traits = arithmeticTraits(name, true);
    return [
      { map: '1', op: 0x80, ext, name, operands: ['Eb', 'Ib'], size: 'b', ...traits },
      { map: '1', op: 0x81, ext, name, operands: ['Ev', 'Iz'], ...traits },
      { map: '1', op: 0x82, ext, name, operands: ['Eb', 'Ib'], size: 'b', mode: 'i64', ...traits },
      { map: '1', op: 0x83, ext, name, operands: ['Ev', 'sIb'], ...traits },
    ];
  });
}

/** Group 2, /6 being the undocumented second encoding of SHL. */
const SHIFTS = ['rol', 'ror', 'rcl', 'rcr', 'shl', 'shr', 'shl', 'sar'] as const;

/** Group 2, opcodes C0 C1 D0..D3. OF is defined only for a count of one, AF never after a shift, CF of SHL and SHR
 *  not for counts that reach the operand size (only possible for 8 and 16 bits). */
export function shifts(): Row[] {
  return SHIFTS.flatMap((name, ext): Row[] => {
    const rotate = ext < 4;
    const byOne: Pick<Row, 'undef'> = rotate ? {} : { undef: 'a' };
    const byCount: Pick<Row, 'undef'> = { undef: rotate ? 'o' : name === 'sar' ? 'oa' : 'oac' };
    return [
      { map: '1', op: 0xc0, ext, name, operands: ['Eb', 'Ib'], size: 'b', ...byCount },
      { map: '1', op: 0xc1, ext, name, operands: ['Ev', 'Ib'], ...byCount },
      { map: '1', op: 0xd0, ext, name, operands: ['Eb', '1'], size: 'b', ...byOne },
      { map: '1', op: 0xd1, ext, name, operands: ['Ev', '1'], ...byOne },
      { map: '1', op: 0xd2, ext, name, operands: ['Eb', 'CL'], size: 'b', ...byCount },
      { map: '1', op: 0xd3, ext, name, operands: ['Ev', 'CL'], ...byCount },
    ];
  });
}

/** A packed instruction that exists on MMX (`name_mmx`, no prefix) and on XMM registers (`name`, 66). */
export function packed(op: number, name: string, mmx?: readonly [string, string], xmm?: readonly [string, string]): Row[] {
  return [
    { map: '0f', op, pfx: 'np', name: `${name}_mmx`, operands: mmx ?? ['Pq', 'Qq'] },
    { map: '0f', op, pfx: '66', name, operands: xmm ?? ['Vdq', 'Wdq'] },
  ];
}

/** An arithmetic instruction in all four floating-point shapes: ps, pd, ss, sd. */
export function floatFour(op: number, stem: string): Row[] {
  return [
    { map: '0f', op, pfx: 'np', name: `${stem}ps`, operands: ['Vps', 'Wps'] },
    { map: '0f', op, pfx: '66', name: `${stem}pd`, operands: ['Vpd', 'Wpd'] },
    { map: '0f', op, pfx: 'f3', name: `${stem}ss`, operands: ['Vss', 'Wss'] },
    { map: '0f', op, pfx: 'f2', name: `${stem}sd`, operands: ['Vsd', 'Wsd'] },
  ];
}

/** Integer instructions of the 0F map whose VEX form is `Vx, Hx, Wx`, by opcode. */
export const packedInteger: readonly (readonly [op: number, name: string])[] = [
  [0x60, 'punpcklbw'],
  [0x61, 'punpcklwd'],
  [0x62, 'punpckldq'],
  [0x63, 'packsswb'],
  [0x64, 'pcmpgtb'],
  [0x65, 'pcmpgtw'],
  [0x66, 'pcmpgtd'],
  [0x67, 'packuswb'],
  [0x68, 'punpckhbw'],
  [0x69, 'punpckhwd'],
  [0x6a, 'punpckhdq'],
  [0x6b, 'packssdw'],
  [0x6c, 'punpcklqdq'],
  [0x6d, 'punpckhqdq'],
  [0x74, 'pcmpeqb'],
  [0x75, 'pcmpeqw'],
  [0x76, 'pcmpeqd'],
  [0xd4, 'paddq'],
  [0xd5, 'pmullw'],
  [0xd8, 'psubusb'],
  [0xd9, 'psubusw'],
  [0xda, 'pminub'],
  [0xdb, 'pand'],
  [0xdc, 'paddusb'],
  [0xdd, 'paddusw'],
  [0xde, 'pmaxub'],
  [0xdf, 'pandn'],
  [0xe0, 'pavgb'],
  [0xe3, 'pavgw'],
  [0xe4, 'pmulhuw'],
  [0xe5, 'pmulhw'],
  [0xe8, 'psubsb'],
  [0xe9, 'psubsw'],
  [0xea, 'pminsw'],
  [0xeb, 'por'],
  [0xec, 'paddsb'],
  [0xed, 'paddsw'],
  [0xee, 'pmaxsw'],
  [0xef, 'pxor'],
  [0xf4, 'pmuludq'],
  [0xf5, 'pmaddwd'],
  [0xf6, 'psadbw'],
  [0xf8, 'psubb'],
  [0xf9, 'psubw'],
  [0xfa, 'psubd'],
  [0xfb, 'psubq'],
  [0xfc, 'paddb'],
  [0xfd, 'paddw'],
  [0xfe, 'paddd'],
];
/** The same of the 0F 38 map. */
export const plainInteger0f38: readonly (readonly [op: number, name: string])[] = [
  [0x00, 'pshufb'],
  [0x01, 'phaddw'],
  [0x02, 'phaddd'],
  [0x03, 'phaddsw'],
  [0x04, 'pmaddubsw'],
  [0x05, 'phsubw'],
  [0x06, 'phsubd'],
  [0x07, 'phsubsw'],
  [0x08, 'psignb'],
  [0x09, 'psignw'],
  [0x0a, 'psignd'],
  [0x0b, 'pmulhrsw'],
  [0x28, 'pmuldq'],
  [0x29, 'pcmpeqq'],
  [0x2b, 'packusdw'],
  [0x37, 'pcmpgtq'],
  [0x38, 'pminsb'],
  [0x39, 'pminsd'],
  [0x3a, 'pminuw'],
  [0x3b, 'pminud'],
  [0x3c, 'pmaxsb'],
  [0x3d, 'pmaxsd'],
  [0x3e, 'pmaxuw'],
  [0x3f, 'pmaxud'],
  [0x40, 'pmulld'],
];
