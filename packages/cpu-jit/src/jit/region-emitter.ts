import type binaryen from 'binaryen';
import type { Form, Insn, OperandForm } from '../decoder/types.ts';
import { conditionFromFlags } from '../emit/conditions.ts';
import { Emitter, type FlagKind } from '../emit/emitter.ts';
import { FLAG_FUNCTION, FLAGS_WITHOUT_CARRY, type FlagName } from '../emit/flag-functions.ts';
import { carryInto, explicitTriple } from '../emit/handler-emitter.ts';
import { hostLoad, hostStore, tlbAddress, tlbEntry, tlbHit, typeOfSize } from '../emit/tlb-path.ts';
import type { Val, ValType } from '../emit/val.ts';
import { controlOffset, popAdjustment, segmentBaseOffset } from '../interp/record.ts';
import {
  EXIT_EXCEPTION,
  EXIT_LIMIT,
  FLAGS_ADD,
  FLAGS_DEC,
  FLAGS_EXPLICIT,
  FLAGS_INC,
  FLAGS_LOGIC,
  FLAGS_SUB,
  NEXT_CHECK,
  S_CC_KIND,
  S_CC_RES,
  S_CC_SRC,
  S_EXC,
  S_EXC_ERROR,
  S_EXIT_INSN_LEN,
  S_GPR,
  S_ICOUNT,
  S_ICOUNT_LIMIT,
  S_RIP,
  S_SEG,
  S_TLB,
  S_X87,
  S_XMM,
  S_ZERO,
  SEG_BASE,
  SEG_SELECTOR,
  SEG_STRIDE,
} from '../layout.ts';
import type { GuestBlock, Region } from './region.ts';
import { conditionOf, type ExplicitFlags, type FlagDef, flagOf } from './static-flags.ts';

const FLAG_BASE = { add: FLAGS_ADD, sub: FLAGS_SUB, inc: FLAGS_INC, dec: FLAGS_DEC } as const;
const RIP = 16;
/** Registers are numbered 0..15 general, 16..31 XMM, in dirty sets. */
const XMM = 16;

/** How a block ends, as the emission of its last instruction left it. */
export type Terminator =
  | { readonly kind: 'goto'; readonly to: number; readonly backward: boolean }
  | { readonly kind: 'cond'; readonly condition: number; readonly to: number; readonly backward: boolean; readonly next: number }
  /** To one of the targets whose RIP is in local `rip`, else out of the region. */
  | { readonly kind: 'indirect'; readonly rip: number; readonly targets: readonly number[] }
  /** The code has returned. */
  | { readonly kind: 'ended' };

/** Where registers and flags must be written back; filled in when it is known what may have changed. */
interface Spill {
  readonly placeholder: binaryen.ExpressionRef;
  readonly dirty: number;
  readonly flags: FlagDef | 'locals' | 'inherited';
}

export interface BlockCode {
  readonly block: GuestBlock;
  readonly code: binaryen.ExpressionRef;
  readonly terminator: Terminator;
  readonly spills: Spill[];
  /** Registers written in the block (bit set). */
  readonly written: number;
  readonly flagsWritten: boolean;
  /** Flags were read as they stood at the start of the block. */
  readonly flagsRead: boolean;
  /** Producer at the end of the block, and the empty block at its end to put it into locals. */
  readonly flagsOut: FlagDef | 'locals' | 'inherited';
  readonly flagsOutPlaceholder: binaryen.ExpressionRef;
}

/** Locals every region function has: 0 the state pointer, then these. */
export const LOCAL = { cpu: 0, tlb: 1, rip: 2, icount: 3, ccKind: 4, ccRes: 5, ccSrc: 6, label: 7, gpr: 8, xmm: 24, free: 40 } as const;

/** Wasm types of the fixed locals after the parameter. */
export function fixedLocals(b: typeof binaryen): binaryen.Type[] {
  return [b.i32, b.i64, b.i64, b.i32, b.i64, b.i64, b.i32, ...new Array<binaryen.Type>(16).fill(b.i64), ...new Array<binaryen.Type>(16).fill(b.v128)];
}

/**
 * Emits compiled guest code: operands are constants and Wasm locals. Registers stay in locals between the instructions of a
 * region; every place where the state block must be current (an exit, a faulting access) gets a spill that is filled in once the
 * whole region is known.
 */
export class RegionEmitter extends Emitter {
  form: Form;
  readonly codeSize: 16 | 32 | 64;
  /** Types of the locals after the fixed ones. */
  readonly extraLocals: binaryen.Type[] = [];
  /** The region has SSE instructions, which are allowed where it is entered. */
  usesSse = false;
  /** The region computes with the host's floating point, right only for MXCSR's default controls. */
  usesFloat = false;
  /** Registers that any code of the region reads or writes (bit set). */
  touched = 0;
  private readonly imports: Map<string, { params: ValType[]; result: ValType | 'none' }>;
  private insn: Insn;
  private offset = 0;
  private index = 0;
  private spills: Spill[] = [];
  private written = 0;
  private flagState: FlagDef | 'locals' | 'inherited' = 'inherited';
  private flagsRead = false;
  private flagsWritten = false;
  private depth = 0;
  private ended = false;
  private terminator: Terminator | undefined;
  private readonly pool: Record<ValType, number[]> = { i32: [], i64: [], f32: [], f64: [], v128: [] };
  private inUse: { type: ValType; index: number }[] = [];
  private kept: { type: ValType; index: number }[] = [];
  private readonly region: Region;

