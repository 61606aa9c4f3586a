import type { Emitter, FlagKind } from '../emit/emitter.ts';
import type { FlagName } from '../emit/flag-functions.ts';
import type { Val } from '../emit/val.ts';

/** Flags given one by one, as `Emitter.setFlagsExplicit` takes them. */
export interface ExplicitFlags {
  cf?: Val;
  of?: Val;
  af?: Val;
  result?: Val;
  size?: number;
  zf?: Val;
  sf?: Val;
  pf?: Val;
}

/** An operation whose result and source the flags come from. All values may be used many times. */
export interface Operation {
  readonly kind: FlagKind;
  readonly size: number;
  readonly result: Val;
  readonly src: Val;
  readonly a: Val | undefined;
}

/** The producer of the current flags, when the region emitter knows it. All values may be used many times. */
export type FlagDef =
  | Operation
  | { readonly kind: 'explicit'; readonly parts: ExplicitFlags }
  /** CF, and OF when given, over flags whose producer is not known. */
  | { readonly kind: 'carry'; readonly cf: Val; readonly of: Val | undefined };

const zero = (e: Emitter, size: number) => e.k(size, 0);

function isZero(e: Emitter, v: Val): Val {
  return e.eqz(v);
}
/** Sign bit of a zero-extended value of `size` bytes, i32 0/1. */
function sign(e: Emitter, v: Val, size: number): Val {
  if (size === 8) return e.ltS(v, e.i64(0));
  if (size === 4) return e.shrU(v, e.i32(31));
  return e.and(e.shrU(v, e.i32(size * 8 - 1)), e.i32(1));
}
function parity(e: Emitter, v: Val): Val {
  const ones = e.op('i32.popcnt', 'i32', e.and(e.wrap(v), e.i32(0xff)));
  return e.and(e.xor(ones, e.i32(1)), e.i32(1));
}
function firstOperand(e: Emitter, d: Operation): Val {
  if (d.a !== undefined) return d.a;
  return e.let(e.trunc(d.kind === 'sub' ? e.add(d.result, d.src) : e.sub(d.result, d.src), d.size));
}

/** One flag from a known producer, i32 0/1; undefined for a flag that lies under a new carry. */
export function knownFlag(e: Emitter, d: FlagDef, f: FlagName): Val | undefined {
  if (d.kind !== 'carry') return flagOf(e, d, f);
  return f === 'c' ? d.cf : f === 'o' ? d.of : undefined;
}

/** One flag from a producer of all of them, i32 0/1. */
export function flagOf(e: Emitter, d: Exclude<FlagDef, { kind: 'carry' }>, f: FlagName): Val {
  if (d.kind === 'explicit') return explicitFlag(e, d.parts, f);
  const { kind, size, result, src } = d;
  switch (f) {
    case 'z':
      return isZero(e, result);
    case 's':
      return sign(e, result, size);
    case 'p':
      return parity(e, result);
    case 'c':
      if (kind === 'sub') return e.ltU(firstOperand(e, d), src);
      if (kind === 'add') return e.ltU(result, src);
      return kind === 'logic' ? e.i32(0) : src;
    case 'o': {
      if (kind === 'logic') return e.i32(0);
      if (kind === 'inc' || kind === 'dec') {
        const min = size === 8 ? e.i64(0, -0x8000_0000) : e.i32(size === 4 ? -0x8000_0000 : 1 << (size * 8 - 1));
        const max = size === 8 ? e.i64(-1, 0x7fff_ffff) : e.i32(size === 4 ? 0x7fff_ffff : (1 << (size * 8 - 1)) - 1);
        return e.eq(result, kind === 'inc' ? min : max);
      }
      const a = firstOperand(e, d);
      const other = kind === 'sub' ? e.xor(a, src) : e.xor(src, result);
      return sign(e, e.let(e.and(e.xor(a, result), other)), size);
    }
    default:
      if (kind === 'logic') return e.i32(0);
      if (kind === 'inc') return e.eqz(e.and(e.wrap(result), e.i32(15)));
      if (kind === 'dec') return e.eq(e.and(e.wrap(result), e.i32(15)), e.i32(15));
      return e.and(e.shrU(e.wrap(e.xor(e.xor(firstOperand(e, d), src), result)), e.i32(4)), e.i32(1));
  }
}

function explicitFlag(e: Emitter, p: ExplicitFlags, f: FlagName): Val {
  const given = { c: p.cf, o: p.of, a: p.af, z: p.zf, s: p.sf, p: p.pf }[f];
  if (given !== undefined) return given;
  if (p.result !== undefined) {
    if (f === 'z') return isZero(e, p.result);
    if (f === 's') return sign(e, p.result, p.size ?? 8);
    if (f === 'p') return parity(e, p.result);
  }
  return e.i32(0);
}

/** Condition code from a known producer: a single comparison where one exists, undefined where single flags must be combined. */
export function conditionOf(e: Emitter, d: FlagDef, cc: number): Val | undefined {
  if (d.kind === 'explicit' || d.kind === 'carry') return undefined;
  const negate = (cc & 1) === 1;
  const { size, result } = d;
  const pick = (yes: () => Val, no: () => Val) => (negate ? no() : yes());
  if (cc >> 1 === 2)
    return pick(
      () => e.eqz(result),
      () => e.ne(result, zero(e, size)),
    );
  if (d.kind === 'sub' && d.a !== undefined) {
    const { a, src } = d;
    const signed = (v: Val) => e.sext32(v, size);
    switch (cc >> 1) {
      case 1:
        return pick(
          () => e.ltU(a, src),
          () => e.geU(a, src),
        );
      case 3:
        return pick(
          () => e.leU(a, src),
          () => e.gtU(a, src),
        );
      case 6:
        return pick(
          () => e.ltS(signed(a), signed(src)),
          () => e.geS(signed(a), signed(src)),
        );
      case 7:
        return pick(
          () => e.leS(signed(a), signed(src)),
          () => e.gtS(signed(a), signed(src)),
        );
      default:
        return undefined;
    }
  }
  if (d.kind === 'logic') {
    const value = () => e.sext32(result, size);
    switch (cc >> 1) {
      case 0:
      case 1:
        return e.i32(negate ? 1 : 0);
      case 3:
        return pick(
          () => e.eqz(result),
          () => e.ne(result, zero(e, size)),
        );
      case 4:
      case 6:
        return pick(
          () => e.ltS(value(), zero(e, size)),
          () => e.geS(value(), zero(e, size)),
        );
      case 7:
        return pick(
          () => e.leS(value(), zero(e, size)),
          () => e.gtS(value(), zero(e, size)),
        );
      default:
        return undefined;
    }
  }
  return undefined;
}
