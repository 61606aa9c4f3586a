import { CpuCore, type CpuHooks, type CpuLevel } from '@pvm/cpu-jit';
import { S_ICOUNT, S_LSTAR } from '@pvm/cpu-jit/layout';
import { GuestRam } from '@pvm/machine';
import { codeCacheFile } from './code-cache-file.ts';
import { guestDeath } from './crash-report.ts';
import { Debugger } from './debug/debugger.ts';
import { type Design, type DirtyTracking, type StopReason, TripleFault } from './designs/design.ts';
import { designInfo } from './designs/index.ts';
import { PvmError } from './errors.ts';
import type { GuestImage } from './guest-image.ts';
import { ExitLedger } from './ledger.ts';
import { Marks } from './marks.ts';
import { MmuCheck } from './mmu-check.ts';
import { type CheckedOptions, withOutputs } from './options.ts';
import type { RestartCause } from './pc/options.ts';
import type { PcDevices } from './pc/pc-devices.ts';
import { createPlatform, GuestTime, type Platform, RandomSource } from './platform/index.ts';
import { NO_LIMIT, RunLoop, type SliceEnd } from './run-loop.ts';
import { AtomicFile } from './snapshot/file.ts';
import { restoreMachine, type SavedMachine, saveMachine } from './snapshot/machine-state.ts';
import type { SnapshotReader } from './snapshot/reader.ts';
import { type SaveOptions, SaveQueue } from './snapshot/save-queue.ts';
import { StdinReader } from './stdin.ts';
import { guardedOutput } from './streams.ts';
import { type Interval, type PageTableCounters, type Summary, summarise, type TlbCounters } from './summary.ts';
import { switcherModule } from './switcher/index.ts';

/** How a run ended. */
export interface Result {
  /** 0 to 255; 128 + n when signal n killed the program. */
  readonly exitCode: number;
  readonly stopReason: StopReason;
  /** Signal that killed the program, 0: none. */
  readonly signal: number;
  readonly summary: Summary;
  /** Intervals that the program marked, in order of their ends. */
  readonly intervals: readonly Interval[];
}

/** A kernel as it was loaded, and is again after a reset. */
type BootImage = { readonly kernel: Uint8Array; readonly initrd: Uint8Array; readonly commandLine: string };

const BOOT_VCPU = 0;
/** Longest sleep that `setTimeout` knows, about. */
const MAX_SLEEP_MS = 2 ** 30;

/** A virtual machine. Runs once. */
export class Vm {
  /** Every VM exit so far; can be read while the machine runs. */
  readonly ledger: ExitLedger;
  private readonly core: CpuCore;
  private readonly platform: Platform;
  private readonly ram: GuestRam;
  private readonly time: GuestTime;
  private design: Design;
  private runLoop: RunLoop;
  private debug: Debugger | undefined;
  private readonly options: CheckedOptions;
  private readonly stdin: StdinReader;
  private readonly random: RandomSource;
  private state: 'new' | 'running' | 'done' = 'new';
  private stop: { reason: StopReason; exitCode: number; signal: number } | undefined;
  private wake: (() => void) | undefined;
  private unknownSyscalls: ReadonlyMap<number, number> = new Map();
  private readonly marks: Marks;
  private afterExit: (() => void) | undefined;
  /** The receiver of the platform's output is slow. */
  private outputWait: Promise<void> | undefined;
  private mmuCheck: MmuCheck | undefined;
  /** What `restart` loads again; kept only by machines that restart. */
  private boot: BootImage | undefined;
  private restartWanted = false;
  private readonly saves = new SaveQueue();
  /** What a function or stream of the user's has thrown. */
  private failure: { readonly error: unknown } | undefined;
  /** What the guest waits for when it begins to run. */
  private pending: Promise<void> | undefined;
  private runMs = 0;

