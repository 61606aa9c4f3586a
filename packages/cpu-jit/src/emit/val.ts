import type { Expr } from '../wasm/types.ts';

export type ValType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

/**
 * A value while code is being emitted. A constant or a local may be used any number of times; an expression
 * is a tree node that Binaryen lets us place once, so a second use throws: bind it with `Emitter.let` first.
 * Trees only ever read locals that are assigned once, so when they are placed does not matter.
 */
export class Val {
  readonly type: ValType;
  /** May be placed many times. */
  readonly many: boolean;
  /** Value when it is a constant that fits a signed 32-bit number, for folding. */
  readonly constant: number | undefined;
  /** Index of the local that it reads, when it is one. */
  readonly index: number | undefined;
  /** What it is computed from anew wherever it is placed, when it is such a value (`Emitter.later`). */
  readonly inputs: readonly Val[] | undefined;
  private used = false;
  private readonly make: () => Expr;

  constructor(type: ValType, make: () => Expr, many: boolean, constant?: number, index?: number, inputs?: readonly Val[]) {
    this.type = type;
    this.make = make;
    this.many = many;
    this.constant = constant;
    this.index = index;
    this.inputs = inputs;
  }

  /** Binaryen node for one use of this value. */
  take(): Expr {
    if (this.used && !this.many) throw new Error('a value was used twice: bind it with let() first');
    this.used = true;
    return this.make();
  }
}
