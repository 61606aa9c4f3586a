import { floatFour, group, packedInteger } from './families.ts';
import type { Row } from './types.ts';

/**
 * VEX-encoded vector instructions of the 0F map (SDM vol. 2, table A-3). Integer instructions on 256 bits are AVX2, everything
 * else here is AVX; the rows do not tell them apart, since no level of this CPU has the one without the other.
 * Where the manual calls L ignored (scalars), rows name explicit sizes and no `l`.
 */
const V = { map: '0f', vex: true, feature: 'avx' } as const;
const three = ['Vx', 'Hx', 'Wx'] as const;
const two = ['Vx', 'Wx'] as const;

/** Instruction in four floating-point shapes with a source of its own: as `floatFour` with VEX. */
function vexFour(op: number, stem: string): Row[] {
  return floatFour(op, `v${stem}`).map((row): Row => {
    const scalar = row.operands[0] === 'Vss' ? 'ss' : row.operands[0] === 'Vsd' ? 'sd' : undefined;
    const packedOperands = stem === 'sqrt' ? two : three;
    return {
      ...V,
      op,
      ...(row.pfx === undefined ? {} : { pfx: row.pfx }),
      name: row.name,
      operands: scalar === undefined ? packedOperands : [`V${scalar}`, `H${scalar}`, `W${scalar}`],
    };
  });
}
/** Both packed floating-point shapes. */
function vexPair(op: number, stem: string, operands: readonly string[] = three): Row[] {
  return [
    { ...V, op, pfx: 'np', name: `v${stem}ps`, operands },
    { ...V, op, pfx: '66', name: `v${stem}pd`, operands },
  ];
}

/** Shifts by a count in an XMM register or 128 bits of memory. */
const SHIFTS: readonly (readonly [number, string])[] = [
  [0xd1, 'psrlw'],
  [0xd2, 'psrld'],
  [0xd3, 'psrlq'],
  [0xe1, 'psraw'],
  [0xe2, 'psrad'],
  [0xf1, 'psllw'],
  [0xf2, 'pslld'],
  [0xf3, 'psllq'],
];

