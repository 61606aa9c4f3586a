import type { Insn } from '../decoder/types.ts';
import { conditionFromFlags } from '../emit/conditions.ts';
import { Emitter, type FlagKind } from '../emit/emitter.ts';
import { carryInto, explicitTriple } from '../emit/explicit-flags.ts';
import { FLAG_FUNCTION, FLAGS_WITHOUT_CARRY, type FlagName } from '../emit/flag-functions.ts';
import { Val, type ValType } from '../emit/val.ts';
import { FLAGS_ADD, FLAGS_DEC, FLAGS_EXPLICIT, FLAGS_INC, FLAGS_LOGIC, FLAGS_SUB, S_CC_KIND, S_CC_RES, S_CC_SRC, S_GPR, S_XMM, S_YMM_HIGH } from '../layout.ts';
import type { ModuleBuilder } from '../wasm/module-builder.ts';
import type { Expr, WasmTypes } from '../wasm/types.ts';
import { FIRST_RECIPE, type FlagUse, MAX_RECIPES, type Recipe, recipeKey, type Source } from './deferred-flags.ts';
import { conditionOf, type ExplicitFlags, type FlagDef, flagOf, knownFlag, type Operation } from './static-flags.ts';

const FLAG_BASE = { add: FLAGS_ADD, sub: FLAGS_SUB, inc: FLAGS_INC, dec: FLAGS_DEC } as const;
/** Registers are numbered 0..15 general, 16..31 XMM, in bit sets; high halves of YMM registers have sets of their own. */
const XMM = 16;
const HIGH = 32;

/**
 * Locals every region function has: the state pointer; the label in the control flow and RIP of the region's first instruction, which are
 * parameters of a region that can be entered at several places; then these. `exit` and `reason`: RIP and reason of an exit under way.
 */
export const LOCAL = {
  cpu: 0,
  label: 1,
  rip: 2,
  icount: 3,
  tlb: 4,
  exitRip: 5,
  reason: 6,
  free: 7,
} as const;

/** Wasm types of the fixed locals from the state pointer on; the first `parameters` of them are parameters. */
export function fixedLocals(b: WasmTypes, parameters: 1 | 3): { readonly parameters: number; readonly locals: number[] } {
  const { i32, i64 } = b;
  const types = [i32, i32, i64, i64, i32, i64, i32];
  return { parameters: b.createType(types.slice(0, parameters)), locals: types.slice(parameters) };
}

/** What is known of an i64 value: a value that does not change in the block, known by number, plus a constant. */
export interface Symbolic {
  readonly root: number;
  readonly offset: number;
}

type Pool = Record<ValType, number[]>;

interface LowBytes {
  readonly value: Val;
  readonly size: number;
  readonly version: number;
}

/** What is known at the end of a block. */
export interface BlockState {
  readonly registers: readonly (Symbolic | undefined)[];
  readonly versions: readonly number[];
  readonly lows: readonly (LowBytes | undefined)[];
  readonly flagDef: FlagDef | undefined;
  readonly isApart: boolean;
}

/** The flags at the end of a block. */
export interface EndFlags {
  /** They are not in the state block yet. */
  readonly isApart: boolean;
  readonly recipe: Recipe | undefined;
  /** Code that puts them there. */
  pack(): Expr[];
  /** Code that prepares them for an exit of the region. */
  leave(): Expr[];
}

/** Kind of the flags of an operation on `size` bytes, as S_CC_KIND has it. */
const flagCode = (kind: FlagKind, size: number): number => (kind === 'logic' ? FLAGS_LOGIC : FLAG_BASE[kind] + Math.log2(size));

const noUse = (): FlagUse => ({ reads: false, observed: false, clobbers: 0, passes: false });

/** What a function that a module imports takes and gives. */
export interface Signature {
  readonly params: readonly ValType[];
  readonly result: ValType | 'none' | readonly ValType[];
}
/** Functions that a module imports, by name. */
export type Imports = Map<string, Signature>;

/**
 * The guest's registers and flags while a region is emitted: registers live in locals, but for those that `registersInMemory` leaves in the state
 * block, where flags live, too: in locals they would be moved wherever control flow meets. New flags stay apart until something needs them there; most often the next instruction replaces them before that: `flagDef` knows their producer.
 */
