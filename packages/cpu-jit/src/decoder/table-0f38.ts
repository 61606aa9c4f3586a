import type { Row } from './types.ts';

/** SSSE3 instructions, which exist for MMX and XMM, by opcode. */
const SSSE3: readonly (readonly [number, string])[] = [
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
  [0x1c, 'pabsb'],
  [0x1d, 'pabsw'],
  [0x1e, 'pabsd'],
];

/** SSE4.1 instructions of the plain shape Vdq, Wdq. */
const SSE41: readonly (readonly [number, string])[] = [
  [0x28, 'pmuldq'],
  [0x29, 'pcmpeqq'],
  [0x2b, 'packusdw'],
  [0x38, 'pminsb'],
  [0x39, 'pminsd'],
  [0x3a, 'pminuw'],
  [0x3b, 'pminud'],
  [0x3c, 'pmaxsb'],
  [0x3d, 'pmaxsd'],
  [0x3e, 'pmaxuw'],
  [0x3f, 'pmaxud'],
  [0x40, 'pmulld'],
  [0x41, 'phminposuw'],
];

/** PMOVSX (20..25) and PMOVZX (30..35): suffix and source. */
const EXTENSIONS: readonly (readonly [string, string])[] = [
  ['bw', 'Wq'],
  ['bd', 'Wd'],
  ['bq', 'Ww'],
  ['wd', 'Wq'],
  ['wq', 'Wd'],
  ['dq', 'Wq'],
];

