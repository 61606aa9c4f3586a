import type { Expr } from './types.ts';

/** Kinds of nodes, and what their fields a, b, c hold; `list` is an index into `Nodes.lists`. */
export const KIND = {
  nop: 0,
  unreachable: 1,
  /** a: value. */
  i32Const: 2,
  /** a, b: low and high half. */
  i64Const: 3,
  /** a: list of bytes; the opcode says of which type. */
  constBytes: 4,
  /** a: local. */
  localGet: 5,
  /** a: local, b: value. */
  localSet: 6,
  localTee: 7,
  /** a, b, c: operands. */
  unary: 8,
  binary: 9,
  ternary: 10,
  /** a: address, b: offset, c: log2 of the alignment. */
  load: 11,
  /** a: address, b: offset, c: log2 of the alignment, d: value. */
  store: 12,
  /** a: list of children, b: label or 0. */
  block: 13,
  /** a: body, b: label. */
  loop: 14,
  /** a: condition, b and c: arms; c may be 0. */
  if: 15,
  /** a: label, b: condition or 0. */
  br: 16,
  /** a: list of labels, b: label of the rest, c: index. */
  brTable: 17,
  /** a: list of operands, b: name of the function. */
  call: 18,
  returnCall: 19,
  /** a: list of operands, b: index of the function type, c: index in the table. */
  returnCallIndirect: 20,
  drop: 21,
  return: 22,
  /** a: vector, b: new value of the lane (replace), c: lane. */
  lane: 23,
  /** a, b: vectors, c: list of 16 lanes. */
  shuffle: 24,
  /** a, b, c: destination, source or value, size. */
  bulk: 25,
  /** a: index. */
  globalGet: 26,
  /** a: label, b: a call whose last result is the condition; the one before it is the value. */
  brOver: 27,
} as const;

/** Numbers of types, those of Binaryen. */
export const TYPE = { none: 0, unreachable: 1, i32: 2, i64: 3, f32: 4, f64: 5, v128: 6 } as const;

const STRIDE = 8;
const INITIAL_NODES = 1 << 14;

/** Expression trees in one array: a node is the index of its fields. Node 0 is none. */
export class Nodes {
  private fields = new Int32Array(INITIAL_NODES * STRIDE);
  private end = STRIDE;
  readonly lists: (readonly number[])[] = [];

  /** Forgets all nodes. */
  clear(): void {
    this.end = STRIDE;
    this.lists.length = 0;
  }
  add(kind: number, type: number, opcode: number, a = 0, b = 0, c = 0, d = 0): Expr {
    const at = this.end;
    if (at + STRIDE > this.fields.length) {
      const larger = new Int32Array(this.fields.length * 2);
      larger.set(this.fields);
      this.fields = larger;
    }
    const f = this.fields;
    f[at] = kind;
    f[at + 1] = type;
    f[at + 2] = opcode;
    f[at + 3] = a;
    f[at + 4] = b;
    f[at + 5] = c;
    f[at + 6] = d;
    this.end = at + STRIDE;
    return at;
  }
  list(items: readonly number[]): number {
    return this.lists.push(items) - 1;
  }
  listOf(index: number): readonly number[] {
    return this.lists[index] ?? [];
  }
  kind(e: Expr): number {
    return this.fields[e] ?? 0;
  }
  type(e: Expr): number {
    return this.fields[e + 1] ?? 0;
  }
  opcode(e: Expr): number {
    return this.fields[e + 2] ?? 0;
  }
  a(e: Expr): number {
    return this.fields[e + 3] ?? 0;
  }
  b(e: Expr): number {
    return this.fields[e + 4] ?? 0;
  }
  c(e: Expr): number {
    return this.fields[e + 5] ?? 0;
  }
  d(e: Expr): number {
    return this.fields[e + 6] ?? 0;
  }
  setType(e: Expr, type: number): void {
    this.fields[e + 1] = type;
  }
  setA(e: Expr, value: number): void {
    this.fields[e + 3] = value;
  }
  setB(e: Expr, value: number): void {
    this.fields[e + 4] = value;
  }
}
