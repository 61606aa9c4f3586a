import { plainInteger0f38 } from './families.ts';
import type { Row } from './types.ts';

/** VEX-encoded vector instructions of the 0F 38 map (SDM vol. 2, table A-4); FMA has a table of its own. */
const V = { map: '0f38', vex: true, pfx: '66', feature: 'avx' } as const;
const V2 = { ...V, feature: 'avx2' } as const;
const three = ['Vx', 'Hx', 'Wx'] as const;

/** PMOVSX (20..25) and PMOVZX (30..35): suffix and source, a part of the vector. */
const EXTENSIONS: readonly (readonly [string, string])[] = [
  ['bw', 'Wxh'],
  ['bd', 'Wxq'],
  ['bq', 'Wxo'],
  ['wd', 'Wxh'],
  ['wq', 'Wxq'],
  ['dq', 'Wxh'],
];
/** Gathers: indexes of 4 (op even) or 8 bytes; elements of 4 (W0) or 8 (W1). What holds the fewer and wider of them has the vector's length. */
function gathers(op: number, prefix: string, narrow: string, wide: string): Row[] {
  const G = { ...V2, mod: 'mem', asz: true } as const;
  return [
    { ...G, op, w: 0, name: `${prefix}d${narrow}`, operands: ['Vx', 'vm32x', 'Hx'] },
    { ...G, op, w: 1, name: `${prefix}d${wide}`, operands: ['Vx', 'vm32x', 'Hx'] },
    { ...G, op: op + 1, w: 0, name: `${prefix}q${narrow}`, operands: ['Vdq', 'vm64x', 'Hdq'] },
    { ...G, op: op + 1, w: 1, name: `${prefix}q${wide}`, operands: ['Vx', 'vm64x', 'Hx'] },
  ];
}

