import { CodeCache, type CodeSource } from './code-cache.ts';
import { DebugPoints } from './debug-points.ts';
import { decode } from './decoder/index.ts';
import type { Insn } from './decoder/types.ts';
import { setEngineFlags } from './engine-flags.ts';
import { type EntryTarget, type FlatEntry, flatState, resetState, type Segment } from './entry-state.ts';
import { CpuError } from './errors.ts';
import type { CpuLevel } from './features.ts';
import { FIRST_REGION, SWITCHER_PAGE_FAULT } from './interp/handler-table.ts';
import { loadInterpreter } from './interp/load.ts';
import { type Compiler, Jit, type JitCounts } from './jit/jit.ts';
import { WorkerCompiler } from './jit/worker-compiler.ts';
import {
  ACCESS_READ,
  C_EVENTS,
  C_INTERP_BLOCKS,
  C_JC_MISSES,
  C_JIT_ENTRIES,
  C_JIT_INSNS,
  C_JIT_LEFT,
  C_TLB_FLUSHES,
  C_TLB_MISSES,
  C_WALKS,
  CLOCK_HOST,
  CLOCK_ICOUNT,
  CPU_BASE,
  CPU_STRIDE,
  CS,
  EXIT_DECODE,
  EXIT_EXCEPTION,
  EXIT_LIMIT,
  EXIT_MSR_READ,
  EXIT_MSR_WRITE,
  EXIT_REQUEST,
  EXIT_RESTART,
  EXIT_SHUTDOWN,
  EXIT_STEP,
  FRAME_POOL_BASE,
  INTERCEPT_MSR,
  INTR_WINDOW,
  JC_BASE,
  JC_CPU_SIZE,
  JC_REC,
  LEFT_CAUSES,
  MAX_VCPUS,
  NEXT,
  NEXT_CHECK,
  P_DIRECT_ERETUS,
  P_DIRECT_FAULTS,
  P_DIRECT_SYSCALLS,
  P_PAGE_FAULT,
  S_BLOCK_RIP,
  S_CODE_SIZE,
  S_CPL,
  S_DEBUG,
  S_DR,
  S_EXC,
  S_EXC_ERROR,
  S_EXIT_ACCESS,
  S_EXIT_BLOCK,
  S_EXIT_INSN_LEN,
  S_EXIT_SIZE,
  S_EXIT_VALUE,
  S_GPR,
  S_HOT_THRESHOLD,
  S_ICOUNT,
  S_ICOUNT_LIMIT,
  S_INTR,
  S_JC,
  S_MXCSR,
  S_NMI,
  S_RANDOM,
  S_REPEATING,
  S_RFLAGS,
  S_RIP,
  S_SEG,
  S_SHADOW,
  S_STEP,
  S_STEP_STACK,
  S_TIER,
  S_TLB,
  S_TSC_OFFSET,
  S_UNFUSED,
  S_WATCH,
  S_X87_CW,
  SEG_BASE,
  SEG_LIMIT,
  SEG_STRIDE,
  STEP_STACK_NONE,
  TIER_NONE,
  TLB_BASE,
  TLB_CPU_SIZE,
  V_CLOCK,
  V_INTERCEPTS,
  V_LEVELS,
  V_NATIVE,
  V_RAM_BASE,
  V_RAM_HIGH,
  V_RAM_LOW,
  V_SLOT,
  V_TSC_MUL,
} from './layout.ts';
import type { MemoryLayout } from './memory.ts';
import { instantiateRuntime, type RuntimeExports } from './runtime.ts';
import { TierSampler, type TierSamples } from './sampler.ts';
import { stackAccesses } from './stack-accesses.ts';

const PAGE = 4096;
const STATUS_FLAGS = 0x8d5;
const RFLAGS_AC = 1 << 18;
/** Interpreter entries after which a block is compiled. */
const HOT_THRESHOLD = 400;
const RFLAGS_TF = 1 << 8;
const RFLAGS_RF = 1 << 16;
const VECTOR_GP = 13;
/** Branches that are always taken, by mnemonic. */
const ALWAYS_BRANCHES = new Set(['jmp', 'jmp_ind', 'jmpf', 'call', 'call_ind', 'callf', 'ret', 'retf', 'iret', 'syscall', 'sysret', 'sysenter', 'sysexit']);
const VECTOR_DB = 1;
/** DR7: accesses to debug registers are #DB. */
const DR7_GD = 1n << 13n;
/** DR6: single step. */
const DR6_BS = 1n << 14n;
/** Fields of 8 bytes that say how long the vCPU has run and what it did; `V_TSC_MUL` has `V_TSC_SHIFT` beside it. */
const KEPT_OVER_RESTART = [
  S_ICOUNT,
  S_TSC_OFFSET,
  S_RANDOM,
  V_TSC_MUL,
  P_DIRECT_SYSCALLS,
  P_DIRECT_ERETUS,
  P_DIRECT_FAULTS,
  C_TLB_MISSES,
  C_TLB_FLUSHES,
  C_WALKS,
  C_INTERP_BLOCKS,
  C_JIT_ENTRIES,
  C_JIT_INSNS,
  ...Array.from({ length: LEFT_CAUSES }, (_, cause) => C_JIT_LEFT + cause * 8),
  C_JC_MISSES,
  C_EVENTS,
];
/** For `setLimit`: never. */
export const NO_LIMIT = 0xffff_ffff_ffff_ffffn;

