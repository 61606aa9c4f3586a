import { randomFillSync } from 'node:crypto';
import { CpuCore, type CpuHooks } from '@pvm/cpu-jit';
import { S_ICOUNT, S_TSC_OFFSET, V_TSC_MUL } from '@pvm/cpu-jit/layout';
import { DebugExit, GuestRam, HostChannel, loadLinuxElf, PortBus, Uart16550 } from '@pvm/machine';
import { FailedEntry, TripleFault } from './abi-v2/pvm-vcpu.ts';
import { crashReport } from './crash-report.ts';
import { StockPc } from './designs/bare/stock-pc.ts';
import type { Design, StopReason } from './designs/design.ts';
import { PvmDesign } from './designs/pvm/pvm-design.ts';
import { PvmError, VmError } from './errors.ts';
import { loadGuestImage } from './guest-image.ts';
import { ExitLedger } from './ledger.ts';
import { type CheckedOptions, checkOptions, type VmOptions } from './options.ts';
import { RunLoop } from './run-loop.ts';
import { StdinReader } from './stdin.ts';
import { type Interval, interval, type Snapshot, type Summary, tierTimes } from './summary.ts';
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

/** 2023-11-14T22:13:20Z: when the virtual clock starts. */
const ICOUNT_EPOCH_NS = 1_700_000_000_000_000_000n;
const BOOT_VCPU = 0;
/** Longest sleep that `setTimeout` knows, about. */
const MAX_SLEEP_MS = 2 ** 30;
/** Bytes of input that go to a serial port at a time. */
const INPUT_CHUNK = 4096;

/**
 * Build a machine that runs one program, or boots a stock kernel: reads and checks the files, allocates guest RAM, loads the kernel.
 *
 * @throws PvmError, MachineError: bad options, unreadable or unsuitable files
 */
export async function createVm(options: VmOptions): Promise<Vm> {
  const checked = checkOptions(options);
  const image = await loadGuestImage(checked);
  const vm = await Vm.create(checked);
  try {
    vm.load(image.kernel, image.initrd);
  } catch (e) {
    await vm.dispose();
    throw e;
  }
  return vm;
}

/** A virtual machine. Runs once. */
export class Vm {
  /** Every VM exit so far; can be read while the machine runs. */
  readonly ledger: ExitLedger;
  private readonly core: CpuCore;
  private readonly design: Design;
  private readonly ram: GuestRam;
  /** Loads what `loadGuestImage` read. */
  private readonly boot: (kernel: Uint8Array, initrd: Uint8Array) => void;
  private readonly pc: StockPc | undefined;
  private readonly options: CheckedOptions;
  private readonly stdin: StdinReader;
  private state: 'new' | 'running' | 'done' = 'new';
  private stop: { reason: StopReason; exitCode: number; signal: number } | undefined;
  private wake: (() => void) | undefined;
  private unknownSyscalls: ReadonlyMap<number, number> = new Map();
  private readonly begun = new Map<number, Snapshot>();
  private readonly intervals: Interval[] = [];
  private afterExit: (() => void) | undefined;
  /** The reader of the serial port is slow. */
  private serialWait: Promise<void> | undefined;
  private runMs = 0;
  private randomState = 0x9e37_79b9;

  /** Used by `createVm`. */
  static async create(options: CheckedOptions): Promise<Vm> {
    // The CPU needs the hooks of a design that needs the CPU.
    const late: { design?: Design } = {};
    const hooks: CpuHooks = { mmuFault: (vcpu) => late.design?.mmuFault(vcpu) ?? 1, mmio: (vcpu) => late.design?.mmio(vcpu) ?? 1 };
    const core = await CpuCore.create({
      ramBytes: options.memory,
      framePoolBytes: options.shadowMemory,
      jit: options.jit,
      clock: options.clock,
      sample: options.sampleTiers,
      // Without it SYSCALL means what it means on a PC.
      ...(options.design === 'pvm' ? { switcher: await switcherModule() } : {}),
      hooks,
    });
    try {
      const vm = new Vm(options, core);
      late.design = vm.design;
      return vm;
    } catch (e) {
      await core.dispose();
      throw e;
    }
  }

  private constructor(options: CheckedOptions, core: CpuCore) {
    this.options = options;
    this.core = core;
    this.stdin = new StdinReader(options.stdin);
    const hostWrote: { notify?: (gpa: number, length: number) => void } = {};
    this.ram = new GuestRam(core.memory.buffer, core.ramBase, core.ramBytes, (gpa, length) => {
      core.dirtyCode(core.ramBase + gpa, length);
      hostWrote.notify?.(gpa, length);
    });
    this.ledger = new ExitLedger(() => this.design.directSwitches());
    core.u32[(core.cpuAddress(BOOT_VCPU) + V_TSC_MUL) >>> 2] = 1;
    if (options.design === 'bare') {
      const pc = this.stockPc();
      this.pc = pc;
      this.design = pc.design;
      this.boot = (kernel, initrd) => pc.load(kernel, initrd, options.commandLine);
      return;
    }
    const bus = this.programDevices();
    const design = new PvmDesign({
      core,
      ram: this.ram,
      ledger: this.ledger,
      io: { in: (port, size) => bus.read(port, size), out: (port, size, value) => bus.write(port, size, value) },
      tsc: (vcpu) => this.tsc(vcpu),
      wallClock: () => this.wallClock(),
      directSwitch: options.directSwitch,
      prefault: options.prefault,
    });
    hostWrote.notify = (gpa, length) => design.mmu.guestWrote(core.ramBase + gpa, length);
    this.design = design;
    this.boot = (kernel, initrd) => design.boot(BOOT_VCPU, loadLinuxElf(this.ram, { kernel, initrd, commandLine: options.commandLine }));
  }

