import type { Form, Insn, MemOperand, OperandForm } from '../decoder/types.ts';
import { type AddressOptions, type Emitter, VECTOR_GP } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { controlOffset, debugOffset, popAdjustment, segmentBaseOffset } from '../interp/record.ts';
import {
  CS,
  EXIT_EXCEPTION,
  EXIT_LIMIT,
  NEXT_CHECK,
  NEXT_INTERPRET,
  RUN_LIMIT,
  S_EXC,
  S_EXC_ERROR,
  S_EXIT_INSN_LEN,
  S_ICOUNT,
  S_RIP,
  S_SEG,
  S_X87,
  S_ZERO,
  SEG_SELECTOR,
  SEG_STRIDE,
} from '../layout.ts';
import type { ModuleBuilder } from '../wasm/module-builder.ts';
import type { Expr, WasmTypes } from '../wasm/types.ts';
import { eitherUse as either, type FlagUse, registersOf, usesOnAllPaths } from './deferred-flags.ts';
import { type BlockTree, blockTrees, successorsOf } from './flow.ts';
import { chainTo } from './jump-cache.ts';
import { type Guard, type GuardCode, guardCode } from './loop-guard.ts';
import { ABSOLUTE_ROOT, type AddressForm, copyOf, formOf, type LoopFacts, type PagedLoop, RIP_ROOT, type Sum } from './paged-loops.ts';
import type { GuestBlock, RegionCode } from './region.ts';
import { FAULT, type MemoryState, RegionMemory } from './region-memory.ts';
import { type EndFlags, type Imports, LOCAL, type Symbolic } from './region-state.ts';
import { registersInMemory } from './register-homes.ts';
import { returnTargets } from './return-sites.ts';
import type { TargetHash } from './target-hash.ts';

const RIP = 16;
/** How a block ends, as the emission of its last instruction left it. */
export type Terminator =
  | { readonly kind: 'goto'; readonly to: number; readonly backward: boolean }
  | { readonly kind: 'cond'; readonly condition: number; readonly to: number; readonly backward: boolean; readonly next: number }
  /** To one of the targets whose RIP is in local `rip`, else out of the region, past `fault` for one that is not canonical. `distance`: local for that from the region's start. */
  | { readonly kind: 'indirect'; readonly rip: number; readonly distance: number; readonly targets: readonly number[]; readonly fault: Expr | undefined }
  /** The code has returned. */
  | { readonly kind: 'ended' };

export interface BlockCode {
  readonly block: GuestBlock;
  readonly code: Expr;
  readonly terminator: Terminator;
}

/** The end of a block: its flags, and empty blocks for the code that makes them, before the branch and on each edge (`to` absent: it leaves). */
interface BlockEnd {
  readonly flags: EndFlags;
  readonly last: Expr;
  readonly edges: { readonly to: number | undefined; readonly place: Expr; readonly exit: Expr | undefined }[];
}

/** Instructions on registers that set all flags whatever they were, and those that neither read nor set any. */
const RESETS_FLAGS = new Set('add and sub or xor cmp test neg mul imul1 imul2 imul3'.split(' '));
const LEAVES_FLAGS = new Set('mov lea movzx movsx movsxd not nop bswap cbw cwd'.split(' '));
const READS_CARRY = new Set(['adc', 'sbb']);
/** Instructions that replace all flags, but for shifts by zero. Only to choose between two right ways. */
const REPLACES_FLAGS = new Set(
  'add or adc sbb and sub xor cmp test neg imul1 imul2 imul3 mul shl shr sar popcnt lzcnt tzcnt andn bzhi comiss comisd ucomiss ucomisd ptest xadd cmpxchg'.split(
    ' ',
  ),
);

/** Labels around the region's code; an exit has stored RIP, as a distance from the region's start, and the count in locals. Of OUT the flags may still be a recipe's number. */
const OUT = 'out';
const OUT_WITH_FLAGS = 'outWithFlags';
/** Values of LOCAL.reason beside the EXIT_* and NEXT_* codes: what an exit goes on with. The local is 0 until an exit sets it. */
const CHAIN = 0;
const CHAIN_CHECK = -2;
const SYSCALL = -3;

