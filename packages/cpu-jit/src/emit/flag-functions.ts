import type binaryen from 'binaryen';
import { FLAGS_ADD, FLAGS_DEC, FLAGS_EXPLICIT, FLAGS_INC, FLAGS_LOGIC, FLAGS_SUB, S_CC_KIND, S_CC_RES, S_CC_SRC } from '../layout.ts';

/** Names of the functions added by `addFlagFunctions`: (kind i32, res i64, src i64) -> i32 0/1. */
export const FLAG_FUNCTION = { c: 'flag_c', p: 'flag_p', a: 'flag_a', z: 'flag_z', s: 'flag_s', o: 'flag_o' } as const;
/** Name of the function (kind i32, res i64, src i64) -> i64: CC_SRC of kind FLAGS_EXPLICIT with the same flags but CF = 0. */
export const FLAGS_WITHOUT_CARRY = 'flags_without_carry';
export type FlagName = keyof typeof FLAG_FUNCTION;

/**
 * Adds and exports functions that compute one status flag from a lazy triple (see FLAGS_* in layout.ts). Both tiers call these
 * where the producer of the flags is not known statically.
 */
export function addFlagFunctions(b: typeof binaryen, m: binaryen.Module): void {
  const params = b.createType([b.i32, b.i64, b.i64]);
  const kind = () => m.local.get(0, b.i32);
  const res = () => m.local.get(1, b.i64);
  const src = () => m.local.get(2, b.i64);
  const inGroup = (first: number) => m.i32.lt_u(m.i32.sub(kind(), m.i32.const(first)), m.i32.const(4));
  /** 64 - operand bits, for a group of kinds that starts at `first`. */
  const shift = (first: number) => m.i64.extend_u(m.i32.sub(m.i32.const(64), m.i32.shl(m.i32.const(8), m.i32.sub(kind(), m.i32.const(first)))));
  const sumA = () => m.i64.add(res(), src());
  const diffA = () => m.i64.sub(res(), src());
  const bit = (n: number) => m.i32.and(m.i32.wrap(m.i64.shr_u(src(), m.i64.const(BigInt(n)))), m.i32.const(1));
  const sign = (value: binaryen.ExpressionRef, first: number) => m.i32.wrap(m.i64.shr_u(m.i64.shl(value, shift(first)), m.i64.const(63n)));
  const define = (f: FlagName, body: binaryen.ExpressionRef) => {
    m.addFunction(FLAG_FUNCTION[f], params, b.i32, [], body);
    m.addFunctionExport(FLAG_FUNCTION[f], FLAG_FUNCTION[f]);
  };
  const chain = (cases: [binaryen.ExpressionRef, binaryen.ExpressionRef][], otherwise: binaryen.ExpressionRef): binaryen.ExpressionRef =>
    cases.reduceRight((rest, [condition, value]) => m.if(condition, value, rest), otherwise);

  define(
    'c',
    chain(
      [
        [inGroup(FLAGS_SUB), m.i64.lt_u(m.i64.shl(sumA(), shift(FLAGS_SUB)), m.i64.shl(src(), shift(FLAGS_SUB)))],
        [inGroup(FLAGS_ADD), m.i64.lt_u(m.i64.shl(res(), shift(FLAGS_ADD)), m.i64.shl(src(), shift(FLAGS_ADD)))],
        [m.i32.eq(kind(), m.i32.const(FLAGS_LOGIC)), m.i32.const(0)],
      ],
      bit(0),
    ),
  );
  define(
    'o',
    chain(
      [
        [inGroup(FLAGS_SUB), sign(m.i64.and(m.i64.xor(sumA(), src()), m.i64.xor(sumA(), res())), FLAGS_SUB)],
        [inGroup(FLAGS_ADD), sign(m.i64.and(m.i64.xor(diffA(), res()), m.i64.xor(src(), res())), FLAGS_ADD)],
        [m.i32.eq(kind(), m.i32.const(FLAGS_LOGIC)), m.i32.const(0)],
        // INC overflows to the smallest, DEC to the largest number of the size; res is sign-extended.
        [inGroup(FLAGS_INC), m.i64.eq(m.i64.shl(res(), shift(FLAGS_INC)), m.i64.const(-0x8000_0000_0000_0000n))],
        [inGroup(FLAGS_DEC), m.i64.eq(m.i64.shl(m.i64.add(res(), m.i64.const(1n)), shift(FLAGS_DEC)), m.i64.const(-0x8000_0000_0000_0000n))],
      ],
      bit(11),
    ),
  );
  const nibbleCarry = (a: binaryen.ExpressionRef) =>
    m.i32.wrap(m.i64.and(m.i64.shr_u(m.i64.xor(m.i64.xor(a, src()), res()), m.i64.const(4n)), m.i64.const(1n)));
  const lowNibble = () => m.i32.and(m.i32.wrap(res()), m.i32.const(15));
  define(
    'a',
    chain(
      [
        [inGroup(FLAGS_SUB), nibbleCarry(sumA())],
        [inGroup(FLAGS_ADD), nibbleCarry(diffA())],
        [m.i32.eq(kind(), m.i32.const(FLAGS_LOGIC)), m.i32.const(0)],
        [inGroup(FLAGS_INC), m.i32.eqz(lowNibble())],
        [inGroup(FLAGS_DEC), m.i32.eq(lowNibble(), m.i32.const(15))],
      ],
      bit(4),
    ),
  );
  define('z', m.i64.eqz(res()));
  const isExplicit = () => m.i32.eq(kind(), m.i32.const(FLAGS_EXPLICIT));
  define('s', m.i32.xor(m.i64.lt_s(res(), m.i64.const(0n)), m.i32.and(isExplicit(), bit(7))));
  const parityByte = m.i32.and(
    m.i32.xor(m.i32.wrap(res()), m.select(isExplicit(), m.i32.wrap(m.i64.shr_u(src(), m.i64.const(16n))), m.i32.const(0))),
    m.i32.const(0xff),
  );
  define('p', m.i32.and(m.i32.xor(m.i32.popcnt(parityByte), m.i32.const(1)), m.i32.const(1)));
  const call = (f: FlagName) => m.call(FLAG_FUNCTION[f], [kind(), res(), src()], b.i32);
  const adjust = m.select(isExplicit(), m.i32.and(m.i32.wrap(src()), m.i32.const(0xff_0080)), m.i32.const(0));
  const af = m.i32.shl(call('a'), m.i32.const(4));
  const of = m.i32.shl(call('o'), m.i32.const(11));
  m.addFunction(FLAGS_WITHOUT_CARRY, params, b.i64, [], m.i64.extend_u(m.i32.or(m.i32.or(af, of), adjust)));
  m.addFunctionExport(FLAGS_WITHOUT_CARRY, FLAGS_WITHOUT_CARRY);
}

/** The triple as it stands in the state block, as arguments of a flag function. */
export function tripleFromState(m: binaryen.Module, cpu: () => binaryen.ExpressionRef): binaryen.ExpressionRef[] {
  return [m.i32.load(S_CC_KIND, 4, cpu()), m.i64.load(S_CC_RES, 8, cpu()), m.i64.load(S_CC_SRC, 8, cpu())];
}
