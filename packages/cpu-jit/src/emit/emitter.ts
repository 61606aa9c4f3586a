import type { Form } from '../decoder/types.ts';
import type { Expr, WasmModule, WasmTypes } from '../wasm/types.ts';
import { Val, type ValType } from './val.ts';

/** Condition codes in encoding order (SDM vol. 1, appendix B). */
export const CC = { O: 0, NO: 1, B: 2, AE: 3, E: 4, NE: 5, BE: 6, A: 7, S: 8, NS: 9, P: 10, NP: 11, L: 12, GE: 13, LE: 14, G: 15 } as const;

/** Lazy flag producers: see FLAGS_* in layout.ts. */
export type FlagKind = 'add' | 'sub' | 'logic' | 'inc' | 'dec';

/** General protection (SDM vol. 3, table 7-1). */
export const VECTOR_GP = 13;

type Signature = { params: ValType[]; result: ValType | 'none' };

/**
 * What an instruction's semantics are written against. Two classes implement the abstract part: `HandlerEmitter`
 * (operands come from a decoded record; the output is the interpreter) and `RegionEmitter` (operands are constants
 * and Wasm locals; the output is compiled guest code). Integer operands of 1, 2 and 4 bytes are i32 values,
 * zero-extended; 8-byte operands are i64; 16-byte operands v128.
 */
/** How `Emitter.address` checks and computes an address. */
export interface AddressOptions {
  readonly segment?: boolean;
  readonly write?: boolean;
  readonly align?: number;
}

export abstract class Emitter {
  /** The statements of the instruction being emitted. */
  protected body: Expr[] = [];
  abstract form: Form;
  /** Half of a 256-bit instruction that is being emitted, where that matters to exceptions. */
  half: number | undefined;

  readonly b: WasmTypes;
  readonly m: WasmModule;

  constructor(b: WasmTypes, m: WasmModule) {
    this.b = b;
    this.m = m;
  }

  // ------------------------------------------------------------ plumbing
  /** A new Wasm local; returns its index. */
  abstract newLocal(type: ValType): number;
  /** Expression for the state block pointer. */
  abstract cpu(): Expr;
  /** Register a runtime helper (exported by the Wasm runtime) so that it may be called. */
  protected abstract importHelper(name: string, signature: Signature): void;