  constructor(b: typeof binaryen, m: binaryen.Module, region: Region, first: Insn, imports: Map<string, { params: ValType[]; result: ValType | 'none' }>) {
    super(b, m);
    this.codeSize = region.codeSize;
    this.insn = first;
    this.form = first;
    this.imports = imports;
    this.region = region;
  }

  /** Emits one block; `semantics` runs the semantics function of an instruction. */
  emitBlock(block: GuestBlock, semantics: (insn: Insn, e: Emitter) => void): BlockCode {
    const { m } = this;
    this.body = [];
    this.spills = [];
    this.written = 0;
    this.flagState = 'inherited';
    this.flagsRead = false;
    this.flagsWritten = false;
    this.ended = false;
    this.terminator = undefined;
    this.offset = block.start;
    for (const [i, insn] of block.insns.entries()) {
      this.insn = insn;
      this.form = insn;
      this.index = i;
      this.releaseTemps();
      semantics(insn, this);
      this.offset += insn.length;
    }
    if (this.terminator === undefined) {
      if (this.ended) this.terminator = { kind: 'ended' };
      else {
        this.retireBlock(block.insns.length);
        if (this.region.blocks.has(block.end)) this.terminator = { kind: 'goto', to: block.end, backward: false };
        else {
          this.leaveTo(this.ripOf(block.end), 'chain');
          this.terminator = { kind: 'ended' };
        }
      }
    }
    const flagsOutPlaceholder = m.block(null, []);
    if (this.terminator.kind !== 'ended') this.emit(flagsOutPlaceholder);
    this.releaseTemps();
    this.releaseKept();
    return {
      block,
      code: m.block(null, this.body),
      terminator: this.terminator,
      spills: this.spills,
      written: this.written,
      flagsWritten: this.flagsWritten,
      flagsRead: this.flagsRead,
      flagsOut: this.flagState,
      flagsOutPlaceholder,
    };
  }

  /** Code of an exit from the region to `target`, an offset or a local with a RIP; its spill belongs to the block it leaves. */
  exitCode(code: BlockCode, target: number | { readonly rip: number }, check: boolean): binaryen.ExpressionRef {
    const rip = typeof target === 'number' ? this.ripOf(target) : this.m.local.get(target.rip, this.b.i64);
    this.body = [];
    const spills = this.spills;
    this.spills = [];
    this.spillAt({ dirty: code.written, flags: code.flagsOut });
    this.emit(this.m.i64.store(S_RIP, 8, this.cpu(), rip));
    this.storeIcount(0);
    this.emit(this.m.return_call(check ? 'chain_check' : 'chain', [this.cpu()], this.b.i32));
    code.spills.push(...this.spills);
    this.spills = spills;
    return this.m.block(null, this.body);
  }

  /** i32: position in the list of the target whose RIP is in the terminator's local, or the list's length. */
  targetIndex(t: Extract<Terminator, { kind: 'indirect' }>): binaryen.ExpressionRef {
    const { m, b } = this;
    const offset = () => m.i64.sub(m.local.get(t.rip, b.i64), m.local.get(LOCAL.rip, b.i64));
    const none = () => m.i32.const(t.targets.length);
    const search = (low: number, high: number): binaryen.ExpressionRef => {
      if (high - low === 1) return m.select(m.i64.eq(offset(), m.i64.const(BigInt(t.targets[low] ?? 0))), m.i32.const(low), none());
      const middle = (low + high) >> 1;
      return m.if(m.i64.lt_s(offset(), m.i64.const(BigInt(t.targets[middle] ?? 0))), search(low, middle), search(middle, high));
    };
    return search(0, t.targets.length);
  }

  /** i32: is the RIP in the terminator's local that of `target`? */
  isTarget(t: Extract<Terminator, { kind: 'indirect' }>, target: number): binaryen.ExpressionRef {
    return this.m.i64.eq(this.m.local.get(t.rip, this.b.i64), this.ripOf(target));
  }

