import { TABLE } from '../emit/handler-emitter.ts';
import { JC_CTX, JC_ENTRIES, JC_ENTRY_SIZE, JC_FN, JC_RIP, NEXT, S_CTX, S_JC } from '../layout.ts';
import { WASM_TYPES } from '../wasm/builder.ts';
import type { Expr, WasmModule } from '../wasm/types.ts';

/** Index of a RIP in the jump cache, i32: (rip ^ rip >> 14) mod JC_ENTRIES, as the runtime's dispatcher computes it. */
function jumpCacheIndex(m: WasmModule, rip: () => Expr): Expr {
  const mixed = m.i32.xor(m.i32.wrap(rip()), m.i32.wrap(m.i64.shr_u(rip(), m.i64.const(14n))));
  return m.i32.and(mixed, m.i32.const(JC_ENTRIES - 1));
}

/**
 * The end of a function that leaves for compiled code at the RIP in local `rip` by a tail call, or else with NEXT for the dispatcher. S_RIP and
 * S_ICOUNT are stored. `entry` and `fn` are i32 locals to use.
 */
export function chainTo(m: WasmModule, local: { readonly cpu: number; readonly rip: number; readonly entry: number; readonly fn: number }): Expr[] {
  const b = WASM_TYPES;
  const cpu = () => m.local.get(local.cpu, b.i32);
  const rip = () => m.local.get(local.rip, b.i64);
  const entry = () => m.local.get(local.entry, b.i32);
  const call = m.return_call_indirect(TABLE, m.local.get(local.fn, b.i32), [cpu()], b.i32, b.i32);
  const linked = m.if(m.local.tee(local.fn, m.i32.load(JC_FN, 4, entry()), b.i32), call);
  // What is only compared, V8 reads twice.
  const otherContext = m.i32.xor(m.i32.load(JC_CTX, 4, entry()), m.i32.load(S_CTX, 4, cpu()));
  const isOther = m.i64.or(m.i64.sub(m.i64.load(JC_RIP, 8, entry()), rip()), m.i64.extend_u(otherContext));
  return [
    m.local.set(local.entry, m.i32.add(m.i32.load(S_JC, 4, cpu()), m.i32.mul(jumpCacheIndex(m, rip), m.i32.const(JC_ENTRY_SIZE)))),
    m.if(m.i64.eqz(isOther), linked),
    m.i32.const(NEXT),
  ];
}
