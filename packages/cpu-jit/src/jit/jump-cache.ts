import { JC_ENTRIES } from '../layout.ts';
import type { Expr, WasmModule } from '../wasm/types.ts';

/** Index of a RIP in the jump cache, i32: (rip ^ rip >> 14) mod JC_ENTRIES, as the runtime's dispatcher computes it. */
export function jumpCacheIndex(m: WasmModule, rip: () => Expr): Expr {
  const mixed = m.i32.xor(m.i32.wrap(rip()), m.i32.wrap(m.i64.shr_u(rip(), m.i64.const(14n))));
  return m.i32.and(mixed, m.i32.const(JC_ENTRIES - 1));
}
