import type binaryen from 'binaryen';
import type { Form, OperandForm } from '../decoder/types.ts';
import {
  CR0_EM_TS,
  CR0_TS,
  CR4_OSXSAVE,
  CS,
  EXIT_EXCEPTION,
  FLAGS_ADD,
  FLAGS_DEC,
  FLAGS_EXPLICIT,
  FLAGS_INC,
  FLAGS_LOGIC,
  FLAGS_SUB,
  MXCSR_DEFAULT,
  NEXT,
  NEXT_CHECK,
  R_BASE,
  R_DISP,
  R_HANDLER,
  R_IDX,
  R_IMM,
  R_INDEX,
  R_LEN,
  R_OFF,
  R_REG,
  R_RM,
  R_SCALE,
  R_SEG,
  R_VVVV,
  REC_SIZE,
  S_BLOCK_RIP,
  S_CC_KIND,
  S_CC_RES,
  S_CC_SRC,
  S_CR0,
  S_CR4,
  S_EA,
  S_EXC,
  S_EXC_ERROR,
  S_EXIT_INSN_LEN,
  S_GPR,
  S_ICOUNT,
  S_MXCSR,
  S_RIP,
  S_SEG,
  S_STEP,
  S_TLB,
  S_XCR0,
  S_XMM,
  S_YMM_HIGH,
  SEG_ATTR,
  SEG_BASE,
  SEG_FIRST,
  SEG_LAST,
  SEG_LIMIT,
  SEG_SELECTOR,
  SEG_STRIDE,
  V_LEVELS,
  V_NATIVE,
  XCR0_AVX,
} from '../layout.ts';
import { conditionFromFlags } from './conditions.ts';
import { type AddressOptions, Emitter, type FlagKind } from './emitter.ts';
import { FLAG_FUNCTION, FLAGS_WITHOUT_CARRY, type FlagName, tripleFromState } from './flag-functions.ts';
import { hostLoad, hostStore, tlbAddress, tlbEntry, tlbHit, typeOfSize } from './tlb-path.ts';
import type { Val, ValType } from './val.ts';

const CPU = 0;
const REC = 1;
/** From the low half of a ymm register to its high half. */
const HALF = S_YMM_HIGH - S_XMM;
/** Attributes of a segment: S, code, writable (or readable code); and what writable data has of them. */
const ATTR_CODE_WRITABLE_SEGMENT = 0x1a;
const ATTR_WRITABLE_DATA = 0x12;
const VECTOR_GP = 13;
const FLAG_BASE = { add: FLAGS_ADD, sub: FLAGS_SUB, inc: FLAGS_INC, dec: FLAGS_DEC } as const;
/** Index of the table that holds all handlers and compiled regions. */
export const TABLE = 'table';

/** Name of the in-module slow path: accounts for RIP and retired instructions, then calls the runtime. */
export function slowName(op: 'load' | 'loadw' | 'store', size: number): string {
  return `slow_${op}${size * 8}`;
}

/** Emits one interpreter handler: `(cpu: i32, rec: i32) -> i32`, its operands read from the decoded record. */
export class HandlerEmitter extends Emitter {
  form: Form;
  codeSize: 16 | 32 | 64;
  readonly flat = false;
  readonly checksTargets = true;
  private locals: binaryen.Type[] = [];
  private ended = false;
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

  /** Ends the handler, adds it to the module under `name`. */
  finish(name: string): void {
    if (!this.ended) this.fallThrough();
    const { b, m } = this;
    m.addFunction(name, b.createType([b.i32, b.i32]), b.i32, this.locals, m.block(null, this.body, b.i32));
  }

  newLocal(type: ValType): number {
    this.locals.push(this.b[type]);
    return this.locals.length + 1;
  }
  cpu(): binaryen.ExpressionRef {
    return this.m.local.get(CPU, this.b.i32);
  }
  private rec(): binaryen.ExpressionRef {
    return this.m.local.get(REC, this.b.i32);
  }
  protected importHelper(name: string, signature: { params: ValType[]; result: ValType | 'none' }): void {
    const known = this.imports.get(name);
    const same = known === undefined || (known.result === signature.result && known.params.join() === signature.params.join());
    if (!same) throw new Error(`helper ${name} is called with two signatures (${known.params.join()} and ${signature.params.join()})`);
    this.imports.set(name, signature);
  }