export abstract class RegionState extends Emitter {
  /** Types of the locals after the fixed ones. */
  readonly extraLocals: number[] = [];
  private readonly registerLocals: number[] = [];
  /** Registers that any code of the region reads or writes, and those it writes (bit sets). */
  touched = 0;
  private written = 0;
  private touchedHigh = 0;
  private writtenHigh = 0;
  /** The region has SSE instructions, which are allowed where it is entered. */
  usesSse = false;
  usesAvx = false;
  /** The region computes with the host's floating point, which is not right for every MXCSR. */
  usesFloat = false;
  declare readonly m: ModuleBuilder;
  protected readonly imports: Imports;
  /** Producer of the current flags, when it is known. */
  protected flagDef: FlagDef | undefined;
  /** The flags of `flagDef` are not yet in the state block. */
  private isApart = false;
  private depth = 0;
  /** What is known of values, and of the general registers now. */
  private readonly symbols = new WeakMap<Val, Symbolic>();
  private readonly registers: (Symbolic | undefined)[] = [];
  private roots = 0;
  /** Registers whose low bytes are a value, as long as the register's version is that. */
  private readonly homes = new WeakMap<Val, { readonly register: number; readonly size: number; readonly version: number }>();
  private versions = new Array<number>(16).fill(0);
  private lastVersion = 0;
  /** The low bytes that were last written into a register, while its version is that: what reads them need not wait for the merge with the bytes above. */
  private lows: (LowBytes | undefined)[] = [];
  /** The largest number that a value can be, as far as it is known. */
  private readonly limits = new WeakMap<Val, number>();
  /** The same for the values that roots stand for. */
  protected readonly bounds = new Map<number, number>();
  /** Registers that the block has written so far (bit set). */
  protected clobbered = 0;
  /** The flags are, on some path, still those that the block began with, of which nothing is known. */
  private hasEntryFlags = true;
  protected flagUse: FlagUse = noUse();
  private readonly recipes = new Map<string, { readonly code: number; readonly recipe: Recipe }>();
  /** The code being emitted has left the region. */
  protected ended = false;
  private pool: Pool = { i32: [], i64: [], f32: [], f64: [], v128: [] };
  /** Locals for code between blocks, where those of the block before it still count. */
  private readonly edgePool: Pool = { i32: [], i64: [], f32: [], f64: [], v128: [] };
  private inUse: { type: ValType; index: number }[] = [];
  private kept: { type: ValType; index: number }[] = [];
  private lasting: { type: ValType; index: number }[] = [];
  /** Empty blocks to be filled with stores or loads of all registers, once it is known which ones the region uses. */
  private readonly spills: Expr[] = [];
  private readonly reloads: Expr[] = [];
  /** The same for VZEROUPPER: registers whose high halves the region does not use are cleared in the state block. */
  private readonly clears: Expr[] = [];

  /** General registers (bit set) that have no locals: they stay in the state block. */
  private readonly inMemory: number;

  constructor(b: WasmTypes, m: ModuleBuilder, imports: Imports, inMemory: number) {
    super(b, m);
    this.imports = imports;
    this.inMemory = inMemory;
  }

  /** The instruction being emitted. */
  protected abstract readonly insn: Insn;

  cpu(): Expr {
    return this.m.local.get(LOCAL.cpu, this.b.i32);
  }
  protected importHelper(name: string, signature: Signature): void {
    this.imports.set(name, signature);
  }

  // ------------------------------------------------------------ locals
  private addLocal(type: ValType): number {
    return LOCAL.free - 1 + this.extraLocals.push(this.b[type]);
  }
  /** The local of a register, numbered as in the bit sets, HIGH + n for high halves. Those that the region does not use have none: V8
   *  looks at every local wherever control flow meets. */
  private registerLocal(n: number): number {
    const index = this.registerLocals[n] ?? this.addLocal(n < XMM ? 'i64' : 'v128');
    this.registerLocals[n] = index;
    return index;
  }
  /** A local that nothing else uses. */
  protected ownLocal(type: ValType): number {
    return this.addLocal(type);
  }
  newLocal(type: ValType): number {
    const index = this.pool[type].pop() ?? this.addLocal(type);
    this.inUse.push({ type, index });
    return index;
  }
  /** Temporaries live for one instruction, except those that the current flags are computed from. */
  protected releaseTemps(): void {
    const held = new Set<number>();
    for (const v of this.flagDef === undefined ? [] : flagVals(this.flagDef)) {
      for (const bound of v.inputs ?? [v]) if (bound.index !== undefined) held.add(bound.index);
    }
    for (const [n, low] of this.lows.entries()) if (low?.version === this.versions[n] && low?.value.index !== undefined) held.add(low.value.index);
    const all = [...this.inUse, ...this.kept];
    this.inUse = [];
    this.kept = [];
    for (const t of all) {
      if (held.has(t.index)) this.kept.push(t);
      else this.pool[t.type].push(t.index);
    }
  }
  /** At the start of a block that can be reached from several places nothing is known of the registers, and of the flags only that they are in the state block. */
  protected startBlock(before: BlockState | undefined): void {
    this.registers.length = 0;
    this.registers.push(...(before?.registers ?? []));
    this.versions = before === undefined ? this.versions.map(() => ++this.lastVersion) : [...before.versions];
    this.lows = [...(before?.lows ?? [])];
    this.flagDef = before?.flagDef;
    this.isApart = before?.isApart ?? false;
    this.hasEntryFlags = this.flagDef === undefined;
    this.flagUse = noUse();
    this.clobbered = 0;
  }
  /** What is known at the end of a block, for those that only it goes to. */
  protected blockState(): BlockState {
    return { registers: [...this.registers], versions: [...this.versions], lows: [...this.lows], flagDef: this.flagDef, isApart: this.isApart };
  }
  /** Runs `f`, which emits other blocks, and keeps the locals of this one until then; they are free afterwards. */
  protected holdingLocals(f: () => void): void {
    const held = [this.inUse, this.kept, this.lasting].flat();
    this.inUse = [];
    this.kept = [];
    this.lasting = [];
    f();
    for (const t of held) this.pool[t.type].push(t.index);
  }
  /** After the last instruction of a block. */
  protected endFlagUse(): void {
    // A new carry lies over flags that are looked for in the state block.
    if (this.flagDef?.kind === 'carry') this.flagsToState();
    if (!this.hasEntryFlags) return;
    this.flagUse.passes = true;
    this.observeFlags();
  }

