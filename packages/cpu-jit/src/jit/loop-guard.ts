import { TAG, tlbEntry } from '../emit/tlb-path.ts';
import type { ValType } from '../emit/val.ts';
import { LOOP_ASK, RUN_LIMIT, TLB_ADDEND } from '../layout.ts';
import { WASM_TYPES } from '../wasm/builder.ts';
import type { ModuleBuilder } from '../wasm/module-builder.ts';
import type { Expr } from '../wasm/types.ts';
import type { AddressForm, PagedLoop, Window } from './paged-loops.ts';
import { LOCAL } from './region-state.ts';

const PAGE_SIZE = 4096;
/** Bytes of a window that does not move from which on it may lie in several pages. */
const TABLE_SPAN = 256;
/** Bytes that a loop may move by in a turn when a register says it. */
const MAX_STRIDE = 1024;
/** Of a loop that leaves none of its pages. */
const MAX_TURNS = 1 << 20;

/** Turns of the first version before the guard is asked again: after a failure that will last, after one that is over when the loop has come to another place, and where the loop begins. */
const TURNS_AFTER_FAILURE = 32;
const TURNS_AFTER_MISS = 1;
const FIRST_TURNS = 4;

/** The locals of a loop's guard. `stop`: the count of retired instructions from which on turns may leave a window's page, 0 when the mapping may have changed. */
export interface Guard {
  readonly windows: readonly (Window & { readonly addend: number })[];
  readonly stop: number;
}

/** `ok` is i32: the second version may run until the count of retired instructions comes to the guard's local `stop`. */
export interface GuardCode {
  readonly code: Expr;
  readonly ok: () => Expr;
}

/** Where the guard is: new locals there, and the value of a form there (i64), plus `offset`. */
interface GuardSite {
  readonly local: (type: ValType) => number;
  readonly formNow: (form: Pick<AddressForm, 'terms' | 'isRelative'>, offset: number) => Expr;
}

/** Looks up the pages of a loop's accesses, and works out how many turns stay in them. */
export function guardCode(m: ModuleBuilder, loop: PagedLoop, { windows, stop }: Guard, { local, formNow }: GuardSite): GuardCode {
  const b = WASM_TYPES;
  const [ok, entry, turns, some] = [local('i32'), local('i32'), local('i32'), local('i32')];
  const [va, distance] = [local('i64'), local('i64')];
  const i32 = (n: number) => m.local.get(n, b.i32);
  const i64 = (n: number) => m.local.get(n, b.i64);
  const out = `guard${loop.header}`;
  const code: Expr[] = [m.local.set(turns, m.i32.const(MAX_TURNS))];
  /** Leaves unless the TLB has the page at `offset` from what is in `va`, which is left in `entry`; what tag and address differ in goes into `distance`. */
  const lookUp = (writes: boolean, offset: number, room: number): Expr[] => {
    const at = () => (offset === 0 ? i64(va) : m.i64.add(i64(va), m.i64.const(BigInt(offset))));
    const tag = m.i64.load(writes ? TAG.write : TAG.read, 8, m.local.tee(entry, tlbEntry(m, at(), i32(LOCAL.tlb)), b.i32));
    return [m.local.set(distance, m.i64.xor(tag, at())), m.br(out, m.i64.gt_u(i64(distance), m.i64.const(BigInt(room))))];
  };
  const fewer = () => m.local.set(turns, m.select(m.i32.lt_u(i32(some), i32(turns)), i32(some), i32(turns)));
  const isFixed = ({ step, strides }: Window) => step === 0 && strides.length === 0;
  const movesOf = ({ strides, step }: Window) => formNow({ terms: strides, isRelative: false }, step);
  // First, since it is what most often fails.
  for (const w of windows) if (w.strides.length > 0) code.push(m.br(out, m.i64.gt_u(m.i64.sub(movesOf(w), m.i64.const(1n)), m.i64.const(BigInt(MAX_STRIDE)))));
  const moving = windows.filter((w) => !isFixed(w));
  for (const w of [...windows.filter(isFixed), ...moving]) {
    const { form, min, end, writes, alignment, step, strides, addend } = w;
    const span = end - min;
    const isTable = isFixed(w) && span > TABLE_SPAN;
    const room = PAGE_SIZE - (isTable ? 1 : span);
    if (w === moving[0]) code.push(askLater(m, loop, TURNS_AFTER_MISS));
    code.push(m.local.set(va, formNow(form, min)));
    if (alignment !== undefined) {
      const at = m.i32.add(m.i32.wrap(i64(va)), m.i32.const(alignment.offset - min));
      code.push(m.br(out, m.i32.and(at, m.i32.const(alignment.size - 1))));
    }
    code.push(...lookUp(writes, 0, room), m.local.set(addend, m.i32.load(TLB_ADDEND, 4, i32(entry))));
    // The host has to have the pages of a table one after the other as well.
    for (let at = PAGE_SIZE; isTable && at < span - 1 + PAGE_SIZE; at += PAGE_SIZE) {
      code.push(...lookUp(writes, Math.min(at, span - 1), PAGE_SIZE - 1), m.br(out, m.i32.ne(m.i32.load(TLB_ADDEND, 4, i32(entry)), i32(addend))));
    }
    if (isFixed(w)) continue;
    // What the tag differs in is the address in the page.
    const offset = m.i32.wrap(i64(distance));
    const bytes = step > 0 || strides.length > 0 ? m.i32.sub(m.i32.const(room), offset) : offset;
    const shift = strides.length > 0 ? Number.NaN : Math.log2(Math.abs(step));
    const size = strides.length > 0 ? m.i32.wrap(movesOf(w)) : m.i32.const(Math.abs(step));
    const whole = Number.isInteger(shift) ? m.i32.shr_u(bytes, m.i32.const(shift)) : m.i32.div_u(bytes, size);
    code.push(m.local.set(some, m.i32.add(whole, m.i32.const(1))));
    code.push(fewer());
  }
  const limit = () => m.i64.load(RUN_LIMIT, 8, m.i32.const(0));
  const last = m.i64.add(i64(LOCAL.icount), m.i64.mul(m.i64.extend_u(i32(turns)), m.i64.const(BigInt(loop.turnInsns))));
  code.push(m.local.set(stop, last), m.local.set(stop, m.select(m.i64.lt_u(i64(stop), limit()), i64(stop), limit())), m.local.set(ok, m.i32.const(1)));
  const later = askLater(m, loop, TURNS_AFTER_FAILURE);
  return { code: m.block(null, [m.local.set(ok, m.i32.const(0)), later, m.block(out, code)]), ok: () => i32(ok) };
}

/** Before a loop begins: its first turns are of the first version, for many loops have no others. */
export const beginLoop = (m: ModuleBuilder, loop: PagedLoop): Expr => askLater(m, loop, FIRST_TURNS);

/** i32: may the guard be asked, at the end of a turn of the first version? The count that says it is in memory: in a local it would be moved wherever control flow meets. */
export const asksGuard = (m: ModuleBuilder): Expr => m.i64.ge_u(m.local.get(LOCAL.icount, WASM_TYPES.i64), m.i64.load(LOOP_ASK, 8, m.i32.const(0)));

/** The guard is not asked for so many turns. */
function askLater(m: ModuleBuilder, { turnInsns }: PagedLoop, turns: number): Expr {
  return m.i64.store(LOOP_ASK, 8, m.i32.const(0), m.i64.add(m.local.get(LOCAL.icount, WASM_TYPES.i64), m.i64.const(BigInt(turns * turnInsns))));
}