export const tableAvx0f38: readonly Row[] = [
  ...plainInteger0f38.map(([op, name]): Row => ({ ...V, op, name: `v${name}`, operands: three })),
  { ...V, op: 0x0c, w: 0, name: 'vpermilps', operands: three },
  { ...V, op: 0x0d, w: 0, name: 'vpermilpd', operands: three },
  { ...V, op: 0x0e, w: 0, name: 'vtestps', operands: ['Vx', 'Wx'] },
  { ...V, op: 0x0f, w: 0, name: 'vtestpd', operands: ['Vx', 'Wx'] },
  { ...V, op: 0x13, w: 0, name: 'vcvtph2ps', operands: ['Vx', 'Wxh'], feature: 'f16c' },
  { ...V2, op: 0x16, w: 0, l: 1, name: 'vpermps', operands: three },
  { ...V, op: 0x17, name: 'vptest', operands: ['Vx', 'Wx'] },
  { ...V, op: 0x18, w: 0, name: 'vbroadcastss', operands: ['Vx', 'Wd'] },
  { ...V, op: 0x19, w: 0, l: 1, name: 'vbroadcastsd', operands: ['Vx', 'Wq'] },
  { ...V, op: 0x1a, w: 0, l: 1, mod: 'mem', name: 'vbroadcastf128', operands: ['Vx', 'Mdq'] },
  { ...V, op: 0x1c, name: 'vpabsb', operands: ['Vx', 'Wx'] },
  { ...V, op: 0x1d, name: 'vpabsw', operands: ['Vx', 'Wx'] },
  { ...V, op: 0x1e, name: 'vpabsd', operands: ['Vx', 'Wx'] },
  ...EXTENSIONS.flatMap(([suffix, source], i): Row[] => [
    { ...V, op: 0x20 + i, name: `vpmovsx${suffix}`, operands: ['Vx', source] },
    { ...V, op: 0x30 + i, name: `vpmovzx${suffix}`, operands: ['Vx', source] },
  ]),
  { ...V, op: 0x2a, mod: 'mem', name: 'vmovntdqa', operands: ['Vx', 'Mx'] },
  { ...V, op: 0x2c, w: 0, mod: 'mem', name: 'vmaskmovps', operands: ['Vx', 'Hx', 'Mx'] },
  { ...V, op: 0x2d, w: 0, mod: 'mem', name: 'vmaskmovpd', operands: ['Vx', 'Hx', 'Mx'] },
  { ...V, op: 0x2e, w: 0, mod: 'mem', name: 'vmaskmovps', operands: ['Mx', 'Hx', 'Vx'] },
  { ...V, op: 0x2f, w: 0, mod: 'mem', name: 'vmaskmovpd', operands: ['Mx', 'Hx', 'Vx'] },
  { ...V2, op: 0x36, w: 0, l: 1, name: 'vpermd', operands: three },
  { ...V, op: 0x41, l: 0, name: 'vphminposuw', operands: ['Vdq', 'Wdq'] },
  { ...V2, op: 0x45, w: 0, name: 'vpsrlvd', operands: three },
  { ...V2, op: 0x45, w: 1, name: 'vpsrlvq', operands: three },
  { ...V2, op: 0x46, w: 0, name: 'vpsravd', operands: three },
  { ...V2, op: 0x47, w: 0, name: 'vpsllvd', operands: three },
  { ...V2, op: 0x47, w: 1, name: 'vpsllvq', operands: three },
  { ...V2, op: 0x58, w: 0, name: 'vpbroadcastd', operands: ['Vx', 'Wd'] },
  { ...V2, op: 0x59, w: 0, name: 'vpbroadcastq', operands: ['Vx', 'Wq'] },
  { ...V2, op: 0x5a, w: 0, l: 1, mod: 'mem', name: 'vbroadcasti128', operands: ['Vx', 'Mdq'] },
  { ...V2, op: 0x78, w: 0, name: 'vpbroadcastb', operands: ['Vx', 'Wb'] },
  { ...V2, op: 0x79, w: 0, name: 'vpbroadcastw', operands: ['Vx', 'Ww'] },
  { ...V2, op: 0x8c, w: 0, mod: 'mem', name: 'vpmaskmovd', operands: ['Vx', 'Hx', 'Mx'] },
  { ...V2, op: 0x8c, w: 1, mod: 'mem', name: 'vpmaskmovq', operands: ['Vx', 'Hx', 'Mx'] },
  { ...V2, op: 0x8e, w: 0, mod: 'mem', name: 'vpmaskmovd', operands: ['Mx', 'Hx', 'Vx'] },
  { ...V2, op: 0x8e, w: 1, mod: 'mem', name: 'vpmaskmovq', operands: ['Mx', 'Hx', 'Vx'] },
  ...gathers(0x90, 'vpgather', 'd', 'q'),
  ...gathers(0x92, 'vgather', 'ps', 'pd'),
  { ...V, op: 0xdb, l: 0, name: 'vaesimc', operands: ['Vdq', 'Wdq'] },
  { ...V, op: 0xdc, l: 0, name: 'vaesenc', operands: ['Vdq', 'Hdq', 'Wdq'] },
  { ...V, op: 0xdd, l: 0, name: 'vaesenclast', operands: ['Vdq', 'Hdq', 'Wdq'] },
  { ...V, op: 0xde, l: 0, name: 'vaesdec', operands: ['Vdq', 'Hdq', 'Wdq'] },
  { ...V, op: 0xdf, l: 0, name: 'vaesdeclast', operands: ['Vdq', 'Hdq', 'Wdq'] },
];

/** Opcode bits 3:0 of FMA instructions whose packed (even) and scalar (odd) forms follow each other; the first two have none. */
const FMA: readonly (readonly [number, string, 'packed' | 'scalar'])[] = [
  [6, 'vfmaddsub', 'packed'],
  [7, 'vfmsubadd', 'packed'],
  [8, 'vfmadd', 'packed'],
  [9, 'vfmadd', 'scalar'],
  [10, 'vfmsub', 'packed'],
  [11, 'vfmsub', 'scalar'],
  [12, 'vfnmadd', 'packed'],
  [13, 'vfnmadd', 'scalar'],
  [14, 'vfnmsub', 'packed'],
  [15, 'vfnmsub', 'scalar'],
];
/** FMA: 96..9F, A6..AF, B6..BF for the three orders of operands, single (W0) and double (W1). */
export const tableFma: readonly Row[] = (['132', '213', '231'] as const).flatMap((order, i) =>
  FMA.flatMap(([low, stem, shape]): Row[] => {
    const F = { ...V, op: 0x90 + 16 * i + low, feature: 'fma' } as const;
    if (shape === 'packed') {
      return [
        { ...F, w: 0, name: `${stem}${order}ps`, operands: three },
        { ...F, w: 1, name: `${stem}${order}pd`, operands: three },
      ];
    }
    return [
      { ...F, w: 0, name: `${stem}${order}ss`, operands: ['Vss', 'Hss', 'Wss'] },
      { ...F, w: 1, name: `${stem}${order}sd`, operands: ['Vsd', 'Hsd', 'Wsd'] },
    ];
  }),
);
