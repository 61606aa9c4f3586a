import { TAG, tlbEntry } from '../emit/tlb-path.ts';
import type { ValType } from '../emit/val.ts';
import { RUN_LIMIT, TLB_ADDEND } from '../layout.ts';
import { WASM_TYPES } from '../wasm/builder.ts';
import type { ModuleBuilder } from '../wasm/module-builder.ts';
import type { Expr } from '../wasm/types.ts';
import type { AddressForm, PagedLoop, Window } from './paged-loops.ts';
import { LOCAL } from './region-state.ts';

const PAGE_SIZE = 4096;
/** Bytes that a loop may move by in a turn when a register says it. */
const MAX_STRIDE = 1024;
/** Of a loop that leaves none of its pages. */
const MAX_TURNS = 1 << 20;

/** The locals of a loop's guard. `stop`: the count of retired instructions from which on turns may leave a window's page. */
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
  readonly formNow: (form: AddressForm, offset: number) => Expr;
}

/** Looks up the pages of a loop's accesses, and works out how many turns stay in them. */
export function guardCode(m: ModuleBuilder, loop: PagedLoop, { windows, stop }: Guard, { local, formNow }: GuardSite): GuardCode {
  const b = WASM_TYPES;
  const [ok, entry, turns, some] = [local('i32'), local('i32'), local('i32'), local('i32')];
  const va = local('i64');
  const i32 = (n: number) => m.local.get(n, b.i32);
  const i64 = (n: number) => m.local.get(n, b.i64);
  const out = `guard${loop.header}`;
  const code: Expr[] = [m.local.set(turns, m.i32.const(MAX_TURNS))];
  const fewer = () => m.local.set(turns, m.select(m.i32.lt_u(i32(some), i32(turns)), i32(some), i32(turns)));
  for (const { form, min, end, writes, alignment, step, strides, addend } of windows) {
    const room = PAGE_SIZE - (end - min);
    const moves = () => formNow({ terms: strides, isRelative: false, key: '' }, step);
    // First, since it is what most often fails.
    if (strides.length > 0) code.push(m.br(out, m.i64.gt_u(m.i64.sub(moves(), m.i64.const(1n)), m.i64.const(BigInt(MAX_STRIDE)))));
    code.push(m.local.set(va, formNow(form, min)));
    if (alignment !== undefined) {
      const at = m.i32.add(m.i32.wrap(i64(va)), m.i32.const(alignment.offset - min));
      code.push(m.br(out, m.i32.and(at, m.i32.const(alignment.size - 1))));
    }
    const tag = m.i64.load(writes ? TAG.write : TAG.read, 8, m.local.tee(entry, tlbEntry(m, i64(va), i32(LOCAL.tlb)), b.i32));
    code.push(m.local.set(va, m.i64.xor(tag, i64(va))), m.br(out, m.i64.gt_u(i64(va), m.i64.const(BigInt(room)))));
    code.push(m.local.set(addend, m.i32.load(TLB_ADDEND, 4, i32(entry))));
    if (step === 0 && strides.length === 0) continue;
    // What the tag differs in is the address in the page.
    const offset = m.i32.wrap(i64(va));
    const bytes = step > 0 || strides.length > 0 ? m.i32.sub(m.i32.const(room), offset) : offset;
    const shift = strides.length > 0 ? Number.NaN : Math.log2(Math.abs(step));
    const size = strides.length > 0 ? m.i32.wrap(moves()) : m.i32.const(Math.abs(step));
    const whole = Number.isInteger(shift) ? m.i32.shr_u(bytes, m.i32.const(shift)) : m.i32.div_u(bytes, size);
    code.push(m.local.set(some, m.i32.add(whole, m.i32.const(1))));
    code.push(fewer());
  }
  const limit = () => m.i64.load(RUN_LIMIT, 8, m.i32.const(0));
  const last = m.i64.add(i64(LOCAL.icount), m.i64.mul(m.i64.extend_u(i32(turns)), m.i64.const(BigInt(loop.turnInsns))));
  code.push(m.local.set(stop, last), m.local.set(stop, m.select(m.i64.lt_u(i64(stop), limit()), i64(stop), limit())), m.local.set(ok, m.i32.const(1)));
  return { code: m.block(null, [m.local.set(ok, m.i32.const(0)), m.block(out, code)]), ok: () => i32(ok) };
}
