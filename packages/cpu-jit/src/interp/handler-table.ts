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

/** Forms of 64-bit code that the interpreter has handlers for, in table order. */
export function handlerForms(): Form[] {
  return [...forms(64)].filter((f) => semantics[f.row.name] !== undefined);
}

/** formKey -> table index, -1 when the form has no handler. */
export function handlerIndex(list: readonly Form[]): Int32Array {
  const keys = list.map(formKey);
  const index = new Int32Array(Math.max(0, ...keys) + 1).fill(-1);
  for (const [i, key] of keys.entries()) index[key] = FIRST_HANDLER + i;
  return index;
}