  emit(statement: Expr): void {
    this.body.push(statement);
  }
  wasmType(t: ValType | 'none'): number {
    return this.b[t];
  }
  expr(type: ValType, node: Expr): Val {
    return new Val(type, () => node, false);
  }
  local(type: ValType, index: number): Val {
    const { m, b } = this;
    return new Val(type, () => m.local.get(index, b[type]), true, undefined, index);
  }
  /** Evaluate now, into a local that may be used many times. */
  let(v: Val): Val {
    if (v.many) return v;
    const index = this.newLocal(v.type);
    this.emit(this.m.local.set(index, v.take()));
    return this.local(v.type, index);
  }
  /** A value that most often nobody wants, or only a side path does, as the flags of a product. Where the emitter can tell when, `make` computes it there from
   *  `inputs`, which are bound; it must depend on nothing else, the instruction included. */
  later(_type: ValType, _inputs: readonly Val[], make: () => Val): Val {
    return this.let(make());
  }
  /** A local that `assign` may set again (for values merged from branches). */
  variable(init: Val): { get(): Val; set(v: Val): void } {
    const index = this.newLocal(init.type);
    const { m, b } = this;
    this.emit(m.local.set(index, init.take()));
    return {
      get: () => this.let(this.expr(init.type, m.local.get(index, b[init.type]))),
      set: (v) => this.emit(m.local.set(index, v.take())),
    };
  }
  i32(n: number): Val {
    return new Val('i32', () => this.m.i32.const(n | 0), true, n | 0);
  }
  i64(low: number, high = low < 0 ? -1 : 0): Val {
    return new Val('i64', () => this.m.i64.const((BigInt(high | 0) << 32n) | BigInt(low >>> 0)), true, high === (low | 0) >> 31 ? low | 0 : undefined);
  }
  /** Constant of the type that holds `size` bytes. */
  k(size: number, n: number): Val {
    return size === 8 ? this.i64(n) : this.i32(n);
  }
  f64(n: number): Val {
    return new Val('f64', () => this.m.f64.const(n), true);
  }
  f32(n: number): Val {
    return new Val('f32', () => this.m.f32.const(n), true);
  }
  /** v128 constant from 16 bytes. */
  v128(bytes: readonly number[]): Val {
    return new Val('v128', () => this.m.v128.const([...bytes]), true);
  }
  /** Any Binaryen instruction by its dotted name, e.g. op('i32x4.add', 'v128', a, b) or op('f64.sqrt', 'f64', a). */
  op(name: string, result: ValType, ...args: readonly (Val | number)[]): Val {
    const [type = '', op = ''] = name.split('.');
    const node = builderOf(this.m, type, op)(...args.map((a) => (typeof a === 'number' ? a : a.take())));
    return this.expr(result, node);
  }
  /** Lanes x * y + z, or -(x * y) + z, rounded once if the host can (relaxed SIMD). */
  multiplyAdd(type: 'f32' | 'f64', negate: boolean, x: Val, y: Val, z: Val): Val {
    return this.op(`${type === 'f32' ? 'f32x4' : 'f64x2'}.relaxed_${negate ? 'nmadd' : 'madd'}`, 'v128', x, y, z);
  }
  private bin(name: string, a: Val, c: Val, result: ValType = a.type): Val {
    if (a.type !== c.type) throw new Error(`${name}: operand types differ (${a.type}, ${c.type})`);
    return this.expr(result, builderOf(this.m, a.type, name)(a.take(), c.take()));
  }
  add(a: Val, c: Val) {
    return this.bin('add', a, c);
  }
  sub(a: Val, c: Val) {
    return this.bin('sub', a, c);
  }
  mul(a: Val, c: Val) {
    return this.bin('mul', a, c);
  }
  and(a: Val, c: Val) {
    return this.bin('and', a, c);
  }
  or(a: Val, c: Val) {
    return this.bin('or', a, c);
  }
  xor(a: Val, c: Val) {
    return this.bin('xor', a, c);
  }
  shl(a: Val, c: Val) {
    return this.bin('shl', a, c);
  }
  shrU(a: Val, c: Val) {
    return this.bin('shr_u', a, c);
  }
  shrS(a: Val, c: Val) {
    return this.bin('shr_s', a, c);
  }
  rotl(a: Val, c: Val) {
    return this.bin('rotl', a, c);
  }
  rotr(a: Val, c: Val) {
    return this.bin('rotr', a, c);
  }
  eq(a: Val, c: Val) {
    return this.bin('eq', a, c, 'i32');
  }
  ne(a: Val, c: Val) {
    return this.bin('ne', a, c, 'i32');
  }
  ltU(a: Val, c: Val) {
    return this.bin('lt_u', a, c, 'i32');
  }
  ltS(a: Val, c: Val) {
    return this.bin('lt_s', a, c, 'i32');
  }
  leU(a: Val, c: Val) {
    return this.bin('le_u', a, c, 'i32');
  }
  leS(a: Val, c: Val) {
    return this.bin('le_s', a, c, 'i32');
  }
  gtU(a: Val, c: Val) {
    return this.bin('gt_u', a, c, 'i32');
  }
  gtS(a: Val, c: Val) {
    return this.bin('gt_s', a, c, 'i32');
  }
  geU(a: Val, c: Val) {
    return this.bin('ge_u', a, c, 'i32');
  }
  geS(a: Val, c: Val) {
    return this.bin('ge_s', a, c, 'i32');
  }
  eqz(a: Val): Val {
    return this.expr('i32', builderOf(this.m, a.type, 'eqz')(a.take()));
  }
  /** Bitwise complement. */
  not(a: Val): Val {
    return this.xor(a, a.type === 'i64' ? this.i64(-1) : this.i32(-1));
  }
  select(condition: Val, yes: Val, no: Val): Val {
    const y = yes.take();
    const n = no.take();
    return this.expr(yes.type, this.m.select(condition.take(), y, n));
  }
  /** i64 -> i32. Identity on i32. */
  wrap(a: Val): Val {
    return a.type === 'i32' ? a : this.expr('i32', this.m.i32.wrap(a.take()));
  }
  /** Zero-extend an i32 to i64. Identity on i64. */
  zext64(a: Val): Val {
    return a.type === 'i64' ? a : this.expr('i64', this.m.i64.extend_u(a.take()));
  }
  /** Sign-extend a `size`-byte integer (i32, or i64 for 8) to i64. */
  sext64(a: Val, size: number): Val {
    if (a.type === 'i64') return a;
    const { i64 } = this.m;
    if (size >= 4) return this.expr('i64', i64.extend_s(a.take()));
    // V8 makes one instruction of this.
    const wide = i64.extend_u(a.take());
    return this.expr('i64', size === 1 ? i64.extend8_s(wide) : i64.extend16_s(wide));
  }
  /** Sign-extend a 1- or 2-byte integer inside an i32. Identity for 4. */
  sext32(a: Val, size: number): Val {
    if (size >= 4) return a;
    return this.expr('i32', size === 1 ? this.m.i32.extend8_s(a.take()) : this.m.i32.extend16_s(a.take()));
  }
  /** Truncate an i32 result to `size` bytes (zero-extended). Identity for 4 and 8. */
  trunc(a: Val, size: number): Val {
    return size >= 4 ? a : this.and(a, this.i32(size === 1 ? 0xff : 0xffff));
  }
  /** Statements under a condition. Registers, flags and `variable`s may be written inside. */
  abstract if(condition: Val, then: () => void, otherwise?: () => void): void;
  /** Call a runtime helper. The state pointer is passed first unless `pure`. `registers`: the helper reads or writes general
   *  or XMM registers or flags in the state block, so an emitter that keeps them in locals spills them before and reloads them after. */
  call(name: string, result: ValType | 'none', args: readonly Val[], options?: { pure?: boolean; registers?: boolean }): Val {
    const params: ValType[] = args.map((a) => a.type);
    const operands = args.map((a) => a.take());
    if (options?.registers) this.spillRegisters();
    if (!options?.pure) {
      params.unshift('i32');
      operands.unshift(this.cpu());
    }
    this.importHelper(name, { params, result });
    const node = this.m.call(name, operands, this.wasmType(result));
    if (result === 'none') this.emit(node);
    const value = result === 'none' ? this.i32(0) : this.let(this.expr(result, node));
    if (options?.registers) this.reloadRegisters();
    return value;
  }
  /** Make general registers and flags in the state block current; nothing to do where they live there anyway. */
  protected spillRegisters(): void {}
  /** The state block's general registers and flags may have changed. */
  protected reloadRegisters(): void {}