  // ------------------------------------------------------------ what is known of values
  protected symbolic(v: Val): Symbolic | undefined {
    return this.symbols.get(v);
  }
  protected know(v: Val, symbolic: Symbolic | undefined): Val {
    if (symbolic !== undefined) this.symbols.set(v, symbolic);
    return v;
  }
  protected newRoot(): number {
    return ++this.roots;
  }
  /** The value of a general register now. */
  protected registerNow(n: number): Symbolic {
    const known = this.registers[n];
    if (known !== undefined) return known;
    const fresh = { root: this.newRoot(), offset: 0 };
    this.registers[n] = fresh;
    return fresh;
  }
  protected setRegisterNow(n: number, value: Symbolic): void {
    this.registers[n] = value;
  }
  /** V8 leaves a computation where it is, even if its result is used on unlikely paths only: so it is placed there. */
  override later(type: ValType, inputs: readonly Val[], make: () => Val): Val {
    if (inputs.some((v) => !v.many)) throw new Error('what is computed later needs bound inputs');
    return new Val(type, () => make().take(), true, undefined, undefined, inputs);
  }
  override let(v: Val): Val {
    const bound = super.let(v);
    return bound === v ? v : this.atMost(this.know(bound, this.symbols.get(v)), this.limits.get(v));
  }
  override add(a: Val, c: Val): Val {
    const [one, other] = [this.symbols.get(a), this.symbols.get(c)];
    if (one !== undefined && other !== undefined) return this.know(super.add(a, c), this.sumOf(one, other));
    return this.moved(super.add(a, c), a, c.constant);
  }
  override sub(a: Val, c: Val): Val {
    return this.moved(super.sub(a, c), a, c.constant === undefined ? undefined : -c.constant);
  }
  protected abstract sumOf(a: Symbolic, c: Symbolic): Symbolic;
  private moved(result: Val, from: Val, by: number | undefined): Val {
    const symbolic = by === undefined ? undefined : this.symbols.get(from);
    return symbolic === undefined || by === undefined ? result : this.know(result, { root: symbolic.root, offset: symbolic.offset + by });
  }

