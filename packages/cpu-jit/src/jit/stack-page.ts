import type { Insn } from '../decoder/types.ts';
import { PAGE_SIZE, TAG } from '../emit/tlb-path.ts';
import { STACK_ADDEND, STACK_ROOM, STACK_TAG, TLB_ADDEND } from '../layout.ts';
import { WASM_TYPES } from '../wasm/builder.ts';
import type { ModuleBuilder } from '../wasm/module-builder.ts';
import type { Expr } from '../wasm/types.ts';

/** Bytes that the accesses of one group may span. More would meet a page boundary more often, and then each of them is a call. */
export const GROUP_SPAN = 256;
/** Where in a page a group may begin that asks only for the page of the stack. */
const ROOM = PAGE_SIZE - GROUP_SPAN + 1;
/** Labels around an access to the stack that looks for its page. */
const MISS = 'stackMiss';
const DONE = 'stackDone';

/** The instruction goes down the stack, as functions do when they begin: a look into the TLB for it is a good time to note the page. All of them write. */
export const isPush = ({ row: { name } }: Insn): boolean => name === 'push' || name === 'call' || name === 'call_ind';

/** An access to the stack; `find` is an empty block for what `findStackPage` makes. */
export function stackAccess(m: ModuleBuilder, find: Expr, fast: Expr, slow: Expr): Expr {
  // What branches to it is put in later.
  return m.block(DONE, [m.block(MISS, [find, fast, m.br(DONE)], WASM_TYPES.none), slow]);
}

/**
 * Finds the host address of virtual address `va`, for local `host`, or branches to the slow path of `stackAccess`. The page of the stack is asked first, which is half of what a look into the
 * TLB costs: it is in memory at a fixed address, for locals would be moved wherever control flow meets.
 * `isAllowed`: does the TLB allow the access? Leaves its entry's address in `host`. `sets`: the page found there is that of the stack from now on; the TLB must have been asked for a write then.
 * `isAligned`: addresses must be multiples of something, of which the page of the stack says nothing.
 */
export function findStackPage(
  m: ModuleBuilder,
  {
    host,
    va,
    isAllowed,
    sets,
    isAligned,
  }: { readonly host: number; readonly va: () => Expr; readonly isAllowed: Expr; readonly sets: boolean; readonly isAligned: boolean },
): Expr {
  const b = WASM_TYPES;
  const zero = () => m.i32.const(0);
  const entry = () => m.local.get(host, b.i32);
  const found = (addend: Expr) => m.local.set(host, m.i32.add(m.i32.wrap(va()), addend));
  const look = [m.if(isAllowed, m.nop(), m.br(MISS))];
  if (sets && !isAligned) {
    look.push(
      // Tag and addend at once.
      m.v128.store(STACK_TAG, 8, zero(), m.v128.load(TAG.write, 8, entry())),
      m.i64.store(STACK_ROOM, 8, zero(), m.i64.const(BigInt(ROOM))),
    );
  }
  look.push(found(m.i32.load(TLB_ADDEND, 4, entry())));
  if (isAligned) return m.block(null, look);
  const isInPage = m.i64.lt_u(m.i64.sub(va(), m.i64.load(STACK_TAG, 8, zero())), m.i64.load(STACK_ROOM, 8, zero()));
  return m.if(isInPage, m.block(null, [m.nop(), found(m.i32.load(STACK_ADDEND, 4, zero()))]), m.block(null, look));
}
