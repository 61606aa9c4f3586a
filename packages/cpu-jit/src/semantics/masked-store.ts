/** Faults of stores under a mask: they come before anything is stored, and as silicon has them (SDM vol. 2, VMASKMOV, MASKMOVDQU). */
import type { Emitter } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';

/** Both ends of a store; `mask`, not 0, has a bit for each of its lanes of `laneBytes` bytes, from `address` on. */
export function requireSpan(e: Emitter, address: Val, mask: Val, laneBytes: number): void {
  const at = (lane: Val, byte: number) => e.let(e.add(address, e.zext64(e.add(e.mul(lane, e.i32(laneBytes)), e.i32(byte)))));
  const first = at(e.op('i32.ctz', 'i32', mask), 0);
  const last = at(e.sub(e.i32(31), e.op('i32.clz', 'i32', mask)), laneBytes - 1);
  const crosses = e.ne(e.shrU(first, e.i64(12)), e.shrU(last, e.i64(12)));
  e.if(crosses, () => {
    e.call('probeSpan', 'none', [first, last]);
    e.checkException();
  });
}

/** MASKMOVDQU and MASKMOVQ look at all bytes, selected or not, eight at a time, the upper ones first. */
export function requireBytes(e: Emitter, address: Val, bytes: 8 | 16): void {
  for (let from = bytes - 8; from >= 0; from -= 8) {
    const at = e.let(e.add(address, e.i64(from)));
    e.call('probeWrite', 'i32', [e.codeSize === 64 ? at : e.let(e.zext64(e.wrap(at))), e.i32(8)]);
    e.checkException();
  }
}
