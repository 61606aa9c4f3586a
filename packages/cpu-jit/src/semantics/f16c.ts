/** F16C: conversion between single and half precision, by helpers of the runtime (assembly/f16c.ts). */
import type { Semantics } from '../emit/emitter.ts';
import { imm8, shuffleLanes, zero } from './sse-operands.ts';
import { softCall } from './sse-soft.ts';
import { eachHalf, lowSecond, registerHalves, writeHalves, writeVector } from './vector.ts';

/** VCVTPH2PS: four halves give four singles; those of the high half of a ymm register are in the upper quadword. */
const widen: Semantics = (e) => {
  const source = lowSecond(e);
  const results = eachHalf(e, e.form.vl === 32 ? [0, 1] : [0], (from) => softCall(e, 'f16c_widen', 'v128', from, source));
  e.checkException();
  writeHalves(e, results);
};
/** VCVTPS2PH: four singles give four halves in the low quadword. */
const narrow: Semantics = (e) => {
  const imm = imm8(e);
  const [low = zero(e), high] = eachHalf(e, registerHalves(e, 1), (half) => softCall(e, 'f16c_narrow', 'v128', imm, half));
  e.checkException();
  const joined = high === undefined ? low : e.let(shuffleLanes(e, low, high, 8, [0, 2]));
  if (!e.isMem(0)) writeVector(e, joined);
  else if (high === undefined) e.write(0, e.let(e.op('i64x2.extract_lane', 'i64', joined, 0)));
  else e.store(e.address(0), 16, joined);
};

export const f16c: Record<string, Semantics> = { vcvtph2ps: widen, vcvtps2ph: narrow };