const moves: readonly Row[] = [
  ...vexPair(0x10, 'movu', two),
  { ...V, op: 0x10, mod: 'reg', pfx: 'f3', name: 'vmovss', operands: ['Vss', 'Hss', 'Uss'] },
  { ...V, op: 0x10, mod: 'mem', pfx: 'f3', name: 'vmovss', operands: ['Vss', 'Mss'] },
  { ...V, op: 0x10, mod: 'reg', pfx: 'f2', name: 'vmovsd', operands: ['Vsd', 'Hsd', 'Usd'] },
  { ...V, op: 0x10, mod: 'mem', pfx: 'f2', name: 'vmovsd', operands: ['Vsd', 'Msd'] },
  ...vexPair(0x11, 'movu', ['Wx', 'Vx']),
  { ...V, op: 0x11, mod: 'reg', pfx: 'f3', name: 'vmovss', operands: ['Uss', 'Hss', 'Vss'] },
  { ...V, op: 0x11, mod: 'mem', pfx: 'f3', name: 'vmovss', operands: ['Mss', 'Vss'] },
  { ...V, op: 0x11, mod: 'reg', pfx: 'f2', name: 'vmovsd', operands: ['Usd', 'Hsd', 'Vsd'] },
  { ...V, op: 0x11, mod: 'mem', pfx: 'f2', name: 'vmovsd', operands: ['Msd', 'Vsd'] },
  { ...V, op: 0x12, mod: 'mem', pfx: 'np', l: 0, name: 'vmovlps', operands: ['Vdq', 'Hdq', 'Mq'] },
  { ...V, op: 0x12, mod: 'reg', pfx: 'np', l: 0, name: 'vmovhlps', operands: ['Vdq', 'Hdq', 'Udq'] },
  { ...V, op: 0x12, mod: 'mem', pfx: '66', l: 0, name: 'vmovlpd', operands: ['Vdq', 'Hdq', 'Mq'] },
  { ...V, op: 0x12, pfx: 'f3', name: 'vmovsldup', operands: two },
  { ...V, op: 0x12, pfx: 'f2', l: 0, name: 'vmovddup', operands: ['Vdq', 'Wq'] },
  { ...V, op: 0x12, pfx: 'f2', l: 1, name: 'vmovddup', operands: two },
  { ...V, op: 0x13, mod: 'mem', pfx: 'np', l: 0, name: 'vmovlps', operands: ['Mq', 'Vq'] },
  { ...V, op: 0x13, mod: 'mem', pfx: '66', l: 0, name: 'vmovlpd', operands: ['Mq', 'Vq'] },
  { ...V, op: 0x16, mod: 'mem', pfx: 'np', l: 0, name: 'vmovhps', operands: ['Vdq', 'Hdq', 'Mq'] },
  { ...V, op: 0x16, mod: 'reg', pfx: 'np', l: 0, name: 'vmovlhps', operands: ['Vdq', 'Hdq', 'Udq'] },
  { ...V, op: 0x16, mod: 'mem', pfx: '66', l: 0, name: 'vmovhpd', operands: ['Vdq', 'Hdq', 'Mq'] },
  { ...V, op: 0x16, pfx: 'f3', name: 'vmovshdup', operands: two },
  { ...V, op: 0x17, mod: 'mem', pfx: 'np', l: 0, name: 'vmovhps', operands: ['Mq', 'Vdq'] },
  { ...V, op: 0x17, mod: 'mem', pfx: '66', l: 0, name: 'vmovhpd', operands: ['Mq', 'Vdq'] },
  ...vexPair(0x28, 'mova', two),
  ...vexPair(0x29, 'mova', ['Wx', 'Vx']),
  ...vexPair(0x2b, 'movnt', ['Mx', 'Vx']).map((row): Row => ({ ...row, mod: 'mem' })),
  { ...V, op: 0x6e, pfx: '66', l: 0, w: 0, name: 'vmovd', operands: ['Vdq', 'Ed'] },
  { ...V, op: 0x6e, pfx: '66', l: 0, w: 1, name: 'vmovq', operands: ['Vdq', 'Eq'] },
  { ...V, op: 0x6f, pfx: '66', name: 'vmovdqa', operands: two },
  { ...V, op: 0x6f, pfx: 'f3', name: 'vmovdqu', operands: two },
  { ...V, op: 0x77, pfx: 'np', l: 0, name: 'vzeroupper', operands: [] },
  { ...V, op: 0x77, pfx: 'np', l: 1, name: 'vzeroall', operands: [] },
  { ...V, op: 0x7e, pfx: '66', l: 0, w: 0, name: 'vmovd', operands: ['Ed', 'Vd'] },
  { ...V, op: 0x7e, pfx: '66', l: 0, w: 1, name: 'vmovq', operands: ['Eq', 'Vq'] },
  { ...V, op: 0x7e, pfx: 'f3', l: 0, name: 'vmovq', operands: ['Vdq', 'Wq'] },
  { ...V, op: 0x7f, pfx: '66', name: 'vmovdqa', operands: ['Wx', 'Vx'] },
  { ...V, op: 0x7f, pfx: 'f3', name: 'vmovdqu', operands: ['Wx', 'Vx'] },
  { ...V, op: 0xae, ext: 2, mod: 'mem', pfx: 'np', l: 0, name: 'vldmxcsr', operands: ['Md'], end: true },
  { ...V, op: 0xae, ext: 3, mod: 'mem', pfx: 'np', l: 0, name: 'vstmxcsr', operands: ['Md'] },
  { ...V, op: 0xc4, mod: 'reg', pfx: '66', l: 0, name: 'vpinsrw', operands: ['Vdq', 'Hdq', 'Rd', 'Ib'] },
  { ...V, op: 0xc4, mod: 'mem', pfx: '66', l: 0, name: 'vpinsrw', operands: ['Vdq', 'Hdq', 'Mw', 'Ib'] },
  { ...V, op: 0xc5, mod: 'reg', pfx: '66', l: 0, name: 'vpextrw', operands: ['Gd', 'Udq', 'Ib'] },
  { ...V, op: 0xd6, mod: 'mem', pfx: '66', l: 0, name: 'vmovq', operands: ['Mq', 'Vq'] },
  { ...V, op: 0xd6, mod: 'reg', pfx: '66', l: 0, name: 'vmovq', operands: ['Udq', 'Vq'] },
  { ...V, op: 0xe7, mod: 'mem', pfx: '66', name: 'vmovntdq', operands: ['Mx', 'Vx'] },
  { ...V, op: 0xf0, mod: 'mem', pfx: 'f2', name: 'vlddqu', operands: ['Vx', 'Mx'] },
  { ...V, op: 0xf7, mod: 'reg', pfx: '66', l: 0, name: 'vmaskmovdqu', operands: ['Vdq', 'Udq'], asz: true },
];

