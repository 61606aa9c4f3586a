import type { ByteWriter } from './byte-writer.ts';
import { KIND, type Nodes, TYPE } from './nodes.ts';
import { PREFIX_MISC } from './opcodes.ts';
import type { Expr } from './types.ts';

/** Opcodes of control and local instructions (WebAssembly core specification 5.4). */
const OP = {
  unreachable: 0x00,
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  br: 0x0c,
  brIf: 0x0d,
  brTable: 0x0e,
  return: 0x0f,
  call: 0x10,
  returnCall: 0x12,
  returnCallIndirect: 0x13,
  drop: 0x1a,
  select: 0x1b,
  localGet: 0x20,
  localSet: 0x21,
  localTee: 0x22,
  globalGet: 0x23,
  i32Const: 0x41,
  i64Const: 0x42,
} as const;
const EMPTY_BLOCK = 0x40;
const MEMORY_COPY = 10;
/** By number of the type. */
const TYPE_CODES = [EMPTY_BLOCK, EMPTY_BLOCK, 0x7f, 0x7e, 0x7d, 0x7c, 0x7b];

/** Byte of a value type, by its number. */
export function typeCode(type: number): number {
  return TYPE_CODES[type] ?? EMPTY_BLOCK;
}

/** Writes the trees of function bodies as code. */
export class BodyEncoder {
  private readonly nodes: Nodes;
  private readonly out: ByteWriter;
  /** Whether any branch goes to a label, and the index of a function. */
  private readonly isTarget: (label: number) => boolean;
  private readonly functionIndex: (name: number) => number;
  private depth = 0;
  /** Depth of the innermost block with a label. */
  private readonly levels = new Map<number, number>();
  /** Where the last `local.set` ended, and which local it set. */
  private setEnd = -1;
  private setStart = -1;
  private setLocal = -1;
  /** Where the `if`s are whose first arm is the likely one. */
  private hints: number[] = [];

  constructor(nodes: Nodes, out: ByteWriter, isTarget: (label: number) => boolean, functionIndex: (name: number) => number) {
    this.nodes = nodes;
    this.out = out;
    this.isTarget = isTarget;
    this.functionIndex = functionIndex;
  }

  /** Writes a body and its end; returns the positions of `if`s whose first arm is likely, which begins with a `nop`. */
  encode(body: Expr): readonly number[] {
    this.depth = 0;
    this.levels.clear();
    this.setEnd = -1;
    this.hints = [];
    this.node(body);
    this.out.byte(OP.end);
    return this.hints;
  }

  private opcode(code: number): void {
    if (code > 0xff) {
      this.out.byte(code >>> 16);
      this.out.u32(code & 0xffff);
    } else this.out.byte(code);
  }

  private all(list: readonly Expr[]): void {
    for (const e of list) this.node(e);
  }

  private node(e: Expr): void {
    const { nodes, out } = this;
    switch (nodes.kind(e)) {
      case KIND.nop:
        return;
      case KIND.unreachable:
        out.byte(OP.unreachable);
        return;
      case KIND.i32Const:
        out.byte(OP.i32Const);
        out.s32(nodes.a(e));
        return;
      case KIND.i64Const:
        out.byte(OP.i64Const);
        out.s64(nodes.a(e), nodes.b(e));
        return;
      case KIND.constBytes:
        this.opcode(nodes.opcode(e));
        out.raw(nodes.listOf(nodes.a(e)));
        return;
      case KIND.localGet:
        this.localGet(nodes.a(e));
        return;
      case KIND.globalGet:
        out.byte(OP.globalGet);
        out.u32(nodes.a(e));
        return;
      case KIND.localSet:
        this.localSet(e);
        return;
      case KIND.localTee:
        this.node(nodes.b(e));
        out.byte(OP.localTee);
        out.u32(nodes.a(e));
        return;
      case KIND.unary:
        this.node(nodes.a(e));
        this.opcode(nodes.opcode(e));
        return;
      case KIND.binary:
        this.node(nodes.a(e));
        this.node(nodes.b(e));
        this.opcode(nodes.opcode(e));
        return;
      case KIND.ternary:
        this.node(nodes.a(e));
        this.node(nodes.b(e));
        this.node(nodes.c(e));
        this.opcode(nodes.opcode(e));
        return;
      case KIND.load:
      case KIND.store:
        this.access(e);
        return;
      case KIND.lane:
        this.node(nodes.a(e));
        if (nodes.b(e) !== 0) this.node(nodes.b(e));
        this.opcode(nodes.opcode(e));
        out.byte(nodes.c(e));
        return;
      case KIND.shuffle:
        this.node(nodes.a(e));
        this.node(nodes.b(e));
        this.opcode(nodes.opcode(e));
        out.raw(nodes.listOf(nodes.c(e)));
        return;
      case KIND.bulk:
        this.node(nodes.a(e));
        this.node(nodes.b(e));
        this.node(nodes.c(e));
        out.byte(PREFIX_MISC);
        out.u32(nodes.opcode(e));
        out.raw(nodes.opcode(e) === MEMORY_COPY ? [0, 0] : [0]);
        return;
      default:
        this.control(e);
    }
  }

