/** Instructions of WebAssembly by the names that Binaryen's JavaScript interface has for them. */

/** How an instruction is built and what follows its opcode. `lane`: a number of a lane. */
export type Shape = 'unary' | 'binary' | 'ternary' | 'load' | 'store' | 'extract' | 'replace';
export type ValueType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

export interface Instruction {
  /** Two or three parts, e.g. 'i32.add', 'f64.convert_s.i32'. */
  readonly name: string;
  /** The opcode; with a prefix, prefix << 16 | number. */
  readonly opcode: number;
  readonly shape: Shape;
  /** Type of the result; stores have none. */
  readonly result: ValueType;
}

export const PREFIX_MISC = 0xfc;
export const PREFIX_SIMD = 0xfd;
const MISC = PREFIX_MISC << 16;
const SIMD = PREFIX_SIMD << 16;

const INTEGER_COMPARE = 'eqz eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u';
const FLOAT_COMPARE = 'eq ne lt gt le ge';
const INTEGER_ARITHMETIC = 'clz ctz popcnt add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr';
const FLOAT_ARITHMETIC = 'abs neg ceil floor trunc nearest sqrt add sub mul div min max copysign';
const TRUNCATE = (suffix: string) => ['f32', 'f64'].map((from) => `trunc_s${suffix}.${from} trunc_u${suffix}.${from}`).join(' ');
const CONVERT = ['i32', 'i64'].map((from) => `convert_s.${from} convert_u.${from}`).join(' ');
const VECTOR_COMPARE = 'eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u';
const ADD_SUB = 'add add_saturate_s add_saturate_u sub sub_saturate_s sub_saturate_u';
const EXTEND = (from: string) => `extend_low_${from}_s extend_high_${from}_s extend_low_${from}_u extend_high_${from}_u`;
const EXTMUL = (from: string) => `extmul_low_${from}_s extmul_high_${from}_s extmul_low_${from}_u extmul_high_${from}_u`;