  // ------------------------------------------------------------ operands
  /** Bytes of operand `i`. */
  size(i: number): number {
    const o = this.form.operands[i];
    if (o === undefined) throw new Error(`${this.form.row.name} has no operand ${i}`);
    return o.size;
  }
  isMem(i: number): boolean {
    return this.form.operands[i]?.kind === 'mem';
  }
  /** Value of operand `i`: gpr, imm (sign-extended to the operand size of the instruction), mem, xmm (v128 or, for scalar
   *  sizes, i32/i64 of the low part), mmx (i64), seg selector (i32). Loads may fault. Always safe to use many times. */
  abstract read(i: number): Val;
  /** Write operand `i`: 4-byte GPR writes clear the upper half; 1- and 2-byte ones keep the rest; an xmm operand of
   *  size 16 is replaced, a scalar one keeps the rest. Memory writes may fault, so they come before register and flag writes. */
  abstract write(i: number, v: Val): void;
  /** Read-modify-write of operand `i`: faults for lack of write permission come before `f` runs; `f`'s result is stored.
   *  `f` may set flags and use `variable`s, but must not write registers: do that after rmw(). `address` replaces the address of a
   *  memory operand (BTS and its like reach beyond theirs). */
  abstract rmw(i: number, f: (old: Val) => Val, address?: Val): void;
  /** x87 stack index 0..7 of operand `i` (STi), i32. */
  abstract stIndex(i: number): Val;
  /** State-block offset of the segment record (S_SEG + n * SEG_STRIDE) that segment operand `i` names, i32. */
  abstract segmentRecord(i: number): Val;
  /** State-block offset of the control or debug register that operand `i` names, i32. */
  abstract registerField(i: number): Val;
  /** Selector of a far pointer in the instruction, i32; its offset is the immediate. */
  abstract farSelector(): Val;
  /** Second immediate (ENTER's nesting level), i32. */
  abstract imm2(): Val;
  /** State-block offset of the segment base that applies to a string instruction's source, i32: S_ZERO or the base field of a segment. */
  abstract segmentOffset(): Val;
  /** Linear address of memory operand `i`, i64. For POP to memory it already accounts for the incremented RSP. With `segment: false` the effective address (LEA);
   *  with `write` the segment must be writable: `write` and `rmw` see to that themselves. `align`: outside flat code #GP(0) before anything else
   *  unless the address is a multiple of it. */
  abstract address(i: number, options?: AddressOptions): Val;
  /** Vector of indexes of a vector-indexed operand, by halves, and log2 of their scale, i32. `address` leaves them out. */
  abstract indexVector(half: number): Val;
  abstract indexScale(): Val;
  /** Linear address of `size` bytes at `offset` (i64) in the segment that applies to the memory operand; may fault. `write`: it must be writable. */
  abstract linear(offset: Val, size: number, options?: { write?: boolean }): Val;
  /** Immediate of the instruction as a constant or record field: i32, or i64 when `size` is 8. */
  abstract imm(size: number): Val;
  /** GPR by number, whole (i64) or its low `size` bytes. */
  abstract reg(n: number, size: number): Val;
  abstract setReg(n: number, size: number, v: Val): void;
  /** Register number of an operand at run time is never needed by semantics; whole xmm register of operand `i`, or (`half` 1) bits 255:128 of
   *  the ymm register. Writing one half keeps the other. */
  abstract readXmm(i: number, half?: number): Val;
  abstract writeXmm(i: number, v: Val, half?: number): void;
  /** Fixed xmm register by number (XMM0 of BLENDV, PCMPxSTRM). */
  abstract xmm(n: number, half?: number): Val;
  abstract setXmm(n: number, v: Val, half?: number): void;
  /** Clears bits 255:128 of every ymm register that the mode has. */
  abstract zeroUpper(): void;