  /** Used by `createVm`. */
  static async create(options: CheckedOptions): Promise<Vm> {
    // The CPU needs the hooks of a design that needs the CPU.
    const late: { vm?: Vm } = {};
    const hooks: CpuHooks = {
      mmuFault: (vcpu) => {
        const answer = late.vm?.design.mmuFault(vcpu) ?? 1;
        late.vm?.mmuCheck?.exitDone();
        return answer;
      },
      mmio: (vcpu) => late.vm?.design.mmio(vcpu) ?? 1,
    };
    const core = await CpuCore.create({
      ramBytes: options.memory,
      framePoolBytes: options.shadowMemory,
      vcpus: options.vcpus,
      cpu: options.cpu,
      jit: options.jit,
      codeBytes: options.codeMemory,
      codeCache: options.codeCache === undefined ? undefined : codeCacheFile(options.codeCache, options),
      nameRegion: options.nameRegion,
      clock: options.clock,
      sample: options.sampleTiers,
      ...(designInfo(options.design).switcher ? { switcher: await switcherModule() } : {}),
      hooks,
    });
    try {
      const vm = new Vm(options, core);
      late.vm = vm;
      return vm;
    } catch (e) {
      await core.dispose();
      throw e;
    }
  }

  private constructor(given: CheckedOptions, core: CpuCore) {
    const options = withOutputs(given, (output) => guardedOutput(output, (error) => this.fail(error)));
    this.options = options;
    this.core = core;
    this.stdin = new StdinReader(options.stdin);
    this.ledger = new ExitLedger(() => this.design.directSwitches(), {
      timing: options.ledger,
      traceLimit: options.traceLimit,
      instructions: (vcpu) => this.retired(vcpu),
    });
    const late: { vm?: Vm } = {};
    const ram = new GuestRam(core.memory.buffer, core.ramBase, core.ramBytes, (gpa, length) => {
      core.dirtyCode(core.ramBase + gpa, length);
      late.vm?.design.hostWrote(gpa, length);
    });
    this.ram = ram;
    const time = new GuestTime(core, options.clock);
    this.time = time;
    this.random = new RandomSource(options.clock);
    this.platform = createPlatform(options.platform, {
      core,
      ram,
      options,
      time,
      stdin: this.stdin,
      random: (buffer) => this.random.fill(buffer),
      stop: (reason, exitCode, signal) => this.halt(reason, exitCode, signal),
      reset: () => this.resetRequested(),
      kick: (vcpu) => {
        this.runLoop.kick(vcpu);
        this.wake?.();
      },
      yieldTo: (vcpu) => this.runLoop.yieldTo(vcpu),
      deadlineMoved: () => this.runLoop.cut(),
      hold: (ready) => {
        const before = this.outputWait;
        this.outputWait = before === undefined ? ready : Promise.all([before, ready]).then(() => undefined);
      },
      mark: (operations, id) => this.mark(operations, id),
      unknownSyscalls: (calls) => {
        this.unknownSyscalls = calls;
      },
    });
    this.marks = new Marks(core, BOOT_VCPU, this);
    this.design = this.createDesign();
    late.vm = this;
    this.mmuCheck = this.createMmuCheck();
    this.runLoop = this.createRunLoop();
  }

  private createDesign(): Design {
    const { core, ram, ledger, platform, time, options } = this;
    return designInfo(options.design).create({ core, ram, ledger, platform, time, options });
  }

  private createMmuCheck(): MmuCheck | undefined {
    return this.options.checkMmu > 0 ? new MmuCheck(this.design, this.options.checkMmu) : undefined;
  }

  private createRunLoop(): RunLoop {
    return new RunLoop(this.core, this.design, this.ledger, this.platform.timers, {
      stopped: () => this.stop !== undefined || this.restartWanted,
      afterExit: () => {
        const f = this.afterExit;
        this.afterExit = undefined;
        f?.();
        this.mmuCheck?.exitDone();
      },
      maxInstructions: this.options.maxInstructions,
      debugger: () => this.debug,
    });
  }

  /** Used by `createVm`. @throws PvmError `bad-snapshot`, `snapshot-mismatch` */
  async restore(snapshot: SnapshotReader): Promise<void> {
    await restoreMachine(this.saved, snapshot);
    this.pending = this.platform.resume();
  }

