import type binaryen from 'binaryen';
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
  R_HANDLER,
  R_IDX,
  R_IMM,
  R_LEN,
  R_OFF,
  REC_SIZE,
  S_BLOCK_RIP,
  S_CC_KIND,
  S_CC_RES,
  S_CC_SRC,
  S_CR0,
  S_CR4,
  S_EXC,
  S_EXC_ERROR,
  S_EXIT_INSN_LEN,
  S_ICOUNT,
  S_MXCSR,
  S_RIP,
  S_SEG,
  S_STEP,
  S_XCR0,
  SEG_LIMIT,
  SEG_STRIDE,
  V_LEVELS,
  V_NATIVE,
  XCR0_AVX,
} from '../layout.ts';
import type { Expr, WasmModule } from '../wasm/types.ts';
import { conditionFromFlags } from './conditions.ts';
import type { FlagKind } from './emitter.ts';
import { carryInto, explicitTriple } from './explicit-flags.ts';
import { FLAG_FUNCTION, FLAGS_WITHOUT_CARRY, type FlagName, tripleFromState } from './flag-functions.ts';
import { HandlerMemory } from './handler-memory.ts';
import type { Val } from './val.ts';

const VECTOR_GP = 13;
const FLAG_BASE = { add: FLAGS_ADD, sub: FLAGS_SUB, inc: FLAGS_INC, dec: FLAGS_DEC } as const;
/** Index of the table that holds all handlers and compiled regions. */
export const TABLE = 'table';

/** Emits one interpreter handler: `(cpu: i32, rec: i32) -> i32`. */
export class HandlerEmitter extends HandlerMemory {
  readonly flat = false;
  readonly checksTargets = true;

  /** Ends the handler, adds it to the module under `name`. */
  finish(name: string): void {
    if (!this.ended) this.fallThrough();
    const { b, m } = this;
    m.addFunction(name, b.createType([b.i32, b.i32]), b.i32, this.locals, m.block(null, this.body, b.i32));
  }

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
  protected exitException(): void {
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
    // 16-bit targets wrap around: three jumps forward are a way to run for ever. Such code is not compiled.
    if (this.form.opSize === 2) return m.i64.le_u(this.branchTarget(), this.ripAt(false));
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

/** i32, non-zero: AVX instructions raise #UD (CR4.OSXSAVE clear, or XCR0 without SSE and AVX) or #NM (CR0.TS) (SDM vol. 1, 14.3). */
export function avxBlockedNow(m: WasmModule, cpu: () => Expr): Expr {
  const clear = (offset: number, bits: number) => m.i32.ne(m.i32.and(m.i32.load(offset, 4, cpu()), m.i32.const(bits)), m.i32.const(bits));
  const disabled = m.i32.or(clear(S_CR4, CR4_OSXSAVE), clear(S_XCR0, XCR0_AVX));
  return m.i32.or(disabled, m.i32.and(m.i32.load(S_CR0, 4, cpu()), m.i32.const(CR0_TS)));
}
