import type { CpuCore, Saveable, StateIo } from '@pvm/cpu-jit';
import { EXIT_LIMIT, EXIT_REQUEST, EXIT_SPIN, NEXT, NEXT_CHECK, S_ICOUNT, S_INTR, S_NMI, S_RIP } from '@pvm/cpu-jit/layout';
import type { Debugger } from './debug/debugger.ts';
import type { Design, ExitOutcome } from './designs/design.ts';
import type { ExitLedger } from './ledger.ts';
import type { PlatformTimers } from './platform/platform.ts';
import { VcpuTurns } from './vcpu-turns.ts';

/** Longest the event loop of the host waits for the guest, ms. */
const SLICE_MS = 15;
const FIRST_SLICE = 1_000_000;
/** Parts of a slice between which the clock is looked at: a guest whose code is interpreted all of a sudden is a hundred times slower than it was. */
const SLICE_STEPS = 16n;
const MAX_SLICE = 2 ** 31;
export const NO_LIMIT = 2n ** 63n;

/** The clock costs a good part of what a short exit costs: so many go by between two looks whether the slice is over. */
const EXITS_BETWEEN_LOOKS = 16;

/** An instruction may fault a few times before the hypervisor has provided all that it touches. */
const MAX_STEP_TURNS = 64;
/** What a single instruction ends with that the hypervisor has nothing to do with. */
const INSIDE: ReadonlySet<number> = new Set([NEXT, NEXT_CHECK, EXIT_REQUEST, EXIT_LIMIT, EXIT_SPIN]);

/** Why a slice ended: time for the host's event loop, a wait, a halt, the limit of instructions, or the debugger holds the machine. */
export type SliceEnd = 'yield' | 'wait' | 'halted' | 'limit' | 'stopped' | 'debugged';

const least = (a: bigint, b: bigint) => (a < b ? a : b);

/** How the machine steers its run loop. */
export interface RunControl {
  /** The board was told to stop. */
  stopped(): boolean;
  /** Called after each exit is in the ledger. */
  afterExit(): void;
  /** Most instructions to retire, undefined: no limit. */
  readonly maxInstructions: number | undefined;
  /** Undefined, or absent: nobody has asked for one. */
  debugger?(): Debugger | undefined;
}

/**
 * The run loop of a machine whose vCPUs take turns: enter the guest, and at each VM exit time it, let the design handle it, and enter again.
 * It runs in slices so that the host's event loop (input, compiled code from the worker, abort) gets its turn; the
 * end of a slice is invisible to the guest and is not a VM exit. The next deadline of the devices' timers ends a run of the guest as well.
 */
export class RunLoop implements Saveable {
  private readonly core: CpuCore;
  private readonly turns: VcpuTurns;
  private readonly design: Design;
  private readonly ledger: ExitLedger;
  private readonly control: RunControl;
  private readonly outcome: ExitOutcome = { row: 0, wait: undefined };
  /** Instructions of all vCPUs together. */
  private readonly limit: bigint;
  private readonly timers: PlatformTimers | undefined;
  /** A slice ends once so many instructions are retired, for a snapshot. */
  pauseAt = NO_LIMIT;
  private slice = FIRST_SLICE;
  private exits = 0;
  /** What a vCPU waits for while a debugger holds the machine. */
  private unsettled: Promise<void> | undefined;
  /** The limit that each vCPU has been given. */
  private readonly given: bigint[];
  /** The guest runs under a limit that `cut` may lower. */
  private inGuest = false;

  /** @param timers of the platform; undefined: it has none */
  constructor(core: CpuCore, design: Design, ledger: ExitLedger, timers: PlatformTimers | undefined, control: RunControl) {
    this.core = core;
    this.design = design;
    this.ledger = ledger;
    this.control = control;
    this.timers = timers;
    this.turns = new VcpuTurns(core, design, timers?.clock);
    this.given = Array.from({ length: core.vcpus }, () => 0n);
    this.limit = control.maxInstructions === undefined ? NO_LIMIT : BigInt(control.maxInstructions);
  }

  /** What the vCPU waits for after a slice that ended with `wait`. */
  get waitFor(): Promise<void> | undefined {
    return this.outcome.wait;
  }

  /** The vCPU whose turn it is. */
  get vcpu(): number {
    return this.turns.current;
  }