  private localGet(local: number): void {
    const { out } = this;
    if (this.setEnd === out.at && this.setLocal === local) {
      out.patch(this.setStart, OP.localTee);
      this.setEnd = -1;
      return;
    }
    out.byte(OP.localGet);
    out.u32(local);
  }

  private localSet(e: Expr): void {
    const { nodes, out } = this;
    this.node(nodes.b(e));
    this.setStart = out.at;
    this.setLocal = nodes.a(e);
    out.byte(OP.localSet);
    out.u32(this.setLocal);
    this.setEnd = out.at;
  }

  private access(e: Expr): void {
    const { nodes, out } = this;
    this.node(nodes.a(e));
    if (nodes.kind(e) === KIND.store) this.node(nodes.d(e));
    this.opcode(nodes.opcode(e));
    out.u32(nodes.c(e));
    out.u32(nodes.b(e));
  }

  private control(e: Expr): void {
    const { nodes, out } = this;
    switch (nodes.kind(e)) {
      case KIND.block:
        this.block(e);
        return;
      case KIND.loop:
        if (this.isTarget(nodes.b(e))) this.labelled(OP.loop, e, nodes.b(e), () => this.node(nodes.a(e)));
        else this.node(nodes.a(e));
        return;
      case KIND.if:
        this.conditional(e);
        return;
      case KIND.br:
        if (nodes.b(e) !== 0) this.node(nodes.b(e));
        out.byte(nodes.b(e) === 0 ? OP.br : OP.brIf);
        out.u32(this.distance(nodes.a(e)));
        return;
      case KIND.brOver:
        this.node(nodes.b(e));
        out.byte(OP.brIf);
        out.u32(this.distance(nodes.a(e)));
        return;
      case KIND.brTable: {
        this.node(nodes.c(e));
        const labels = nodes.listOf(nodes.a(e));
        out.byte(OP.brTable);
        out.u32(labels.length);
        for (const label of labels) out.u32(this.distance(label));
        out.u32(this.distance(nodes.b(e)));
        return;
      }
      case KIND.call:
      case KIND.returnCall:
        this.all(nodes.listOf(nodes.a(e)));
        out.byte(nodes.kind(e) === KIND.call ? OP.call : OP.returnCall);
        out.u32(this.functionIndex(nodes.b(e)));
        return;
      case KIND.returnCallIndirect:
        this.all(nodes.listOf(nodes.a(e)));
        this.node(nodes.c(e));
        out.byte(OP.returnCallIndirect);
        out.u32(nodes.b(e));
        out.u32(0);
        return;
      case KIND.drop:
        this.node(nodes.a(e));
        out.byte(OP.drop);
        return;
      case KIND.return:
        if (nodes.a(e) !== 0) this.node(nodes.a(e));
        out.byte(OP.return);
        return;
      default:
        throw new Error(`no such node: ${nodes.kind(e)}`);
    }
  }

  private distance(label: number): number {
    const level = this.levels.get(label);
    if (level === undefined) throw new Error('a branch goes to a label that is not around it');
    return this.depth - level;
  }

  private labelled(opcode: number, e: Expr, label: number, content: () => void): void {
    const { nodes, out, levels } = this;
    const outer = levels.get(label);
    out.byte(opcode);
    out.byte(typeCode(nodes.type(e)));
    levels.set(label, ++this.depth);
    content();
    this.depth--;
    if (outer === undefined) levels.delete(label);
    else levels.set(label, outer);
    this.end(e);
  }

  /** After a block that control never leaves at its end, what follows may want operands: they are not there, which is fine where code is unreachable. */
  private end(e: Expr): void {
    this.out.byte(OP.end);
    if (this.nodes.type(e) === TYPE.unreachable) this.out.byte(OP.unreachable);
  }

  private block(e: Expr): void {
    const { nodes } = this;
    const label = nodes.b(e);
    if (label !== 0 && this.isTarget(label)) this.labelled(OP.block, e, label, () => this.children(e));
    else this.children(e);
  }

  private children(e: Expr): void {
    const { nodes } = this;
    for (const child of nodes.listOf(nodes.a(e))) {
      this.node(child);
      if (nodes.type(child) === TYPE.unreachable) return;
    }
  }

  private conditional(e: Expr): void {
    const { nodes, out } = this;
    this.node(nodes.a(e));
    if (this.isLikely(nodes.b(e))) this.hints.push(out.at);
    out.byte(OP.if);
    out.byte(typeCode(nodes.type(e)));
    this.depth++;
    this.node(nodes.b(e));
    if (nodes.c(e) !== 0) {
      out.byte(OP.else);
      this.node(nodes.c(e));
    }
    this.depth--;
    this.end(e);
  }

  private isLikely(arm: Expr): boolean {
    const { nodes } = this;
    if (nodes.kind(arm) === KIND.nop) return true;
    const first = nodes.kind(arm) === KIND.block ? nodes.listOf(nodes.a(arm))[0] : undefined;
    return first !== undefined && nodes.kind(first) === KIND.nop;
  }
}