const floats: readonly Row[] = [
  ...vexPair(0x14, 'unpckl'),
  ...vexPair(0x15, 'unpckh'),
  ...vexPair(0x50, 'movmsk', ['Gd', 'Ux']).map((row): Row => ({ ...row, mod: 'reg' })),
  ...vexFour(0x51, 'sqrt'),
  { ...V, op: 0x52, pfx: 'np', name: 'vrsqrtps', operands: two },
  { ...V, op: 0x52, pfx: 'f3', name: 'vrsqrtss', operands: ['Vss', 'Hss', 'Wss'] },
  { ...V, op: 0x53, pfx: 'np', name: 'vrcpps', operands: two },
  { ...V, op: 0x53, pfx: 'f3', name: 'vrcpss', operands: ['Vss', 'Hss', 'Wss'] },
  ...vexPair(0x54, 'and'),
  ...vexPair(0x55, 'andn'),
  ...vexPair(0x56, 'or'),
  ...vexPair(0x57, 'xor'),
  ...vexFour(0x58, 'add'),
  ...vexFour(0x59, 'mul'),
  ...vexFour(0x5c, 'sub'),
  ...vexFour(0x5d, 'min'),
  ...vexFour(0x5e, 'div'),
  ...vexFour(0x5f, 'max'),
  { ...V, op: 0x7c, pfx: '66', name: 'vhaddpd', operands: three },
  { ...V, op: 0x7c, pfx: 'f2', name: 'vhaddps', operands: three },
  { ...V, op: 0x7d, pfx: '66', name: 'vhsubpd', operands: three },
  { ...V, op: 0x7d, pfx: 'f2', name: 'vhsubps', operands: three },
  ...vexPair(0xc2, 'cmp', [...three, 'Ib']),
  { ...V, op: 0xc2, pfx: 'f3', name: 'vcmpss', operands: ['Vss', 'Hss', 'Wss', 'Ib'] },
  { ...V, op: 0xc2, pfx: 'f2', name: 'vcmpsd', operands: ['Vsd', 'Hsd', 'Wsd', 'Ib'] },
  ...vexPair(0xc6, 'shuf', [...three, 'Ib']),
  { ...V, op: 0xd0, pfx: '66', name: 'vaddsubpd', operands: three },
  { ...V, op: 0xd0, pfx: 'f2', name: 'vaddsubps', operands: three },
];

