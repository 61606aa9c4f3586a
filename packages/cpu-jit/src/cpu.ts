import { CodeCache } from './code-cache.ts';
import { type CpuOptions, type CpuStats, LEFT_NAMES, NO_LIMIT } from './cpu-options.ts';
import { DebugPoints } from './debug-points.ts';
import { setEngineFlags } from './engine-flags.ts';
import type { CpuLevel } from './features.ts';
import { FIRST_REGION, SWITCHER_PAGE_FAULT } from './interp/handler-table.ts';
import { loadInterpreter } from './interp/load.ts';
import { type Compiler, Jit } from './jit/jit.ts';
import { WorkerCompiler } from './jit/worker-compiler.ts';
import {
  C_EVENTS,
  C_INTERP_BLOCKS,
  C_JC_MISSES,
  C_JIT_ENTRIES,
  C_JIT_INSNS,
  C_JIT_LEFT,
  C_TLB_FLUSHES,
  C_TLB_HITS,
  C_TLB_MISSES,
  C_WALKS,
  CLOCK_HOST,
  CLOCK_ICOUNT,
  CPU_BASE,
  CPU_STRIDE,
  EXIT_DECODE,
  EXIT_LIMIT,
  EXIT_REQUEST,
  EXIT_RESTART,
  EXIT_STEP,
  JC_BASE,
  JC_CPU_SIZE,
  JC_REC,
  LEFT_CAUSES,
  NEXT,
  NEXT_CHECK,
  P_DIRECT_ERETUS,
  P_DIRECT_FAULTS,
  P_DIRECT_SYSCALLS,
  RUN_LIMIT,
  S_BLOCK_RIP,
  S_CODE_SIZE,
  S_DEBUG,
  S_EXC,
  S_EXIT_BLOCK,
  S_EXIT_SIZE,
  S_HOT_THRESHOLD,
  S_ICOUNT,
  S_ICOUNT_LIMIT,
  S_JC,
  S_MXCSR,
  S_RANDOM,
  S_RFLAGS,
  S_RIP,
  S_SHADOW,
  S_TIER,
  S_TLB,
  S_TLB_COUNTED,
  S_TSC_OFFSET,
  S_UNFUSED,
  S_WATCH,
  S_X87_CW,
  TIER_NONE,
  TLB_BASE,
  TLB_CPU_SIZE,
  V_CLOCK,
  V_LEVELS,
  V_RAM_BASE,
  V_RAM_HIGH,
  V_RAM_LOW,
  V_TSC_MUL,
} from './layout.ts';
import { instantiateRuntime } from './runtime.ts';
import { TierSampler } from './sampler.ts';
import { SingleStepper } from './single-stepper.ts';
import { StallClock } from './stalls.ts';