/**
 * Emits compiled guest code: operands are constants and Wasm locals. Registers stay in locals between the instructions of a
 * region. All exits go through one place that stores what the region may have changed, and all faults through another, so that
 * the code of each access stays small.
 */
export class RegionEmitter extends RegionMemory {
  form: Form;
  readonly codeSize: 16 | 32 | 64;
  readonly flat: boolean;
  readonly tracksFloat: boolean;
  readonly checksTargets = false;
  /** Segments other than the flat ones that 32-bit code uses (bit set). */
  otherSegments = 0;
  usesSyscall = false;
  protected insn: Insn;
  private terminator: Terminator | undefined;
  /** Roots of base + index << scale, by the roots of the two. */
  private readonly sums = new Map<string, number>();
  private readonly sumParts = new Map<number, Sum>();
  /** Roots of the general registers where a turn of the loop begins that is looked at or emitted for the second time. */
  private readonly turnRegisters = new Map<number, number>();
  /** What is known of the general registers at the end of each block of such a loop that goes to a block. */
  private readonly registersAt = new Map<number, (readonly (Symbolic | undefined)[])[]>();
  /** Header of the loop that is looked at. */
  private probed: number | undefined;
  private readonly guards = new Map<PagedLoop, Guard>();
  /** Index of the last instruction of the block that replaces all flags. */
  private lastReplacer = -1;
  private insns: readonly Insn[] = [];
  private readonly region: RegionCode;
  /** Blocks that only one other goes to, and which. */
  private readonly parents = new Map<number, number>();
  private readonly uses = new Map<number, FlagUse & { readonly written: number }>();
  private readonly ends = new Map<number, BlockEnd>();
  private readonly returns: ReturnType<typeof returnTargets>;

  constructor(b: WasmTypes, m: ModuleBuilder, region: RegionCode, first: Insn, imports: Imports) {
    super(b, m, imports, registersInMemory(region));
    this.codeSize = region.codeSize;
    this.flat = region.codeSize === 32;
    this.tracksFloat = region.tracked;
    this.insn = first;
    this.form = first;
    this.region = region;
    this.returns = returnTargets(region);
  }

