/**
 * FMA: a product and a sum with one rounding.
 *
 * Wasm's relaxed multiply-add is the host's fused instruction where it has one (S_UNFUSED says so otherwise). It does not fix which
 * of several NaNs a result is, so results that are NaN come from the runtime's helper, as those under other controls than MXCSR's
 * default ones do.
 */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { S_UNFUSED } from '../layout.ts';
import { arithmetic } from './float-watch.ts';
import { type FloatType, merged, shapeOf, v } from './sse-operands.ts';
import { allLanes, softCall } from './sse-soft.ts';
import { packed, scalarSecond, writeVector } from './vector.ts';

/** Which sign is turned; for the alternating ones that of the addend in even or odd lanes. */
interface Signs {
  readonly product: boolean;
  /** Lanes whose addend is subtracted: bit 0 even, bit 1 odd ones. */
  readonly addend: number;
}
/** Multiplicands and addend among destination (0), first (1) and second source (2), by the digits of the mnemonic. */
const ORDERS = { '132': [0, 2, 1], '213': [1, 0, 2], '231': [1, 2, 0] } as const;
type Order = keyof typeof ORDERS;

/** `x` with the signs of the lanes in `lanes` (as `Signs.addend`) turned. */
function negated(e: Emitter, type: FloatType, x: Val, lanes: number): Val {
  if (lanes === 0) return x;
  if (lanes === 3) return v(e, `${shapeOf(type)}.neg`, x);
  const sign = [0, 0, 0, 0x80];
  const plain = [0, 0, 0, 0];
  const pair =
    type === 'f32'
      ? [sign, plain]
      : [
          [...plain, ...sign],
          [...plain, ...plain],
        ];
  const [even = [], odd = []] = lanes === 1 ? pair : pair.toReversed();
  const bytes = type === 'f32' ? [...even, ...odd, ...even, ...odd] : [...even, ...odd];
  return v(e, 'v128.xor', x, e.v128(bytes));
}

/** The lanes in the bit set `lanes` of x * y + z with these signs turned; the others are those of `base`. */
function fused(e: Emitter, type: FloatType, lanes: number, base: Val, x: Val, y: Val, z: Val, signs: Signs): Val {
  const shape = shapeOf(type);
  const addend = negated(e, type, z, signs.addend);
  const relaxed = e.let(e.multiplyAdd(type, signs.product, x, y, addend));
  const isScalar = lanes === 1;
  const result = e.variable(isScalar ? merged(e, type, base, relaxed) : relaxed);
  const low = () => e.let(e.op(`${shape}.extract_lane`, type, relaxed, 0));
  const unordered = isScalar ? notANumber(e, type, low()) : e.op('v128.any_true', 'i32', v(e, `${shape}.ne`, relaxed, relaxed));
  const soft = e.softFloat();
  const other = e.or(unordered, e.state(S_UNFUSED, 4));
  const exceptional = soft ?? (e.tracksFloat ? arithmetic(type, lanes, x, y, z)(e, relaxed) : undefined);
  e.if(exceptional === undefined ? other : e.or(other, exceptional), () => {
    const turned = (signs.product ? 4 : 0) | signs.addend;
    const value = softCall(e, 'sse_fma', 'v128', turned, type === 'f64' ? 1 : 0, lanes, x, y, z, base);
    if (!e.tracksFloat) e.checkException();
    result.set(value);
  });
  return result.get();
}
function notANumber(e: Emitter, type: FloatType, x: Val): Val {
  return e.op(`${type}.ne`, 'i32', x, x);
}

const packedFma = (type: FloatType, order: Order, signs: Signs): Semantics =>
  packed((e, a, b, half) => {
    const d = e.let(e.readXmm(0, half));
    const [x, y, z] = ORDERS[order].map((i) => [d, a, b][i] ?? d) as [Val, Val, Val];
    return fused(e, type, allLanes(type), d, x, y, z, signs);
  });
const scalarFma =
  (type: FloatType, order: Order, signs: Signs): Semantics =>
  (e) => {
    const b = scalarSecond(e, type);
    const a = e.let(e.readXmm(1));
    const d = e.let(e.readXmm(0));
    const [x, y, z] = ORDERS[order].map((i) => [d, a, b][i] ?? d) as [Val, Val, Val];
    writeVector(e, fused(e, type, 1, d, x, y, z, signs));
  };

const KINDS: readonly (readonly [stem: string, signs: Signs, scalar: boolean])[] = [
  ['vfmadd', { product: false, addend: 0 }, true],
  ['vfmsub', { product: false, addend: 3 }, true],
  ['vfnmadd', { product: true, addend: 0 }, true],
  ['vfnmsub', { product: true, addend: 3 }, true],
  ['vfmaddsub', { product: false, addend: 1 }, false],
  ['vfmsubadd', { product: false, addend: 2 }, false],
];
export const fma: Record<string, Semantics> = Object.fromEntries(
  KINDS.flatMap(([stem, signs, hasScalar]) =>
    (Object.keys(ORDERS) as Order[]).flatMap((order): [string, Semantics][] => [
      [`${stem}${order}ps`, packedFma('f32', order, signs)],
      [`${stem}${order}pd`, packedFma('f64', order, signs)],
      ...(hasScalar
        ? ([
            [`${stem}${order}ss`, scalarFma('f32', order, signs)],
            [`${stem}${order}sd`, scalarFma('f64', order, signs)],
          ] as [string, Semantics][])
        : []),
    ]),
  ),
);