  private stockPc(): StockPc {
    const { options } = this;
    return new StockPc({
      core: this.core,
      ram: this.ram,
      ledger: this.ledger,
      clock: options.clock,
      wallClock: () => this.wallClock(),
      random: (buffer) => this.random(buffer),
      drives: options.drives,
      serialOutput: (data) => {
        const wait = options.onSerial(data);
        if (wait !== undefined) this.serialWait = wait;
      },
      onPowerOff: () => this.halt('poweroff', 0, 0),
      onReset: () => this.halt('reset', 0, 0),
      onDebugExit: (exitCode) => this.halt('debug-exit', exitCode & 0xff, 0),
      wake: () => this.wake?.(),
    });
  }

  /** What our own guest kernel needs to run a program. */
  private programDevices(): PortBus {
    const { options } = this;
    const bus = new PortBus();
    bus.attach(new Uart16550((byte) => void options.onSerial(new Uint8Array([byte]))));
    bus.attach(new DebugExit((exitCode) => this.halt('debug-exit', exitCode, 0)));
    bus.attach(
      new HostChannel(this.ram, {
        stdout: (data) => options.onConsole(data) ?? undefined,
        stderr: (data) => options.onStderr(data) ?? undefined,
        stdin: (max) => this.stdin.read(max),
        powerOff: ({ exitCode, signal }) => this.halt('poweroff', exitCode, signal),
        unknownSyscalls: (calls) => {
          this.unknownSyscalls = calls;
        },
        wallClock: () => this.wallClock(),
        random: (buffer) => this.random(buffer),
        terminals: () => options.terminals,
        mark: (begin, id) => this.mark(begin, id),
        sleep: (ns) => this.sleep(ns),
      }),
    );
    return bus;
  }

  /** Put the kernel and its RAM disk into guest RAM. @throws MachineError */
  load(kernel: Uint8Array, initrd: Uint8Array): void {
    this.boot(kernel, initrd);
  }

  /**
   * Run until the guest powers off or cannot go on.
   *
   * @throws VmError `triple-fault` or `failed-vmentry` with a register dump; PvmError `wrong-state` on a second call
   */
  async run(): Promise<Result> {
    if (this.state !== 'new') throw new PvmError('wrong-state', 'a machine runs once; create another');
    this.state = 'running';
    const { signal } = this.options;
    const abort = () => this.halt('aborted', 130, 0);
    if (signal?.aborted === true) abort();
    signal?.addEventListener('abort', abort);
    let inputError: unknown;
    if (this.pc !== undefined) {
      this.forwardInput(this.pc).catch((e: unknown) => {
        // Letting go of the source at the end of the run may fail a read that still waits.
        if (this.state !== 'running') return;
        inputError = e;
        this.halt('aborted', 130, 0);
      });
    }
    try {
      await this.loop();
      if (inputError !== undefined) throw inputError;
    } catch (e) {
      if (!(e instanceof TripleFault || e instanceof FailedEntry)) throw e;
      const [code, what] = e instanceof TripleFault ? (['triple-fault', 'triple fault'] as const) : (['failed-vmentry', 'failed VM entry'] as const);
      throw new VmError(code, `${what}: ${e.message}`, crashReport(`${what}: ${e.message}`, this.core, BOOT_VCPU, this.design, this.ledger));
    } finally {
      signal?.removeEventListener('abort', abort);
      this.pc?.board.flushSerial();
      this.state = 'done';
      await this.stdin.close();
    }
    const { reason, exitCode, signal: killedBy } = this.stop ?? { reason: 'halted' as const, exitCode: 0, signal: 0 };
    return { exitCode, stopReason: reason, signal: killedBy, summary: this.summary(), intervals: this.intervals };
  }