/** Where an event comes from, in the order of assembly/events.ts; `icebp` is INT1. */
const EVENT_KINDS = ['fault', 'trap', 'external', 'software', 'icebp'] as const;
export type EventKind = (typeof EVENT_KINDS)[number];

/** Synchronous calls from generated code; arguments are in the `S_EXIT_*` fields of the state block. */
export interface CpuHooks {
  /** The page walk failed: 0 fixed, walk again; 1 raise the #PF in `S_EXC*`; 2 the access was emulated; 3 leave `run` with EXIT_REQUEST. */
  mmuFault(vcpu: number): 0 | 1 | 2 | 3;
  /** Access to guest-physical `S_EXIT_GPA` outside RAM: 2 done, 1 exception in `S_EXC*`. */
  mmio(vcpu: number): 1 | 2;
}

export interface CpuOptions {
  /** Guest RAM in bytes, a multiple of 4 KiB, at most 3.5 GiB. */
  readonly ramBytes: number;
  /** Frames for shadow page tables, bytes; default 16 MiB. */
  readonly framePoolBytes?: number;
  /** 1 to 8; default 1. */
  readonly vcpus?: number;
  /** `off`: interpreter only; `sync`: compile hot code at once on this thread; `on` (default). */
  readonly jit?: 'off' | 'on' | 'sync';
  /** A compiled region is merged with its neighbours when it has been entered so often: a power of two. For tests; default 32,768. */
  readonly mergeAfter?: number;
  /** Bytes of compiled Wasm that may be in use; when there are more, all are dropped. Default 64 MiB. */
  readonly codeBytes?: number;
  /** What V8's profiler (`--cpu-prof`, `perf`) should call compiled guest code that starts at a virtual address. Default: no names, which are bytes to compile. */
  readonly nameRegion?: ((rip: bigint) => string) | undefined;
  /** Source of the TSC: retired instructions (default) or the host's clock, both nominally 1 tick = 1 ns. */
  readonly clock?: 'icount' | 'host';
  /** Sample which tier runs (`stats().samples`), from a thread of its own; default false. */
  readonly sample?: boolean;
  /** x86-64-v2 (default), or v3: with AVX, AVX2, FMA and F16C. Decides what there is; what CPUID says is the owner's (`cpuidLeaves`). */
  readonly cpu?: CpuLevel;
  readonly hooks?: Partial<CpuHooks>;
  /**
   * Module with exports `syscall(cpu: i32) -> i32` that serves SYSCALL in `SYSCALL_PVM` mode, and `page_fault(cpu: i32) -> i32` that takes #PF where
   * `directPageFaults` asked for it. It may import `env.memory`, `env.getFlags`, `env.setFlags`, `env.flushArray`, `env.syscall_native`.
   */
  readonly switcher?: WebAssembly.Module;
}

/** Names of LEFT_*. */
export const LEFT_NAMES = ['no region', 'declined', 'exception', 'limit', 'event check', 'VM exit'] as const;

/** Counters since creation. */
export interface CpuStats {
  /** Retired instructions. */
  readonly instructions: bigint;
  readonly tlbMisses: number;
  readonly tlbFlushes: number;
  readonly walks: number;
  readonly interpreterBlocks: number;
  readonly compiledEntries: number;
  readonly jumpCacheMisses: number;
  /** Of `instructions`, those that compiled code retired. */
  readonly compiledInstructions: number;
  /** How often compiled code came back to the dispatcher, by LEFT_*; `LEFT_NAMES` says why that was. */
  readonly compiledCodeLeft: readonly number[];
  /** Blocks and instructions decoded, pieces of code dropped because it changed. */
  readonly blocksDecoded: number;
  readonly instructionsDecoded: number;
  readonly codeInvalidations: number;
  /** Where vCPU 0 was found by the sampler; undefined without `sample`. */
  readonly samples: TierSamples | undefined;
  /** The compiler's counters; undefined with `jit: 'off'`. */
  readonly jit: Readonly<JitCounts> | undefined;
}

/** Loaded on demand: the code generator is large, and only this mode runs it on the main thread. */
async function syncCompiler(u8: Uint8Array): Promise<Compiler> {
  const { SyncCompiler } = await import('./jit/sync-compiler.ts');
  return new SyncCompiler(u8);
}

/** The CPU: linear memory, interpreter, compiled code and the loop that runs them. One instance drives all vCPUs of a machine. */
export class CpuCore implements MemoryLayout {
  readonly memory: WebAssembly.Memory;
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  readonly u64: BigUint64Array;
  readonly view: DataView;
  readonly ramBase: number;
  readonly ramBytes: number;
  readonly framePoolBase = FRAME_POOL_BASE;
  readonly framePoolFrames: number;
  readonly vcpus: number;
  private readonly clock: 'icount' | 'host';
  /** What the CPU has; see `CpuOptions.cpu`. */
  readonly level: CpuLevel;
  readonly table: WebAssembly.Table;
  private runtime: RuntimeExports;
  private code: CodeCache;
  private debugPoints: DebugPoints;
  private jit: Jit | undefined;
  private sampler: TierSampler | undefined;
  private readonly limits = new BigUint64Array(MAX_VCPUS);