  /** Code on a backward edge inside the region: leaves when the budget of instructions is used up. */
  backEdgeCode(code: BlockCode, offset: number): binaryen.ExpressionRef {
    const { m, b } = this;
    const outer = this.spills;
    this.spills = [];
    this.body = [];
    this.spillAt({ dirty: code.written, flags: code.flagsOut });
    this.emit(m.i64.store(S_RIP, 8, this.cpu(), this.ripOf(offset)));
    this.storeIcount(0);
    this.emit(m.return(m.i32.const(EXIT_LIMIT)));
    const leave = m.block(null, this.body);
    code.spills.push(...this.spills);
    this.spills = outer;
    return m.if(m.i64.ge_u(m.local.get(LOCAL.icount, b.i64), m.i64.load(S_ICOUNT_LIMIT, 8, this.cpu())), leave);
  }

  // ------------------------------------------------------------ locals
  newLocal(type: ValType): number {
    const index = this.pool[type].pop() ?? LOCAL.free - 1 + this.extraLocals.push(this.b[type]);
    this.inUse.push({ type, index });
    return index;
  }
  /** Temporaries live for one instruction, except those that the current flags are computed from. */
  private releaseTemps(): void {
    const held = new Set<number>();
    for (const v of flagVals(this.flagState)) {
      const index = localIndex.get(v);
      if (index !== undefined) held.add(index);
    }
    const all = [...this.inUse, ...this.kept];
    this.inUse = [];
    this.kept = [];
    for (const t of all) {
      if (held.has(t.index)) this.kept.push(t);
      else this.pool[t.type].push(t.index);
    }
  }
  private releaseKept(): void {
    for (const t of this.kept) this.pool[t.type].push(t.index);
    this.kept = [];
  }
  /** After the last block: code that is filled in between existing code must not reuse locals that are live there. */
  stopReuse(): void {
    for (const type of ['i32', 'i64', 'f32', 'f64', 'v128'] as const) this.pool[type] = [];
  }
  override local(type: ValType, index: number): Val {
    const v = super.local(type, index);
    localIndex.set(v, index);
    return v;
  }
  cpu(): binaryen.ExpressionRef {
    return this.m.local.get(LOCAL.cpu, this.b.i32);
  }
  protected importHelper(name: string, signature: { params: ValType[]; result: ValType | 'none' }): void {
    this.imports.set(name, signature);
  }
  private ripOf(offset: number): binaryen.ExpressionRef {
    const { m, b } = this;
    const base = m.local.get(LOCAL.rip, b.i64);
    return offset === 0 ? base : m.i64.add(base, m.i64.const(BigInt(offset)));
  }