  // ------------------------------------------------------------ registers and record fields
  private field16(offset: number): binaryen.ExpressionRef {
    return this.m.i32.load16_u(offset, 2, this.rec());
  }
  private field8(offset: number): binaryen.ExpressionRef {
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
  private requireWritable(): void {
    if (this.codeSize === 64) return;
    const { m } = this;
    const attr = this.expr('i32', m.i32.load(SEG_ATTR, 4, this.segmentPointer().take()));
    const isReadOnly = this.ne(this.and(attr, this.i32(ATTR_CODE_WRITABLE_SEGMENT)), this.i32(ATTR_WRITABLE_DATA));
    this.if(this.and(isReadOnly, this.and(this.state(S_CR0, 4), this.i32(1))), () => this.segmentFault());
  }
  segmentOffset(): Val {
    return this.let(this.expr('i32', this.field16(R_SEG)));
  }

  // ------------------------------------------------------------ memory
  private tlb(): binaryen.ExpressionRef {
    return this.m.i32.load(S_TLB, 4, this.cpu());
  }
  private slowCall(op: 'load' | 'loadw' | 'store', size: number, va: number, value?: binaryen.ExpressionRef): binaryen.ExpressionRef {
    const { m, b } = this;
    const args = [this.cpu(), this.rec(), m.local.get(va, b.i64)];
    if (value !== undefined) args.push(value);
    return m.call(slowName(op, size), args, op === 'store' ? b.none : b[typeOfSize(size)]);
  }
  /** Slow paths have already stored RIP and the count when they fault. */
  private leaveOnFault(): binaryen.ExpressionRef {
    const { m } = this;
    return m.if(m.i32.load(S_EXC, 4, this.cpu()), m.return(m.i32.const(EXIT_EXCEPTION)));
  }
  private bind(v: Val): number {
    const index = this.newLocal(v.type);
    this.emit(this.m.local.set(index, v.take()));
    return index;
  }
  /** Emits the lookup; returns the locals of address, entry. */
  private lookup(address: Val): { va: number; entry: number } {
    const va = this.bind(address);
    const entry = this.newLocal('i32');
    this.emit(this.m.local.set(entry, tlbEntry(this.m, this.m.local.get(va, this.b.i64), this.tlb())));
    return { va, entry };
  }

  load(address: Val, size: number): Val {
    const { m, b } = this;
    const { va, entry } = this.lookup(address);
    const type = typeOfSize(size);
    const result = this.newLocal(type);
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, size, 'read'),
        m.local.set(result, hostLoad(m, size, tlbAddress(b, m, va, entry))),
        m.block(null, [m.local.set(result, this.slowCall('load', size, va)), this.leaveOnFault()]),
      ),
    );
    return this.local(type, result);
  }
  store(address: Val, size: number, v: Val): void {
    const { m, b } = this;
    const value = this.bind(v);
    const { va, entry } = this.lookup(address);
    const type = b[typeOfSize(size)];
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, size, 'write'),
        hostStore(m, size, tlbAddress(b, m, va, entry), m.local.get(value, type)),
        m.block(null, [this.slowCall('store', size, va, m.local.get(value, type)), this.leaveOnFault()]),
      ),
    );
  }
  loadPair(address: Val): readonly [Val, Val] {
    const { m, b } = this;
    const { va, entry } = this.lookup(address);
    const [low, high, host] = [this.newLocal('v128'), this.newLocal('v128'), this.newLocal('i32')];
    const upper = this.bind(this.add(this.local('i64', va), this.i64(16)));
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, 32, 'read'),
        m.block(null, [
          m.local.set(low, hostLoad(m, 16, m.local.tee(host, tlbAddress(b, m, va, entry), b.i32))),
          m.local.set(high, hostLoad(m, 16, m.local.get(host, b.i32), 16)),
        ]),
        m.block(null, [
          m.local.set(low, this.slowCall('load', 16, va)),
          this.leaveOnFault(),
          m.local.set(high, this.slowCall('load', 16, upper)),
          this.leaveOnFault(),
        ]),
      ),
    );
    return [this.local('v128', low), this.local('v128', high)];
  }
  storePair(address: Val, low: Val, high: Val): void {
    const { m, b } = this;
    const [first, second] = [this.bind(low), this.bind(high)];
    const { va, entry } = this.lookup(address);
    const host = this.newLocal('i32');
    const upper = this.bind(this.add(this.local('i64', va), this.i64(16)));
    const value = (n: number) => m.local.get(n, b.v128);
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, 32, 'write'),
        m.block(null, [
          hostStore(m, 16, m.local.tee(host, tlbAddress(b, m, va, entry), b.i32), value(first)),
          hostStore(m, 16, m.local.get(host, b.i32), value(second), 16),
        ]),
        m.block(null, [
          // Whether both halves can be written is known before anything is, and the lower address faults first.
          m.drop(this.slowCall('loadw', 16, va)),
          this.leaveOnFault(),
          m.drop(this.slowCall('loadw', 16, upper)),
          this.leaveOnFault(),
          this.slowCall('store', 16, va, value(first)),
          this.leaveOnFault(),
          this.slowCall('store', 16, upper, value(second)),
          this.leaveOnFault(),
        ]),
      ),
    );
  }
  rmw(i: number, f: (old: Val) => Val, address?: Val): void {
    if (!this.isMem(i)) {
      this.write(i, f(this.read(i)));
      return;
    }
    const { m, b } = this;
    const size = this.size(i);
    const type = typeOfSize(size);
    this.requireWritable();
    const { va, entry } = this.lookup(address ?? this.address(i));
    const host = this.newLocal('i32');
    const old = this.newLocal(type);
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, size, 'write'),
        m.local.set(old, hostLoad(m, size, m.local.tee(host, tlbAddress(b, m, va, entry), b.i32))),
        m.block(null, [m.local.set(host, m.i32.const(0)), m.local.set(old, this.slowCall('loadw', size, va)), this.leaveOnFault()]),
      ),
    );
    // Register and flag writes that `f` makes must follow the store: it may still fault (a store to translated code restarts).
    const before = this.body;
    this.body = [];
    const value = this.bind(f(this.local(type, old)));
    const inner = this.body;
    this.body = before;
    const { pure, effects } = splitEffects(inner, this.deferred);
    this.deferred = new Set();
    this.body.push(...pure);
    this.emit(
      m.if(
        m.local.get(host, b.i32),
        hostStore(m, size, m.local.get(host, b.i32), m.local.get(value, b[type])),
        m.block(null, [this.slowCall('store', size, va, m.local.get(value, b[type])), this.leaveOnFault()]),
      ),
    );
    this.body.push(...effects);
  }
  private deferred = new Set<binaryen.ExpressionRef>();

  // ------------------------------------------------------------ flags
  private storeTriple(kind: binaryen.ExpressionRef, res: binaryen.ExpressionRef, src: binaryen.ExpressionRef): void {
    const { m } = this;
    for (const s of [m.i32.store(S_CC_KIND, 4, this.cpu(), kind), m.i64.store(S_CC_RES, 8, this.cpu(), res), m.i64.store(S_CC_SRC, 8, this.cpu(), src)]) {
      this.emit(s);
      this.deferred.add(s);
    }
  }
  setFlags(kind: FlagKind, size: number, result: Val, src: Val): void {
    const { m } = this;
    const code = kind === 'logic' ? FLAGS_LOGIC : FLAG_BASE[kind] + Math.log2(size);
    const res = this.let(this.sext64(result, size));
    const s = kind === 'logic' ? this.i64(0) : this.let(this.zext64(src));
    this.storeTriple(m.i32.const(code), res.take(), s.take());
  }
  setFlagsExplicit(f: { cf?: Val; of?: Val; af?: Val; result?: Val; size?: number; zf?: Val; sf?: Val; pf?: Val }): void {
    const { res, src } = explicitTriple(this, f);
    this.storeTriple(this.m.i32.const(FLAGS_EXPLICIT), res.take(), src.take());
  }
  setCarry(cf: Val, of?: Val): void {
    const { m, b } = this;
    const kept = this.expr(
      'i64',
      m.call(
        FLAGS_WITHOUT_CARRY,
        tripleFromState(m, () => this.cpu()),
        b.i64,
      ),
    );
    const src = this.let(carryInto(this, kept, cf, of));
    for (const s of [m.i32.store(S_CC_KIND, 4, this.cpu(), m.i32.const(FLAGS_EXPLICIT)), m.i64.store(S_CC_SRC, 8, this.cpu(), src.take())]) {
      this.emit(s);
      this.deferred.add(s);
    }
  }
  flag(f: FlagName): Val {
    const { m, b } = this;
    if (f === 'z') return this.let(this.expr('i32', m.i64.eqz(m.i64.load(S_CC_RES, 8, this.cpu()))));
    return this.let(
      this.expr(
        'i32',
        m.call(
          FLAG_FUNCTION[f],
          tripleFromState(m, () => this.cpu()),
          b.i32,
        ),
      ),
    );
  }
  condition(cc: number): Val {
    return conditionFromFlags(this, cc);
  }
  readonly tracksFloat = false;
  softFloat(): Val {
    return this.ne(this.state(S_MXCSR, 4), this.i32(MXCSR_DEFAULT));
  }
  sseBlocked(): Val {
    return this.and(this.state(S_CR0, 4), this.i32(CR0_EM_TS));
  }
  avxBlocked(): Val {
    const { m } = this;
    return this.let(
      this.expr(
        'i32',
        avxBlockedNow(m, () => this.cpu()),
      ),
    );
  }
  statusFlags(): Val {
    return this.call('getFlags', 'i32', []);
  }
  setStatusFlags(v: Val): void {
    this.call('setFlags', 'none', [v]);
  }

  // ------------------------------------------------------------ control
  if(condition: Val, then: () => void, otherwise?: () => void): void {
    const { m } = this;
    const test = condition.take();
    const outer = this.body;
    const run = (f: () => void): binaryen.ExpressionRef => {
      this.body = [];
      f();
      this.ended = false;
      const block = m.block(null, this.body);
      this.body = outer;
      return block;
    };
    const yes = run(then);
    const no = otherwise === undefined ? undefined : run(otherwise);
    this.emit(no === undefined ? m.if(test, yes) : m.if(test, yes, no));
  }
  /** Adds retired instructions: those before this one in the block, and this one when `completed`. */
  private retire(completed: boolean): void {
    const { m } = this;
    const before = m.i64.extend_u(this.field8(R_IDX));
    const n = completed ? m.i64.add(before, m.i64.const(1n)) : before;
    this.emit(m.i64.store(S_ICOUNT, 8, this.cpu(), m.i64.add(m.i64.load(S_ICOUNT, 8, this.cpu()), n)));
  }
  private setRip(v: binaryen.ExpressionRef): void {
    this.emit(this.m.i64.store(S_RIP, 8, this.cpu(), v));
  }
  private ret(reason: binaryen.ExpressionRef): void {
    this.emit(this.m.return(reason));
    this.ended = true;
  }
  private ripAt(after: boolean): binaryen.ExpressionRef {
    const { m } = this;
    let at = m.i64.add(m.i64.load(S_BLOCK_RIP, 8, this.cpu()), m.i64.load16_u(R_OFF, 2, this.rec()));
    if (after) at = m.i64.add(at, m.i64.load8_u(R_LEN, 1, this.rec()));
    return at;
  }
  private fallThrough(): void {
    const { m, b } = this;
    const next = m.i32.load(REC_SIZE + R_HANDLER, 4, this.rec());
    const args = [this.cpu(), m.i32.add(this.rec(), m.i32.const(REC_SIZE))];
    this.emit(m.return_call_indirect(TABLE, next, args, b.createType([b.i32, b.i32]), b.i32));
    this.ended = true;
  }
  raise(vector: number, error?: number): void {
    const { m } = this;
    this.emit(m.i32.store(S_EXC, 4, this.cpu(), m.i32.const(vector + 1)));
    this.emit(m.i32.store(S_EXC_ERROR, 4, this.cpu(), m.i32.const(error ?? 0)));
    this.exitException();
  }
  private exitException(): void {
    this.setRip(this.ripAt(false));
    this.retire(false);
    this.ret(this.m.i32.const(EXIT_EXCEPTION));
  }
  checkException(): void {
    this.if(this.state(S_EXC, 4), () => this.exitException());
  }
  retired(): Val {
    const { m } = this;
    return this.let(this.expr('i64', m.i64.add(m.i64.load(S_ICOUNT, 8, this.cpu()), m.i64.extend_u(this.field8(R_IDX)))));
  }
  nextRip(): Val {
    return this.let(this.expr('i64', this.ripAt(true)));
  }
  thisRip(): Val {
    return this.let(this.expr('i64', this.ripAt(false)));
  }
  /** In 16- and 32-bit code (operand size below 8) the target wraps to the operand size. */
  private branchTarget(): binaryen.ExpressionRef {
    const { m } = this;
    const target = m.i64.add(m.i64.load(S_BLOCK_RIP, 8, this.cpu()), m.i64.load(R_IMM, 8, this.rec()));
    if (this.form.opSize === 8) return target;
    return m.i64.and(target, m.i64.const(this.form.opSize === 2 ? 0xffffn : 0xffff_ffffn));
  }
  private isBackward(): binaryen.ExpressionRef {
    const { m } = this;
    return m.i64.le_s(m.i64.load(R_IMM, 8, this.rec()), m.i64.load16_u(R_OFF, 2, this.rec()));
  }
  requireTarget(target?: Val): void {
    if (this.codeSize === 64) {
      // Code whose relative branches may leave the canonical addresses is stepped: BD_REACH.
      if (target === undefined) this.if(this.state(S_STEP, 4), () => this.requireCanonical(this.let(this.expr('i64', this.branchTarget()))));
      else this.requireCanonical(target);
      return;
    }
    const { m } = this;
    const to = target ?? this.expr('i64', this.branchTarget());
    const limit = this.expr('i64', m.i64.load32_u(S_SEG + CS * SEG_STRIDE + SEG_LIMIT, 4, this.cpu()));
    this.if(this.and(this.gtU(to, limit), this.ne(this.state(V_NATIVE, 4), this.i32(0))), () => this.raise(VECTOR_GP, 0));
  }
  private requireCanonical(target: Val): void {
    const spare = this.let(this.select(this.eq(this.state(V_LEVELS, 4), this.i32(5)), this.i64(7), this.i64(16)));
    this.if(this.ne(this.shrS(this.shl(target, spare), spare), target), () => this.raise(VECTOR_GP, 0));
  }
  branch(): void {
    this.setRip(this.branchTarget());
    this.retire(true);
    this.ret(this.isBackward());
  }
  branchIf(condition: Val): void {
    this.if(condition, () => {
      this.requireTarget();
      this.branch();
    });
    this.setRip(this.ripAt(true));
    this.retire(true);
    this.ret(this.m.i32.const(NEXT));
  }
  branchTo(target: Val, hint: 'ret' | 'call' | 'jmp'): void {
    const to = this.let(target);
    if (hint !== 'ret') this.call('profileTarget', 'none', [this.thisRip(), to], { pure: true });
    this.setRip(to.take());
    this.retire(true);
    this.ret(this.m.i32.const(NEXT_CHECK));
  }
  exit(reason: number, at: 'this' | 'next'): void {
    const { m } = this;
    this.emit(m.i32.store(S_EXIT_INSN_LEN, 4, this.cpu(), this.field8(R_LEN)));
    this.setRip(this.ripAt(at === 'next'));
    this.retire(at === 'next');
    this.ret(m.i32.const(reason));
  }
  endBlock(): void {
    this.exit(NEXT_CHECK, 'next');
  }
  repeatUnless(complete: Val): void {
    this.if(this.eqz(complete), () => {
      this.setRip(this.ripAt(false));
      this.retire(true);
      this.ret(this.m.i32.const(NEXT_CHECK));
    });
  }
  syscall(): void {
    const { m, b } = this;
    this.emit(m.i32.store(S_EXIT_INSN_LEN, 4, this.cpu(), this.field8(R_LEN)));
    this.setRip(this.ripAt(false));
    this.retire(false);
    this.emit(m.return_call('host_syscall', [this.cpu()], b.i32));
    this.ended = true;
  }
  transfer(helper: string, args: readonly Val[]): void {
    const { m, b } = this;
    const values = args.map((a) => this.let(a));
    this.importHelper(helper, { params: ['i32', ...values.map((v) => v.type)], result: 'i32' });
    this.emit(m.i32.store(S_EXIT_INSN_LEN, 4, this.cpu(), this.field8(R_LEN)));
    this.setRip(this.ripAt(false));
    this.retire(false);
    this.emit(m.return_call(helper, [this.cpu(), ...values.map((v) => v.take())], b.i32));
    this.ended = true;
  }
}

