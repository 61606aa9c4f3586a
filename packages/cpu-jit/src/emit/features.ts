import binaryen from 'binaryen';

const F = binaryen.Features;
/** What V8 13.6 runs without flags and generated code uses. (`Features.All` would also choose encodings V8 does not know yet.) */
export const WASM_FEATURES =
  F.Atomics |
  F.MutableGlobals |
  F.NontrappingFPToInt |
  F.SIMD128 |
  F.BulkMemory |
  F.BulkMemoryOpt |
  F.SignExt |
  F.TailCall |
  F.ReferenceTypes |
  F.Multivalue |
  F.RelaxedSIMD;