/** Interpreter entries after which a block is compiled. */
const HOT_THRESHOLD = 400;
/** Fields of 8 bytes that say how long the vCPU has run and what it did; `V_TSC_MUL` has `V_TSC_SHIFT` beside it. */
const KEPT_OVER_RESTART = [
  S_ICOUNT,
  S_TSC_OFFSET,
  S_RANDOM,
  V_TSC_MUL,
  P_DIRECT_SYSCALLS,
  P_DIRECT_ERETUS,
  P_DIRECT_FAULTS,
  S_TLB_COUNTED,
  C_TLB_HITS,
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

/** Loaded on demand: the code generator is large, and only this mode runs it on the main thread. */
async function syncCompiler(u8: Uint8Array): Promise<Compiler> {
  const { SyncCompiler } = await import('./jit/sync-compiler.ts');
  return new SyncCompiler(u8);
}

/** The CPU: linear memory, interpreter, compiled code and the loop that runs them. One instance drives all vCPUs of a machine. */
export class CpuCore extends SingleStepper {
  private readonly clock: 'icount' | 'host';
  /** What the CPU has; see `CpuOptions.cpu`. */
  readonly level: CpuLevel;
  readonly table: WebAssembly.Table;
  private debugPoints: DebugPoints;
  private jit: Jit | undefined;
  private sampler: TierSampler | undefined;
  private readonly stalls = new StallClock();

  /** Allocates memory and instantiates the Wasm modules. Throws `CpuError` for bad options or an unbuilt package. */
  static async create(options: CpuOptions): Promise<CpuCore> {
    setEngineFlags();
    const cpu = new CpuCore(options);
    await cpu.link(options);
    for (let v = 0; v < cpu.vcpus; v++) cpu.reset(v);
    return cpu;
  }

  private constructor(options: CpuOptions) {
    super(options);
    this.level = options.cpu ?? 'v2';
    this.clock = options.clock ?? 'icount';
    this.table = new WebAssembly.Table({ element: 'anyfunc', initial: 16384 });
    // Set by link(), before anyone can see the object.
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
      hot: (cpu) => this.stalls.measure('grow', () => this.jit?.hot(cpu)),
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
        decodeKnown: runtime.decodeKnown,
        forgetLinks: () => {
          for (let v = 0; v < this.vcpus; v++) runtime.forgetLinks(this.cpuAddress(v));
        },
      },
      interpreter.handlers,
    );
    this.debugPoints = new DebugPoints(this, this.code, runtime);
    if (options.sample === true) {
      this.sampler = new TierSampler(memory);
      this.stalls.observeCollections();
    }
    if (options.jit === 'off') return;
    const compiler =
      options.jit === 'sync' ? await syncCompiler(this.u8) : new WorkerCompiler({ memory, kicks: this.limitAddresses(), store: options.codeCache });
    this.jit = new Jit(
      {
        u8: this.u8,
        u32,
        view: this.view,
        table,
        imports: { ...imports, ...interpreter.exports, host_entered: (cpu: number) => this.stalls.measure('merge', () => this.jit?.entered(cpu)) },
        code: this.code,
        stalls: this.stalls,
        forgetLinks: () => {
          for (let v = 0; v < this.vcpus; v++) runtime.forgetLinks(this.cpuAddress(v));
        },
        nameRegion: options.nameRegion,
        probeExec: (cpu, va) => runtime.probeExec(cpu, va),
      },
      compiler,
      FIRST_REGION,
      { mergeAfter: options.mergeAfter, maxBytes: options.codeBytes, isStored: options.codeCache !== undefined },
    );
  }

  private limitAddresses(): number[] {
    return [...Array.from({ length: this.vcpus }, (_, v) => this.cpuAddress(v) + S_ICOUNT_LIMIT), RUN_LIMIT];
  }

  /** Empties the pool of frames, for tables of the hypervisor that are made anew. */
  clearFramePool(): void {
    this.u8.fill(0, this.framePoolBase, this.framePoolBase + this.framePoolFrames * 4096);
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

  /** The debug registers in the state block were written from outside: their breakpoints are armed anew. */
  armBreakpoints(vcpu: number): void {
    this.runtime.watch(this.cpuAddress(vcpu));
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
        // Code that is stepped for where its branches may lead has no other check point.
        if (reason === NEXT) reason = NEXT_CHECK;
      }
      if (reason !== NEXT_CHECK) return reason;
      if (this.limitReached(cpu)) return EXIT_LIMIT;
      isCheckPoint = true;
    }
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

  /** While set, `run` returns EXIT_REQUEST before the instruction at `hpa`, at no cost to other code; `runBlock` of a single one goes over it. */
  setBreakpoint(hpa: number, isSet: boolean): void {
    this.code.setBreakpoint(hpa, isSet);
  }
  /** Breakpoints and watchpoints of a debugger. */
  get debug(): DebugPoints {
    return this.debugPoints;
  }

  private decodeBlock(cpu: number): boolean {
    if (this.jit?.isFull === true) this.jit.counts.evictions++;
    if (this.code.full || this.jit?.isFull === true) this.stalls.measure('flush', () => this.code.flush());
    const source = this.sourceAt(cpu);
    if (source === undefined) return false;
    if (this.debugPoints.hasBreakpoints) this.debugPoints.decoding((cpu - CPU_BASE) / CPU_STRIDE, source.hpa);
    const codeSize = this.codeSize(cpu);
    const isAdded = this.stalls.measure('decode', () => this.code.addBlock(source, codeSize, this.getU64(cpu + S_ICOUNT)));
    if (isAdded && this.jit?.isStored === true) this.stalls.measure('reuse', () => this.jit?.decoded(cpu, source.hpa, codeSize));
    return isAdded;
  }

  /** Guest RAM at `hpa` was written from TypeScript: drops code that was made from it. */
  dirtyCode(hpa: number, length: number): void {
    this.code.invalidate(hpa, length);
  }

  /** Counters of one vCPU, or of all together. What is decoded and compiled is all vCPUs'. */
  stats(vcpu?: number): CpuStats {
    const blocks = Array.from({ length: this.vcpus }, (_, v) => this.cpuAddress(v)).filter((_, v) => vcpu === undefined || v === vcpu);
    const sum = (offset: number) => blocks.reduce((n, cpu) => n + this.getU64(cpu + offset), 0n);
    const count = (offset: number) => Number(sum(offset));
    return {
      instructions: sum(S_ICOUNT),
      tlbMisses: count(C_TLB_MISSES),
      tlbHits: blocks.some((cpu) => this.u32[(cpu + S_TLB_COUNTED) >>> 2] !== 0) ? count(C_TLB_HITS) : undefined,
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
      stalls: this.stalls.counts(),
      jit: this.jit?.counts,
    };
  }

  /** Guest code and Wasm text of the compiled regions that hold the instruction at virtual address `rip`; empty when none does. */
  async dumpCompiled(rip: bigint): Promise<string[]> {
    const found = this.jit?.regionsAt(rip) ?? [];
    if (found.length === 0) return [];
    const { dumpRegion } = await import('./jit/dump.ts');
    return Promise.all(found.map((region) => dumpRegion(this.u8, region)));
  }

  /** Settles when no hot code waits to be compiled, or after two minutes; undefined: none does. For measurements of what is steady. */
  compiled(): Promise<void> | undefined {
    return this.jit?.idle();
  }

  /** Ends the compiler thread; the object must not be used afterwards. */
  async dispose(): Promise<void> {
    this.stalls.dispose();
    await Promise.all([this.jit?.dispose(), this.sampler?.dispose()]);
  }
}