  // ------------------------------------------------------------ registers
  private whole(n: number): binaryen.ExpressionRef {
    this.touched |= 1 << n;
    return this.m.local.get(LOCAL.gpr + n, this.b.i64);
  }
  private setWhole(n: number, value: binaryen.ExpressionRef): void {
    this.touched |= 1 << n;
    this.written |= 1 << n;
    this.emit(this.m.local.set(LOCAL.gpr + n, value));
  }
  private isHigh(n: number, size: number): boolean {
    return size === 1 && !this.insn.rex && n >= 4 && n < 8;
  }
  private readGpr(n: number, size: number, high: boolean): Val {
    const { m } = this;
    if (size === 8) return this.let(this.expr('i64', this.whole(n)));
    if (high) return this.let(this.and(this.expr('i32', m.i32.wrap(m.i64.shr_u(this.whole(n - 4), m.i64.const(8n)))), this.i32(0xff)));
    return this.let(this.trunc(this.expr('i32', m.i32.wrap(this.whole(n))), size));
  }
  private writeGpr(n: number, size: number, high: boolean, v: Val): void {
    const { m } = this;
    if (size >= 4) {
      this.setWhole(n, this.zext64(v).take());
      return;
    }
    const r = high ? n - 4 : n;
    const mask = size === 2 ? 0xffffn : high ? 0xff00n : 0xffn;
    const masked = m.i64.and(m.i64.extend_u(v.take()), m.i64.const(size === 2 ? 0xffffn : 0xffn));
    const placed = high ? m.i64.shl(masked, m.i64.const(8n)) : masked;
    this.setWhole(r, m.i64.or(m.i64.and(this.whole(r), m.i64.const(BigInt.asIntN(64, ~mask))), placed));
  }
  reg(n: number, size: number): Val {
    return this.readGpr(n, size, false);
  }
  setReg(n: number, size: number, v: Val): void {
    this.writeGpr(n, size, false, v);
  }
  xmm(n: number): Val {
    this.touched |= 1 << (XMM + n);
    return this.let(this.expr('v128', this.m.local.get(LOCAL.xmm + n, this.b.v128)));
  }
  setXmm(n: number, v: Val): void {
    this.touched |= 1 << (XMM + n);
    this.written |= 1 << (XMM + n);
    this.emit(this.m.local.set(LOCAL.xmm + n, v.take()));
  }
  private operand(i: number): OperandForm {
    const o = this.form.operands[i];
    if (o === undefined) throw new Error(`${this.form.row.name} has no operand ${i}`);
    return o;
  }
  private number(o: OperandForm): number {
    switch (o.field) {
      case 'reg':
        return this.insn.reg;
      case 'rm':
        return this.insn.rm;
      case 'vvvv':
        return this.insn.vvvv;
      default:
        return o.fixed ?? 0;
    }
  }
  read(i: number): Val {
    const o = this.operand(i);
    const n = this.number(o);
    const { m } = this;
    switch (o.kind) {
      case 'gpr':
        return this.readGpr(n, o.size, o.field !== 'fixed' && this.isHigh(n, o.size));
      case 'mmx':
        return this.let(this.expr('i64', m.i64.load(S_X87 + (n & 7) * 16, 8, this.cpu())));
      case 'seg':
        return this.let(this.expr('i32', m.i32.load16_u(S_SEG + n * SEG_STRIDE + SEG_SELECTOR, 2, this.cpu())));
      case 'cr':
        return this.let(this.expr('i64', m.i64.load(controlOffset(n), 8, this.cpu())));
      case 'xmm': {
        const whole = this.xmm(n);
        if (o.size >= 16) return whole;
        if (o.size === 8) return this.let(this.expr('i64', m.i64x2.extract_lane(whole.take(), 0)));
        return this.let(this.trunc(this.expr('i32', m.i32x4.extract_lane(whole.take(), 0)), o.size));
      }
      case 'imm':
        return o.field === 'fixed' ? this.k(this.form.opSize, o.fixed ?? 0) : this.imm(this.form.opSize);
      case 'mem':
        return this.load(this.address(i), o.size);
      default:
        throw new Error(`${this.form.row.name}: operand ${i} (${o.kind}) cannot be read`);
    }
  }
  write(i: number, v: Val): void {
    const o = this.operand(i);
    const n = this.number(o);
    const { m } = this;
    switch (o.kind) {
      case 'gpr':
        this.writeGpr(n, o.size, o.field !== 'fixed' && this.isHigh(n, o.size), v);
        return;
      case 'mmx':
        this.emit(m.i64.store(S_X87 + (n & 7) * 16, 8, this.cpu(), v.take()));
        this.emit(m.i64.store(S_X87 + (n & 7) * 16 + 8, 8, this.cpu(), m.i64.const(0xffffn)));
        return;
      case 'xmm':
        if (o.size >= 16) this.setXmm(n, v);
        else if (o.size === 8) this.setXmm(n, this.expr('v128', m.i64x2.replace_lane(this.xmm(n).take(), 0, v.take())));
        else if (o.size === 4) this.setXmm(n, this.expr('v128', m.i32x4.replace_lane(this.xmm(n).take(), 0, v.take())));
        else if (o.size === 2) this.setXmm(n, this.expr('v128', m.i16x8.replace_lane(this.xmm(n).take(), 0, v.take())));
        else this.setXmm(n, this.expr('v128', m.i8x16.replace_lane(this.xmm(n).take(), 0, v.take())));
        return;
      case 'mem':
        this.store(this.address(i), o.size, v);
        return;
      default:
        throw new Error(`${this.form.row.name}: operand ${i} (${o.kind}) cannot be written`);
    }
  }
  readXmm(i: number): Val {
    return this.xmm(this.number(this.operand(i)));
  }
  writeXmm(i: number, v: Val): void {
    this.setXmm(this.number(this.operand(i)), v);
  }
  stIndex(i: number): Val {
    return this.i32(this.number(this.operand(i)) & 7);
  }
  imm(size: number): Val {
    const { immLow, immHigh } = this.insn;
    if (size === 8) return this.i64(immLow, immHigh);
    return this.i32(size === 1 ? immLow & 0xff : size === 2 ? immLow & 0xffff : immLow);
  }
  imm2(): Val {
    return this.i32(this.insn.imm2);
  }
  segmentOffset(): Val {
    return this.i32(segmentBaseOffset(this.insn.seg, this.codeSize));
  }
  segmentRecord(i: number): Val {
    return this.i32(S_SEG + this.number(this.operand(i)) * SEG_STRIDE);
  }
  address(i: number, options?: { segment?: boolean }): Val {
    const { m } = this;
    const { mem, addrSize } = this.insn;
    if (mem === null) throw new Error(`${this.form.row.name}: operand ${i} is not memory`);
    const terms: binaryen.ExpressionRef[] = [];
    let disp = BigInt(mem.disp + popAdjustment(this.insn));
    if (mem.dispHigh !== undefined) disp = BigInt.asIntN(64, (BigInt(mem.dispHigh) << 32n) | BigInt(mem.disp >>> 0));
    if (mem.base === RIP) terms.push(this.ripOf(0));
    else if (mem.base >= 0) terms.push(this.whole(mem.base));
    if (mem.base === RIP) disp += BigInt(this.offset + this.insn.length);
    if (mem.index >= 0) terms.push(mem.scale === 0 ? this.whole(mem.index) : m.i64.shl(this.whole(mem.index), m.i64.const(BigInt(mem.scale))));
    if (disp !== 0n || terms.length === 0) terms.push(m.i64.const(disp));
    let ea = terms.reduce((x, y) => m.i64.add(x, y));
    if (addrSize !== 8) ea = m.i64.and(ea, m.i64.const(addrSize === 2 ? 0xffffn : 0xffff_ffffn));
    const base = segmentBaseOffset(mem.seg, this.codeSize);
    if (options?.segment !== false && base !== S_ZERO) ea = m.i64.add(ea, m.i64.load(base, 8, this.cpu()));
    return this.let(this.expr('i64', ea));
  }

