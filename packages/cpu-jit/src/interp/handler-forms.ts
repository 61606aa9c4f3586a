import { formKey, forms } from '../decoder/index.ts';
import type { Form } from '../decoder/types.ts';
import { semantics } from '../semantics/index.ts';
import type { InterpreterPart } from './handler-table.ts';

const AVX_FEATURES: ReadonlySet<string | undefined> = new Set(['avx', 'avx2', 'fma', 'f16c']);

/** Forms that a part of the interpreter has handlers for, in table order. */
export function handlerForms(part: InterpreterPart): Form[] {
  const known = (f: Form) => semantics[f.row.name] !== undefined && AVX_FEATURES.has(f.row.feature) === part.avx;
  if (!part.legacy) return [...forms(64)].filter(known);
  const byKey = new Map([...forms(32), ...forms(16)].filter(known).map((f) => [formKey(f), f]));
  return [...byKey.values()];
}

/** Keys of the forms of a part, as its file has them. */
export function handlerKeys(part: InterpreterPart): Uint32Array<ArrayBuffer> {
  return Uint32Array.from(handlerForms(part), formKey);
}