  /** What a snapshot holds beside linear memory. The ledger comes first: objects that are made on the way find their rows in it. */
  private get saved(): SavedMachine {
    const { core, options, ledger, platform, design, runLoop, random } = this;
    return {
      core,
      options,
      state: {
        state: (s) => {
          s.fields({ ledger, random, platform, design, runLoop }, ['ledger', 'random', 'platform', 'design', 'runLoop']);
          this.runMs = s.value('runMs', this.runMs);
          this.unknownSyscalls = s.value('unknownSyscalls', this.unknownSyscalls);
          const boot = s.value('boot', this.boot);
          this.boot = options.reboot ? boot : undefined;
        },
      },
    };
  }

  /**
   * Takes a snapshot, from which `createVm({ restore })` makes a machine that goes on from there. The machine stands still meanwhile, and this process with it.
   *
   * @throws PvmError `wrong-state` when the machine has ended, or ends before the snapshot is due
   */
  async save(options: SaveOptions = {}): Promise<Uint8Array> {
    let bytes = new Uint8Array(0);
    await this.requestSave(options, () => {
      bytes = new Uint8Array(Buffer.concat([...saveMachine(this.saved)]));
    });
    return bytes;
  }

  /** The same into a file, which appears when it is complete. @throws PvmError also `unwritable-file` */
  async saveTo(path: string, options: SaveOptions = {}): Promise<void> {
    const file = new AtomicFile(path);
    try {
      await this.requestSave(options, () => file.write(saveMachine(this.saved)));
    } finally {
      file.discard();
    }
  }

  private requestSave(options: SaveOptions, write: () => void): Promise<void> {
    if (this.state === 'done') throw new PvmError('wrong-state', 'the machine has ended; a snapshot is taken before or while it runs');
    const done = this.saves.add(options, write);
    if (this.state === 'new') this.serveSaves();
    else {
      this.runLoop.cut();
      this.wake?.();
    }
    return done;
  }

  /** Between two slices, or while the guest waits. @returns whether snapshots were taken */
  private serveSaves(): boolean {
    const due = this.saves.take(this.runLoop.retired);
    for (const request of due) request.serve();
    if (due.some((request) => request.stop)) this.halt('saved', 0, 0);
    this.runLoop.pauseAt = this.saves.next === Number.POSITIVE_INFINITY ? NO_LIMIT : BigInt(this.saves.next);
    return due.length > 0;
  }

  /** Put the kernel and its RAM disk into guest RAM. @throws MachineError */
  load({ kernel, initrd }: GuestImage): void {
    const boot = { kernel, initrd, commandLine: this.options.commandLine };
    if (this.options.reboot) this.boot = boot;
    this.start(boot);
  }

  private start(boot: BootImage): void {
    this.design.boot(this.platform.load(boot, boot.commandLine));
  }

  /** The guest asked for a reset: the machine starts anew, or stops. */
  private resetRequested(): void {
    if (this.boot === undefined) this.halt('reset', 0, 0);
    else if (this.stop === undefined) {
      this.restartWanted = true;
      this.runLoop.cut();
      this.wake?.();
    }
  }

  /** Everything as after power-on, but RAM keeps what is in it, as it does on a PC, and clocks and counters go on. */
  private restart(cause: RestartCause): void {
    const { boot } = this;
    if (boot === undefined) throw new PvmError('wrong-state', 'a machine that restarts keeps its kernel');
    this.restartWanted = false;
    this.platform.reset?.();
    for (let vcpu = 0; vcpu < this.core.vcpus; vcpu++) this.core.restart(vcpu);
    this.core.clearFramePool();
    this.design = this.createDesign();
    this.mmuCheck = this.createMmuCheck();
    this.runLoop = this.createRunLoop();
    this.start(boot);
    this.options.onRestart(cause);
  }