  /** Emits all blocks; `semantics` runs the semantics function of an instruction. */
  emitBlocks(semantics: (insn: Insn, e: Emitter) => void): ReadonlyMap<number, BlockCode> {
    const codes = new Map<number, BlockCode>();
    const emitTree = ({ block, children }: BlockTree, before: MemoryState | undefined): void => {
      codes.set(block.start, this.emitBlock(block, before, semantics));
      const after = this.blockState();
      this.holdingLocals(() => {
        for (const child of children) {
          this.parents.set(child.block.start, block.start);
          emitTree(child, after);
        }
      });
    };
    for (const tree of blockTrees(this.region, this.returns)) {
      const loop = tree.block.copy?.loop;
      // What is known at the beginning of a turn is known in all blocks of a loop.
      if (this.beginsTurn(tree.block) || (loop === undefined && this.probed === undefined)) {
        this.sums.clear();
        this.sumParts.clear();
        this.registersAt.clear();
      }
      this.beginVersion(loop === undefined ? undefined : this.guardOf(loop));
      emitTree(tree, undefined);
      this.finishGroups();
      this.beginVersion(undefined);
    }
    return codes;
  }
  /** Emits the blocks of a region that is one loop, to find out what it accesses; they are of no other use. */
  probe(header: number, semantics: (insn: Insn, e: Emitter) => void): LoopFacts {
    this.probed = header;
    this.seen = [];
    this.emitBlocks(semantics);
    return {
      registers: this.turnRegisters,
      sums: this.sumParts,
      bounds: this.bounds,
      accesses: this.seen,
      turns: this.registersAt.get(header) ?? [],
      callsHelpers: this.callsHelpers,
    };
  }
  private guardOf(loop: PagedLoop): Guard {
    const known = this.guards.get(loop);
    if (known !== undefined) return known;
    const made = { windows: loop.windows.map((w) => ({ ...w, addend: this.ownLocal('i32') })), stop: this.ownLocal('i64') };
    this.guards.set(loop, made);
    return made;
  }
  private emitBlock(block: GuestBlock, before: MemoryState | undefined, semantics: (insn: Insn, e: Emitter) => void): BlockCode {
    const { m } = this;
    this.body = [];
    this.block = block.start;
    this.startBlock(before);
    this.ended = false;
    this.terminator = undefined;
    this.offset = block.copy?.of ?? block.start;
    if (this.beginsTurn(block)) this.beginTurn();
    else if (before === undefined && (this.probed !== undefined || block.copy !== undefined)) this.meetRegisters(block.start);
    this.insns = block.insns;
    this.lastReplacer = block.insns.findLastIndex((insn) => REPLACES_FLAGS.has(insn.row.name));
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
        this.retire(block.insns.length);
        this.terminator = { kind: 'goto', to: block.end, backward: false };
      }
    }
    const isInLoop = this.probed !== undefined || block.copy !== undefined;
    const after = isInLoop ? successorsOf(this.region, this.returns, block) : [];
    for (const to of after) this.registersAt.set(to, [...(this.registersAt.get(to) ?? []), this.blockState().registers]);
    this.endFlagUse();
    this.uses.set(block.start, { ...this.flagUse, written: this.clobbered });
    const last = m.block(null, []);
    this.ends.set(block.start, { flags: this.endFlags(), last, edges: [] });
    return { block, code: m.block(null, [...this.body, last]), terminator: this.terminator };
  }

  /** Is it where a turn begins of the loop that is looked at, or that is emitted for the second time? */
  private beginsTurn({ start, copy }: GuestBlock): boolean {
    return copy === undefined ? start === this.probed : copy.of === copy.loop.header;
  }
  /** Where several ways through a turn meet: what is known of a register on all of them. */
  private meetRegisters(start: number): void {
    const [first, ...others] = this.registersAt.get(start) ?? [];
    for (let n = 0; n < 16; n++) {
      const known = first?.[n];
      if (known === undefined || !others.every((registers) => registers[n]?.root === known.root && registers[n]?.offset === known.offset)) continue;
      this.setRegisterNow(n, known);
    }
  }
  protected override beginTurn(): void {
    super.beginTurn();
    this.turnRegisters.clear();
    for (let n = 0; n < 16; n++) this.turnRegisters.set(this.registerNow(n).root, n);
  }
  protected formOf(root: number): AddressForm | undefined {
    return formOf(root, { registers: this.turnRegisters, sums: this.sumParts, bounds: this.bounds });
  }

  /** Code of an exit from the region to `target`, an offset or a local with a RIP, at the end of block `from`. */
  exitCode(from: number, target: number | { readonly rip: number }, check: boolean): Expr {
    // Flags that the block was entered with may be a recipe's.
    const out = this.uses.get(from)?.passes === false ? OUT_WITH_FLAGS : OUT;
    return this.m.block(null, [this.edgePlace(from, undefined), ...this.leaving(target, check ? CHAIN_CHECK : CHAIN, out)]);
  }
  /** Code on the way from block `from` to block `to` of the region; 0: none. `check`: as on a backward or indirect branch. */
  edgeCode(from: number, to: number, check: boolean): Expr {
    const parent = this.parents.get(to);
    if (parent !== undefined && parent !== from) throw new Error(`block ${to} was taken to follow ${parent} only, and follows ${from}`);
    const exit = this.m.block(null, []);
    const place = this.edgePlace(from, to, exit);
    return check ? this.m.block(null, [place, this.backEdgeCode(this.region.blocks.get(to)?.copy?.of ?? to, exit)]) : place;
  }
  /** From the end of a turn in the second version of a loop: code on the way to the next one, whether that may begin, and code on the way to the guard. */
  turnEdge(from: number, loop: PagedLoop, check: boolean): { readonly place: Expr; readonly goesOn: () => Expr; readonly toGuard: Expr } {
    const { m, b } = this;
    const exit = m.block(null, []);
    // The next turn asks less of the flags than the first version, in which loads may fault.
    const place = this.edgePlace(from, copyOf(loop, loop.header));
    const onWay = this.edgePlace(from, loop.header, exit);
    const goesOn = () => m.i64.lt_u(m.local.get(LOCAL.icount, b.i64), m.local.get(this.guardOf(loop).stop, b.i64));
    return { place, goesOn, toGuard: m.block(null, check ? [onWay, this.backEdgeCode(loop.header, exit)] : [onWay]) };
  }

  /** The guard of a loop (loop-guard.ts). */
  guardCode(loop: PagedLoop): GuardCode {
    return guardCode(this.m, loop, this.guardOf(loop), { local: (type) => this.newLocal(type), formNow: (form, offset) => this.formNow(form, offset) });
  }
  /** i64: the value of a form now, plus `offset`. */
  private formNow({ terms, isRelative }: Pick<AddressForm, 'terms' | 'isRelative'>, offset: number): Expr {
    const { m } = this;
    const parts = terms.map(([register, factor]) => (factor === 1 ? this.whole(register) : m.i64.mul(this.whole(register), m.i64.const(BigInt(factor)))));
    if (isRelative) parts.push(this.ripOf(0));
    if (offset !== 0 || parts.length === 0) parts.push(m.i64.const(BigInt(offset)));
    return parts.reduce((x, y) => m.i64.add(x, y));
  }

  /** An empty block for the code that an edge needs for the flags; `exit`: another one for an exit of the region on the edge. */
  private edgePlace(from: number, to: number | undefined, exit?: Expr): Expr {
    const place = this.m.block(null, []);
    this.ends.get(from)?.edges.push({ to, place, exit });
    return place;
  }
  /** Once all edges have been asked for: puts in what they need for the flags. */
  private finishFlags(): void {
    const successors = new Map([...this.region.blocks].map(([start, block]) => [start, successorsOf(this.region, this.returns, block)]));
    // Where the first version of a loop begins, the second one may begin instead.
    for (const loop of this.guards.keys()) {
      const [first, second] = [loop.header, copyOf(loop, loop.header)];
      const [one, other] = [this.uses.get(first), this.uses.get(second)];
      if (one !== undefined && other !== undefined) this.uses.set(first, either(one, other));
      successors.get(first)?.push(...(successors.get(second) ?? []));
    }
    const uses = usesOnAllPaths(this.uses, successors);
    const fill = (place: Expr, code: readonly Expr[]): void => {
      for (const c of code) this.m.appendChild(place, c);
    };
    for (const [from, { flags, last, edges }] of this.ends) {
      if (!flags.isApart || edges.length === 0) continue;
      const needs = edges.map(({ to }): 'state' | 'exits' | 'nothing' => {
        if (to === undefined) return 'state';
        if (this.parents.get(to) === from) return 'nothing';
        const use = uses.get(to);
        if (use?.reads !== false) return 'state';
        if (!use.observed) return 'nothing';
        return flags.recipe === undefined || (registersOf(flags.recipe) & use.clobbers) !== 0 ? 'state' : 'exits';
      });
      if (needs.every((need) => need === 'state')) fill(last, flags.pack());
      else if (needs.every((need) => need === 'exits')) fill(last, flags.leave());
      else {
        for (const [i, { place, exit }] of edges.entries()) {
          if (needs[i] !== 'nothing') fill(place, needs[i] === 'state' ? flags.pack() : flags.leave());
          else if (exit !== undefined) fill(exit, flags.leave());
        }
      }
    }
  }

  /** i32: the slot that `hash` has for the RIP in the terminator's local; it must run before `isTarget`. */
  targetSlot(t: Extract<Terminator, { kind: 'indirect' }>, hash: TargetHash): Expr {
    const { m, b } = this;
    const distance = m.i64.sub(m.local.get(t.rip, b.i64), m.local.get(LOCAL.rip, b.i64));
    const offset = m.i32.wrap(m.local.tee(t.distance, distance, b.i64));
    const mixed = hash.multiplier === 1 ? offset : m.i32.mul(offset, m.i32.const(hash.multiplier));
    return m.i32.and(hash.shift === 0 ? mixed : m.i32.shr_u(mixed, m.i32.const(hash.shift)), m.i32.const(hash.slots.length - 1));
  }

  /** i32: is the RIP in the terminator's local that of `target`? `hasDistance`: `targetSlot` has run. */
  isTarget(t: Extract<Terminator, { kind: 'indirect' }>, target: number, hasDistance: boolean): Expr {
    const { m, b } = this;
    if (hasDistance) return m.i64.eq(m.local.get(t.distance, b.i64), m.i64.const(BigInt(target)));
    return m.i64.eq(m.local.get(t.rip, b.i64), this.ripOf(target));
  }

  /** Code on a backward edge inside the region: leaves, after `exit`, when the budget of instructions is used up. */
  private backEdgeCode(offset: number, exit: Expr): Expr {
    const { m, b } = this;
    const isLeft = m.i64.lt_u(m.local.get(LOCAL.icount, b.i64), m.i64.load(RUN_LIMIT, 8, m.i32.const(0)));
    return m.if(isLeft, m.nop(), m.block(null, [exit, ...this.leaving(offset, EXIT_LIMIT)]));
  }

  /** The whole function body around the region's control flow, which `render` makes. */
  finish(render: () => Expr): Expr {
    const { m, b } = this;
    const reason = () => m.local.get(LOCAL.reason, b.i32);
    const rip = m.i64.add(m.local.get(LOCAL.exitRip, b.i64), m.local.get(LOCAL.rip, b.i64));
    const icount = () => m.local.get(LOCAL.icount, b.i64);
    const isSpent = m.i64.ge_u(icount(), m.i64.load(RUN_LIMIT, 8, m.i32.const(0)));
    const body = render();
    this.finishFlags();
    const flags = this.followRecipe();
    const spill = this.spillHere();
    const entry = this.finishState();
    const fault = m.local.set(LOCAL.reason, m.i32.const(EXIT_EXCEPTION));
    const place = () => [m.i64.store(S_RIP, 8, this.cpu(), m.local.get(LOCAL.exitRip, b.i64)), m.i64.store(S_ICOUNT, 8, this.cpu(), icount())];
    const isChained = m.i32.le_s(reason(), m.i32.const(CHAIN));
    const otherwise = m.block(null, [m.if(m.i32.eq(reason(), m.i32.const(EXIT_EXCEPTION)), m.return(reason())), ...place(), m.return(reason())]);
    return m.block(
      null,
      [
        m.block(OUT_WITH_FLAGS, [m.block(OUT, [m.block(FAULT, [...entry, body, m.unreachable()]), fault]), flags]),
        spill,
        m.local.set(LOCAL.exitRip, rip),
        m.if(isChained, m.nop(), otherwise),
        ...place(),
        ...(this.usesSyscall ? [m.if(m.i32.eq(reason(), m.i32.const(SYSCALL)), m.return_call('syscall_chain', [this.cpu()], b.i32))] : []),
        m.if(reason(), m.if(isSpent, m.return(m.i32.const(EXIT_LIMIT)))),
        // The locals of the TLB and of the reason are free by now.
        ...chainTo(m, { cpu: LOCAL.cpu, rip: LOCAL.exitRip, entry: LOCAL.tlb, fn: LOCAL.reason }),
      ],
      b.i32,
    );
  }

  private ripOf(offset: number): Expr {
    const { m, b } = this;
    const base = m.local.get(LOCAL.rip, b.i64);
    return offset === 0 ? base : m.i64.add(base, m.i64.const(BigInt(offset)));
  }

  protected flagsAreReplaced(): boolean {
    if (this.lastReplacer >= this.index) return true;
    const block = this.region.blocks.get(this.block);
    return block !== undefined && successorsOf(this.region, this.returns, block).every((to) => this.replacesFlagsFirst(to));
  }
  /** The first instruction of the block at `start` that has to do with flags replaces them all. Only to choose between two right ways. */
  private replacesFlagsFirst(start: number): boolean {
    const first = this.region.blocks.get(start)?.insns.find(({ row: { name } }) => !LEAVES_FLAGS.has(name) && name !== 'push' && name !== 'pop');
    return first !== undefined && REPLACES_FLAGS.has(first.row.name) && !READS_CARRY.has(first.row.name);
  }
  override flagsAreDead(): boolean {
    for (let i = this.index + 1; ; i++) {
      const insn = this.insns[i];
      if (insn === undefined || !insn.operands.every((o) => o.kind === 'gpr' || o.kind === 'imm' || insn.row.name === 'lea')) return false;
      if (RESETS_FLAGS.has(insn.row.name)) return true;
      if (!LEAVES_FLAGS.has(insn.row.name)) return false;
    }
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
      case 'is4':
        return (this.insn.immLow >> 4) & (this.codeSize === 64 ? 15 : 7);
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
        this.store(this.address(i, { write: true }), o.size, v);
        return;
      default:
        throw new Error(`${this.form.row.name}: operand ${i} (${o.kind}) cannot be written`);
    }
  }
  readXmm(i: number, half = 0): Val {
    return this.xmm(this.number(this.operand(i)), half);
  }
  writeXmm(i: number, v: Val, half = 0): void {
    this.setXmm(this.number(this.operand(i)), v, half);
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
  registerField(i: number): Val {
    const o = this.operand(i);
    const n = this.number(o);
    return this.i32(o.kind === 'dr' ? debugOffset(n) : controlOffset(n));
  }
  farSelector(): Val {
    return this.i32(this.insn.imm2);
  }
  segmentOffset(): Val {
    return this.i32(segmentBaseOffset(this.insn.seg, this.codeSize));
  }
  segmentRecord(i: number): Val {
    return this.i32(S_SEG + this.number(this.operand(i)) * SEG_STRIDE);
  }
  address(i: number, options?: AddressOptions): Val {
    const { m } = this;
    const { addrSize } = this.insn;
    const mem = this.operand(i).field === 'vsib' && this.insn.mem !== null ? { ...this.insn.mem, index: -1 } : this.insn.mem;
    if (mem === null) throw new Error(`${this.form.row.name}: operand ${i} is not memory`);
    if (options?.write === true) this.requireWritable(mem.seg);
    const terms: Expr[] = [];
    let disp = BigInt(mem.disp + popAdjustment(this.insn));
    if (mem.dispHigh !== undefined) disp = BigInt.asIntN(64, (BigInt(mem.dispHigh) << 32n) | BigInt(mem.disp >>> 0));
    if (mem.base === RIP) terms.push(this.ripOf(0));
    else if (mem.base >= 0) terms.push(this.whole(mem.base));
    if (mem.base === RIP) disp += BigInt(this.offset + this.insn.length);
    if (mem.index >= 0) terms.push(mem.scale === 0 ? this.whole(mem.index) : m.i64.shl(this.whole(mem.index), m.i64.const(BigInt(mem.scale))));
    if (disp !== 0n || terms.length === 0) terms.push(m.i64.const(disp));
    let ea = terms.reduce((x, y) => m.i64.add(x, y));
    if (addrSize !== 8) ea = m.i64.and(ea, m.i64.const(addrSize === 2 ? 0xffffn : 0xffff_ffffn));
    if (options?.segment !== false) ea = this.inSegment(ea, mem.seg);
    const isPlain = options?.segment === false || this.baseOf(mem.seg) === S_ZERO;
    return this.know(this.let(this.expr('i64', ea)), isPlain && addrSize === 8 ? this.symbolicAddress(mem, Number(disp)) : undefined);
  }
  /** Code cannot be written; the other segments of compiled code can. */
  private requireWritable(seg: number): void {
    if (this.flat && seg === CS) this.if(this.i32(1), () => this.raise(VECTOR_GP, 0));
  }
  /** The flat segments have no base in 32-bit code either. */
  private baseOf(seg: number): number {
    return segmentBaseOffset(seg, this.flat ? 64 : this.codeSize);
  }
  private inSegment(offset: Expr, seg: number): Expr {
    const { m } = this;
    const base = this.baseOf(seg);
    if (base === S_ZERO) return offset;
    const address = m.i64.add(offset, m.i64.load(base, 8, this.cpu()));
    if (!this.flat) return address;
    this.otherSegments |= 1 << seg;
    return m.i64.and(address, m.i64.const(0xffff_ffffn));
  }
  linear(offset: Val, _size: number, options?: { write?: boolean }): Val {
    if (options?.write === true) this.requireWritable(this.insn.seg);
    return this.let(this.expr('i64', this.inSegment(offset.take(), this.insn.seg)));
  }
  indexVector(half: number): Val {
    return this.xmm(this.insn.mem?.index ?? 0, half);
  }
  indexScale(): Val {
    return this.i32(this.insn.mem?.scale ?? 0);
  }
  /** An address as a root and a constant; undefined when its registers make a sum that the block has no name for. */
  private symbolicAddress(mem: MemOperand, disp: number): Symbolic | undefined {
    if (mem.base === RIP) return { root: RIP_ROOT, offset: disp };
    if (mem.dispHigh !== undefined) return undefined;
    const base = mem.base >= 0 ? this.registerNow(mem.base) : { root: ABSOLUTE_ROOT, offset: 0 };
    if (mem.index < 0) return { root: base.root, offset: base.offset + disp };
    const index = this.registerNow(mem.index);
    return { root: this.sumRoot(base.root, index.root, mem.scale), offset: base.offset + index.offset * 2 ** mem.scale + disp };
  }
  protected sumOf(a: Symbolic, c: Symbolic): Symbolic {
    return { root: this.sumRoot(a.root, c.root, 0), offset: a.offset + c.offset };
  }
  /** The root that stands for the sum of two. */
  private sumRoot(base: number, index: number, scale: number): number {
    const key = `${base} ${index} ${scale}`;
    let root = this.sums.get(key);
    if (root === undefined) {
      root = this.newRoot();
      this.sums.set(key, root);
      this.sumParts.set(root, { base, index, scale });
    }
    return root;
  }

  // ------------------------------------------------------------ control
  raise(vector: number, error?: number): void {
    const { m } = this;
    this.emit(m.i32.store(S_EXC, 4, this.cpu(), m.i32.const(vector + 1)));
    this.emit(m.i32.store(S_EXC_ERROR, 4, this.cpu(), m.i32.const(error ?? 0)));
    this.leaveWithException();
  }
  private leaveWithException(): void {
    const { m } = this;
    this.leaveFlags();
    this.emit(m.i64.store(S_RIP, 8, this.cpu(), this.ripOf(this.offset)));
    this.emit(m.i64.store(S_ICOUNT, 8, this.cpu(), this.countBefore()));
    this.emit(m.br(FAULT));
    this.ended = true;
  }
  /** Retired instructions before the current one, i64. */
  private countBefore(): Expr {
    const { m, b } = this;
    const count = m.local.get(LOCAL.icount, b.i64);
    return this.index === 0 ? count : m.i64.add(count, m.i64.const(BigInt(this.index)));
  }
  /** The local count takes in `n` instructions of the block. */
  private retire(n: number): void {
    const { m, b } = this;
    if (n > 0) this.emit(m.local.set(LOCAL.icount, m.i64.add(m.local.get(LOCAL.icount, b.i64), m.i64.const(BigInt(n)))));
  }
  /** Statements that leave for good to an offset, or to the RIP in a local; the count is in its local, the flags, or the number of their recipe, in the state block. */
  private leaving(to: number | { readonly rip: number }, reason: number, out = OUT): Expr[] {
    const { m, b } = this;
    const distance = typeof to === 'number' ? m.i64.const(BigInt(to)) : m.i64.sub(m.local.get(to.rip, b.i64), this.ripOf(0));
    return [m.local.set(LOCAL.exitRip, distance), ...(reason === CHAIN ? [] : [m.local.set(LOCAL.reason, m.i32.const(reason))]), m.br(out)];
  }
  /** Leaves from inside a block to `offset` with `retired` of its instructions done. */
  private leave(offset: number, retired: number, reason: number): void {
    this.leaveFlags();
    this.retire(retired);
    for (const s of this.leaving(offset, reason)) this.emit(s);
    this.ended = true;
  }
  checkException(): void {
    this.if(this.state(S_EXC, 4), () => this.leaveWithException());
  }
  retired(): Val {
    return this.let(this.expr('i64', this.countBefore()));
  }
  nextRip(): Val {
    return this.let(this.expr('i64', this.ripOf(this.offset + this.insn.length)));
  }
  thisRip(): Val {
    return this.let(this.expr('i64', this.ripOf(this.offset)));
  }
  branch(): void {
    const to = this.offset + this.insn.length + this.insn.immLow;
    this.retire(this.index + 1);
    this.terminator = { kind: 'goto', to, backward: to <= this.offset };
  }
  branchIf(condition: Val): void {
    const test = this.bind(condition);
    const next = this.offset + this.insn.length;
    const to = next + this.insn.immLow;
    this.retire(this.index + 1);
    this.terminator = { kind: 'cond', condition: test, to, backward: to <= this.offset, next };
  }
  requireTarget(): void {}
  branchTo(target: Val, hint: 'ret' | 'call' | 'jmp', undo?: () => void): void {
    const rip = this.bind(target);
    this.retire(this.index + 1);
    const targets = (hint === 'ret' ? this.returns : this.region.targets).get(this.offset) ?? [];
    const fault = this.codeSize === 64 ? this.targetFault(rip, undo) : undefined;
    this.terminator = { kind: 'indirect', rip, distance: this.newLocal('i64'), targets, fault };
  }
  /** Code for a branch that leaves the region: unless the RIP in local `rip` is canonical with four levels of page tables, which most are, `undo` undoes the branch, and the interpreter runs it, which may end in #GP. */
  private targetFault(rip: number, undo: (() => void) | undefined): Expr {
    const { m, b } = this;
    const outer = this.body;
    this.body = [];
    this.emit(m.local.set(LOCAL.icount, m.i64.sub(m.local.get(LOCAL.icount, b.i64), m.i64.const(BigInt(this.index + 1)))));
    this.aside(() => {
      undo?.();
      this.leave(this.offset, 0, NEXT_INTERPRET);
    });
    this.ended = false;
    const code = m.block(null, this.body);
    this.body = outer;
    const upper = m.i64.add(m.i64.shr_s(m.local.get(rip, b.i64), m.i64.const(47n)), m.i64.const(1n));
    return m.if(m.i64.le_u(upper, m.i64.const(1n)), m.nop(), code);
  }
  exit(reason: number, at: 'this' | 'next'): void {
    const { m } = this;
    this.emit(m.i32.store(S_EXIT_INSN_LEN, 4, this.cpu(), m.i32.const(this.insn.length)));
    const next = at === 'next';
    this.leave(next ? this.offset + this.insn.length : this.offset, this.index + (next ? 1 : 0), reason);
  }
  endBlock(): void {
    this.exit(NEXT_CHECK, 'next');
  }
  repeatUnless(complete: Val): void {
    this.if(this.eqz(complete), () => this.leave(this.offset, this.index + 1, NEXT_CHECK));
  }
  syscall(): void {
    const { m } = this;
    this.emit(m.i32.store(S_EXIT_INSN_LEN, 4, this.cpu(), m.i32.const(this.insn.length)));
    this.usesSyscall = true;
    this.leave(this.offset, this.index, SYSCALL);
  }
  transfer(helper: string, args: readonly Val[]): void {
    const { m, b } = this;
    const values = args.map((a) => this.let(a));
    this.importHelper(helper, { params: ['i32', ...values.map((v) => v.type)], result: 'i32' });
    this.packFlags();
    this.readEntryFlags();
    this.emit(m.i32.store(S_EXIT_INSN_LEN, 4, this.cpu(), m.i32.const(this.insn.length)));
    this.emit(m.i64.store(S_RIP, 8, this.cpu(), this.ripOf(this.offset)));
    this.emit(m.i64.store(S_ICOUNT, 8, this.cpu(), this.countBefore()));
    this.emit(this.spillHere());
    this.emit(m.return_call(helper, [this.cpu(), ...values.map((v) => v.take())], b.i32));
    this.ended = true;
  }
}
