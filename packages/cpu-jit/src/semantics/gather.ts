/**
 * VGATHER, VPGATHER: elements at base + index * scale, where the sign of the mask is set. Every element that is done is in the
 * destination and gone from the mask, so that a fault is precise and the instruction goes on after it (SDM vol. 2, VGATHERDPS).
 */
import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { v, zero } from './sse-operands.ts';

const DESTINATION = 0;
const MEMORY = 1;
const MASK = 2;
type Size = 4 | 8;

const shapeOf = (bytes: Size) => (bytes === 4 ? 'i32x4' : 'i64x2');

/** Index `i`, sign-extended. */
function indexOf(e: Emitter, indexBytes: Size, i: number): Val {
  const vector = e.indexVector((i * indexBytes) >> 4);
  const lane = i % (16 / indexBytes);
  return indexBytes === 4 ? e.sext64(e.op('i32x4.extract_lane', 'i32', vector, lane), 4) : e.op('i64x2.extract_lane', 'i64', vector, lane);
}

function element(e: Emitter, base: Val, scale: Val, indexBytes: Size, elementBytes: Size, i: number): void {
  const half = (i * elementBytes) >> 4;
  const lane = i % (16 / elementBytes);
  const shape = shapeOf(elementBytes);
  const wanted = e.and(e.op(`${shape}.bitmask`, 'i32', e.readXmm(MASK, half)), e.i32(1 << lane));
  e.if(wanted, () => {
    const offset = e.add(base, e.shl(indexOf(e, indexBytes, i), e.zext64(scale)));
    const address = e.linear(e.let(e.form.addrSize === 8 ? offset : e.and(offset, e.i64(-1, 0))), elementBytes);
    const value = e.load(address, elementBytes);
    e.writeXmm(DESTINATION, v(e, `${shape}.replace_lane`, e.readXmm(DESTINATION, half), lane, value), half);
    e.writeXmm(MASK, v(e, `${shape}.replace_lane`, e.readXmm(MASK, half), lane, elementBytes === 4 ? e.i32(0) : e.i64(0)), half);
  });
}

const gather =
  (indexBytes: Size, elementBytes: Size): Semantics =>
  (e) => {
    const base = e.let(e.address(MEMORY, { segment: false }));
    const scale = e.indexScale();
    const count = e.form.vl / Math.max(indexBytes, elementBytes);
    // The mask becomes all ones or zeros in each element, before anything can fault.
    const whole = (half: number) => e.let(v(e, `${shapeOf(elementBytes)}.shr_s`, e.readXmm(MASK, half), e.i32(elementBytes * 8 - 1)));
    for (const half of [0, 1]) e.writeXmm(MASK, half * 16 < e.form.vl ? whole(half) : zero(e), half);
    for (let i = 0; i < count; i++) element(e, base, scale, indexBytes, elementBytes, i);
    for (const half of [0, 1]) e.writeXmm(MASK, zero(e), half);
    // What is above the elements.
    const bytes = count * elementBytes;
    if (bytes === 8) e.writeXmm(DESTINATION, v(e, 'i64x2.replace_lane', e.readXmm(DESTINATION), 1, e.i64(0)));
    if (bytes <= 16) e.writeXmm(DESTINATION, zero(e), 1);
  };

export const gathers: Record<string, Semantics> = {
  vpgatherdd: gather(4, 4),
  vpgatherdq: gather(4, 8),
  vpgatherqd: gather(8, 4),
  vpgatherqq: gather(8, 8),
  vgatherdps: gather(4, 4),
  vgatherdpd: gather(4, 8),
  vgatherqps: gather(8, 4),
  vgatherqpd: gather(8, 8),
};
