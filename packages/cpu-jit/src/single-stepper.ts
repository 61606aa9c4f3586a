import type { CodeCache, CodeSource } from './code-cache.ts';
import type { CpuOptions } from './cpu-options.ts';
import type { Insn } from './decoder/types.ts';
import {
  C_EVENTS,
  CS,
  EXIT_EXCEPTION,
  NEXT,
  NEXT_CHECK,
  S_BLOCK_RIP,
  S_DEBUG,
  S_EXC,
  S_ICOUNT,
  S_REPEATING,
  S_RFLAGS,
  S_RIP,
  S_SEG,
  S_STEP,
  S_STEP_STACK,
  SEG_BASE,
  SEG_LIMIT,
  SEG_STRIDE,
  STEP_STACK_NONE,
  V_NATIVE,
} from './layout.ts';
import { stackAccesses } from './stack-accesses.ts';
import { VcpuExits } from './vcpu-exits.ts';

const RFLAGS_TF = 1 << 8;
const RFLAGS_RF = 1 << 16;
const VECTOR_GP = 13;
/** Branches that are always taken, by mnemonic. */
const ALWAYS_BRANCHES = new Set(['jmp', 'jmp_ind', 'jmpf', 'call', 'call_ind', 'callf', 'ret', 'retf', 'iret', 'syscall', 'sysret', 'sysenter', 'sysexit']);

/** One instruction at a time, without compiled code: for debugging, and for what the decode cache cannot hold. */
export abstract class SingleStepper extends VcpuExits {
  protected code: CodeCache;

  protected constructor(options: CpuOptions) {
    super(options);
    // Set by link(), before anyone can see the object.
    this.code = undefined as unknown as CodeCache;
  }

  /** Runs exactly one instruction (one chunk of a REP instruction), uncached; returns NEXT, NEXT_CHECK or EXIT_*. */
  step(vcpu: number): number {
    const cpu = this.cpuAddress(vcpu);
    const source = this.sourceAt(cpu);
    if (source === undefined) return this.fetchFault(cpu);
    const rec = this.code.stepBlock(source, this.codeSize(cpu));
    if (rec === 0) return this.fetchFault(cpu);
    if (this.endsBeyondLimit(cpu)) {
      this.raise(vcpu, VECTOR_GP);
      return this.fetchFault(cpu);
    }
    this.setU64(cpu + S_BLOCK_RIP, this.getU64(cpu + S_RIP));
    this.u32[(cpu + S_STEP) >>> 2] = 1;
    this.u32[(cpu + S_STEP_STACK) >>> 2] = this.code.stepped === undefined ? STEP_STACK_NONE : stackAccesses(this.code.stepped);
    try {
      return this.runtime.callRecord(cpu, rec) >>> 0;
    } finally {
      this.u32[(cpu + S_STEP) >>> 2] = 0;
      this.u32[(cpu + S_STEP_STACK) >>> 2] = STEP_STACK_NONE;
    }
  }

  /** Does the instruction to be stepped reach over the end of the code segment? */
  private endsBeyondLimit(cpu: number): boolean {
    if (this.codeSize(cpu) === 64 || this.u32[(cpu + V_NATIVE) >>> 2] === 0) return false;
    const last = Number(this.getU64(cpu + S_RIP)) + (this.code.stepped?.length ?? 1) - 1;
    return last > (this.u32[(cpu + S_SEG + CS * SEG_STRIDE + SEG_LIMIT) >>> 2] ?? 0);
  }

  /** Decodes the instruction at virtual address `rip` without running it; `fault` when it cannot be fetched. */
  decodeAt(vcpu: number, rip: bigint): Insn | 'ud' | 'gp' | 'fault' {
    const cpu = this.cpuAddress(vcpu);
    const exc = this.u32[(cpu + S_EXC) >>> 2] ?? 0;
    const source = this.sourceFor(cpu, rip);
    const insn = source === undefined ? 'fault' : this.code.decodeOne(source, 0, this.codeSize(cpu));
    this.u32[(cpu + S_EXC) >>> 2] = exc;
    return insn;
  }

