import type binaryen from 'binaryen';
import type { Form, OperandForm } from '../decoder/types.ts';
import {
  R_BASE,
  R_DISP,
  R_IMM,
  R_INDEX,
  R_REG,
  R_RM,
  R_SCALE,
  R_SEG,
  R_VVVV,
  S_CR0,
  S_EA,
  S_GPR,
  S_SEG,
  S_XMM,
  S_YMM_HIGH,
  SEG_ATTR,
  SEG_BASE,
  SEG_FIRST,
  SEG_LAST,
  SEG_SELECTOR,
  SEG_STRIDE,
} from '../layout.ts';
import { type AddressOptions, Emitter } from './emitter.ts';
import { hostLoad, hostStore, typeOfSize } from './tlb-path.ts';
import type { Val, ValType } from './val.ts';

const CPU = 0;
const REC = 1;
/** From the low half of a ymm register to its high half. */
const HALF = S_YMM_HIGH - S_XMM;
/** Attributes of a segment: S, code, writable (or readable code); and what writable data has of them. */
const ATTR_CODE_WRITABLE_SEGMENT = 0x1a;
const ATTR_WRITABLE_DATA = 0x12;
const VECTOR_GP = 13;

/** A handler's operands, read from the decoded record `rec` and the state block `cpu`. */
export abstract class HandlerOperands extends Emitter {
  declare readonly b: typeof binaryen;
  declare readonly m: binaryen.Module;
  form: Form;
  codeSize: 16 | 32 | 64;
  protected locals: binaryen.Type[] = [];
  protected ended = false;
  private readonly imports: Map<string, { params: ValType[]; result: ValType | 'none' }>;

  constructor(
    b: typeof binaryen,
    m: binaryen.Module,
    form: Form,
    imports: Map<string, { params: ValType[]; result: ValType | 'none' }>,
    codeSize: 16 | 32 | 64 = 64,
  ) {
    super(b, m);
    this.form = form;
    this.imports = imports;
    this.codeSize = codeSize;
  }

  /** Binaryen's JavaScript interface has this only as a raw function. */
  override multiplyAdd(type: 'f32' | 'f64', negate: boolean, x: Val, y: Val, z: Val): Val {
    const b = this.b as unknown as Record<string, number> & { _BinaryenSIMDTernary(m: number, op: number, x: number, y: number, z: number): number };
    const op = b[`Relaxed${negate ? 'Nmadd' : 'Madd'}Vec${type === 'f32' ? 'F32x4' : 'F64x2'}`];
    if (op === undefined) throw new Error('Binaryen has no relaxed multiply-add');
    const { ptr } = this.m as unknown as { ptr: number };
    return this.expr('v128', b._BinaryenSIMDTernary(ptr, op, x.take(), y.take(), z.take()));
  }
  newLocal(type: ValType): number {
    this.locals.push(this.b[type]);
    return this.locals.length + 1;
  }
  cpu(): binaryen.ExpressionRef {
    return this.m.local.get(CPU, this.b.i32);
  }
  protected rec(): binaryen.ExpressionRef {
    return this.m.local.get(REC, this.b.i32);
  }
  protected importHelper(name: string, signature: { params: ValType[]; result: ValType | 'none' }): void {
    const known = this.imports.get(name);
    const same = known === undefined || (known.result === signature.result && known.params.join() === signature.params.join());
    if (!same) throw new Error(`helper ${name} is called with two signatures (${known.params.join()} and ${signature.params.join()})`);
    this.imports.set(name, signature);
  }
  /** Leaves with EXIT_EXCEPTION; S_EXC is set. */
  protected abstract exitException(): void;

  protected field16(offset: number): binaryen.ExpressionRef {
    return this.m.i32.load16_u(offset, 2, this.rec());
  }
  protected field8(offset: number): binaryen.ExpressionRef {
    return this.m.i32.load8_u(offset, 1, this.rec());
  }
  /** Address in the state block of a register operand, and the constant offset to add. */
  private registerAt(o: OperandForm): { at: binaryen.ExpressionRef; offset: number } {
    const { m } = this;
    switch (o.field) {
      case 'reg':
        return { at: m.i32.add(this.cpu(), this.field16(R_REG)), offset: 0 };
      case 'rm':
        return { at: m.i32.add(this.cpu(), this.field16(R_RM)), offset: 0 };
      case 'fixed':
        if (o.kind === 'gpr') return { at: this.cpu(), offset: S_GPR + (o.fixed ?? 0) * 8 };
        if (o.kind === 'xmm') return { at: this.cpu(), offset: S_XMM + (o.fixed ?? 0) * 16 };
        if (o.kind === 'seg') return { at: this.cpu(), offset: S_SEG + (o.fixed ?? 0) * SEG_STRIDE + SEG_SELECTOR };
        break;
      case 'vvvv': {
        const scale = o.kind === 'xmm' ? 4 : 3;
        return { at: m.i32.add(this.cpu(), m.i32.shl(this.field8(R_VVVV), m.i32.const(scale))), offset: o.kind === 'xmm' ? S_XMM : S_GPR };
      }
      // The number is in bits 7:4 of the immediate, times 16 a register's offset; outside 64-bit code bit 7 is ignored.
      case 'is4': {
        const bits = m.i32.and(m.i32.load(R_IMM, 4, this.rec()), m.i32.const(this.codeSize === 64 ? 0xf0 : 0x70));
        return { at: m.i32.add(this.cpu(), bits), offset: S_XMM };
      }
      default:
    }
    throw new Error(`${this.form.row.name}: operand ${o.kind}/${o.field} is not a register`);
  }
  protected bind(v: Val): number {
    const index = this.newLocal(v.type);
    this.emit(this.m.local.set(index, v.take()));
    return index;
  }
  private operand(i: number): OperandForm {
    const o = this.form.operands[i];
    if (o === undefined) throw new Error(`${this.form.row.name} has no operand ${i}`);
    return o;
  }