  /** Allocates memory and instantiates the Wasm modules. Throws `CpuError` for bad options or an unbuilt package. */
  static async create(options: CpuOptions): Promise<CpuCore> {
    setEngineFlags();
    const cpu = new CpuCore(options);
    await cpu.link(options);
    for (let v = 0; v < cpu.vcpus; v++) cpu.reset(v);
    return cpu;
  }

  private constructor(options: CpuOptions) {
    const { ramBytes, framePoolBytes = 16 << 20, vcpus = 1 } = options;
    if (!Number.isInteger(ramBytes / PAGE) || ramBytes <= 0 || ramBytes > 3.5 * 2 ** 30) {
      throw new CpuError('bad-option', `ramBytes must be a multiple of 4096 up to 3.5 GiB, got ${ramBytes}`);
    }
    if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > MAX_VCPUS) throw new CpuError('bad-option', `vcpus must be 1 to ${MAX_VCPUS}, got ${vcpus}`);
    this.vcpus = vcpus;
    this.level = options.cpu ?? 'v2';
    this.clock = options.clock ?? 'icount';
    this.framePoolFrames = Math.ceil(framePoolBytes / PAGE);
    this.ramBase = FRAME_POOL_BASE + this.framePoolFrames * PAGE;
    this.ramBytes = ramBytes;
    const pages = Math.ceil((this.ramBase + ramBytes) / 65536) + 1;
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: 65536, shared: true });
    const buffer = this.memory.buffer;
    this.u8 = new Uint8Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u64 = new BigUint64Array(buffer);
    this.view = new DataView(buffer);
    this.table = new WebAssembly.Table({ element: 'anyfunc', initial: 16384 });
    // Set by link(), before anyone can see the object.
    this.runtime = undefined as unknown as RuntimeExports;
    this.code = undefined as unknown as CodeCache;
    this.debugPoints = undefined as unknown as DebugPoints;
  }

  private async link(options: CpuOptions): Promise<void> {
    const { memory, table, u32 } = this;
    const vcpuOf = (cpu: number) => (cpu - CPU_BASE) / CPU_STRIDE;
    const hooks = options.hooks ?? {};
    this.runtime = await instantiateRuntime(memory, table, {
      mmuFault: (cpu) => hooks.mmuFault?.(vcpuOf(cpu)) ?? 1,
      mmio: (cpu) => hooks.mmio?.(vcpuOf(cpu)) ?? 1,
      smc: (cpu) => {
        this.code.invalidate(u32[(cpu + S_EXIT_BLOCK) >>> 2] ?? 0, u32[(cpu + S_EXIT_SIZE) >>> 2] ?? 1);
        return 0;
      },
      hot: (cpu) => this.jit?.hot(cpu),
      hostTsc: () => performance.now() * 1e6,
    });
    const runtime = this.runtime;
    let syscall = runtime.syscall_native;
    let pageFault: WebAssembly.ExportValue | undefined;
    if (options.switcher !== undefined) {
      const switcher = new WebAssembly.Instance(options.switcher, {
        env: { memory, getFlags: runtime.getFlags, setFlags: runtime.setFlags, flushArray: runtime.tlbFlushArray, syscall_native: runtime.syscall_native },
      });
      syscall = switcher.exports['syscall'] as (cpu: number) => number;
      pageFault = switcher.exports['page_fault'];
    }
    const imports = { ...(runtime as unknown as WebAssembly.ModuleImports), memory, table, host_syscall: syscall };
    const interpreter = (await loadInterpreter(this.level === 'v3')).instantiate(imports);
    // The interpreter's modules fill the table from its start.
    if (pageFault !== undefined) table.set(SWITCHER_PAGE_FAULT, pageFault);
    this.code = new CodeCache(
      {
        u8: this.u8,
        u32,
        view: this.view,
        protectFrame: (hpa) => {
          for (let v = 0; v < this.vcpus; v++) runtime.protectFrame(this.cpuAddress(v), hpa);
        },
        forgetLinks: () => {
          for (let v = 0; v < this.vcpus; v++) runtime.forgetLinks(this.cpuAddress(v));
        },
      },
      interpreter.handlers,
    );
    this.debugPoints = new DebugPoints(this, this.code, runtime);
    if (options.sample === true) this.sampler = new TierSampler(memory);
    if (options.jit === 'off') return;
    const compiler = options.jit === 'sync' ? await syncCompiler(this.u8) : new WorkerCompiler(memory, this.limitAddresses());
    this.jit = new Jit(
      {
        u8: this.u8,
        u32,
        view: this.view,
        table,
        imports: { ...imports, ...interpreter.exports, host_entered: (cpu: number) => this.jit?.entered(cpu) },
        code: this.code,
        forgetLinks: () => {
          for (let v = 0; v < this.vcpus; v++) runtime.forgetLinks(this.cpuAddress(v));
        },
        nameRegion: options.nameRegion,
        probeExec: (cpu, va) => runtime.probeExec(cpu, va),
      },
      compiler,
      FIRST_REGION,
      { mergeAfter: options.mergeAfter, maxBytes: options.codeBytes },
    );
  }

  private limitAddresses(): number[] {
    return Array.from({ length: this.vcpus }, (_, v) => this.cpuAddress(v) + S_ICOUNT_LIMIT);
  }

  /** Address of the state block of a vCPU. */
  cpuAddress(vcpu: number): number {
    return CPU_BASE + vcpu * CPU_STRIDE;
  }

  /** State after creation: 64-bit code, CPL 0, paging off, everything else zero or its power-on default. */
  reset(vcpu: number): void {
    const cpu = this.cpuAddress(vcpu);
    this.u8.fill(0, cpu, cpu + CPU_STRIDE);
    const set = (offset: number, value: number) => {
      this.u32[(cpu + offset) >>> 2] = value;
    };
    set(S_TLB, TLB_BASE + vcpu * TLB_CPU_SIZE);
    set(S_JC, JC_BASE + vcpu * JC_CPU_SIZE);
    set(S_CODE_SIZE, 64);
    set(S_RFLAGS, 2);
    this.setU64(cpu + S_SHADOW, NO_LIMIT);
    set(S_MXCSR, 0x1f80);
    set(S_X87_CW, 0x37f);
    set(V_RAM_BASE, this.ramBase);
    set(V_RAM_LOW, this.ramBytes);
    set(V_RAM_HIGH, 0);
    set(V_LEVELS, 4);
    set(V_CLOCK, this.clock === 'host' ? CLOCK_HOST : CLOCK_ICOUNT);
    this.setHostFields(cpu);
    this.setLimit(vcpu, NO_LIMIT);
    this.runtime.setFlags(cpu, 0);
    this.runtime.tlbFlushAll(cpu);
  }

  /** The state blocks were replaced by those of a snapshot: what depends on this host, and on how it runs code, is set again. */
  restored(): void {
    for (let v = 0; v < this.vcpus; v++) {
      const cpu = this.cpuAddress(v);
      this.setHostFields(cpu);
      this.setLimit(v, NO_LIMIT);
    }
  }

  /**
   * Power-on state of a vCPU that has run: as `reset`, but its clock and counters go on, and so do the switcher's.
   * Nothing that was cached or compiled under the old state is found again by the new one.
   */
  restart(vcpu: number): void {
    const cpu = this.cpuAddress(vcpu);
    const kept = KEPT_OVER_RESTART.map((offset) => this.getU64(cpu + offset));
    this.reset(vcpu);
    KEPT_OVER_RESTART.forEach((offset, i) => {
      this.setU64(cpu + offset, kept[i] ?? 0n);
    });
  }

  private setHostFields(cpu: number): void {
    this.u32[(cpu + S_UNFUSED) >>> 2] = this.runtime.fuses() === 0 ? 1 : 0;
    this.u32[(cpu + S_HOT_THRESHOLD) >>> 2] = this.jit === undefined ? 0 : HOT_THRESHOLD;
    this.u32[(cpu + S_TIER) >>> 2] = TIER_NONE;
  }

  private setU64(at: number, v: bigint): void {
    this.u64[at >>> 3] = v;
  }
  private getU64(at: number): bigint {
    return this.u64[at >>> 3] ?? 0n;
  }
  /** General register `n` (encoding order). */
  getReg(vcpu: number, n: number): bigint {
    return this.getU64(this.cpuAddress(vcpu) + S_GPR + n * 8);
  }
  setReg(vcpu: number, n: number, v: bigint): void {
    this.setU64(this.cpuAddress(vcpu) + S_GPR + n * 8, v);
  }
  getRip(vcpu: number): bigint {
    return this.getU64(this.cpuAddress(vcpu) + S_RIP);
  }
  setRip(vcpu: number, v: bigint): void {
    this.setU64(this.cpuAddress(vcpu) + S_RIP, v);
  }
  /** RFLAGS with the lazy status flags computed. */
  getRflags(vcpu: number): bigint {
    return BigInt(this.rflags32(vcpu));
  }
  setRflags(vcpu: number, v: bigint): void {
    this.setRflags32(vcpu, Number(v & 0xffff_ffffn));
  }
  /** The same as numbers, for paths where a bigint costs too much; the upper half of RFLAGS is always 0. */
  rflags32(vcpu: number): number {
    const cpu = this.cpuAddress(vcpu);
    return ((this.u32[(cpu + S_RFLAGS) >>> 2] ?? 0) | this.runtime.getFlags(cpu)) >>> 0;
  }
  setRflags32(vcpu: number, v: number): void {
    const cpu = this.cpuAddress(vcpu);
    const old = this.u32[(cpu + S_RFLAGS) >>> 2] ?? 0;
    this.u32[(cpu + S_RFLAGS) >>> 2] = (v & ~STATUS_FLAGS) | 2;
    this.runtime.setFlags(cpu, v & STATUS_FLAGS);
    if ((old ^ v) & RFLAGS_AC) this.runtime.alignment(cpu);
  }

  /** Runs until something must leave the guest; returns EXIT_* (layout.ts). Decoding, self-modifying code and compilation are handled inside. */
  run(vcpu: number): number {
    const cpu = this.cpuAddress(vcpu);
    // Events are looked at where generated code would: at check points.
    let isCheckPoint = true;
    for (;;) {
      if (isCheckPoint && this.debugPoints.isHit(vcpu)) return EXIT_REQUEST;
      let reason = isCheckPoint ? this.runtime.attention(cpu) >>> 0 : NEXT;
      isCheckPoint = false;
      if (reason === NEXT || reason === NEXT_CHECK) reason = this.runtime.run(cpu) >>> 0;
      this.u32[(cpu + S_TIER) >>> 2] = TIER_NONE;
      if (reason === EXIT_DECODE) {
        if (this.decodeBlock(cpu)) continue;
        reason = this.fetchFault(cpu);
      } else if (reason === EXIT_LIMIT && !this.limitReached(cpu)) {
        this.jit?.poll();
        isCheckPoint = true;
        continue;
      } else if (reason === EXIT_RESTART) {
        this.u32[(cpu + S_EXC) >>> 2] = 0;
        reason = this.stepWatched(vcpu);
        // It hit a data breakpoint.
        isCheckPoint = this.u32[(cpu + S_DEBUG) >>> 2] !== 0;
        if (reason === NEXT) continue;
      } else if (reason === EXIT_STEP) {
        reason = this.singleStep(vcpu);
        isCheckPoint = true;
        if (reason === NEXT) continue;
      }
      if (reason !== NEXT_CHECK) return reason;
      if (this.limitReached(cpu)) return EXIT_LIMIT;
      isCheckPoint = true;
    }
  }

  /** The instruction at RIP could not be fetched, S_EXC says why: delivered in the guest, or an exit. */
  private fetchFault(cpu: number): number {
    return this.u32[(cpu + V_NATIVE) >>> 2] === 0 ? EXIT_EXCEPTION : this.runtime.attention(cpu) >>> 0;
  }

  /** One instruction with everything that debugging says about it: breakpoints at it, and the trap after it (SDM vol. 3, 18.3). */
  private singleStep(vcpu: number): number {
    const cpu = this.cpuAddress(vcpu);
    const { u32, runtime } = this;
    const isNative = u32[(cpu + V_NATIVE) >>> 2] !== 0;
    if (isNative) {
      const fault = runtime.debug_fetch(cpu) >>> 0;
      if (fault !== NEXT) return fault;
    }
    const isOn = ((u32[(cpu + S_RFLAGS) >>> 2] ?? 0) & RFLAGS_TF) !== 0;
    const events = this.getU64(cpu + C_EVENTS);
    const count = this.getU64(cpu + S_ICOUNT);
    const rip = this.getU64(cpu + S_RIP);
    const reason = this.stepWatched(vcpu);
    if (this.getU64(cpu + S_ICOUNT) === count || this.getU64(cpu + C_EVENTS) !== events) return reason;
    // The rest of a repeated string instruction is not stopped by the breakpoint at it again.
    if (isNative && this.isRepeating(cpu)) u32[(cpu + S_RFLAGS) >>> 2] = (u32[(cpu + S_RFLAGS) >>> 2] ?? 0) | RFLAGS_RF;
    // SYSCALL takes TF away before its end.
    const isTraced = isOn && !(this.code.stepped?.row.name === 'syscall' && ((u32[(cpu + S_RFLAGS) >>> 2] ?? 0) & RFLAGS_TF) === 0);
    if (!isTraced) return reason;
    if (isNative) {
      runtime.debug_step(cpu, this.hasBranched(cpu, rip) ? 1 : 0);
      return reason;
    }
    if (reason !== NEXT && reason !== NEXT_CHECK) return reason;
    this.setU64(cpu + S_DR + 6 * 8, this.getU64(cpu + S_DR + 6 * 8) | DR6_BS);
    u32[(cpu + S_EXC_ERROR) >>> 2] = 0;
    u32[(cpu + S_EXC) >>> 2] = VECTOR_DB + 1;
    return EXIT_EXCEPTION;
  }
  /** One instruction; one that faults, or that somebody else must complete, has hit no breakpoint. */
  private stepWatched(vcpu: number): number {
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

  // ------------------------------------------------------------ the CPU by itself (V_NATIVE)
  private entryTarget(vcpu: number): EntryTarget {
    return { view: this.view, u8: this.u8, runtime: this.runtime, cpu: this.cpuAddress(vcpu), vcpu };
  }
  /** Architectural state after RESET or INIT: real mode at F000:FFF0. Keeps CPUID, control block, limits and counters. */
  resetToReal(vcpu: number): void {
    resetState(this.entryTarget(vcpu));
  }
  /** Flat 64-bit code at CPL 0 with paging on (`long`), or flat 32-bit protected mode without (`protected`); interrupts off. */
  enterFlat(vcpu: number, mode: 'long' | 'protected', entry: FlatEntry): void {
    flatState(this.entryTarget(vcpu), mode, entry);
  }
  /** Start-up IPI with vector `page` after INIT (`resetToReal`): real mode at page:0000. */
  startUp(vcpu: number, page: number): void {
    this.setSegment(vcpu, CS, { selector: page << 8, base: BigInt(page << 12), limit: 0xffff, attr: 0x9b });
    this.setRip(vcpu, 0n);
    this.modeChanged(vcpu);
  }
  setSegment(vcpu: number, n: number, s: Segment): void {
    this.runtime.setSegment(this.cpuAddress(vcpu), n, s.selector, s.base, s.limit, s.attr);
  }
  /** After CR0, EFER, CS or CPL were written from outside: TLB array, code size and caches follow. */
  modeChanged(vcpu: number): void {
    const cpu = this.cpuAddress(vcpu);
    this.runtime.setCpl(cpu, this.u32[(cpu + S_CPL) >>> 2] ?? 0);
    this.runtime.tlbFlushAll(cpu);
    this.runtime.enterCode(cpu);
  }

  /** External interrupt `vector` for delivery as soon as the guest takes interrupts; undefined withdraws it. Heard at the next check point. */
  setInterrupt(vcpu: number, vector: number | undefined): void {
    this.request(vcpu, vector === undefined ? 0 : vector + 1);
  }
  /** The vector that still waits, undefined when it was delivered (or there was none). */
  pendingInterrupt(vcpu: number): number | undefined {
    const pending = this.u32[(this.cpuAddress(vcpu) + S_INTR) >>> 2] ?? 0;
    return pending === 0 || pending === INTR_WINDOW ? undefined : pending - 1;
  }
  /** Makes `run` return EXIT_INTR_WINDOW as soon as an interrupt could be delivered (once). */
  requestInterruptWindow(vcpu: number): void {
    this.request(vcpu, INTR_WINDOW);
  }
  private request(vcpu: number, value: number): void {
    const cpu = this.cpuAddress(vcpu);
    this.u32[(cpu + S_INTR) >>> 2] = value;
    if (value !== 0) this.kick(cpu);
  }
  setNmi(vcpu: number): void {
    const cpu = this.cpuAddress(vcpu);
    this.u32[(cpu + S_NMI) >>> 2] = 1;
    this.kick(cpu);
  }
  /** Generated code returns at its next check point; `run` puts the limit back. */
  private kick(cpu: number): void {
    Atomics.store(this.u64, (cpu + S_ICOUNT_LIMIT) >>> 3, 0n);
  }
  /** Whether an external interrupt would be delivered before the next instruction. */
  interruptible(vcpu: number): boolean {
    return this.runtime.interruptible(this.cpuAddress(vcpu)) !== 0;
  }

  /** After an exit with RIP at an instruction that TypeScript has done: RIP after it, and it counts as retired. */
  complete(vcpu: number): void {
    const cpu = this.cpuAddress(vcpu);
    this.add64(cpu + S_RIP, this.u32[(cpu + S_EXIT_INSN_LEN) >>> 2] ?? 0);
    if (this.codeSize(cpu) !== 64) this.u32[((cpu + S_RIP) >>> 2) + 1] = 0;
    this.add64(cpu + S_ICOUNT, 1);
    if (((this.u32[(cpu + S_RFLAGS) >>> 2] ?? 0) & RFLAGS_TF) !== 0) this.runtime.debug_completed(cpu);
  }
  /** Adds a small number to a 64-bit field, without making a bigint. */
  private add64(at: number, n: number): void {
    const word = at >>> 2;
    const low = (this.u32[word] ?? 0) + n;
    this.u32[word] = low;
    if (low > 0xffff_ffff) this.u32[word + 1] = (this.u32[word + 1] ?? 0) + 1;
  }
  /** After EXIT_IO: finishes the instruction; `value` is what IN or INS read. */
  completeIo(vcpu: number, value = 0): void {
    const cpu = this.cpuAddress(vcpu);
    if (this.u32[(cpu + S_EXIT_ACCESS) >>> 2] === ACCESS_READ) this.setU64(cpu + S_EXIT_VALUE, BigInt(value >>> 0));
    this.runtime.io_complete(cpu);
  }
  /**
   * Event injection: delivers `vector` through the guest's IDT now, whatever the control block intercepts; what the guest's own tables forbid on the
   * way is delivered instead. `software`: INT n at RIP. @returns false when the guest cannot take it (triple fault)
   */
  inject(vcpu: number, vector: number, kind: EventKind, error = 0): boolean {
    return this.runtime.inject(this.cpuAddress(vcpu), vector, EVENT_KINDS.indexOf(kind), error) >>> 0 !== EXIT_SHUTDOWN;
  }
  /** After EXIT_CPUID: does the instruction with the CPU's own table of answers. */
  cpuid(vcpu: number): void {
    this.runtime.cpuid(this.cpuAddress(vcpu));
    this.complete(vcpu);
  }
  /** After EXIT_PRIVILEGED at a MOV to CR, CLTS or LMSW: finishes it with `value` in S_CR0, S_CR3 or S_CR4; what the CPU refuses becomes #GP. */
  writeControl(vcpu: number, register: number, value: bigint): void {
    this.runtime.write_cr(this.cpuAddress(vcpu), register, value);
  }
  /** After EXIT_MSR_READ or EXIT_MSR_WRITE: lets the CPU do it although it is intercepted. @returns false: it does not know the MSR */
  doMsr(vcpu: number, reason: number): boolean {
    const cpu = this.cpuAddress(vcpu);
    const at = (cpu + V_INTERCEPTS) >>> 2;
    const intercepts = this.u32[at] ?? 0;
    this.u32[at] = intercepts & ~INTERCEPT_MSR;
    const result = (reason === EXIT_MSR_READ ? this.runtime.sys_rdmsr(cpu) : this.runtime.sys_wrmsr(cpu)) >>> 0;
    this.u32[at] = intercepts;
    return result !== EXIT_MSR_READ && result !== EXIT_MSR_WRITE;
  }
  /** After EXIT_PRIVILEGED at XSETBV: does it. */
  xsetbv(vcpu: number): void {
    this.runtime.sys_xsetbv(this.cpuAddress(vcpu));
  }
  /** Does the SYSCALL that left with EXIT_SYSCALL as a CPU by itself does; NEXT_CHECK, or EXIT_EXCEPTION with S_EXC set. */
  syscall(vcpu: number): number {
    return this.runtime.syscall_native(this.cpuAddress(vcpu)) >>> 0;
  }
  /** Shadow paging: makes the TLB arrays of `slot` current for the mode the vCPU is in; P_KERNEL_ROOT and P_USER_ROOT are set. */
  selectSlot(vcpu: number, slot: number): void {
    const cpu = this.cpuAddress(vcpu);
    this.u32[(cpu + V_SLOT) >>> 2] = slot;
    this.runtime.setCpl(cpu, this.u32[(cpu + S_CPL) >>> 2] ?? 0);
    this.runtime.enterCode(cpu);
  }

  /** The instruction at RIP raises an exception: delivered when `run` is entered. */
  raise(vcpu: number, vector: number, error = 0): void {
    const cpu = this.cpuAddress(vcpu);
    this.u32[(cpu + S_EXC) >>> 2] = vector + 1;
    this.u32[(cpu + S_EXC_ERROR) >>> 2] = error;
  }

  /** Retired instructions at which `run` returns EXIT_LIMIT, at the next check point (taken backward and indirect branches). */
  setLimit(vcpu: number, instructions: bigint): void {
    const cpu = this.cpuAddress(vcpu);
    this.limits[vcpu] = instructions;
    Atomics.store(this.u64, (cpu + S_ICOUNT_LIMIT) >>> 3, instructions);
  }
  /** The compiler thread lowers S_ICOUNT_LIMIT to be heard; the limit that was asked for is put back here. */
  private limitReached(cpu: number): boolean {
    const limit = this.limits[(cpu - CPU_BASE) / CPU_STRIDE] ?? 0n;
    if (this.getU64(cpu + S_ICOUNT) >= limit) return true;
    Atomics.store(this.u64, (cpu + S_ICOUNT_LIMIT) >>> 3, limit);
    return false;
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

  /**
   * Without compiled code: one instruction (`single`), or one block of at most MAX_BLOCK_INSNS. What is pending, or TF, comes first. Returns NEXT,
   * NEXT_CHECK or EXIT_*.
   */
  runBlock(vcpu: number, single: boolean): number {
    const cpu = this.cpuAddress(vcpu);
    const pending = this.runtime.attention(cpu) >>> 0;
    // With breakpoints armed, too.
    if (pending === EXIT_STEP || (pending === NEXT && this.u32[(cpu + S_WATCH) >>> 2] !== 0)) return this.singleStep(vcpu);
    if (pending !== NEXT) return pending;
    let reason = NEXT;
    if (single) {
      reason = this.step(vcpu);
    } else {
      const find = () => this.runtime.lookupBlock(cpu) >>> 0;
      let entry = find();
      if (entry === 0 && this.u32[(cpu + S_EXC) >>> 2] === 0 && this.decodeBlock(cpu)) entry = find();
      if (entry === 0) return this.fetchFault(cpu);
      this.setU64(cpu + S_BLOCK_RIP, this.getU64(cpu + S_RIP));
      reason = this.runtime.callRecord(cpu, this.u32[(entry + JC_REC) >>> 2] ?? 0) >>> 0;
    }
    return reason === EXIT_RESTART ? this.step(vcpu) : reason;
  }

  /** The repeated string instruction at RIP has stopped between two of its iterations. */
  isBetweenIterations(vcpu: number): boolean {
    return this.isRepeating(this.cpuAddress(vcpu));
  }
  /** MOV to debug register `n`, which arms breakpoints, whatever DR7.GD says; what the CPU refuses becomes #GP. RIP moves on as after the instruction. */
  writeDebug(vcpu: number, n: number, value: bigint): void {
    const cpu = this.cpuAddress(vcpu);
    this.setU64(cpu + S_DR + 7 * 8, this.getU64(cpu + S_DR + 7 * 8) & ~DR7_GD);
    this.runtime.sys_write_dr(cpu, S_DR + n * 8, value);
  }
  /** Linear address of the next instruction. */
  codeAddress(vcpu: number): bigint {
    const cpu = this.cpuAddress(vcpu);
    const rip = this.getU64(cpu + S_RIP);
    return this.codeSize(cpu) === 64 ? rip : BigInt.asUintN(32, rip + this.getU64(cpu + S_SEG + CS * SEG_STRIDE + SEG_BASE));
  }
  /** HPA of the code byte at linear address `address`, 0 when it cannot be fetched now; raises nothing. */
  probeCode(vcpu: number, address: bigint): number {
    return this.runtime.probeExec(this.cpuAddress(vcpu), address) >>> 0;
  }
  /** While set, `run` returns EXIT_REQUEST before the instruction at `hpa`, at no cost to other code; `runBlock` of a single one goes over it. */
  setBreakpoint(hpa: number, isSet: boolean): void {
    this.code.setBreakpoint(hpa, isSet);
  }
  /** Breakpoints and watchpoints of a debugger. */
  get debug(): DebugPoints {
    return this.debugPoints;
  }
  /** Size of the code that runs now. */
  codeBits(vcpu: number): 16 | 32 | 64 {
    return this.codeSize(this.cpuAddress(vcpu));
  }

  private codeSize(cpu: number): 16 | 32 | 64 {
    const size = this.u32[(cpu + S_CODE_SIZE) >>> 2];
    return size === 16 || size === 32 ? size : 64;
  }
  private sourceAt(cpu: number): CodeSource | undefined {
    return this.sourceFor(cpu, this.getU64(cpu + S_RIP));
  }
  private sourceFor(cpu: number, rip: bigint): CodeSource | undefined {
    const bits = this.codeSize(cpu) === 64 ? 64 : 32;
    const va = bits === 64 ? rip : BigInt.asUintN(32, rip + this.getU64(cpu + S_SEG + CS * SEG_STRIDE + SEG_BASE));
    const hpa = this.runtime.translateExec(cpu, va) >>> 0;
    if (hpa === 0) return undefined;
    return { hpa, nextPage: () => this.runtime.translateExec(cpu, BigInt.asUintN(bits, (va | 0xfffn) + 1n)) >>> 0 };
  }

  /** Forgets all translated and compiled code. */
  private flushCode(): void {
    if (this.jit?.isFull === true) this.jit.counts.evictions++;
    this.code.flush();
  }

  private decodeBlock(cpu: number): boolean {
    if (this.code.full || this.jit?.isFull === true) this.flushCode();
    const source = this.sourceAt(cpu);
    if (source === undefined) return false;
    if (this.debugPoints.hasBreakpoints) this.debugPoints.decoding((cpu - CPU_BASE) / CPU_STRIDE, source.hpa);
    return this.code.addBlock(source, this.codeSize(cpu));
  }

  /** Guest RAM at `hpa` was written from TypeScript: drops code that was made from it. */
  dirtyCode(hpa: number, length: number): void {
    this.code.invalidate(hpa, length);
  }

  /** Page faults of umod that are the guest's own go to the switcher instead of leaving the guest. Needs a switcher. */
  directPageFaults(vcpu: number, on: boolean): void {
    this.u32[(this.cpuAddress(vcpu) + P_PAGE_FAULT) >>> 2] = on ? SWITCHER_PAGE_FAULT : 0;
  }
  tlbFlushArray(vcpu: number, array: number): void {
    this.runtime.tlbFlushArray(this.cpuAddress(vcpu), array);
  }
  tlbFlushAll(vcpu: number): void {
    this.runtime.tlbFlushAll(this.cpuAddress(vcpu));
  }
  tlbInvlpg(vcpu: number, array: number, va: bigint): void {
    this.runtime.tlbInvlpg(this.cpuAddress(vcpu), array, va);
  }

  /** Counters of one vCPU, or of all together. What is decoded and compiled is all vCPUs'. */
  stats(vcpu?: number): CpuStats {
    const blocks = Array.from({ length: this.vcpus }, (_, v) => this.cpuAddress(v)).filter((_, v) => vcpu === undefined || v === vcpu);
    const sum = (offset: number) => blocks.reduce((n, cpu) => n + this.getU64(cpu + offset), 0n);
    const count = (offset: number) => Number(sum(offset));
    return {
      instructions: sum(S_ICOUNT),
      tlbMisses: count(C_TLB_MISSES),
      tlbFlushes: count(C_TLB_FLUSHES),
      walks: count(C_WALKS),
      interpreterBlocks: count(C_INTERP_BLOCKS),
      compiledEntries: count(C_JIT_ENTRIES),
      jumpCacheMisses: count(C_JC_MISSES),
      compiledInstructions: count(C_JIT_INSNS),
      compiledCodeLeft: LEFT_NAMES.map((_, cause) => count(C_JIT_LEFT + cause * 8)),
      blocksDecoded: this.code.counts.blocks,
      instructionsDecoded: this.code.counts.instructions,
      codeInvalidations: this.code.counts.invalidated,
      samples: this.sampler?.samples(),
      jit: this.jit?.counts,
    };
  }

  /** Guest code and Wasm text of the compiled regions that hold the instruction at virtual address `rip`; empty when none does. */
  async dumpCompiled(rip: bigint): Promise<string[]> {
    const found = this.jit?.regionsAt(rip) ?? [];
    if (found.length === 0) return [];
    const { dumpRegion } = await import('./jit/dump.ts');
    return Promise.all(found.map(dumpRegion));
  }

  /** Settles when no hot code waits to be compiled, or after two minutes; undefined: none does. For measurements of what is steady. */
  compiled(): Promise<void> | undefined {
    return this.jit?.idle();
  }

  /** Ends the compiler thread; the object must not be used afterwards. */
  async dispose(): Promise<void> {
    await Promise.all([this.jit?.dispose(), this.sampler?.dispose()]);
  }
}

export { decode };