  /**
   * Run until the guest powers off or cannot go on.
   *
   * @throws VmError `triple-fault`, `failed-vmentry` or `broken-mmu` with a register dump; PvmError `wrong-state` on a second call;
   *   what a receiver of output or a source of input has thrown
   */
  async run(): Promise<Result> {
    if (this.state !== 'new') throw new PvmError('wrong-state', 'a machine runs once; create another');
    this.state = 'running';
    this.core.countTlbHits(this.options.countTlb);
    const { signal } = this.options;
    const abort = () => this.abort();
    if (signal?.aborted === true) abort();
    signal?.addEventListener('abort', abort);
    this.platform.runInput?.().catch((e: unknown) => this.fail(e));
    try {
      await this.loop();
      this.platform.flush();
      if (this.stop?.reason !== 'aborted') await this.outputWait;
      if (this.failure !== undefined) throw this.failure.error;
    } catch (e) {
      throw e instanceof Error ? (guestDeath(e, this.core, this.runLoop.vcpu, this.design, this.ledger) ?? e) : e;
    } finally {
      signal?.removeEventListener('abort', abort);
      this.platform.flush();
      this.state = 'done';
      this.saves.end();
      await this.closeInput();
    }
    const { reason, exitCode, signal: killedBy } = this.stop ?? { reason: 'halted' as const, exitCode: 0, signal: 0 };
    return { exitCode, stopReason: reason, signal: killedBy, summary: this.summary(), intervals: this.marks.intervals };
  }

