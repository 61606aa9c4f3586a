import type { CpuCore, Saveable, StateIo } from '@pvm/cpu-jit';
import { EXIT_LIMIT, EXIT_REQUEST, S_ICOUNT, S_RIP } from '@pvm/cpu-jit/layout';
import type { Design, ExitOutcome } from './designs/design.ts';
import type { ExitLedger } from './ledger.ts';
import type { PlatformTimers } from './platform/platform.ts';

/** Longest the event loop of the host waits for the guest, ms. */
const SLICE_MS = 15;
const FIRST_SLICE = 1_000_000;
const MAX_SLICE = 2 ** 31;
const NO_LIMIT = 2n ** 63n;

/** The clock costs a good part of what a short exit costs: so many go by between two looks whether the slice is over. */
const EXITS_BETWEEN_LOOKS = 16;

/** Why a slice ended: time for the host's event loop, a wait, a halt, or the limit of instructions. */
export type SliceEnd = 'yield' | 'wait' | 'halted' | 'limit' | 'stopped';

/** How the machine steers its run loops. */
export interface RunControl {
  /** The board was told to stop. */
  stopped(): boolean;
  /** Called after each exit is in the ledger. */
  afterExit(): void;
  /** Most instructions to retire, undefined: no limit. */
  readonly maxInstructions: number | undefined;
}

/**
 * The run loop of one vCPU: enter the guest, and at each VM exit time it, let the design handle it, and enter again.
 * It runs in slices so that the host's event loop (input, compiled code from the worker, abort) gets its turn; the
 * end of a slice is invisible to the guest and is not a VM exit. The next deadline of the devices' timers ends a run of the guest as well.
 */
export class RunLoop implements Saveable {
  private readonly core: CpuCore;
  private readonly vcpu: number;
  private readonly design: Design;
  private readonly ledger: ExitLedger;
  private readonly control: RunControl;
  private readonly outcome: ExitOutcome = { row: 0, wait: undefined };
  private readonly limit: bigint;
  private readonly timers: PlatformTimers | undefined;
  private slice = FIRST_SLICE;
  private exits = 0;
  /** The last slice ended in the middle of the guest. */
  private interruptible = false;
  /** The limit that the CPU has been given. */
  private given = 0n;
  /** The guest runs under a limit that `cut` may lower. */
  private inGuest = false;

  /** @param timers of the platform; undefined: it has none */
  constructor(core: CpuCore, vcpu: number, design: Design, ledger: ExitLedger, timers: PlatformTimers | undefined, control: RunControl) {
    this.core = core;
    this.vcpu = vcpu;
    this.design = design;
    this.ledger = ledger;
    this.control = control;
    this.timers = timers;
    this.limit = control.maxInstructions === undefined ? NO_LIMIT : BigInt(control.maxInstructions);
  }

  /** What the vCPU waits for after a slice that ended with `wait`. */
  get waitFor(): Promise<void> | undefined {
    return this.outcome.wait;
  }

  /** Run for about `SLICE_MS`. @throws TripleFault, FailedEntry */
  runSlice(): SliceEnd {
    const { core, vcpu, design, ledger, outcome } = this;
    outcome.wait = undefined;
    const words = core.u64;
    const base = core.cpuAddress(vcpu);
    const rip = (base + S_RIP) >>> 2;
    const count = () => words[(base + S_ICOUNT) >>> 3] ?? 0n;
    const first = count();
    const target = first + BigInt(this.slice);
    const limit = target < this.limit ? target : this.limit;
    const sliceStart = performance.now();
    this.interrupt(sliceStart);
    for (;;) {
      this.prepare();
      const reason = this.enter(limit);
      if (reason === EXIT_LIMIT) {
        if (count() >= this.limit) return 'limit';
        this.adapt(Number(count() - first), performance.now() - sliceStart);
        this.interruptible = true;
        return 'yield';
      }
      if (reason !== EXIT_REQUEST) {
        const start = design.exitStart(vcpu, reason);
        const ripLow = core.u32[rip] ?? 0;
        const ripHigh = core.u32[rip + 1] ?? 0;
        try {
          design.handleExit(vcpu, reason, outcome);
        } finally {
          ledger.finish(outcome.row, start, ripLow, ripHigh, vcpu);
        }
        this.timers?.clock.exitDone();
      }
      this.control.afterExit();
      if (this.control.stopped()) return 'stopped';
      if (outcome.wait !== undefined) return 'wait';
      if (design.halted(vcpu) !== 'no' && this.idle() !== 'no') return 'halted';
      // Exits do not look at the limit: a guest that only exits must still let the host live.
      if (++this.exits % EXITS_BETWEEN_LOOKS === 0 && performance.now() - sliceStart > 2 * SLICE_MS) return 'yield';
    }
  }