const conversions: readonly Row[] = [
  { ...V, op: 0x2a, pfx: 'f3', name: 'vcvtsi2ss', operands: ['Vss', 'Hss', 'Ey'] },
  { ...V, op: 0x2a, pfx: 'f2', name: 'vcvtsi2sd', operands: ['Vsd', 'Hsd', 'Ey'] },
  { ...V, op: 0x2c, pfx: 'f3', name: 'vcvttss2si', operands: ['Gy', 'Wss'] },
  { ...V, op: 0x2c, pfx: 'f2', name: 'vcvttsd2si', operands: ['Gy', 'Wsd'] },
  { ...V, op: 0x2d, pfx: 'f3', name: 'vcvtss2si', operands: ['Gy', 'Wss'] },
  { ...V, op: 0x2d, pfx: 'f2', name: 'vcvtsd2si', operands: ['Gy', 'Wsd'] },
  { ...V, op: 0x2e, pfx: 'np', name: 'vucomiss', operands: ['Vss', 'Wss'] },
  { ...V, op: 0x2e, pfx: '66', name: 'vucomisd', operands: ['Vsd', 'Wsd'] },
  { ...V, op: 0x2f, pfx: 'np', name: 'vcomiss', operands: ['Vss', 'Wss'] },
  { ...V, op: 0x2f, pfx: '66', name: 'vcomisd', operands: ['Vsd', 'Wsd'] },
  { ...V, op: 0x5a, pfx: 'np', name: 'vcvtps2pd', operands: ['Vx', 'Wxh'] },
  { ...V, op: 0x5a, pfx: '66', name: 'vcvtpd2ps', operands: ['Vdq', 'Wx'] },
  { ...V, op: 0x5a, pfx: 'f3', name: 'vcvtss2sd', operands: ['Vsd', 'Hsd', 'Wss'] },
  { ...V, op: 0x5a, pfx: 'f2', name: 'vcvtsd2ss', operands: ['Vss', 'Hss', 'Wsd'] },
  { ...V, op: 0x5b, pfx: 'np', name: 'vcvtdq2ps', operands: two },
  { ...V, op: 0x5b, pfx: '66', name: 'vcvtps2dq', operands: two },
  { ...V, op: 0x5b, pfx: 'f3', name: 'vcvttps2dq', operands: two },
  { ...V, op: 0xe6, pfx: '66', name: 'vcvttpd2dq', operands: ['Vdq', 'Wx'] },
  { ...V, op: 0xe6, pfx: 'f3', name: 'vcvtdq2pd', operands: ['Vx', 'Wxh'] },
  { ...V, op: 0xe6, pfx: 'f2', name: 'vcvtpd2dq', operands: ['Vdq', 'Wx'] },
];

const immediateShifts = { ...V, mod: 'reg', pfx: '66', operands: ['Hx', 'Ux', 'Ib'] } as const;
const integers: readonly Row[] = [
  ...packedInteger.map(([op, name]): Row => ({ ...V, op, pfx: '66', name: `v${name}`, operands: three })),
  ...SHIFTS.map(([op, name]): Row => ({ ...V, op, pfx: '66', name: `v${name}`, operands: ['Vx', 'Hx', 'Wdq'] })),
  { ...V, op: 0x70, pfx: '66', name: 'vpshufd', operands: [...two, 'Ib'] },
  { ...V, op: 0x70, pfx: 'f3', name: 'vpshufhw', operands: [...two, 'Ib'] },
  { ...V, op: 0x70, pfx: 'f2', name: 'vpshuflw', operands: [...two, 'Ib'] },
  ...group(0x71, ['', '', 'vpsrlw', '', 'vpsraw', '', 'vpsllw', ''], immediateShifts),
  ...group(0x72, ['', '', 'vpsrld', '', 'vpsrad', '', 'vpslld', ''], immediateShifts),
  ...group(0x73, ['', '', 'vpsrlq', 'vpsrldq', '', '', 'vpsllq', 'vpslldq'], immediateShifts),
  { ...V, op: 0xd7, mod: 'reg', pfx: '66', name: 'vpmovmskb', operands: ['Gd', 'Ux'] },
];

export const tableAvx: readonly Row[] = [...moves, ...floats, ...conversions, ...integers];
