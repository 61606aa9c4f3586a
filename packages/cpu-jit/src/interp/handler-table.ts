import { formKey, forms } from '../decoder/index.ts';
import type { Form } from '../decoder/types.ts';
import { semantics } from '../semantics/index.ts';

/** Table indices of the handlers that no instruction has by itself; 0 is never a handler. */
export const PSEUDO = {
  /** End of a block that did not end in a branch: stores RIP and the count, goes on. */
  end: 1,
  /** Bytes that are no instruction, or none that is implemented: #UD. */
  ud: 2,
  /** Longer than 15 bytes: #GP(0). */
  gp: 3,
  /** Effective address into S_EA, wrapped to 16, 32 or 64 bits, with a 64-bit displacement from R_IMM. */
  ea16: 4,
  ea32: 5,
  ea64: 6,
} as const;
/** Table index of the first handler of a form. */
export const FIRST_HANDLER = 16;

/** The same for 16- and 32-bit code, whose handlers are a module of their own, and for compiled regions. */
export const FIRST_LEGACY_HANDLER = 4096;
export const FIRST_REGION = 8192;

/** Forms that the interpreter has handlers for, in table order: of 64-bit code, or (`legacy`) of 16- and 32-bit code. */
export function handlerForms(legacy = false): Form[] {
  const known = (f: Form) => semantics[f.row.name] !== undefined;
  if (!legacy) return [...forms(64)].filter(known);
  const byKey = new Map([...forms(32), ...forms(16)].filter(known).map((f) => [formKey(f), f]));
  return [...byKey.values()];
}

/** formKey -> table index, -1 when the form has no handler. `first`: index of the first one. */
export function handlerIndex(list: readonly Form[], first = FIRST_HANDLER): Int32Array {
  const keys = list.map(formKey);
  const index = new Int32Array(Math.max(0, ...keys) + 1).fill(-1);
  for (const [i, key] of keys.entries()) index[key] = first + i;
  return index;
}
