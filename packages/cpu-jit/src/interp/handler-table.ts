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
  /** A breakpoint of the host: EXIT_REQUEST before the instruction there. */
  break: 7,
} as const;
/** Table index of the switcher's page-fault entry, for P_PAGE_FAULT. */
export const SWITCHER_PAGE_FAULT = 8;
/** The interpreter is four modules: 64-bit code, 16- and 32-bit code, and for each the forms of AVX, which only some CPUs have. */
export interface InterpreterPart {
  /** File in build/. */
  readonly file: string;
  /** For 16- and 32-bit code. */
  readonly legacy: boolean;
  readonly avx: boolean;
  /** Table index of its first handler, and the first index after its room. */
  readonly first: number;
  readonly end: number;
}
export const PARTS = {
  base: { file: 'interp.wasm', legacy: false, avx: false, first: 16, end: 4096 },
  avx: { file: 'interp-avx.wasm', legacy: false, avx: true, first: 4096, end: 6144 },
  legacy: { file: 'interp-legacy.wasm', legacy: true, avx: false, first: 6144, end: 10240 },
  legacyAvx: { file: 'interp-legacy-avx.wasm', legacy: true, avx: true, first: 10240, end: 12288 },
} as const satisfies Record<string, InterpreterPart>;
/** Table index of the first compiled region. */
export const FIRST_REGION = 12288;

const AVX_FEATURES: ReadonlySet<string | undefined> = new Set(['avx', 'avx2', 'fma', 'f16c']);

/** Forms that a part of the interpreter has handlers for, in table order. */
export function handlerForms(part: InterpreterPart): Form[] {
  const known = (f: Form) => semantics[f.row.name] !== undefined && AVX_FEATURES.has(f.row.feature) === part.avx;
  if (!part.legacy) return [...forms(64)].filter(known);
  const byKey = new Map([...forms(32), ...forms(16)].filter(known).map((f) => [formKey(f), f]));
  return [...byKey.values()];
}

/** formKey -> table index, -1 when no part has a handler of the form. */
export function handlerIndex(parts: readonly InterpreterPart[]): Int32Array {
  const entries = parts.flatMap((part) => handlerForms(part).map((form, i) => [formKey(form), part.first + i] as const));
  const index = new Int32Array(entries.reduce((most, [key]) => Math.max(most, key), 0) + 1).fill(-1);
  for (const [key, at] of entries) index[key] = at;
  return index;
}