/** Statements that only compute come before the store of a read-modify-write, flag and register writes after it. */
function splitEffects(
  statements: binaryen.ExpressionRef[],
  deferred: Set<binaryen.ExpressionRef>,
): { pure: binaryen.ExpressionRef[]; effects: binaryen.ExpressionRef[] } {
  return { pure: statements.filter((s) => !deferred.has(s)), effects: statements.filter((s) => deferred.has(s)) };
}

/** CC_SRC `kept` (kind FLAGS_EXPLICIT, CF clear) with CF, and OF when given, put in. */
export function carryInto(e: Emitter, kept: Val, cf: Val, of?: Val): Val {
  if (of === undefined) return e.or(kept, e.zext64(cf));
  const bits = e.zext64(e.or(cf, e.shl(of, e.i32(11))));
  return e.or(e.and(kept, e.i64(~0x800)), bits);
}

/** CC_RES and CC_SRC for flags that are given one by one (kind FLAGS_EXPLICIT, see layout.ts). */
export function explicitTriple(
  e: Emitter,
  f: { cf?: Val; of?: Val; af?: Val; result?: Val; size?: number; zf?: Val; sf?: Val; pf?: Val },
): { res: Val; src: Val } {
  let bits: Val = f.cf ?? e.i32(0);
  if (f.af !== undefined) bits = e.or(bits, e.shl(f.af, e.i32(4)));
  if (f.of !== undefined) bits = e.or(bits, e.shl(f.of, e.i32(11)));
  if (f.result !== undefined) {
    const res = e.let(e.sext64(f.result, f.size ?? 8));
    return { res, src: e.let(e.zext64(bits)) };
  }
  const zf = e.let(f.zf ?? e.i32(0));
  const res = e.let(e.zext64(e.xor(zf, e.i32(1))));
  if (f.sf !== undefined) bits = e.or(bits, e.shl(f.sf, e.i32(7)));
  // RES is 0 or 1, whose parities are even and odd: the byte corrects that to the PF asked for.
  bits = e.or(bits, e.shl(e.xor(f.pf ?? e.i32(0), zf), e.i32(16)));
  return { res, src: e.let(e.zext64(bits)) };
}

/** i32, non-zero: AVX instructions raise #UD (CR4.OSXSAVE clear, or XCR0 without SSE and AVX) or #NM (CR0.TS) (SDM vol. 1, 14.3). */
export function avxBlockedNow(m: binaryen.Module, cpu: () => binaryen.ExpressionRef): binaryen.ExpressionRef {
  const clear = (offset: number, bits: number) => m.i32.ne(m.i32.and(m.i32.load(offset, 4, cpu()), m.i32.const(bits)), m.i32.const(bits));
  const disabled = m.i32.or(clear(S_CR4, CR4_OSXSAVE), clear(S_XCR0, XCR0_AVX));
  return m.i32.or(disabled, m.i32.and(m.i32.load(S_CR0, 4, cpu()), m.i32.const(CR0_TS)));
}