  /** One instruction with everything that debugging says about it: breakpoints at it, and the trap after it (SDM vol. 3, 18.3). */
  protected singleStep(vcpu: number): number {
    const cpu = this.cpuAddress(vcpu);
    const { u32, runtime } = this;
    const isNative = u32[(cpu + V_NATIVE) >>> 2] !== 0;
    const fault = runtime.debug_fetch(cpu) >>> 0;
    if (fault !== NEXT) return fault;
    const isOn = ((u32[(cpu + S_RFLAGS) >>> 2] ?? 0) & RFLAGS_TF) !== 0;
    const events = this.getU64(cpu + C_EVENTS);
    const count = this.getU64(cpu + S_ICOUNT);
    const rip = this.getU64(cpu + S_RIP);
    const reason = this.stepWatched(vcpu);
    if (this.getU64(cpu + S_ICOUNT) === count || this.getU64(cpu + C_EVENTS) !== events) return reason;
    // The rest of a repeated string instruction is not stopped by the breakpoint at it again.
    if (this.isRepeating(cpu)) u32[(cpu + S_RFLAGS) >>> 2] = (u32[(cpu + S_RFLAGS) >>> 2] ?? 0) | RFLAGS_RF;
    // SYSCALL takes TF away before its end.
    const isTraced = isOn && !(this.code.stepped?.row.name === 'syscall' && ((u32[(cpu + S_RFLAGS) >>> 2] ?? 0) & RFLAGS_TF) === 0);
    if (!isTraced) return reason;
    if (isNative) {
      runtime.debug_step(cpu, this.hasBranched(cpu, rip) ? 1 : 0);
      return reason;
    }
    if (reason !== NEXT && reason !== NEXT_CHECK) return reason;
    runtime.debug_trap(cpu);
    return EXIT_EXCEPTION;
  }

  /** One instruction; one that faults, or that somebody else must complete, has hit no breakpoint. */
  protected stepWatched(vcpu: number): number {
    const cpu = this.cpuAddress(vcpu);
    const waiting = this.u32[(cpu + S_DEBUG) >>> 2] ?? 0;
    const events = this.getU64(cpu + C_EVENTS);
    const count = this.getU64(cpu + S_ICOUNT);
    const reason = this.step(vcpu);
    if (this.getU64(cpu + S_ICOUNT) === count || this.getU64(cpu + C_EVENTS) !== events) this.u32[(cpu + S_DEBUG) >>> 2] = waiting;
    return reason;
  }

  /** Is RIP at a string instruction that stopped between two iterations? */
  private isRepeating(cpu: number): boolean {
    return this.getU64(cpu + S_REPEATING) === this.getU64(cpu + S_ICOUNT);
  }

  /** Was the instruction stepped from `rip` a branch that was taken? */
  private hasBranched(cpu: number, rip: bigint): boolean {
    const insn = this.code.stepped;
    if (insn === undefined) return false;
    const isAlways = ALWAYS_BRANCHES.has(insn.row.name);
    return isAlways || (insn.operands.some((o) => o.kind === 'rel') && this.getU64(cpu + S_RIP) !== rip + BigInt(insn.length));
  }

  /** The repeated string instruction at RIP has stopped between two of its iterations. */
  isBetweenIterations(vcpu: number): boolean {
    return this.isRepeating(this.cpuAddress(vcpu));
  }

  /** The instruction at RIP could not be fetched, S_EXC says why: delivered in the guest, or an exit. */
  protected fetchFault(cpu: number): number {
    return this.u32[(cpu + V_NATIVE) >>> 2] === 0 ? EXIT_EXCEPTION : this.runtime.attention(cpu) >>> 0;
  }

  protected sourceAt(cpu: number): CodeSource | undefined {
    return this.sourceFor(cpu, this.getU64(cpu + S_RIP));
  }

  private sourceFor(cpu: number, rip: bigint): CodeSource | undefined {
    const bits = this.codeSize(cpu) === 64 ? 64 : 32;
    const va = bits === 64 ? rip : BigInt.asUintN(32, rip + this.getU64(cpu + S_SEG + CS * SEG_STRIDE + SEG_BASE));
    const hpa = this.runtime.translateExec(cpu, va) >>> 0;
    if (hpa === 0) return undefined;
    return { hpa, nextPage: () => this.runtime.translateExec(cpu, BigInt.asUintN(bits, (va | 0xfffn) + 1n)) >>> 0 };
  }
}