/** Three-byte opcode map 0F 38 (SDM vol. 2, table A-4). */
export const table0f38 = [
  ...SSSE3.flatMap(([op, name]): Row[] => [
    { map: '0f38', op, pfx: 'np', name: `${name}_mmx`, operands: ['Pq', 'Qq'], feature: 'ssse3' },
    { map: '0f38', op, pfx: '66', name, operands: ['Vdq', 'Wdq'], feature: 'ssse3' },
  ]),
  ...SSE41.map(([op, name]): Row => ({ map: '0f38', op, pfx: '66', name, operands: ['Vdq', 'Wdq'], feature: 'sse4_1' })),
  ...EXTENSIONS.flatMap(([suffix, source], i): Row[] => [
    { map: '0f38', op: 0x20 + i, pfx: '66', name: `pmovsx${suffix}`, operands: ['Vdq', source], feature: 'sse4_1' },
    { map: '0f38', op: 0x30 + i, pfx: '66', name: `pmovzx${suffix}`, operands: ['Vdq', source], feature: 'sse4_1' },
  ]),
  { map: '0f38', op: 0x10, pfx: '66', name: 'pblendvb', operands: ['Vdq', 'Wdq', 'XMM0'], feature: 'sse4_1' },
  { map: '0f38', op: 0x14, pfx: '66', name: 'blendvps', operands: ['Vps', 'Wps', 'XMM0'], feature: 'sse4_1' },
  { map: '0f38', op: 0x15, pfx: '66', name: 'blendvpd', operands: ['Vpd', 'Wpd', 'XMM0'], feature: 'sse4_1' },
  { map: '0f38', op: 0x17, pfx: '66', name: 'ptest', operands: ['Vdq', 'Wdq'], feature: 'sse4_1' },
  { map: '0f38', op: 0x2a, mod: 'mem', pfx: '66', name: 'movntdqa', operands: ['Vdq', 'Mdq'], feature: 'sse4_1' },
  { map: '0f38', op: 0x37, pfx: '66', name: 'pcmpgtq', operands: ['Vdq', 'Wdq'], feature: 'sse4_2' },
  { map: '0f38', op: 0xc8, pfx: 'np', name: 'sha1nexte', operands: ['Vdq', 'Wdq'], feature: 'sha_ni' },
  { map: '0f38', op: 0xc9, pfx: 'np', name: 'sha1msg1', operands: ['Vdq', 'Wdq'], feature: 'sha_ni' },
  { map: '0f38', op: 0xca, pfx: 'np', name: 'sha1msg2', operands: ['Vdq', 'Wdq'], feature: 'sha_ni' },
  { map: '0f38', op: 0xcb, pfx: 'np', name: 'sha256rnds2', operands: ['Vdq', 'Wdq', 'XMM0'], feature: 'sha_ni' },
  { map: '0f38', op: 0xcc, pfx: 'np', name: 'sha256msg1', operands: ['Vdq', 'Wdq'], feature: 'sha_ni' },
  { map: '0f38', op: 0xcd, pfx: 'np', name: 'sha256msg2', operands: ['Vdq', 'Wdq'], feature: 'sha_ni' },
  { map: '0f38', op: 0xdb, pfx: '66', name: 'aesimc', operands: ['Vdq', 'Wdq'], feature: 'aes' },
  { map: '0f38', op: 0xdc, pfx: '66', name: 'aesenc', operands: ['Vdq', 'Wdq'], feature: 'aes' },
  { map: '0f38', op: 0xdd, pfx: '66', name: 'aesenclast', operands: ['Vdq', 'Wdq'], feature: 'aes' },
  { map: '0f38', op: 0xde, pfx: '66', name: 'aesdec', operands: ['Vdq', 'Wdq'], feature: 'aes' },
  { map: '0f38', op: 0xdf, pfx: '66', name: 'aesdeclast', operands: ['Vdq', 'Wdq'], feature: 'aes' },
  { map: '0f38', op: 0xf0, pfx: 'f2', name: 'crc32', operands: ['Gd', 'Eb'], size: 'b', feature: 'sse4_2' },
  { map: '0f38', op: 0xf0, mod: 'mem', pfx: 'nfx', name: 'movbe', operands: ['Gv', 'Mv'], feature: 'movbe' },
  { map: '0f38', op: 0xf1, pfx: 'f2', name: 'crc32', operands: ['Gd', 'Ev'], feature: 'sse4_2' },
  { map: '0f38', op: 0xf1, mod: 'mem', pfx: 'nfx', name: 'movbe', operands: ['Mv', 'Gv'], feature: 'movbe' },
  { map: '0f38', op: 0xf6, pfx: '66', name: 'adcx', operands: ['Gy', 'Ey'], feature: 'adx' },
  { map: '0f38', op: 0xf6, pfx: 'f3', name: 'adox', operands: ['Gy', 'Ey'], feature: 'adx' },

  // BMI1, BMI2: VEX-encoded general-purpose instructions.
  { map: '0f38', op: 0xf2, vex: true, l: 0, pfx: 'np', name: 'andn', operands: ['Gy', 'By', 'Ey'], feature: 'bmi1', undef: 'ap' },
  { map: '0f38', op: 0xf3, ext: 1, vex: true, l: 0, pfx: 'np', name: 'blsr', operands: ['By', 'Ey'], feature: 'bmi1', undef: 'ap' },
  { map: '0f38', op: 0xf3, ext: 2, vex: true, l: 0, pfx: 'np', name: 'blsmsk', operands: ['By', 'Ey'], feature: 'bmi1', undef: 'ap' },
  { map: '0f38', op: 0xf3, ext: 3, vex: true, l: 0, pfx: 'np', name: 'blsi', operands: ['By', 'Ey'], feature: 'bmi1', undef: 'ap' },
  { map: '0f38', op: 0xf5, vex: true, l: 0, pfx: 'np', name: 'bzhi', operands: ['Gy', 'Ey', 'By'], feature: 'bmi2', undef: 'ap' },
  { map: '0f38', op: 0xf5, vex: true, l: 0, pfx: 'f3', name: 'pext', operands: ['Gy', 'By', 'Ey'], feature: 'bmi2' },
  { map: '0f38', op: 0xf5, vex: true, l: 0, pfx: 'f2', name: 'pdep', operands: ['Gy', 'By', 'Ey'], feature: 'bmi2' },
  { map: '0f38', op: 0xf6, vex: true, l: 0, pfx: 'f2', name: 'mulx', operands: ['Gy', 'By', 'Ey'], feature: 'bmi2' },
  { map: '0f38', op: 0xf7, vex: true, l: 0, pfx: 'np', name: 'bextr', operands: ['Gy', 'Ey', 'By'], feature: 'bmi1', undef: 'sap' },
  { map: '0f38', op: 0xf7, vex: true, l: 0, pfx: '66', name: 'shlx', operands: ['Gy', 'Ey', 'By'], feature: 'bmi2' },
  { map: '0f38', op: 0xf7, vex: true, l: 0, pfx: 'f3', name: 'sarx', operands: ['Gy', 'Ey', 'By'], feature: 'bmi2' },
  { map: '0f38', op: 0xf7, vex: true, l: 0, pfx: 'f2', name: 'shrx', operands: ['Gy', 'Ey', 'By'], feature: 'bmi2' },
] as const satisfies readonly Row[];