  reg(n: number, size: number): Val {
    return this.let(this.expr(typeOfSize(size), hostLoad(this.m, size, this.cpu(), S_GPR + n * 8)));
  }
  setReg(n: number, size: number, v: Val): void {
    this.storeGpr(size, this.cpu(), S_GPR + n * 8, v);
  }
  private storeGpr(size: number, at: binaryen.ExpressionRef, offset: number, v: Val): void {
    if (size === 4) this.emit(hostStore(this.m, 8, at, this.zext64(v).take(), offset));
    else this.emit(hostStore(this.m, size, at, v.take(), offset));
  }

  read(i: number): Val {
    const o = this.operand(i);
    switch (o.kind) {
      case 'gpr':
      case 'mmx':
      case 'seg':
      case 'cr':
      case 'dr': {
        const { at, offset } = this.registerAt(o);
        const size = o.kind === 'mmx' ? 8 : o.kind === 'seg' ? 2 : o.size;
        return this.let(this.expr(typeOfSize(size), hostLoad(this.m, size, at, offset)));
      }
      case 'xmm': {
        const { at, offset } = this.registerAt(o);
        const size = Math.min(o.size, 16);
        return this.let(this.expr(typeOfSize(size), hostLoad(this.m, size, at, offset)));
      }
      case 'imm':
        if (o.field === 'fixed') return this.k(this.form.opSize, o.fixed ?? 0);
        return this.let(this.trunc(this.imm(this.form.opSize), this.form.opSize));
      case 'mem':
        return this.load(this.address(i), o.size);
      default:
        throw new Error(`${this.form.row.name}: operand ${i} (${o.kind}) cannot be read`);
    }
  }
  write(i: number, v: Val): void {
    const o = this.operand(i);
    switch (o.kind) {
      case 'gpr': {
        const { at, offset } = this.registerAt(o);
        this.storeGpr(o.size, at, offset, v);
        return;
      }
      case 'xmm': {
        const { at, offset } = this.registerAt(o);
        this.emit(hostStore(this.m, Math.min(o.size, 16), at, v.take(), offset));
        return;
      }
      case 'mmx': {
        // The register is the mantissa of an x87 register whose sign and exponent become ones (SDM vol. 3, 13.2).
        const { at, offset } = this.registerAt(o);
        const low = this.bind(this.expr('i32', at));
        this.emit(hostStore(this.m, 8, this.m.local.get(low, this.b.i32), v.take(), offset));
        this.emit(hostStore(this.m, 8, this.m.local.get(low, this.b.i32), this.m.i64.const(0xffffn), offset + 8));
        return;
      }
      case 'mem':
        this.requireWritable();
        this.store(this.address(i), o.size, v);
        return;
      default:
        throw new Error(`${this.form.row.name}: operand ${i} (${o.kind}) cannot be written`);
    }
  }
  readXmm(i: number, half = 0): Val {
    const { at, offset } = this.registerAt(this.operand(i));
    return this.let(this.expr('v128', hostLoad(this.m, 16, at, offset + half * HALF)));
  }
  writeXmm(i: number, v: Val, half = 0): void {
    const { at, offset } = this.registerAt(this.operand(i));
    this.emit(hostStore(this.m, 16, at, v.take(), offset + half * HALF));
  }
  xmm(n: number, half = 0): Val {
    return this.let(this.expr('v128', hostLoad(this.m, 16, this.cpu(), S_XMM + n * 16 + half * HALF)));
  }
  setXmm(n: number, v: Val, half = 0): void {
    this.emit(hostStore(this.m, 16, this.cpu(), v.take(), S_XMM + n * 16 + half * HALF));
  }
  zeroUpper(): void {
    const count = this.codeSize === 64 ? 16 : 8;
    for (let n = 0; n < count; n++) this.setXmm(n, this.v128(new Array<number>(16).fill(0)), 1);
  }
  stIndex(i: number): Val {
    const o = this.operand(i);
    if (o.field === 'fixed') return this.i32(o.fixed ?? 0);
    return this.let(this.expr('i32', this.field16(R_RM)));
  }
  imm(size: number): Val {
    const { m } = this;
    if (size === 8) return this.let(this.expr('i64', m.i64.load(R_IMM, 8, this.rec())));
    return this.let(this.trunc(this.expr('i32', m.i32.load(R_IMM, 4, this.rec())), size));
  }
  segmentRecord(i: number): Val {
    const o = this.operand(i);
    if (o.field === 'fixed') return this.i32(S_SEG + (o.fixed ?? 0) * SEG_STRIDE);
    const { m } = this;
    return this.let(this.expr('i32', m.i32.sub(this.field16(R_REG), m.i32.const(SEG_SELECTOR))));
  }
  registerField(i: number): Val {
    if (this.operand(i).field !== 'reg') throw new Error(`${this.form.row.name}: operand ${i} is not in ModRM.reg`);
    return this.let(this.expr('i32', this.field16(R_REG)));
  }
  farSelector(): Val {
    return this.let(this.expr('i32', this.m.i32.load(R_IMM + 4, 4, this.rec())));
  }
  imm2(): Val {
    return this.let(this.expr('i32', this.field8(R_VVVV)));
  }
  address(i: number, options?: AddressOptions): Val {
    const o = this.operand(i);
    if (o.kind !== 'mem') throw new Error(`${this.form.row.name}: operand ${i} is not memory`);
    const { m } = this;
    if (this.codeSize !== 64) {
      if (options?.write === true) this.requireWritable();
      return this.segmentedAddress(o.size, options);
    }
    const at = (offset: number) => m.i64.load(0, 8, m.i32.add(this.cpu(), this.field16(offset)));
    let ea = m.i64.add(at(R_BASE), m.i64.load32_s(R_DISP, 4, this.rec()));
    if (o.field !== 'vsib') ea = m.i64.add(ea, m.i64.shl(at(R_INDEX), m.i64.extend_u(this.field8(R_SCALE))));
    if (options?.segment !== false) ea = m.i64.add(ea, at(R_SEG));
    return this.let(this.expr('i64', ea));
  }
  /** 16- and 32-bit code: the offset is in S_EA already. */
  private segmentedAddress(size: number, options?: AddressOptions): Val {
    const offset = this.let(this.expr('i64', this.m.i64.load(S_EA, 8, this.cpu())));
    if (options?.segment === false) return offset;
    if (options?.align !== undefined) {
      const base = this.expr('i64', this.m.i64.load(SEG_BASE, 8, this.segmentPointer().take()));
      this.if(this.ne(this.and(this.add(offset, base), this.i64(options.align - 1)), this.i64(0)), () => this.raise(VECTOR_GP, 0));
    }
    return this.linear(offset, size);
  }
  linear(offset: Val, size: number, options?: { write?: boolean }): Val {
    const { m } = this;
    if (options?.write === true) this.requireWritable();
    if (this.codeSize === 64) return this.let(this.add(offset, this.expr('i64', m.i64.load(0, 8, m.i32.add(this.cpu(), this.field16(R_SEG))))));
    const record = this.segmentPointer();
    const field = (at: number) => this.expr('i64', m.i64.load32_u(at, 4, record.take()));
    const last = size > 1 ? this.add(offset, this.i64(size - 1)) : offset;
    const outside = this.or(this.ltU(offset, field(SEG_FIRST)), this.gtU(last, field(SEG_LAST)));
    this.if(outside, () => this.segmentFault());
    const base = this.expr('i64', m.i64.load(SEG_BASE, 8, record.take()));
    return this.let(this.and(this.add(offset, base), this.i64(-1, 0)));
  }
  indexVector(half: number): Val {
    const { m } = this;
    const at = m.i32.add(this.cpu(), this.field16(R_RM));
    return this.let(this.expr('v128', hostLoad(m, 16, at, half * HALF)));
  }
  indexScale(): Val {
    return this.let(this.expr('i32', this.field8(R_SCALE)));
  }
  private segmentPointer(): Val {
    return this.let(this.expr('i32', this.m.i32.add(this.cpu(), this.field16(R_SEG))));
  }
  private segmentFault(): void {
    this.call('segment_fault', 'none', [this.let(this.expr('i32', this.field16(R_SEG)))]);
    this.exitException();
  }
  /** In protected mode code and read-only data cannot be written. */
  protected requireWritable(): void {
    if (this.codeSize === 64) return;
    const { m } = this;
    const attr = this.expr('i32', m.i32.load(SEG_ATTR, 4, this.segmentPointer().take()));
    const isReadOnly = this.ne(this.and(attr, this.i32(ATTR_CODE_WRITABLE_SEGMENT)), this.i32(ATTR_WRITABLE_DATA));
    this.if(this.and(isReadOnly, this.and(this.state(S_CR0, 4), this.i32(1))), () => this.segmentFault());
  }
  segmentOffset(): Val {
    return this.let(this.expr('i32', this.field16(R_SEG)));
  }
}