  // ------------------------------------------------------------ memory
  private bind(v: Val): number {
    const index = this.newLocal(v.type);
    this.emit(this.m.local.set(index, v.take()));
    return index;
  }
  private lookup(address: Val): { va: number; entry: number } {
    const va = this.bind(address);
    const entry = this.newLocal('i32');
    const { m, b } = this;
    this.emit(m.local.set(entry, tlbEntry(b, m, va, m.local.get(LOCAL.tlb, b.i32))));
    return { va, entry };
  }
  /** Marks an arm of an `if` as the one to expect (see branch-hints.ts). */
  private likely(statement: binaryen.ExpressionRef): binaryen.ExpressionRef {
    return this.m.block(null, [this.m.nop(), statement]);
  }
  /** Statements of the slow path: RIP and the count exact, then the runtime; leaves with everything spilled on a fault. */
  private slow(access: binaryen.ExpressionRef): binaryen.ExpressionRef {
    const { m } = this;
    const outer = this.body;
    this.body = [m.i64.store(S_RIP, 8, this.cpu(), this.ripOf(this.offset))];
    this.storeIcount(this.index);
    this.emit(access);
    const before = this.body;
    this.body = [];
    this.spill();
    this.emit(m.return(m.i32.const(EXIT_EXCEPTION)));
    const leave = m.block(null, this.body);
    this.body = outer;
    return m.block(null, [...before, m.if(m.i32.load(S_EXC, 4, this.cpu()), leave)]);
  }
  private runtimeAccess(op: 'load' | 'loadw' | 'store', size: number, va: number, value?: binaryen.ExpressionRef): binaryen.ExpressionRef {
    const { m, b } = this;
    const type = typeOfSize(size);
    const name = `${op}${size * 8}`;
    const isStore = value !== undefined;
    this.importHelper(name, { params: isStore ? ['i32', 'i64', type] : ['i32', 'i64'], result: isStore ? 'none' : type });
    const args = [this.cpu(), m.local.get(va, b.i64)];
    if (isStore) args.push(value);
    return m.call(name, args, isStore ? b.none : b[type]);
  }
  load(address: Val, size: number): Val {
    const { m, b } = this;
    const { va, entry } = this.lookup(address);
    const type = typeOfSize(size);
    const result = this.newLocal(type);
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, size, 'read'),
        this.likely(m.local.set(result, hostLoad(m, size, tlbAddress(b, m, va, entry)))),
        this.slow(m.local.set(result, this.runtimeAccess('load', size, va))),
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
        this.likely(hostStore(m, size, tlbAddress(b, m, va, entry), m.local.get(value, type))),
        this.slow(this.runtimeAccess('store', size, va, m.local.get(value, type))),
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
    const { va, entry } = this.lookup(address ?? this.address(i));
    const host = this.newLocal('i32');
    const old = this.newLocal(type);
    this.emit(
      m.if(
        tlbHit(b, m, va, entry, size, 'write'),
        this.likely(m.local.set(old, hostLoad(m, size, m.local.tee(host, tlbAddress(b, m, va, entry), b.i32)))),
        m.block(null, [m.local.set(host, m.i32.const(0)), this.slow(m.local.set(old, this.runtimeAccess('loadw', size, va)))]),
      ),
    );
    // The slow store below cannot fault any more (loadw has checked), so flags that `f` sets need not be undone.
    const value = this.bind(f(this.local(type, old)));
    this.emit(
      m.if(
        m.local.get(host, b.i32),
        this.likely(hostStore(m, size, m.local.get(host, b.i32), m.local.get(value, b[type]))),
        this.slow(this.runtimeAccess('store', size, va, m.local.get(value, b[type]))),
      ),
    );
  }

  // ------------------------------------------------------------ spills
  private spillAt(s: { dirty: number; flags: FlagDef | 'locals' | 'inherited' }): void {
    const placeholder = this.m.block(null, []);
    this.spills.push({ placeholder, ...s });
    this.emit(placeholder);
  }
  private spill(): void {
    this.spillAt({ dirty: this.written, flags: this.flagState });
  }
  /** Fills a spill with the stores for registers and flags that may differ from the state block there. */
  fillSpill(s: Spill, dirtyIn: number, flagsDirtyIn: boolean): void {
    const { m, b } = this;
    const dirty = s.dirty | dirtyIn;
    const add = (e: binaryen.ExpressionRef) => appendChild(b, s.placeholder, e);
    for (let n = 0; n < 16; n++) {
      if ((dirty >>> n) & 1) add(m.i64.store(S_GPR + n * 8, 8, this.cpu(), m.local.get(LOCAL.gpr + n, b.i64)));
      if ((dirty >>> (XMM + n)) & 1) add(m.v128.store(S_XMM + n * 16, 16, this.cpu(), m.local.get(LOCAL.xmm + n, b.v128)));
    }
    if (s.flags === 'inherited' && !flagsDirtyIn) return;
    const [kind, res, src] = this.triple(s.flags, add);
    add(m.i32.store(S_CC_KIND, 4, this.cpu(), kind));
    add(m.i64.store(S_CC_RES, 8, this.cpu(), res));
    add(m.i64.store(S_CC_SRC, 8, this.cpu(), src));
  }
  /** Puts the flags of the block's end into the locals that its successors read. */
  fillFlagsOut(code: BlockCode): void {
    if (typeof code.flagsOut === 'string') return;
    const { m, b } = this;
    const add = (e: binaryen.ExpressionRef) => appendChild(b, code.flagsOutPlaceholder, e);
    const [kind, res, src] = this.triple(code.flagsOut, add);
    add(m.local.set(LOCAL.ccKind, kind));
    add(m.local.set(LOCAL.ccRes, res));
    add(m.local.set(LOCAL.ccSrc, src));
  }
  /** The lazy triple of a flag state as expressions; statements they need go to `add` first. */
  private triple(
    flags: FlagDef | 'locals' | 'inherited',
    add: (e: binaryen.ExpressionRef) => void,
  ): [binaryen.ExpressionRef, binaryen.ExpressionRef, binaryen.ExpressionRef] {
    const { m, b } = this;
    if (typeof flags === 'string') return [m.local.get(LOCAL.ccKind, b.i32), m.local.get(LOCAL.ccRes, b.i64), m.local.get(LOCAL.ccSrc, b.i64)];
    const outer = this.body;
    this.body = [];
    let kind: number;
    let res: Val;
    let src: Val;
    if (flags.kind === 'explicit') {
      kind = FLAGS_EXPLICIT;
      ({ res, src } = explicitTriple(this, flags.parts));
    } else {
      kind = flags.kind === 'logic' ? FLAGS_LOGIC : FLAG_BASE[flags.kind] + Math.log2(flags.size);
      res = this.let(this.sext64(flags.result, flags.size));
      src = flags.kind === 'logic' ? this.i64(0) : this.let(this.zext64(flags.src));
    }
    const needed = this.body;
    this.body = outer;
    for (const s of needed) add(s);
    return [m.i32.const(kind), res.take(), src.take()];
  }
  private storeIcount(extra: number): void {
    const { m, b } = this;
    const count = m.local.get(LOCAL.icount, b.i64);
    this.emit(m.i64.store(S_ICOUNT, 8, this.cpu(), extra === 0 ? count : m.i64.add(count, m.i64.const(BigInt(extra)))));
  }
  /** At the end of a block: the local count takes its instructions in. */
  private retireBlock(n: number): void {
    const { m, b } = this;
    this.emit(m.local.set(LOCAL.icount, m.i64.add(m.local.get(LOCAL.icount, b.i64), m.i64.const(BigInt(n)))));
  }
  protected override spillRegisters(): void {
    this.spill();
  }
  protected override reloadRegisters(): void {
    const { m } = this;
    // Every register of the region may be in a local; which ones is known at the end, so all that exist so far and later ones reload.
    const placeholder = m.block(null, []);
    this.reloads.push(placeholder);
    this.emit(placeholder);
    this.reloadFlags();
  }
  private reloadFlags(): void {
    const { m } = this;
    this.emit(m.local.set(LOCAL.ccKind, m.i32.load(S_CC_KIND, 4, this.cpu())));
    this.emit(m.local.set(LOCAL.ccRes, m.i64.load(S_CC_RES, 8, this.cpu())));
    this.emit(m.local.set(LOCAL.ccSrc, m.i64.load(S_CC_SRC, 8, this.cpu())));
    this.flagState = 'locals';
    this.flagsWritten = true;
  }
  readonly reloads: binaryen.ExpressionRef[] = [];
  /** Loads every register the region uses from the state block. */
  loadRegisters(add: (e: binaryen.ExpressionRef) => void): void {
    const { m } = this;
    for (let n = 0; n < 16; n++) {
      if ((this.touched >>> n) & 1) add(m.local.set(LOCAL.gpr + n, m.i64.load(S_GPR + n * 8, 8, this.cpu())));
      if ((this.touched >>> (XMM + n)) & 1) add(m.local.set(LOCAL.xmm + n, m.v128.load(S_XMM + n * 16, 16, this.cpu())));
    }
  }

  // ------------------------------------------------------------ flags
  private define(def: FlagDef): void {
    this.flagsWritten = true;
    this.flagState = def;
    if (this.depth > 0) this.flagsToLocals();
  }
  private flagsToLocals(): void {
    const { m } = this;
    if (this.flagState === 'inherited') this.flagsRead = true;
    if (typeof this.flagState !== 'string') {
      const [kind, res, src] = this.triple(this.flagState, (e) => this.emit(e));
      this.emit(m.local.set(LOCAL.ccKind, kind));
      this.emit(m.local.set(LOCAL.ccRes, res));
      this.emit(m.local.set(LOCAL.ccSrc, src));
    }
    this.flagState = 'locals';
  }
  setFlags(kind: FlagKind, size: number, result: Val, src: Val, a?: Val): void {
    this.define({ kind, size, result: this.let(result), src: this.let(src), a: a === undefined ? undefined : this.let(a) });
  }
  setFlagsExplicit(f: ExplicitFlags): void {
    const parts: ExplicitFlags = {};
    for (const key of ['cf', 'of', 'af', 'result', 'zf', 'sf', 'pf'] as const) {
      const v = f[key];
      if (v !== undefined) parts[key] = this.let(v);
    }
    if (f.size !== undefined) parts.size = f.size;
    this.define({ kind: 'explicit', parts });
  }
  setCarry(cf: Val, of?: Val): void {
    const { m, b } = this;
    const def = this.flagState;
    const c = this.let(cf);
    const o = of === undefined ? undefined : this.let(of);
    if (typeof def !== 'string') {
      const parts: ExplicitFlags = def.kind === 'explicit' ? { ...def.parts } : { result: def.result, size: def.size, af: this.let(flagOf(this, def, 'a')) };
      parts.cf = c;
      parts.of = o ?? this.let(flagOf(this, def, 'o'));
      this.define({ kind: 'explicit', parts });
      return;
    }
    if (def === 'inherited') this.flagsRead = true;
    const [kind, res, src] = this.triple('locals', () => {});
    const kept = this.expr('i64', m.call(FLAGS_WITHOUT_CARRY, [kind, res, src], b.i64));
    this.emit(m.local.set(LOCAL.ccSrc, carryInto(this, kept, c, o).take()));
    this.emit(m.local.set(LOCAL.ccKind, m.i32.const(FLAGS_EXPLICIT)));
    this.flagState = 'locals';
    this.flagsWritten = true;
  }
  flag(f: FlagName): Val {
    const { m, b } = this;
    if (typeof this.flagState !== 'string') return this.let(flagOf(this, this.flagState, f));
    if (this.flagState === 'inherited') this.flagsRead = true;
    if (f === 'z') return this.let(this.expr('i32', m.i64.eqz(m.local.get(LOCAL.ccRes, b.i64))));
    const [kind, res, src] = this.triple('locals', () => {});
    return this.let(this.expr('i32', m.call(FLAG_FUNCTION[f], [kind, res, src], b.i32)));
  }
  condition(cc: number): Val {
    if (typeof this.flagState !== 'string') {
      const direct = conditionOf(this, this.flagState, cc);
      if (direct !== undefined) return this.let(direct);
    }
    return conditionFromFlags(this, cc);
  }
  private storeFlags(): void {
    const { m } = this;
    if (this.flagState === 'inherited') this.flagsRead = true;
    const [kind, res, src] = this.triple(this.flagState, (e) => this.emit(e));
    this.emit(m.i32.store(S_CC_KIND, 4, this.cpu(), kind));
    this.emit(m.i64.store(S_CC_RES, 8, this.cpu(), res));
    this.emit(m.i64.store(S_CC_SRC, 8, this.cpu(), src));
  }
  softFloat(): undefined {
    this.usesFloat = true;
  }
  sseBlocked(): undefined {
    this.usesSse = true;
  }
  statusFlags(): Val {
    this.storeFlags();
    return this.call('getFlags', 'i32', []);
  }
  setStatusFlags(v: Val): void {
    this.call('setFlags', 'none', [v]);
    this.reloadFlags();
  }

  // ------------------------------------------------------------ control
  if(condition: Val, then: () => void, otherwise?: () => void): void {
    const { m } = this;
    const test = condition.take();
    const outer = this.body;
    const flagsBefore = this.flagState;
    const writtenBefore = this.flagsWritten;
    this.depth++;
    let changed = false;
    const run = (f: () => void): binaryen.ExpressionRef => {
      this.body = [];
      this.flagState = flagsBefore;
      f();
      const leaves = this.ended;
      this.ended = false;
      if (!leaves && this.flagState !== flagsBefore) changed = true;
      const block = m.block(null, this.body);
      this.body = outer;
      return block;
    };
    const yes = run(then);
    const no = otherwise === undefined ? undefined : run(otherwise);
    this.depth--;
    this.flagState = flagsBefore;
    if (changed) this.flagsToLocals();
    else this.flagsWritten = writtenBefore;
    this.emit(no === undefined ? m.if(test, yes) : m.if(test, yes, no));
  }
  raise(vector: number, error?: number): void {
    const { m } = this;
    this.emit(m.i32.store(S_EXC, 4, this.cpu(), m.i32.const(vector + 1)));
    this.emit(m.i32.store(S_EXC_ERROR, 4, this.cpu(), m.i32.const(error ?? 0)));
    this.leaveWithException();
  }
  private leaveWithException(): void {
    this.leave(this.ripOf(this.offset), this.index, this.m.return(this.m.i32.const(EXIT_EXCEPTION)));
  }
  /** Spills, stores RIP and the count (`extra` beyond the local one), and transfers control. */
  private leave(rip: binaryen.ExpressionRef, extra: number, transfer: binaryen.ExpressionRef): void {
    this.spill();
    this.emit(this.m.i64.store(S_RIP, 8, this.cpu(), rip));
    this.storeIcount(extra);
    this.emit(transfer);
    this.ended = true;
  }
  private leaveTo(rip: binaryen.ExpressionRef, through: 'chain' | 'chain_check'): void {
    this.leave(rip, 0, this.m.return_call(through, [this.cpu()], this.b.i32));
  }
  checkException(): void {
    this.if(this.state(S_EXC, 4), () => this.leaveWithException());
  }
  retired(): Val {
    const { m, b } = this;
    return this.let(this.expr('i64', m.i64.add(m.local.get(LOCAL.icount, b.i64), m.i64.const(BigInt(this.index)))));
  }
  nextRip(): Val {
    return this.let(this.expr('i64', this.ripOf(this.offset + this.insn.length)));
  }
  thisRip(): Val {
    return this.let(this.expr('i64', this.ripOf(this.offset)));
  }
  branch(): void {
    const to = this.offset + this.insn.length + this.insn.immLow;
    const backward = to <= this.offset;
    this.retireBlock(this.index + 1);
    if (this.region.blocks.has(to)) this.terminator = { kind: 'goto', to, backward };
    else {
      this.leaveTo(this.ripOf(to), backward ? 'chain_check' : 'chain');
      this.terminator = { kind: 'ended' };
    }
  }
  branchIf(condition: Val): void {
    const test = this.bind(condition);
    const next = this.offset + this.insn.length;
    const to = next + this.insn.immLow;
    this.retireBlock(this.index + 1);
    this.terminator = { kind: 'cond', condition: test, to, backward: to <= this.offset, next };
  }
  branchTo(target: Val, hint: 'ret' | 'call' | 'jmp'): void {
    const rip = this.bind(target);
    this.retireBlock(this.index + 1);
    const targets = hint === 'ret' ? this.region.returnSites : (this.region.targets.get(this.offset) ?? []);
    if (targets.length > 0) {
      this.terminator = { kind: 'indirect', rip, targets };
      return;
    }
    this.leaveTo(this.m.local.get(rip, this.b.i64), 'chain_check');
    this.terminator = { kind: 'ended' };
  }
  exit(reason: number, at: 'this' | 'next'): void {
    const { m } = this;
    this.emit(m.i32.store(S_EXIT_INSN_LEN, 4, this.cpu(), m.i32.const(this.insn.length)));
    const next = at === 'next';
    this.leave(this.ripOf(next ? this.offset + this.insn.length : this.offset), this.index + (next ? 1 : 0), m.return(m.i32.const(reason)));
  }
  endBlock(): void {
    this.exit(NEXT_CHECK, 'next');
  }
  repeatUnless(complete: Val): void {
    this.if(this.eqz(complete), () => this.leave(this.ripOf(this.offset), this.index + 1, this.m.return(this.m.i32.const(NEXT_CHECK))));
  }
  syscall(): void {
    const { m, b } = this;
    this.emit(m.i32.store(S_EXIT_INSN_LEN, 4, this.cpu(), m.i32.const(this.insn.length)));
    this.leave(this.ripOf(this.offset), this.index, m.return_call('syscall_chain', [this.cpu()], b.i32));
  }
}

/** Local that a value made by `RegionEmitter.local` reads. */
const localIndex = new WeakMap<Val, number>();

function flagVals(s: FlagDef | 'locals' | 'inherited'): Val[] {
  if (typeof s === 'string') return [];
  if (s.kind === 'explicit') {
    const { cf, of, af, result, zf, sf, pf } = s.parts;
    return [cf, of, af, result, zf, sf, pf].filter((v) => v !== undefined);
  }
  return s.a === undefined ? [s.result, s.src] : [s.result, s.src, s.a];
}

/** Binaryen's JavaScript wrapper for blocks has no typed constructor in its declarations. */
function appendChild(b: typeof binaryen, block: binaryen.ExpressionRef, child: binaryen.ExpressionRef): void {
  (b as unknown as { _BinaryenBlockAppendChild(block: number, child: number): number })._BinaryenBlockAppendChild(block, child);
}

export { appendChild };