  private async loop(): Promise<void> {
    await this.waitFor(this.pending);
    while (this.stop === undefined) {
      if (this.restartWanted) this.restart('reset');
      if (this.serveSaves()) {
        // Whoever asked hears of it before the guest goes on.
        await new Promise((resolve) => setImmediate(resolve));
        continue;
      }
      if (this.outputWait !== undefined) {
        const wait = this.outputWait;
        this.outputWait = undefined;
        await this.waitFor(wait);
        continue;
      }
      const start = performance.now();
      const end = await this.slice();
      this.runMs += performance.now() - start;
      if (end === 'limit') this.halt('instruction-limit', 0, 0);
      else if (end === 'debugged') await this.waitFor(this.debug?.untilResumed());
      else if (end === 'wait') await this.waitFor(this.runLoop.waitFor, true);
      else if (end === 'halted') await this.waitForInterrupt();
      else await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** A debugger sees a guest that cannot go on before the machine ends with it, or starts anew. */
  private async slice(): Promise<SliceEnd> {
    try {
      return this.runLoop.runSlice();
    } catch (e) {
      if (e instanceof Error) await this.debug?.died(this.runLoop.vcpu, e.message);
      // A processor that shuts down resets a PC. One that does so before it has said a word would do so for ever.
      this.platform.flush();
      if (!(e instanceof TripleFault) || this.boot === undefined || this.platform.isSilent !== false) throw e;
      this.restart('triple-fault');
      return 'yield';
    }
  }

  /** Waits for a device, or until the machine is told to stop, or, if it may, a debugger wants it to. Snapshots are taken meanwhile. */
  private async waitFor(device: Promise<void> | undefined, mayBreak = false): Promise<void> {
    let isReady = device === undefined;
    const ready = device?.finally(() => {
      isReady = true;
    });
    while (!isReady && this.stop === undefined && !(mayBreak && this.debug?.wantsStop === true)) {
      if (this.serveSaves()) continue;
      await Promise.race([ready, new Promise<void>((resolve) => (this.wake = resolve))]);
      this.wake = undefined;
    }
  }

  private async waitForInterrupt(): Promise<void> {
    const { runLoop } = this;
    do {
      if (this.serveSaves()) continue;
      const state = runLoop.idle();
      if (state === 'dead') this.halt('halted', 0, 0);
      // A timer may have come due since the run ended.
      if (state !== 'wakeable') return;
      const ms = runLoop.sleepMs();
      // Also keeps the process alive while the guest sleeps: nothing else may.
      let timer: NodeJS.Timeout | undefined;
      try {
        await new Promise<void>((resolve) => {
          this.wake = resolve;
          timer = setTimeout(resolve, Math.min(MAX_SLEEP_MS, Math.max(0, ms)));
        });
      } finally {
        clearTimeout(timer);
        this.wake = undefined;
      }
    } while (this.stop === undefined && this.debug?.wantsStop !== true);
  }

  private async closeInput(): Promise<void> {
    await this.platform.closeInput?.();
    await this.stdin.close();
  }

  /** The devices of a stock kernel's PC; undefined with a program. */
  get devices(): PcDevices | undefined {
    return this.platform.devices;
  }

  /** Which pages of RAM the guest and its devices write; undefined under `bare`, where the CPU keeps no such tables. */
  get dirtyLog(): DirtyTracking | undefined {
    return this.design.dirtyLog;
  }

  /** External interrupt for the guest: `vector` 32 to 255, delivered as soon as it takes interrupts. */
  injectInterrupt(vector: number): void {
    if (!Number.isInteger(vector) || vector < 32 || vector > 255) throw new RangeError(`interrupt vectors are 32 to 255, got ${vector}`);
    this.design.injectInterrupt(BOOT_VCPU, vector);
    this.wake?.();
  }

  /** Non-maskable interrupt for the guest. */
  injectNmi(): void {
    this.design.injectNmi(BOOT_VCPU);
    this.wake?.();
  }

  /** Stops, steps and inspects the machine; made at the first use. `pause` before `run` stops it before the first instruction. */
  get debugger(): Debugger {
    this.debug ??= new Debugger(this.core, this.ram, {
      interrupt: () => {
        this.runLoop.cut();
        this.wake?.();
      },
      step: (vcpu) => this.runLoop.step(vcpu),
    });
    return this.debug;
  }

  /** Guest code and Wasm text of the compiled regions that hold the instruction at virtual address `rip`; empty when none does. */
  dumpCompiled(rip: bigint): Promise<string[]> {
    return this.core.dumpCompiled(rip);
  }

  /** What the run has cost so far. */
  stats(): Summary {
    return this.summary();
  }

  /** The guest's processor. */
  get cpuLevel(): CpuLevel {
    return this.options.cpu;
  }

  /** Ends the run with `aborted`, as the option `signal` does. */
  abort(): void {
    this.halt('aborted', 130, 0);
  }

  /** What the guest's clock counts. */
  get clock(): 'host' | 'icount' {
    return this.options.clock;
  }

  /** Name of the design the machine runs under. */
  get designName(): string {
    return this.design.name;
  }

  /** Work on shadow or second-level page tables so far; empty when the design has none. */
  pageTables(): PageTableCounters {
    return this.design.pageTables?.() ?? {};
  }

  /** Counters of the soft TLB so far. */
  tlb(): TlbCounters {
    const { tlbHits, tlbMisses, tlbFlushes, walks } = this.core.stats();
    return { ...(tlbHits === undefined ? {} : { hits: tlbHits }), misses: tlbMisses, flushes: tlbFlushes, walks };
  }

  /** MSR LSTAR of the guest, 0 when it is not set. */
  get syscallEntry(): bigint {
    return this.core.u64[(this.core.cpuAddress(BOOT_VCPU) + S_LSTAR) >>> 3] ?? 0n;
  }

  /** For `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** Stops the machine and lets its memory go. */
  async dispose(): Promise<void> {
    if (this.state === 'running') this.halt('aborted', 130, 0);
    this.state = 'done';
    this.saves.end();
    await this.closeInput();
    this.platform.dispose();
    await this.core.dispose();
  }

  /** Ends the run, which rejects with the first error. */
  private fail(error: unknown): void {
    this.failure ??= { error };
    this.halt('aborted', 130, 0);
  }

  private halt(reason: StopReason, exitCode: number, signal: number): void {
    this.stop ??= { reason, exitCode, signal };
    this.wake?.();
  }

  // ------------------------------------------------------------ counts
  /**
   * The exits of both requests stay outside: the first is over when the interval begins, the second not yet counted when it ends. An
   * interval begins when the compiler has caught up, so that it measures what is steady.
   */
  private mark(operations: number, id: number): Promise<void> | undefined {
    if (operations === 0) this.marks.end(id);
    else {
      const compiled = this.core.compiled();
      if (compiled !== undefined) return compiled.then(() => this.marks.begin(id, operations));
      this.afterExit = () => this.marks.begin(id, operations);
    }
    return undefined;
  }

  /** Retired instructions as a number; read as two words, for this is done at exits. */
  private retired(vcpu: number): number {
    const at = (this.core.cpuAddress(vcpu) + S_ICOUNT) >>> 2;
    return (this.core.u32[at] ?? 0) + (this.core.u32[at + 1] ?? 0) * 2 ** 32;
  }

  private summary(): Summary {
    const { core, design, ledger, runMs, unknownSyscalls } = this;
    return summarise({ cpu: core.stats(), design, ledger, runMs, unknownSyscalls });
  }
}
