import type binaryen from 'binaryen';

/** A node of an expression tree. */
export type Expr = binaryen.ExpressionRef;

/** Value types, by number, and none. */
export type WasmTypes = Pick<typeof binaryen, 'none' | 'i32' | 'i64' | 'f32' | 'f64' | 'v128' | 'createType'>;

/**
 * What expressions are built with: the part of Binaryen's Module that emitters use. The interpreter is made with Binaryen itself, compiled
 * regions with `WasmBuilder`, which does the same in a fifth of the time.
 */
export type WasmModule = Pick<
  binaryen.Module,
  | 'i32'
  | 'i64'
  | 'f32'
  | 'f64'
  | 'v128'
  | 'i8x16'
  | 'i16x8'
  | 'i32x4'
  | 'i64x2'
  | 'f32x4'
  | 'f64x2'
  | 'local'
  | 'memory'
  | 'block'
  | 'if'
  | 'loop'
  | 'br'
  | 'switch'
  | 'call'
  | 'return_call'
  | 'return_call_indirect'
  | 'select'
  | 'drop'
  | 'return'
  | 'nop'
  | 'unreachable'
>;