/** Runs of opcodes: the first one, and the names of one type that follow; `-` leaves one out (WebAssembly core specification 5.4). */
const RUNS: readonly (readonly [first: number, type: string, names: string])[] = [
  [0x28, 'i32', 'load'],
  [0x29, 'i64', 'load'],
  [0x2a, 'f32', 'load'],
  [0x2b, 'f64', 'load'],
  [0x2c, 'i32', 'load8_s load8_u load16_s load16_u'],
  [0x30, 'i64', 'load8_s load8_u load16_s load16_u load32_s load32_u'],
  [0x36, 'i32', 'store'],
  [0x37, 'i64', 'store'],
  [0x38, 'f32', 'store'],
  [0x39, 'f64', 'store'],
  [0x3a, 'i32', 'store8 store16'],
  [0x3c, 'i64', 'store8 store16 store32'],
  [0x45, 'i32', INTEGER_COMPARE],
  [0x50, 'i64', INTEGER_COMPARE],
  [0x5b, 'f32', FLOAT_COMPARE],
  [0x61, 'f64', FLOAT_COMPARE],
  [0x67, 'i32', INTEGER_ARITHMETIC],
  [0x79, 'i64', INTEGER_ARITHMETIC],
  [0x8b, 'f32', FLOAT_ARITHMETIC],
  [0x99, 'f64', FLOAT_ARITHMETIC],
  [0xa7, 'i32', `wrap ${TRUNCATE('')}`],
  [0xac, 'i64', `extend_s extend_u ${TRUNCATE('')}`],
  [0xb2, 'f32', `${CONVERT} demote`],
  [0xb7, 'f64', `${CONVERT} promote`],
  [0xbc, 'i32', 'reinterpret'],
  [0xbd, 'i64', 'reinterpret'],
  [0xbe, 'f32', 'reinterpret'],
  [0xbf, 'f64', 'reinterpret'],
  [0xc0, 'i32', 'extend8_s extend16_s'],
  [0xc2, 'i64', 'extend8_s extend16_s extend32_s'],
  [MISC | 0, 'i32', TRUNCATE('_sat')],
  [MISC | 4, 'i64', TRUNCATE('_sat')],
  [SIMD | 0, 'v128', 'load - - - - - - load8_splat load16_splat load32_splat load64_splat store'],
  [SIMD | 14, 'i8x16', 'swizzle splat'],
  [SIMD | 16, 'i16x8', 'splat'],
  [SIMD | 17, 'i32x4', 'splat'],
  [SIMD | 18, 'i64x2', 'splat'],
  [SIMD | 19, 'f32x4', 'splat'],
  [SIMD | 20, 'f64x2', 'splat'],
  [SIMD | 21, 'i8x16', 'extract_lane_s extract_lane_u replace_lane'],
  [SIMD | 24, 'i16x8', 'extract_lane_s extract_lane_u replace_lane'],
  [SIMD | 27, 'i32x4', 'extract_lane replace_lane'],
  [SIMD | 29, 'i64x2', 'extract_lane replace_lane'],
  [SIMD | 31, 'f32x4', 'extract_lane replace_lane'],
  [SIMD | 33, 'f64x2', 'extract_lane replace_lane'],
  [SIMD | 35, 'i8x16', VECTOR_COMPARE],
  [SIMD | 45, 'i16x8', VECTOR_COMPARE],
  [SIMD | 55, 'i32x4', VECTOR_COMPARE],
  [SIMD | 65, 'f32x4', FLOAT_COMPARE],
  [SIMD | 71, 'f64x2', FLOAT_COMPARE],
  [SIMD | 77, 'v128', 'not and andnot or xor bitselect any_true'],
  [SIMD | 92, 'v128', 'load32_zero load64_zero'],
  [SIMD | 94, 'f32x4', 'demote_f64x2_zero'],
  [SIMD | 95, 'f64x2', 'promote_low_f32x4'],
  [SIMD | 96, 'i8x16', 'abs neg popcnt all_true bitmask narrow_i16x8_s narrow_i16x8_u'],
  [SIMD | 103, 'f32x4', 'ceil floor trunc nearest'],
  [SIMD | 107, 'i8x16', `shl shr_s shr_u ${ADD_SUB}`],
  [SIMD | 116, 'f64x2', 'ceil floor'],
  [SIMD | 118, 'i8x16', 'min_s min_u max_s max_u'],
  [SIMD | 122, 'f64x2', 'trunc'],
  [SIMD | 123, 'i8x16', 'avgr_u'],
  [SIMD | 124, 'i16x8', 'extadd_pairwise_i8x16_s extadd_pairwise_i8x16_u'],
  [SIMD | 126, 'i32x4', 'extadd_pairwise_i16x8_s extadd_pairwise_i16x8_u'],
  [SIMD | 128, 'i16x8', `abs neg q15mulr_sat_s all_true bitmask narrow_i32x4_s narrow_i32x4_u ${EXTEND('i8x16')} shl shr_s shr_u ${ADD_SUB}`],
  [SIMD | 148, 'f64x2', 'nearest'],
  [SIMD | 149, 'i16x8', `mul min_s min_u max_s max_u - avgr_u ${EXTMUL('i8x16')}`],
  [SIMD | 160, 'i32x4', `abs neg - all_true bitmask - - ${EXTEND('i16x8')} shl shr_s shr_u add - - sub - - - mul min_s min_u max_s max_u dot_i16x8_s`],
  [SIMD | 188, 'i32x4', EXTMUL('i16x8')],
  [SIMD | 192, 'i64x2', `abs neg - all_true bitmask - - ${EXTEND('i32x4')} shl shr_s shr_u add - - sub - - - mul eq ne lt_s gt_s le_s ge_s ${EXTMUL('i32x4')}`],
  [SIMD | 224, 'f32x4', 'abs neg - sqrt add sub mul div min max pmin pmax'],
  [SIMD | 236, 'f64x2', 'abs neg - sqrt add sub mul div min max pmin pmax'],
  [SIMD | 248, 'i32x4', 'trunc_sat_f32x4_s trunc_sat_f32x4_u'],
  [SIMD | 250, 'f32x4', 'convert_i32x4_s convert_i32x4_u'],
  [SIMD | 252, 'i32x4', 'trunc_sat_f64x2_s_zero trunc_sat_f64x2_u_zero'],
  [SIMD | 254, 'f64x2', 'convert_low_i32x4_s convert_low_i32x4_u'],
  [SIMD | 0x105, 'f32x4', 'relaxed_madd relaxed_nmadd'],
  [SIMD | 0x107, 'f64x2', 'relaxed_madd relaxed_nmadd'],
];

const UNARY =
  /^(eqz|clz|ctz|popcnt|abs|neg|ceil|floor|trunc|nearest|sqrt|not|any_true|all_true|bitmask|splat|wrap|reinterpret|promote|demote|convert|extend|extadd)/;
const TO_I32 = /^(eqz|any_true|all_true|bitmask)$/;
const COMPARE = /^(eq|ne|[lg][te])(_[su])?$/;
const LANE: Readonly<Record<string, ValueType>> = { i8x16: 'i32', i16x8: 'i32', i32x4: 'i32', i64x2: 'i64', f32x4: 'f32', f64x2: 'f64' };

function shapeOf(op: string): Shape {
  if (op.startsWith('load')) return 'load';
  if (op.startsWith('store')) return 'store';
  if (op.startsWith('extract_lane')) return 'extract';
  if (op === 'replace_lane') return 'replace';
  if (op === 'bitselect' || op.startsWith('relaxed_')) return 'ternary';
  return UNARY.test(op) ? 'unary' : 'binary';
}

function resultOf(type: string, op: string): ValueType {
  const lane = LANE[type];
  if (op.startsWith('extract_lane') && lane !== undefined) return lane;
  if (TO_I32.test(op)) return 'i32';
  if (lane !== undefined || type === 'v128') return 'v128';
  return COMPARE.test(op) ? 'i32' : (type as ValueType);
}

/** All instructions that `WasmBuilder` has by name, but for control, locals and constants. */
export const INSTRUCTIONS: readonly Instruction[] = RUNS.flatMap(([first, type, names]) =>
  names
    .split(' ')
    .map((op, i) => ({ name: `${type}.${op}`, opcode: first + i, shape: shapeOf(op), result: resultOf(type, op) }))
    .filter(({ name }) => !name.endsWith('.-')),
);
