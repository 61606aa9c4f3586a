import type binaryen from 'binaryen';
import { KIND, Nodes, TYPE } from './nodes.ts';
import { INSTRUCTIONS, type Instruction, PREFIX_SIMD } from './opcodes.ts';
import type { Expr, WasmModule, WasmTypes } from './types.ts';

type Label = string;

const SELECT = 0x1b;
const F32_CONST = 0x43;
const F64_CONST = 0x44;
const V128_CONST = (PREFIX_SIMD << 16) | 12;
const SHUFFLE = (PREFIX_SIMD << 16) | 13;
const MEMORY_COPY = 10;
const MEMORY_FILL = 11;
const RESULT = { i32: TYPE.i32, i64: TYPE.i64, f32: TYPE.f32, f64: TYPE.f64, v128: TYPE.v128 } as const;

/** Types of function parameters, by the number that `createType` gave. */
const tuples: (readonly number[])[] = [];
const tupleNumbers = new Map<string, number>();
const FIRST_TUPLE = 16;

/** Value types of a type that `WASM_TYPES.createType` made, or of a single one. */
export function typesOf(type: number): readonly number[] {
  return type >= FIRST_TUPLE ? (tuples[type - FIRST_TUPLE] ?? []) : type === TYPE.none ? [] : [type];
}

/** The types of expressions and functions that `WasmBuilder` knows. */
export const WASM_TYPES: WasmTypes = {
  none: TYPE.none,
  i32: TYPE.i32,
  i64: TYPE.i64,
  f32: TYPE.f32,
  f64: TYPE.f64,
  v128: TYPE.v128,
  createType(types: readonly number[]): number {
    const [only] = types;
    if (types.length === 1 && only !== undefined) return only;
    const key = types.join();
    const known = tupleNumbers.get(key);
    if (known !== undefined) return known;
    const number = FIRST_TUPLE + tuples.push([...types]) - 1;
    tupleNumbers.set(key, number);
    return number;
  },
};

/** Builds the trees of function bodies; `ModuleBuilder` puts functions into a module. */
export class WasmBuilder implements WasmModule {
  protected readonly nodes = new Nodes();
  protected readonly names = new Map<string, number>();
  /** Labels of the function being built that branches go to. */
  protected readonly targets = new Set<number>();
  readonly i32: binaryen.Module['i32'];
  readonly i64: binaryen.Module['i64'];
  readonly f32: binaryen.Module['f32'];
  readonly f64: binaryen.Module['f64'];
  readonly v128: binaryen.Module['v128'];
  readonly i8x16: binaryen.Module['i8x16'];
  readonly i16x8: binaryen.Module['i16x8'];
  readonly i32x4: binaryen.Module['i32x4'];
  readonly i64x2: binaryen.Module['i64x2'];
  readonly f32x4: binaryen.Module['f32x4'];
  readonly f64x2: binaryen.Module['f64x2'];
  readonly local: binaryen.Module['local'];
  readonly memory: binaryen.Module['memory'];
  /** Mutable i32 globals, by index. */
  readonly counters: { get(index: number): Expr };

  constructor() {
    const groups = new Map<string, Record<string, unknown>>();
    for (const instruction of INSTRUCTIONS) place(groups, instruction.name, this.maker(instruction));
    this.addConstants(groups);
    const group = <T>(name: string) => groups.get(name) as T;
    this.i32 = group('i32');
    this.i64 = group('i64');
    this.f32 = group('f32');
    this.f64 = group('f64');
    this.v128 = group('v128');
    this.i8x16 = group('i8x16');
    this.i16x8 = group('i16x8');
    this.i32x4 = group('i32x4');
    this.i64x2 = group('i64x2');
    this.f32x4 = group('f32x4');
    this.f64x2 = group('f64x2');
    const { nodes } = this;
    this.local = {
      get: (local: number, type: number) => nodes.add(KIND.localGet, type, 0, local),
      set: (local: number, value: Expr) => nodes.add(KIND.localSet, TYPE.none, 0, local, value),
      tee: (local: number, value: Expr, type: number) => nodes.add(KIND.localTee, type, 0, local, value),
    };
    this.counters = { get: (index) => nodes.add(KIND.globalGet, TYPE.i32, 0, index) };
    const bulk = (number: number) => (to: Expr, from: Expr, size: Expr) => nodes.add(KIND.bulk, TYPE.none, number, to, from, size);
    this.memory = { copy: bulk(MEMORY_COPY), fill: bulk(MEMORY_FILL) } as unknown as binaryen.Module['memory'];
  }

