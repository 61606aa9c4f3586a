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
  /** Files in build/: the module, and the keys of its forms (`formKey`) in the order of its handlers, 4 bytes each. */
  readonly file: string;
  readonly keys: string;
  /** For 16- and 32-bit code. */
  readonly legacy: boolean;
  readonly avx: boolean;
  /** Table index of its first handler, and the first index after its room. */
  readonly first: number;
  readonly end: number;
}
export const PARTS = {
  base: { file: 'interp.wasm', keys: 'interp.keys', legacy: false, avx: false, first: 16, end: 4096 },
  avx: { file: 'interp-avx.wasm', keys: 'interp-avx.keys', legacy: false, avx: true, first: 4096, end: 6144 },
  legacy: { file: 'interp-legacy.wasm', keys: 'interp-legacy.keys', legacy: true, avx: false, first: 6144, end: 10240 },
  legacyAvx: { file: 'interp-legacy-avx.wasm', keys: 'interp-legacy-avx.keys', legacy: true, avx: true, first: 10240, end: 12288 },
} as const satisfies Record<string, InterpreterPart>;
/** Table index of the first compiled region. */
export const FIRST_REGION = 12288;

/** formKey -> table index, -1 when no part has a handler of the form; from each part and its keys. */
export function handlerIndex(parts: readonly (readonly [part: InterpreterPart, keys: Uint32Array])[]): Int32Array {
  let most = 0;
  for (const [, keys] of parts) for (const key of keys) most = Math.max(most, key);
  const index = new Int32Array(most + 1).fill(-1);
  for (const [part, keys] of parts) for (const [i, key] of keys.entries()) index[key] = part.first + i;
  return index;
}