  /** Instructions that all vCPUs together have retired. */
  get retired(): number {
    return Number(this.turns.total());
  }

  /** Run for about `SLICE_MS`. @throws TripleFault, FailedEntry */
  runSlice(): SliceEnd {
    const { outcome, turns, control } = this;
    const debug = control.debugger?.();
    if (debug?.holds(turns.current) === true) return 'debugged';
    outcome.wait = this.unsettled;
    if (outcome.wait !== undefined) return 'wait';
    const first = turns.total();
    const target = first + BigInt(this.slice);
    const limit = least(least(this.pauseAt, this.limit), target);
    const step = BigInt(this.slice) / SLICE_STEPS;
    let stop = least(limit, first + step);
    const sliceStart = performance.now();
    for (;;) {
      if (!turns.choose() && this.idle() !== 'no') return 'halted';
      const vcpu = turns.current;
      if (turns.takeInterrupted()) this.interrupt(vcpu);
      else this.prepare(vcpu);
      const reason = this.enter(vcpu, stop);
      if (reason === EXIT_LIMIT || reason === EXIT_SPIN) {
        turns.leaveInGuest(reason === EXIT_SPIN);
        const total = turns.total();
        if (total >= this.limit) return 'limit';
        if (total < stop) continue;
        const ms = performance.now() - sliceStart;
        if (total >= limit || ms > 2 * SLICE_MS) {
          this.adapt(Number(total - first), ms);
          return 'yield';
        }
        stop = least(limit, total + step);
      } else {
        if (reason !== EXIT_REQUEST) this.handle(vcpu, reason);
        else if (debug !== undefined) {
          const next = debug.requested(vcpu);
          if (next === 'stop') return 'debugged';
          if (next === 'step') this.step(vcpu);
        }
        control.afterExit();
        if (control.stopped()) return 'stopped';
        if (outcome.wait !== undefined) {
          if (debug !== undefined) this.await(outcome.wait);
          return 'wait';
        }
      }
      // Neither exits nor turns look at the limit: a guest that does nothing else must still let the host live.
      if (++this.exits % EXITS_BETWEEN_LOOKS === 0 && performance.now() - sliceStart > 2 * SLICE_MS) return 'yield';
    }
  }

  private handle(vcpu: number, reason: number): void {
    const { core, design, ledger, outcome } = this;
    const rip = (core.cpuAddress(vcpu) + S_RIP) >>> 2;
    const start = design.exitStart(vcpu, reason);
    const ripLow = core.i32[rip] ?? 0;
    const ripHigh = core.i32[rip + 1] ?? 0;
    try {
      design.handleExit(vcpu, reason, outcome);
    } finally {
      ledger.finish(outcome.row, start, ripLow, ripHigh, vcpu);
    }
    this.timers?.clock.exitDone();
  }

  /** A debugger may end the machine's wait early: then the vCPU must not run yet. */
  private await(wait: Promise<void>): void {
    this.unsettled = wait;
    const settled = () => {
      if (this.unsettled === wait) this.unsettled = undefined;
    };
    wait.then(settled, settled);
  }

  /**
   * Runs one instruction of a vCPU, for a debugger: with what it takes of the hypervisor, but without interrupts, which would lead away from it.
   *
   * @throws TripleFault, FailedEntry
   */
  step(vcpu: number): void {
    const { core, outcome } = this;
    const cpu = core.cpuAddress(vcpu);
    const place = () => `${core.u64[(cpu + S_ICOUNT) >>> 3]} ${core.getRip(vcpu)}`;
    const before = place();
    const waiting = [S_INTR, S_NMI].map((at) => [(cpu + at) >>> 2, core.u32[(cpu + at) >>> 2] ?? 0] as const);
    for (const [at] of waiting) core.u32[at] = 0;
    outcome.wait = undefined;
    for (let turn = 0; turn < MAX_STEP_TURNS && place() === before && outcome.wait === undefined; turn++) {
      const reason = core.runBlock(vcpu, true);
      if (!INSIDE.has(reason)) this.handle(vcpu, reason);
    }
    for (const [at, value] of waiting) if (value !== 0) core.u32[at] = value;
    if (outcome.wait !== undefined) this.await(outcome.wait);
  }