  // ------------------------------------------------------------ registers
  protected whole(n: number): Expr {
    if ((this.inMemory >>> n) & 1) return this.m.i64.load(S_GPR + n * 8, 8, this.cpu());
    this.touched |= 1 << n;
    return this.m.local.get(this.registerLocal(n), this.b.i64);
  }
  private setWhole(n: number, value: Expr, symbolic?: Symbolic): void {
    // What is written under a condition is not known afterwards.
    this.registers[n] = this.isConditional ? undefined : symbolic;
    this.versions[n] = ++this.lastVersion;
    this.clobbered |= 1 << n;
    if ((this.inMemory >>> n) & 1) {
      this.emit(this.m.i64.store(S_GPR + n * 8, 8, this.cpu(), value));
      return;
    }
    this.touched |= 1 << n;
    this.written |= 1 << n;
    this.emit(this.m.local.set(this.registerLocal(n), value));
  }
  protected isHigh(n: number, size: number): boolean {
    return size === 1 && !this.insn.rex && n >= 4 && n < 8;
  }
  protected readGpr(n: number, size: number, high: boolean): Val {
    const { m } = this;
    if (size === 8) return this.inRegister(this.know(this.let(this.expr('i64', this.whole(n))), this.registerNow(n)), n, size);
    if (high) return this.let(this.and(this.expr('i32', m.i32.wrap(m.i64.shr_u(this.whole(n - 4), m.i64.const(8n)))), this.i32(0xff)));
    const low = this.lows[n];
    if (low !== undefined && low.version === this.versions[n] && size <= low.size) return this.narrow(this.let(this.trunc(low.value, size)), size);
    const value = this.narrow(this.let(this.trunc(this.expr('i32', m.i32.wrap(this.whole(n))), size)), size);
    const now = this.registers[n];
    return this.inRegister(size === 4 && now?.offset === 0 ? this.atMost(value, this.bounds.get(now.root)) : value, n, size);
  }
  /** Notes that the low `size` bytes of register `n` are `v` now. */
  private inRegister(v: Val, n: number, size: number): Val {
    if (!this.isConditional) this.homes.set(v, { register: n, size, version: this.versions[n] ?? 0 });
    return v;
  }
  protected writeGpr(n: number, size: number, high: boolean, v: Val): void {
    const { m } = this;
    if (size >= 4) {
      this.setWhole(n, this.zext64(v).take(), (size === 8 ? this.symbols.get(v) : undefined) ?? this.boundedRoot(v));
      this.inRegister(v, n, size);
      return;
    }
    const r = high ? n - 4 : n;
    const mask = size === 2 ? 0xffffn : high ? 0xff00n : 0xffn;
    const low = this.narrow(this.bound(this.trunc(v, size)), size);
    const placed = high ? m.i64.shl(m.i64.extend_u(low.take()), m.i64.const(8n)) : m.i64.extend_u(low.take());
    this.setWhole(r, m.i64.or(m.i64.and(this.whole(r), m.i64.const(BigInt.asIntN(64, ~mask))), placed));
    if (high) return;
    this.inRegister(v, n, size);
    this.inRegister(low, n, size);
    if (!this.isConditional) this.lows[n] = { value: low, size, version: this.versions[n] ?? 0 };
  }
  override trunc(a: Val, size: number): Val {
    return size < 4 && this.isNarrow(a, size) ? a : super.trunc(a, size);
  }
  override zext64(a: Val): Val {
    return this.atMost(super.zext64(a), this.limits.get(a));
  }
  override shrU(a: Val, c: Val): Val {
    const largest = this.limits.get(a) ?? (a.type === 'i32' ? 0xffff_ffff : Number.POSITIVE_INFINITY);
    const isKnown = c.constant !== undefined && c.constant < 32 && Number.isFinite(largest);
    return this.atMost(super.shrU(a, c), isKnown ? Math.floor(largest / 2 ** (c.constant ?? 0)) : undefined);
  }
  override shl(a: Val, c: Val): Val {
    const largest = (this.limits.get(a) ?? Number.POSITIVE_INFINITY) * 2 ** (c.constant ?? 32);
    return this.atMost(super.shl(a, c), largest <= 0xffff_ffff && (c.constant ?? 32) < 32 ? largest : undefined);
  }
  /** Notes that `v` is not above `largest`, taken as unsigned. */
  private atMost(v: Val, largest: number | undefined): Val {
    if (largest !== undefined) this.limits.set(v, Math.min(largest, this.limits.get(v) ?? largest));
    return v;
  }
  /** Notes that `v` has no bits above `size` bytes. */
  protected narrow(v: Val, size: number): Val {
    return size < 4 ? this.atMost(v, 2 ** (8 * size) - 1) : v;
  }
  private isNarrow(v: Val, size: number): boolean {
    return (this.limits.get(v) ?? Number.POSITIVE_INFINITY) < 2 ** (8 * size);
  }
  /** A value of which nothing is known but how large it can be. */
  private boundedRoot(v: Val): Symbolic | undefined {
    const largest = this.limits.get(v);
    if (largest === undefined) return undefined;
    const root = this.newRoot();
    this.bounds.set(root, largest);
    return { root, offset: 0 };
  }
  /** TEST of a register with itself has it as its result. */
  override and(a: Val, c: Val): Val {
    const [x, y] = [this.homes.get(a), this.homes.get(c)];
    const isSame = x !== undefined && x.register === y?.register && x.size === y.size && x.version === y.version;
    if (isSame && (x.size >= 4 || this.isNarrow(a, x.size))) return a;
    const limits = [this.limits.get(a), this.limits.get(c), ...[a.constant, c.constant].map((n) => (n === undefined || n < 0 ? undefined : n))];
    const known = limits.filter((n) => n !== undefined);
    return this.atMost(super.and(a, c), known.length > 0 ? Math.min(...known) : undefined);
  }
  /** `v` as a constant or a local. */
  private bound(v: Val): Val {
    return this.let(v.inputs === undefined ? v : this.expr(v.type, v.take()));
  }
  reg(n: number, size: number): Val {
    return this.readGpr(n, size, false);
  }
  setReg(n: number, size: number, v: Val): void {
    this.writeGpr(n, size, false, v);
  }
  xmm(n: number, half = 0): Val {
    if (half === 0) this.touched |= 1 << (XMM + n);
    else this.touchedHigh |= 1 << n;
    return this.let(this.expr('v128', this.m.local.get(this.registerLocal(half === 0 ? XMM + n : HIGH + n), this.b.v128)));
  }
  setXmm(n: number, v: Val, half = 0): void {
    if (half === 0) {
      this.touched |= 1 << (XMM + n);
      this.written |= 1 << (XMM + n);
    } else {
      this.touchedHigh |= 1 << n;
      this.writtenHigh |= 1 << n;
    }
    this.emit(this.m.local.set(this.registerLocal(half === 0 ? XMM + n : HIGH + n), v.take()));
  }
  zeroUpper(): void {
    const placeholder = this.m.block(null, []);
    this.clears.push(placeholder);
    this.emit(placeholder);
  }
  // ------------------------------------------------------------ spills
  /** Stores every register the region changes; filled in by `finishState`. Flags must be in the state block already. */
  protected spillHere(): Expr {
    const placeholder = this.m.block(null, []);
    this.spills.push(placeholder);
    return placeholder;
  }
  protected override spillRegisters(): void {
    this.flagsToState();
    this.readEntryFlags();
    this.emit(this.spillHere());
  }
  protected override reloadRegisters(): void {
    this.registers.length = 0;
    this.versions = this.versions.map(() => ++this.lastVersion);
    this.clobbered = 0xffff;
    const placeholder = this.m.block(null, []);
    this.reloads.push(placeholder);
    this.emit(placeholder);
    this.flagsAreIn();
  }
  /** Flags of unknown origin have come into the state block. */
  private flagsAreIn(): void {
    this.flagDef = undefined;
    this.isApart = false;
    this.hasEntryFlags = false;
  }
  private loadRegisters(): Expr[] {
    const { m } = this;
    const loads: Expr[] = [];
    for (let n = 0; n < 16; n++) {
      if ((this.touched >>> n) & 1) loads.push(m.local.set(this.registerLocal(n), m.i64.load(S_GPR + n * 8, 8, this.cpu())));
      if ((this.touched >>> (XMM + n)) & 1) loads.push(m.local.set(this.registerLocal(XMM + n), m.v128.load(S_XMM + n * 16, 16, this.cpu())));
      if ((this.touchedHigh >>> n) & 1) loads.push(m.local.set(this.registerLocal(HIGH + n), m.v128.load(S_YMM_HIGH + n * 16, 16, this.cpu())));
    }
    return loads;
  }
  private storeRegisters(): Expr[] {
    const { m, b } = this;
    const stores: Expr[] = [];
    for (let n = 0; n < 16; n++) {
      if ((this.written >>> n) & 1) stores.push(m.i64.store(S_GPR + n * 8, 8, this.cpu(), m.local.get(this.registerLocal(n), b.i64)));
      if ((this.written >>> (XMM + n)) & 1) stores.push(m.v128.store(S_XMM + n * 16, 16, this.cpu(), m.local.get(this.registerLocal(XMM + n), b.v128)));
      if ((this.writtenHigh >>> n) & 1) stores.push(m.v128.store(S_YMM_HIGH + n * 16, 16, this.cpu(), m.local.get(this.registerLocal(HIGH + n), b.v128)));
    }
    return stores;
  }
  private clearUpper(): Expr[] {
    const { m } = this;
    const zero = () => m.v128.const(new Array<number>(16).fill(0));
    return Array.from({ length: this.codeSize === 64 ? 16 : 8 }, (_, n) =>
      (this.touchedHigh >>> n) & 1 ? m.local.set(this.registerLocal(HIGH + n), zero()) : m.v128.store(S_YMM_HIGH + n * 16, 16, this.cpu(), zero()),
    );
  }
  /** After the last instruction: fills in spills and reloads; returns the loads for the region's entry. */
  protected finishState(): Expr[] {
    if (this.clears.length > 0) this.writtenHigh |= this.touchedHigh;
    for (const block of this.clears) for (const s of this.clearUpper()) this.m.appendChild(block, s);
    for (const block of this.spills) for (const s of this.storeRegisters()) this.m.appendChild(block, s);
    for (const block of this.reloads) for (const s of this.loadRegisters()) this.m.appendChild(block, s);
    return this.loadRegisters();
  }

