import type { Emitter } from './emitter.ts';
import type { Val } from './val.ts';

/** CC_SRC `kept` (kind FLAGS_EXPLICIT, CF clear) with CF, and OF when given, put in. */
export function carryInto(e: Emitter, kept: Val, cf: Val, of?: Val): Val {
  if (of === undefined) return e.or(kept, e.zext64(cf));
  const bits = e.zext64(e.or(cf, e.shl(of, e.i32(11))));
  return e.or(e.and(kept, e.i64(~0x800)), bits);
}

/** CC_RES and CC_SRC for flags that are given one by one (kind FLAGS_EXPLICIT, see layout.ts). */
export function explicitTriple(
  e: Emitter,
  f: { cf?: Val; of?: Val; af?: Val; result?: Val; size?: number; zf?: Val; sf?: Val; pf?: Val },
): { res: Val; src: Val } {
  let bits: Val = f.cf ?? e.i32(0);
  if (f.af !== undefined) bits = e.or(bits, e.shl(f.af, e.i32(4)));
  if (f.of !== undefined) bits = e.or(bits, e.shl(f.of, e.i32(11)));
  if (f.result !== undefined) {
    const res = e.let(e.sext64(f.result, f.size ?? 8));
    return { res, src: e.let(e.zext64(bits)) };
  }
  const zf = e.let(f.zf ?? e.i32(0));
  const res = e.let(e.zext64(e.xor(zf, e.i32(1))));
  if (f.sf !== undefined) bits = e.or(bits, e.shl(f.sf, e.i32(7)));
  // RES is 0 or 1, whose parities are even and odd: the byte corrects that to the PF asked for.
  bits = e.or(bits, e.shl(e.xor(f.pf ?? e.i32(0), zf), e.i32(16)));
  return { res, src: e.let(e.zext64(bits)) };
}