  /** Something waits for the vCPU, or the next deadline moved: a run of the guest ends at its next check point. */
  cut(): void {
    if (!this.inGuest) return;
    this.given = 0n;
    this.core.setLimit(this.vcpu, 0n);
  }

  /** Whether the vCPU waits for an interrupt, after virtual time has passed to the timers that end the wait. */
  idle(): 'no' | 'wakeable' | 'dead' {
    const { timers } = this;
    for (;;) {
      timers?.runDue();
      const state = this.design.halted(this.vcpu);
      if (state !== 'wakeable' || timers === undefined) return state;
      const deadline = timers.nextDeadline();
      if (!Number.isFinite(deadline) || !timers.clock.skipTo(deadline)) return state;
    }
  }

  /** How long a halted vCPU sleeps if nothing comes from outside, ms; Infinity: until then. */
  sleepMs(): number {
    const { timers } = this;
    return timers === undefined ? Number.POSITIVE_INFINITY : (timers.nextDeadline() - timers.clock.now()) / 1e6;
  }

  private prepare(): boolean {
    this.timers?.runDue();
    return this.design.prepareEntry(this.vcpu);
  }

  private setLimit(limit: bigint): void {
    if (limit === this.given) return;
    this.given = limit;
    this.core.setLimit(this.vcpu, limit);
  }

  /** Runs up to `limit` retired instructions, with the timers on the way. */
  private enter(limit: bigint): number {
    const { core, design, vcpu, timers } = this;
    if (timers === undefined) {
      this.setLimit(limit);
      this.inGuest = true;
      const reason = design.enter(vcpu);
      this.inGuest = false;
      return reason;
    }
    const { clock } = timers;
    const at = (core.cpuAddress(vcpu) + S_ICOUNT) >>> 3;
    for (;;) {
      const first = core.u64[at] ?? 0n;
      const deadline = timers.nextDeadline();
      const until = Number.isFinite(deadline) ? first + BigInt(clock.instructionsUntil(deadline)) : limit;
      this.setLimit(until < limit ? until : limit);
      const start = performance.now();
      this.inGuest = true;
      const reason = design.enter(vcpu);
      this.inGuest = false;
      const end = performance.now();
      const last = core.u64[at] ?? 0n;
      clock.observe(Number(last - first), end - start);
      if (reason !== EXIT_LIMIT || last >= limit) return reason;
      // A run that ended early, because speed was misjudged or something was kicked, is no exit.
      const isDue = clock.now() >= deadline;
      this.prepare();
      if (isDue && design.timerRow >= 0) this.recordHere(design.timerRow, end);
    }
  }

  /** An exit between two instructions that began at `start`. */
  private recordHere(row: number, start: number): void {
    const { u32 } = this.core;
    const rip = (this.core.cpuAddress(this.vcpu) + S_RIP) >>> 2;
    this.ledger.finish(row, start, u32[rip] ?? 0, u32[rip + 1] ?? 0, this.vcpu);
  }

  /** An interrupt that came while the guest was running is an exit of its own; one that met a waiting guest is not. */
  private interrupt(start: number): void {
    const delivered = this.prepare();
    if (delivered && this.interruptible && this.design.interruptRow >= 0) this.recordHere(this.design.interruptRow, start);
    this.interruptible = false;
  }

  /** Choose the next slice so that it takes `SLICE_MS` at the speed of the last one. */
  private adapt(instructions: number, ms: number): void {
    const next = ms <= 0 ? this.slice * 2 : (instructions * SLICE_MS) / ms;
    this.slice = Math.min(MAX_SLICE, Math.max(10_000, Math.min(next, this.slice * 4)));
    this.slice = Math.floor(this.slice);
  }

  state(s: StateIo): void {
    s.fields(this, ['interruptible']);
  }
}