  // ------------------------------------------------------------ flags
  private storeFlags(kind: number, res: Val, src: Val): void {
    const { m } = this;
    const source = src.take();
    this.emit(m.i64.store(S_CC_RES, 8, this.cpu(), res.take()));
    this.emit(m.i64.store(S_CC_SRC, 8, this.cpu(), source));
    this.emit(m.i32.store(S_CC_KIND, 4, this.cpu(), m.i32.const(kind)));
  }
  setFlags(kind: FlagKind, size: number, result: Val, src: Val, a?: Val): void {
    this.flagDef = { kind, size, result: this.let(result), src: this.let(src), a: a === undefined ? undefined : this.let(a) };
    this.newFlags();
  }
  private newFlags(): void {
    this.isApart = true;
    if (this.flagDef?.kind !== 'carry') this.hasEntryFlags = false;
    if (this.depth > 0) this.flagsToState();
  }
  setFlagsExplicit(f: ExplicitFlags): void {
    const parts: ExplicitFlags = {};
    for (const key of ['cf', 'of', 'af', 'result', 'zf', 'sf', 'pf'] as const) {
      const v = f[key];
      if (v !== undefined) parts[key] = this.let(v);
    }
    if (f.size !== undefined) parts.size = f.size;
    this.flagDef = { kind: 'explicit', parts };
    this.newFlags();
  }
  setCarry(cf: Val, of?: Val): void {
    const { flagDef } = this;
    const c = this.let(cf);
    const o = of === undefined ? undefined : this.let(of);
    if (flagDef === undefined || flagDef.kind === 'carry') {
      // Most often nobody looks at the flags before the next instruction replaces them all: compute nothing until then.
      this.flagDef = { kind: 'carry', cf: c, of: o ?? flagDef?.of };
      this.newFlags();
      return;
    }
    const parts: ExplicitFlags =
      flagDef.kind === 'explicit' ? { ...flagDef.parts } : { result: flagDef.result, size: flagDef.size, af: this.flagLater(flagDef, 'a') };
    parts.of = o ?? this.flagLater(flagDef, 'o');
    parts.cf = c;
    this.setFlagsExplicit(parts);
  }
  private flagLater(d: Exclude<FlagDef, { kind: 'carry' }>, f: FlagName): Val {
    const inputs = flagVals(d).flatMap((v) => v.inputs ?? [v]);
    return this.later('i32', inputs, () => flagOf(this, d, f));
  }
  /** The code being emitted runs only under a condition. */
  protected get isConditional(): boolean {
    return this.depth > 0;
  }
  /** A local that keeps its value to the end of the block. */
  protected lastingLocal(type: ValType): number {
    const index = this.pool[type].pop() ?? this.addLocal(type);
    this.lasting.push({ type, index });
    return index;
  }
  /** Puts the flags into the state block, here. */
  protected flagsToState(): void {
    this.packFlags();
    this.isApart = false;
    // Packed, a new carry is like any flags of unknown origin.
    if (this.flagDef?.kind === 'carry') this.flagDef = undefined;
  }
  /** The same on a side path: what follows on the main path still finds them apart. */
  protected packFlags(): void {
    const { m, b, flagDef } = this;
    if (!this.isApart || flagDef === undefined) return;
    if (flagDef.kind === 'explicit') {
      const { res, src } = explicitTriple(this, flagDef.parts);
      this.storeFlags(FLAGS_EXPLICIT, res, src);
    } else if (flagDef.kind !== 'carry') {
      this.storeFlags(...this.flagTriple(flagDef));
    } else {
      this.importHelper(FLAGS_WITHOUT_CARRY, { params: ['i32', 'i64', 'i64'], result: 'i64' });
      const kept = this.expr('i64', m.call(FLAGS_WITHOUT_CARRY, this.triple(), b.i64));
      this.emit(m.i64.store(S_CC_SRC, 8, this.cpu(), carryInto(this, kept, flagDef.cf, flagDef.of).take()));
      this.emit(m.i32.store(S_CC_KIND, 4, this.cpu(), m.i32.const(FLAGS_EXPLICIT)));
    }
  }
  private flagTriple({ kind, size, result, src }: Operation): [kind: number, res: Val, src: Val] {
    return [flagCode(kind, size), this.sext64(result, size), kind === 'logic' ? this.i64(0) : this.zext64(src)];
  }
  /** On the slow path of an access, which may fault: what makes the flags then, a kind of flags with the values it needs, 0 when they are in the state block. */
  protected flagsForFault(): { readonly kind: number; readonly values: readonly Expr[] } {
    this.observeFlags();
    const { flagDef } = this;
    const recipe = this.recipe();
    if (this.isApart && recipe !== undefined) return { kind: this.recipeCode(recipe), values: [] };
    if (!this.isApart || flagDef === undefined || flagDef.kind === 'explicit' || flagDef.kind === 'carry') {
      this.packFlags();
      return { kind: 0, values: [] };
    }
    const [kind, res, src] = this.flagTriple(flagDef);
    return { kind, values: [res.take(), src.take()] };
  }
  /** The flags are not in the state block, and putting them there takes much code. */
  protected get flagsTakeCode(): boolean {
    return this.isApart && (this.flagDef?.kind === 'explicit' || this.flagDef?.kind === 'carry');
  }
  /** Runs `f`, whose effect on registers other code does not see. */
  protected aside(f: () => void): void {
    const state = { registers: [...this.registers], versions: [...this.versions], clobbered: this.clobbered };
    f();
    this.registers.length = 0;
    this.registers.push(...state.registers);
    this.versions = state.versions;
    this.clobbered = state.clobbered;
  }
  /** The code being emitted needs the flags in the state block. */
  protected readEntryFlags(): void {
    if (this.hasEntryFlags) this.flagUse.reads = true;
  }
  private observeFlags(): void {
    if (!this.hasEntryFlags) return;
    this.flagUse.observed = true;
    this.flagUse.clobbers |= this.clobbered;
  }
  /** Prepares the flags for an exit of the region, on a side path: they are in the state block, or the number of a recipe for them is. */
  protected leaveFlags(): void {
    this.observeFlags();
    const recipe = this.recipe();
    if (!this.isApart || recipe === undefined) this.packFlags();
    else this.emit(this.useRecipe(recipe));
  }
  /** How the current flags can be made from registers, if they can. */
  protected recipe(): Recipe | undefined {
    const d = this.flagDef;
    if (this.recipes.size >= MAX_RECIPES) return undefined;
    if (d === undefined || d.kind === 'explicit' || d.kind === 'carry' || d.kind === 'inc' || d.kind === 'dec') return undefined;
    const { kind, size } = d;
    const result = this.sourceOf(d.result, size);
    if (kind === 'logic') return result === undefined ? undefined : { kind, size, result, a: undefined, src: { constant: 0 } };
    const a = result !== undefined || d.a === undefined ? undefined : this.sourceOf(d.a, size);
    const src = this.sourceOf(d.src, size);
    return src === undefined || (result ?? a) === undefined ? undefined : { kind, size, result, a, src };
  }
  private sourceOf(v: Val, size: number): Source | undefined {
    if (v.constant !== undefined) return { constant: v.constant };
    const home = this.homes.get(v);
    return home !== undefined && home.size === size && this.versions[home.register] === home.version ? { register: home.register } : undefined;
  }
  /** The kind of flags that says that `recipe` applies. */
  private recipeCode(recipe: Recipe): number {
    const key = recipeKey(recipe);
    const code = this.recipes.get(key)?.code ?? FIRST_RECIPE + this.recipes.size;
    this.recipes.set(key, { code, recipe });
    return code;
  }
  private useRecipe(recipe: Recipe): Expr {
    return this.m.i32.store(S_CC_KIND, 4, this.cpu(), this.m.i32.const(this.recipeCode(recipe)));
  }
  /** Code at the exits of the region, after all blocks: follows the recipe that applies, if one does. */
  protected followRecipe(): Expr {
    const { m } = this;
    const cases = [...this.recipes.values()];
    if (cases.length === 0) return m.nop();
    const kind = m.i32.load(S_CC_KIND, 4, this.cpu());
    const name = (i: number) => `recipe${i}`;
    const selector = m.i32.sub(kind, m.i32.const(FIRST_RECIPE));
    const done = 'recipes';
    let inner: Expr = m.switch(
      cases.map((_, i) => name(i)),
      done,
      selector,
    );
    for (const [i, { recipe }] of cases.entries()) inner = m.block(null, [m.block(name(i), [inner]), ...this.madeFrom(recipe), m.br(done)]);
    return m.block(done, [inner]);
  }
  private madeFrom({ kind, size, result, a, src }: Recipe): Expr[] {
    const low = (s: Source): Val => {
      if ('constant' in s) return this.k(size, s.constant);
      const whole = this.whole(s.register);
      return size === 8 ? this.expr('i64', whole) : this.expr('i32', this.m.i32.wrap(whole));
    };
    const value =
      result !== undefined ? low(result) : a === undefined ? this.k(size, 0) : kind === 'sub' ? this.sub(low(a), low(src)) : this.add(low(a), low(src));
    const outer = this.body;
    this.body = [];
    this.storeFlags(flagCode(kind, size), this.sext64(value, size), kind === 'logic' ? this.i64(0) : this.zext64(this.trunc(low(src), size)));
    const code = this.body;
    this.body = outer;
    return code;
  }
  /** The flags at the end of the block, for the edges from it, whose code is made when all blocks are there. */
  protected endFlags(): EndFlags {
    const { flagDef, isApart } = this;
    const recipe = this.recipe();
    const make = (f: () => void): Expr[] => {
      const state = { body: this.body, flagDef: this.flagDef, isApart: this.isApart, inUse: this.inUse, pool: this.pool };
      Object.assign(this, { body: [], flagDef, isApart, inUse: [], pool: this.edgePool });
      f();
      for (const t of this.inUse) this.edgePool[t.type].push(t.index);
      const code = this.body;
      Object.assign(this, state);
      return code;
    };
    const pack = () => make(() => this.packFlags());
    return {
      isApart,
      recipe,
      pack,
      leave: () => (recipe === undefined ? pack() : [this.useRecipe(recipe)]),
    };
  }
  private triple(): Expr[] {
    const { m } = this;
    this.readEntryFlags();
    return [m.i32.load(S_CC_KIND, 4, this.cpu()), m.i64.load(S_CC_RES, 8, this.cpu()), m.i64.load(S_CC_SRC, 8, this.cpu())];
  }
  flag(f: FlagName): Val {
    const { m, b } = this;
    const known = this.flagDef === undefined ? undefined : knownFlag(this, this.flagDef, f);
    if (known !== undefined) return known.inputs === undefined ? this.let(known) : this.let(this.expr(known.type, known.take()));
    this.readEntryFlags();
    if (f === 'z') return this.let(this.expr('i32', m.i64.eqz(m.i64.load(S_CC_RES, 8, this.cpu()))));
    const name = FLAG_FUNCTION[f];
    this.importHelper(name, { params: ['i32', 'i64', 'i64'], result: 'i32' });
    return this.let(this.expr('i32', m.call(name, this.triple(), b.i32)));
  }
  condition(cc: number): Val {
    const direct = this.flagDef === undefined ? undefined : conditionOf(this, this.flagDef, cc);
    return this.narrow(direct === undefined ? conditionFromFlags(this, cc) : this.let(direct), 1);
  }
  softFloat(): undefined {
    this.usesFloat = true;
  }
  sseBlocked(): undefined {
    this.usesSse = true;
  }
  avxBlocked(): undefined {
    this.usesAvx = true;
  }
  statusFlags(): Val {
    this.flagsToState();
    this.readEntryFlags();
    return this.call('getFlags', 'i32', []);
  }
  setStatusFlags(v: Val): void {
    this.call('setFlags', 'none', [v]);
    this.flagsAreIn();
  }