  /** The function that makes nodes of an instruction, with the parameters of Binaryen's. */
  private maker({ shape, opcode, result }: Instruction): unknown {
    const { nodes } = this;
    const type = RESULT[result];
    switch (shape) {
      case 'unary':
        return (x: Expr) => nodes.add(KIND.unary, type, opcode, x);
      case 'binary':
        return (x: Expr, y: Expr) => nodes.add(KIND.binary, type, opcode, x, y);
      case 'ternary':
        return (x: Expr, y: Expr, z: Expr) => nodes.add(KIND.ternary, type, opcode, x, y, z);
      case 'load':
        return (offset: number, align: number, at: Expr) => nodes.add(KIND.load, type, opcode, at, offset, log2(align));
      case 'store':
        return (offset: number, align: number, at: Expr, value: Expr) => nodes.add(KIND.store, TYPE.none, opcode, at, offset, log2(align), value);
      case 'extract':
        return (vector: Expr, lane: number) => nodes.add(KIND.lane, type, opcode, vector, 0, lane);
      case 'replace':
        return (vector: Expr, lane: number, value: Expr) => nodes.add(KIND.lane, type, opcode, vector, value, lane);
    }
  }

  private addConstants(groups: Map<string, Record<string, unknown>>): void {
    const { nodes } = this;
    const bytes = (type: number, opcode: number, list: readonly number[]) => nodes.add(KIND.constBytes, type, opcode, nodes.list(list));
    const view = new DataView(new ArrayBuffer(8));
    const written = (size: number) => [...new Uint8Array(view.buffer, 0, size)];
    place(groups, 'i32.const', (value: number) => nodes.add(KIND.i32Const, TYPE.i32, 0, value | 0));
    place(groups, 'i64.const', (value: bigint) => this.i64Const(Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n))));
    place(groups, 'f32.const', (value: number) => {
      view.setFloat32(0, value, true);
      return bytes(TYPE.f32, F32_CONST, written(4));
    });
    place(groups, 'f64.const', (value: number) => {
      view.setFloat64(0, value, true);
      return bytes(TYPE.f64, F64_CONST, written(8));
    });
    place(groups, 'v128.const', (list: readonly number[]) => bytes(TYPE.v128, V128_CONST, list));
    place(groups, 'i8x16.shuffle', (x: Expr, y: Expr, lanes: readonly number[]) => nodes.add(KIND.shuffle, TYPE.v128, SHUFFLE, x, y, nodes.list(lanes)));
  }

  /** An i64 from its signed halves. */
  i64Const(low: number, high: number): Expr {
    return this.nodes.add(KIND.i64Const, TYPE.i64, 0, low, high);
  }

  /** Number of a label or function, from 1. */
  protected numberOf(name: string): number {
    let number = this.names.get(name);
    if (number === undefined) {
      number = this.names.size + 1;
      this.names.set(name, number);
    }
    return number;
  }
  private target(label: Label): number {
    const number = this.numberOf(label);
    this.targets.add(number);
    return number;
  }

  /** Its type is that of the last child when it is not given; none is taken from branches. The list of children becomes the block's. */
  block(label: Label | null, children: readonly Expr[], type?: number): Expr {
    const { nodes } = this;
    const number = label === null ? 0 : this.numberOf(label);
    let found = type ?? nodes.type(children.at(-1) ?? 0);
    if (type === undefined && found <= TYPE.unreachable) {
      const isLeft = children.some((child) => nodes.type(child) === TYPE.unreachable);
      found = isLeft && !(number !== 0 && this.targets.has(number)) ? TYPE.unreachable : TYPE.none;
    }
    return nodes.add(KIND.block, found, 0, nodes.list(children), number);
  }
  loop(label: Label | null, body: Expr): Expr {
    return this.nodes.add(KIND.loop, this.nodes.type(body), 0, body, label === null ? 0 : this.numberOf(label));
  }
  if(condition: Expr, yes: Expr, no?: Expr): Expr {
    const { nodes } = this;
    const type = nodes.type(yes);
    const other = no === undefined ? TYPE.none : nodes.type(no);
    const result = no === undefined ? TYPE.none : type === TYPE.unreachable ? other : other === TYPE.unreachable ? type : type;
    return nodes.add(KIND.if, result, 0, condition, yes, no ?? 0);
  }
  br(label: Label, condition = 0): Expr {
    return this.nodes.add(KIND.br, condition === 0 ? TYPE.unreachable : TYPE.none, 0, this.target(label), condition);
  }
  /** The first of two results of a call; branches when the second is not 0. */
  brOver(label: Label, call: Expr, type: number): Expr {
    return this.nodes.add(KIND.brOver, type, 0, this.target(label), call);
  }
  switch(labels: readonly Label[], rest: Label, index: Expr): Expr {
    const numbers = labels.map((label) => this.target(label));
    return this.nodes.add(KIND.brTable, TYPE.unreachable, 0, this.nodes.list(numbers), this.target(rest), index);
  }
  call(name: string, operands: readonly Expr[], type: number): Expr {
    return this.nodes.add(KIND.call, type, 0, this.nodes.list(operands), this.numberOf(name));
  }
  return_call(name: string, operands: readonly Expr[], _type: number): Expr {
    return this.nodes.add(KIND.returnCall, TYPE.unreachable, 0, this.nodes.list(operands), this.numberOf(name));
  }
  return_call_indirect(_table: string, index: Expr, operands: readonly Expr[], parameters: number, results: number): Expr {
    return this.nodes.add(KIND.returnCallIndirect, TYPE.unreachable, 0, this.nodes.list(operands), this.signature(parameters, results), index);
  }
  /** Index of a function type in the module. */
  protected signature(_parameters: number, _results: number): number {
    throw new Error('indirect calls need a module');
  }
  select(condition: Expr, yes: Expr, no: Expr): Expr {
    return this.nodes.add(KIND.ternary, this.nodes.type(yes), SELECT, yes, no, condition);
  }
  drop(value: Expr): Expr {
    return this.nodes.add(KIND.drop, TYPE.none, 0, value);
  }
  return(value = 0): Expr {
    return this.nodes.add(KIND.return, TYPE.unreachable, 0, value);
  }
  nop(): Expr {
    return this.nodes.add(KIND.nop, TYPE.none, 0);
  }
  unreachable(): Expr {
    return this.nodes.add(KIND.unreachable, TYPE.unreachable, 0);
  }

  /** Appends a statement that control passes through to a block that was already placed. */
  appendChild(block: Expr, child: Expr): void {
    const { nodes } = this;
    nodes.setA(block, nodes.list([...nodes.listOf(nodes.a(block)), child]));
  }
  /** Replaces the condition of an `if`. */
  setCondition(node: Expr, condition: Expr): void {
    this.nodes.setA(node, condition);
  }
  /** Sets the immediate offset of a load or store. */
  setMemoryOffset(node: Expr, offset: number): void {
    this.nodes.setB(node, offset);
  }
}

function log2(align: number): number {
  return 31 - Math.clz32(align);
}

/** Puts a maker where its dotted name says. */
function place(groups: Map<string, Record<string, unknown>>, name: string, make: unknown): void {
  const [first = '', second = '', third] = name.split('.');
  const group = groups.get(first) ?? {};
  groups.set(first, group);
  if (third === undefined) group[second] = make;
  else group[second] = { ...(group[second] as object | undefined), [third]: make };
}