  private async loop(): Promise<void> {
    const loop = new RunLoop(this.core, BOOT_VCPU, this.design, this.ledger, {
      stopped: () => this.stop !== undefined,
      afterExit: () => {
        const f = this.afterExit;
        this.afterExit = undefined;
        f?.();
      },
      maxInstructions: this.options.maxInstructions,
    });
    while (this.stop === undefined) {
      if (this.serialWait !== undefined) {
        const wait = this.serialWait;
        this.serialWait = undefined;
        await this.abortable(wait);
        continue;
      }
      const start = performance.now();
      const end = loop.runSlice();
      this.runMs += performance.now() - start;
      if (end === 'limit') this.halt('instruction-limit', 0, 0);
      else if (end === 'wait') await this.abortable(loop.waitFor);
      else if (end === 'halted') await this.waitForInterrupt();
      else await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Waits for a device, or until the machine is told to stop. */
  private async abortable(device: Promise<void> | undefined): Promise<void> {
    await Promise.race([device, new Promise<void>((resolve) => (this.wake = resolve))]);
    this.wake = undefined;
  }

  private async waitForInterrupt(): Promise<void> {
    do {
      const state = this.design.halted(BOOT_VCPU);
      if (state === 'dead') this.halt('halted', 0, 0);
      // A timer may have come due since the run ended.
      if (state !== 'wakeable') return;
      const ms = this.design.sleepMs(BOOT_VCPU);
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
    } while (this.pc !== undefined && this.stop === undefined && this.design.halted(BOOT_VCPU) !== 'no');
  }

  /** The input goes to the serial port as it comes. */
  private async forwardInput(pc: StockPc): Promise<void> {
    for (;;) {
      const bytes = await this.stdin.read(INPUT_CHUNK);
      if (bytes.length === 0 || this.state !== 'running') return;
      pc.board.serialInput(bytes);
      this.wake?.();
    }
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

  /** What the run has cost so far. */
  stats(): Summary {
    return this.summary();
  }

  /** Stops the machine and lets its memory go. */
  async dispose(): Promise<void> {
    if (this.state === 'running') this.halt('aborted', 130, 0);
    this.state = 'done';
    await this.stdin.close();
    this.pc?.dispose();
    await this.core.dispose();
  }

  private halt(reason: StopReason, exitCode: number, signal: number): void {
    this.stop ??= { reason, exitCode, signal };
    this.wake?.();
  }

  // ------------------------------------------------------------ time, chance, marks
  private tsc(vcpu: number): bigint {
    const base = this.core.cpuAddress(vcpu);
    const source = this.options.clock === 'host' ? BigInt(Math.floor(performance.now() * 1e6)) : (this.core.u64[(base + S_ICOUNT) >>> 3] ?? 0n);
    return BigInt.asUintN(64, source + (this.core.u64[(base + S_TSC_OFFSET) >>> 3] ?? 0n));
  }

  private wallClock(): bigint {
    if (this.options.clock === 'icount') return ICOUNT_EPOCH_NS + this.tsc(BOOT_VCPU);
    return BigInt(Math.floor((performance.timeOrigin + performance.now()) * 1e3)) * 1000n;
  }

  private sleep(ns: number): Promise<void> | undefined {
    if (this.options.clock === 'host') return new Promise((resolve) => setTimeout(resolve, ns / 1e6));
    const at = (this.core.cpuAddress(BOOT_VCPU) + S_TSC_OFFSET) >>> 3;
    this.core.u64[at] = (this.core.u64[at] ?? 0n) + BigInt(Math.floor(ns));
    return undefined;
  }

  /** With the virtual clock the run is repeatable, so its random numbers are too (xorshift32). */
  private random(buffer: Uint8Array): void {
    if (this.options.clock === 'host') {
      randomFillSync(buffer);
      return;
    }
    for (let i = 0; i < buffer.length; i++) {
      let x = this.randomState;
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      this.randomState = x;
      buffer[i] = x & 0xff;
    }
  }

  /** The exits of both requests stay outside: the first is over when the interval begins, the second not yet counted when it ends. */
  private mark(begin: boolean, id: number): void {
    if (begin) {
      this.afterExit = () => this.begun.set(id, this.snapshot());
      return;
    }
    const start = this.begun.get(id);
    if (start !== undefined) this.intervals.push(interval(id, start, this.snapshot()));
  }

  private snapshot(): Snapshot {
    const ns = performance.now() * 1e6;
    const { exits, total, directSyscalls } = this.ledger.worldSwitches();
    return { ns, instructions: this.core.stats(BOOT_VCPU).instructions, exits, worldSwitches: total, directSyscalls, entries: this.ledger.entries() };
  }

  private summary(): Summary {
    const cpu = this.core.stats(BOOT_VCPU);
    const hypervisorMs = this.ledger.totalNs / 1e6;
    const { exits, total } = this.ledger.worldSwitches();
    const guestMs = Math.max(0, this.runMs - hypervisorMs);
    return {
      instructions: cpu.instructions,
      runMs: this.runMs,
      mips: this.runMs > 0 ? Number(cpu.instructions) / 1e3 / this.runMs : 0,
      hypervisorMs,
      guestMs,
      ...tierTimes(guestMs, cpu),
      exits,
      worldSwitches: total,
      shadowPagesBuilt: this.design.shadowPagesBuilt(),
      cpu,
      unknownSyscalls: this.unknownSyscalls,
    };
  }
}