  // ------------------------------------------------------------ memory
  /** Load `size` bytes (1, 2, 4 zero-extended i32; 8 i64; 16 v128) at linear address; may fault. */
  abstract load(address: Val, size: number): Val;
  abstract store(address: Val, size: number, v: Val): void;
  /** Load or store 32 bytes as two v128 halves, low first. A store that faults has stored nothing. */
  abstract loadPair(address: Val): readonly [Val, Val];
  abstract storePair(address: Val, low: Val, high: Val): void;
  /** #GP(0) unless `address` is a multiple of `size`, now or when the operand of that size at that address is accessed, which must follow. */
  requireAligned(address: Val, size: number): void {
    this.if(this.and(this.wrap(address), this.i32(size - 1)), () => this.raise(VECTOR_GP, 0));
  }
  /** A field of the state block (see layout.ts), 4 or 8 bytes. Not for registers or flags: those may live in locals. */
  state(offset: number, size: 4 | 8): Val {
    const { m } = this;
    return this.let(size === 8 ? this.expr('i64', m.i64.load(offset, 8, this.cpu())) : this.expr('i32', m.i32.load(offset, 4, this.cpu())));
  }
  setState(offset: number, size: 4 | 8, v: Val): void {
    const { m } = this;
    this.emit(size === 8 ? m.i64.store(offset, 8, this.cpu(), v.take()) : m.i32.store(offset, 4, this.cpu(), v.take()));
  }

  // ------------------------------------------------------------ flags
  /** Lazy flags of an operation of `size` bytes. `result` and `src` are the (zero-extended) values as computed. `a` is the first source,
   *  given so that the region emitter can compare directly. For inc/dec `src` is the old carry (i32). */
  abstract setFlags(kind: FlagKind, size: number, result: Val, src: Val, a?: Val): void;
  /** All six flags given explicitly as i32 0/1 values; those absent are 0. ZF, SF, PF from `result` of `size` bytes when given. */
  abstract setFlagsExplicit(f: { cf?: Val; of?: Val; af?: Val; result?: Val; size?: number; zf?: Val; sf?: Val; pf?: Val }): void;
  /** The flags that this instruction sets are replaced before anything could see them: it need not set them. */
  flagsAreDead(): boolean {
    return false;
  }
  /** Change CF, and OF when given (i32 0/1), and keep the other flags. */
  abstract setCarry(cf: Val, of?: Val): void;
  /** Current value of one flag, i32 0/1. */
  abstract flag(f: 'c' | 'p' | 'a' | 'z' | 's' | 'o'): Val;
  /** Condition code, i32 0/1. */
  abstract condition(cc: number): Val;
  /** All six status flags at their RFLAGS positions, i32; and set from such a value. */
  abstract statusFlags(): Val;
  abstract setStatusFlags(v: Val): void;
  /** i32, non-zero while MXCSR asks for more than the host's arithmetic does: other controls than its defaults, or exceptions to be noted.
   *  Undefined in compiled code, which is then not entered, or (`tracksFloat`) only with rounding to nearest and masked exceptions. */
  abstract softFloat(): Val | undefined;
  /** The code runs while MXCSR's exception flags are noted, FTZ and DAZ may be set, and what depends on them is found by looking at operands and results. */
  abstract readonly tracksFloat: boolean;
  /** CR0.EM and CR0.TS, which forbid SSE instructions, at their positions, i32; undefined in compiled code, which is not entered
   *  while one is set. */
  abstract sseBlocked(): Val | undefined;
  /** i32, non-zero while AVX instructions raise an exception; undefined in compiled code, which is then not entered. */
  abstract avxBlocked(): Val | undefined;