  // ------------------------------------------------------------ conditional code
  if(condition: Val, then: () => void, otherwise?: () => void): void {
    const { m } = this;
    const test = condition.take();
    const outer = this.body;
    const before = { flagDef: this.flagDef, isApart: this.isApart };
    const hadEntryFlags = this.hasEntryFlags;
    let hasEntryFlags = otherwise === undefined && hadEntryFlags;
    const registers = [...this.registers];
    const unknown = new Set<number>();
    this.depth++;
    let changed = false;
    const run = (f: () => void): Expr => {
      this.body = [];
      this.flagDef = before.flagDef;
      this.isApart = before.isApart;
      this.hasEntryFlags = hadEntryFlags;
      f();
      const leaves = this.ended;
      if (!leaves && this.hasEntryFlags) hasEntryFlags = true;
      this.ended = false;
      if (!leaves && this.flagDef !== before.flagDef) changed = true;
      for (let n = 0; n < 16; n++) {
        if (!leaves && this.registers[n] !== registers[n]) unknown.add(n);
        this.registers[n] = registers[n];
      }
      const block = m.block(null, this.body);
      this.body = outer;
      return block;
    };
    const yes = run(then);
    const no = otherwise === undefined ? undefined : run(otherwise);
    this.depth--;
    for (const n of unknown) this.registers[n] = undefined;
    this.flagDef = before.flagDef;
    this.isApart = before.isApart;
    this.hasEntryFlags = hasEntryFlags;
    if (changed) {
      // One of the paths has put other flags into the state block, so those of the other path must be there as well.
      this.flagsToState();
      this.flagDef = undefined;
    }
    this.emit(no === undefined ? m.if(test, yes) : m.if(test, yes, no));
  }
}

function flagVals(d: FlagDef): Val[] {
  if (d.kind === 'explicit') {
    const { cf, of, af, result, zf, sf, pf } = d.parts;
    return [cf, of, af, result, zf, sf, pf].filter((v) => v !== undefined);
  }
  if (d.kind === 'carry') return d.of === undefined ? [d.cf] : [d.cf, d.of];
  return d.a === undefined ? [d.result, d.src] : [d.result, d.src, d.a];
}