  /** Something waits for a vCPU. */
  kick(vcpu: number): void {
    this.turns.wake(vcpu);
    this.cut();
  }

  /** The vCPU that runs gives its turn to another, if that can run. */
  yieldTo(vcpu: number): void {
    this.turns.yieldTo(vcpu);
  }

  /** Something waits for the vCPU that runs, or the next deadline moved: a run of the guest ends at its next check point. */
  cut(): void {
    if (!this.inGuest) return;
    const { current } = this.turns;
    this.given[current] = 0n;
    this.core.setLimit(current, 0n);
  }

  /** Whether all vCPUs wait for interrupts, after virtual time has passed to the timers that end the wait. */
  idle(): 'no' | 'wakeable' | 'dead' {
    const { timers, turns } = this;
    for (;;) {
      timers?.runDue();
      const state = turns.halted();
      if (state !== 'wakeable' || timers === undefined) return state;
      const deadline = timers.nextDeadline();
      if (!Number.isFinite(deadline) || !timers.clock.skipTo(deadline)) return state;
    }
  }

  /** How long a halted machine sleeps if nothing comes from outside, ms; Infinity: until then. */
  sleepMs(): number {
    const { timers } = this;
    return timers === undefined ? Number.POSITIVE_INFINITY : (timers.nextDeadline() - timers.clock.now()) / 1e6;
  }

  private prepare(vcpu: number): boolean {
    this.timers?.runDue();
    return this.design.prepareEntry(vcpu);
  }

  private setLimit(vcpu: number, limit: bigint): void {
    if (limit === this.given[vcpu]) return;
    this.given[vcpu] = limit;
    this.core.setLimit(vcpu, limit);
  }

  /** Runs until all vCPUs together have retired `limit` instructions or the vCPU's turn is over, with the timers on the way. */
  private enter(vcpu: number, limit: bigint): number {
    const { core, design, timers, turns } = this;
    const at = (core.cpuAddress(vcpu) + S_ICOUNT) >>> 3;
    for (;;) {
      const first = core.u64[at] ?? 0n;
      const last = turns.limit(limit);
      const deadline = timers?.nextDeadline() ?? Number.POSITIVE_INFINITY;
      const until = timers !== undefined && Number.isFinite(deadline) ? first + BigInt(timers.clock.instructionsUntil(deadline)) : last;
      this.setLimit(vcpu, until < last ? until : last);
      const start = timers === undefined ? 0 : performance.now();
      this.inGuest = true;
      const reason = design.enter(vcpu);
      this.inGuest = false;
      if (timers === undefined) return reason;
      const end = performance.now();
      const count = core.u64[at] ?? 0n;
      timers.clock.observe(Number(count - first), end - start);
      if (reason !== EXIT_LIMIT || count >= turns.limit(limit)) return reason;
      // A run that ended early, because speed was misjudged or something was kicked, is no exit.
      const isDue = timers.clock.now() >= deadline;
      this.prepare(vcpu);
      if (isDue && design.timerRow >= 0) this.recordHere(vcpu, design.timerRow, end);
    }
  }

  /** An exit between two instructions that began at `start`. */
  private recordHere(vcpu: number, row: number, start: number): void {
    const { i32 } = this.core;
    const rip = (this.core.cpuAddress(vcpu) + S_RIP) >>> 2;
    this.ledger.finish(row, start, i32[rip] ?? 0, i32[rip + 1] ?? 0, vcpu);
  }

  /** An interrupt that came while the guest was running is an exit of its own; one that met a waiting guest is not. */
  private interrupt(vcpu: number): void {
    const start = performance.now();
    const delivered = this.prepare(vcpu);
    if (delivered && this.design.interruptRow >= 0) this.recordHere(vcpu, this.design.interruptRow, start);
  }

  /** Choose the next slice so that it takes `SLICE_MS` at the speed of the last one. */
  private adapt(instructions: number, ms: number): void {
    const next = ms <= 0 ? this.slice * 2 : (instructions * SLICE_MS) / ms;
    this.slice = Math.min(MAX_SLICE, Math.max(10_000, Math.min(next, this.slice * 4)));
    this.slice = Math.floor(this.slice);
  }

  state(s: StateIo): void {
    s.fields(this, ['turns']);
  }
}