  // ------------------------------------------------------------ control
  /** Raise an exception now (registers as before the instruction). Inside `if` or at the end. */
  abstract raise(vector: number, error?: number): void;
  /** After a helper call that may have raised: leave when S_EXC is set. */
  abstract checkException(): void;
  /** Instructions retired before this one, i64: what S_ICOUNT will be once generated code has brought it up to date. */
  abstract retired(): Val;
  /** RIP of the next instruction, i64. */
  abstract nextRip(): Val;
  /** RIP of this instruction, i64. */
  abstract thisRip(): Val;
  /** Unconditional branch to the relative target of the instruction's Jb/Jz operand. */
  abstract branch(): void;
  /** Conditional branch to it, else next. */
  abstract branchIf(condition: Val): void;
  /** Indirect branch; i64 (truncated by caller to the operand size). `hint`: how the target came about. `undo` puts registers back as they were
   *  before the instruction, for emitters that find out only now that the target is not canonical. */
  abstract branchTo(target: Val, hint: 'ret' | 'call' | 'jmp', undo?: () => void): void;
  /** #GP(0) now, before anything has changed, when the target of a branch (given, or the relative one) cannot be code: beyond the limit of CS in
   *  16- and 32-bit code; not canonical in 64-bit code, where relative branches are looked at only while they are run alone. Nothing to do where `checksTargets` is false. */
  abstract requireTarget(target?: Val): void;
  abstract readonly checksTargets: boolean;
  /** Leave generated code with one of EXIT_*, RIP at this instruction (`at: 'this'`) or after it. Ends the instruction. */
  abstract exit(reason: number, at: 'this' | 'next'): void;
  /** The instruction changed mode, flags with side effects, or translation: end the block, go on at the next instruction
   *  with a check for pending events. */
  abstract endBlock(): void;
  /** String instructions: when the helper returned 0 ("more to do"), go on at this same instruction after a check for events; the chunk counts
   *  as one retired instruction. */
  abstract repeatUnless(complete: Val): void;
  /** SYSCALL: RIP stays at this instruction, which does not count as retired (whoever serves it counts it); control passes to the function linked as `host_syscall`. Ends the instruction. */
  abstract syscall(): void;
  /** Control passes to runtime helper `helper(cpu, ...args)` with RIP at this instruction, which does not count as retired yet, registers and
   *  flags in the state block and S_EXIT_INSN_LEN set. The helper does the whole instruction, RIP and count included, and returns
   *  NEXT_CHECK or EXIT_* (`doneAt` and `fail` in assembly/cpu.ts). Ends the instruction. */
  abstract transfer(helper: string, args: readonly Val[]): void;
  /** Code size (mode) is static per block. */
  abstract readonly codeSize: 16 | 32 | 64;
  /** 32-bit code that is only entered while its segments are flat (S_FLAT in layout.ts): nothing to add or check. */
  abstract readonly flat: boolean;
}

/** One semantics function per mnemonic. */
export type Semantics = (e: Emitter) => void;

type Builder = (...args: (number | bigint)[]) => Expr;
function builderOf(m: WasmModule, type: string, op: string): Builder {
  const build = (m as unknown as Record<string, Record<string, Builder | undefined> | undefined>)[type]?.[op];
  if (build === undefined) throw new Error(`there is no instruction ${type}.${op}`);
  return build;
}
