import type { CpuCore } from '@pvm/cpu-jit';
import { EXIT_LIMIT, EXIT_REQUEST, S_ICOUNT, S_RIP } from '@pvm/cpu-jit/layout';
import type { Design, ExitOutcome } from './designs/design.ts';
import type { ExitLedger } from './ledger.ts';

/** Longest the event loop of the host waits for the guest, ms. */
const SLICE_MS = 15;
const FIRST_SLICE = 1_000_000;
const MAX_SLICE = 2 ** 31;
const NO_LIMIT = 2n ** 63n;

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
 * end of a slice is invisible to the guest and is not a VM exit.
 */
export class RunLoop {
  private readonly core: CpuCore;
  private readonly vcpu: number;
  private readonly design: Design;
  private readonly ledger: ExitLedger;
  private readonly control: RunControl;
  private readonly outcome: ExitOutcome = { row: 0, wait: undefined };
  private readonly limit: bigint;
  private readonly interruptRow: number;
  private slice = FIRST_SLICE;
  /** The last slice ended in the middle of the guest. */
  private interruptible = false;

  constructor(core: CpuCore, vcpu: number, design: Design, ledger: ExitLedger, control: RunControl) {
    this.core = core;
    this.vcpu = vcpu;
    this.design = design;
    this.ledger = ledger;
    this.control = control;
    this.interruptRow = ledger.row('INTERRUPT');
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
    core.setLimit(vcpu, limit);
    const sliceStart = performance.now();
    this.interrupt(sliceStart);
    for (;;) {
      design.prepareEntry(vcpu);
      const reason = design.enter(vcpu, limit);
      const start = design.exitStart(vcpu, reason);
      if (reason === EXIT_LIMIT) {
        if (count() >= this.limit) return 'limit';
        this.adapt(Number(count() - first), start - sliceStart);
        this.interruptible = true;
        return 'yield';
      }
      if (reason !== EXIT_REQUEST) {
        const ripLow = core.u32[rip] ?? 0;
        const ripHigh = core.u32[rip + 1] ?? 0;
        try {
          design.handleExit(vcpu, reason, outcome);
        } finally {
          ledger.record(outcome.row, (performance.now() - start) * 1e6, ripLow, ripHigh);
        }
      }
      this.control.afterExit();
      if (this.control.stopped()) return 'stopped';
      if (outcome.wait !== undefined) return 'wait';
      if (design.halted(vcpu) !== 'no') return 'halted';
      // Exits do not look at the limit: a guest that only exits must still let the host live.
      if (start - sliceStart > 2 * SLICE_MS) return 'yield';
    }
  }

  /** An interrupt that came while the guest was running is an exit of its own; one that met a waiting guest is not. */
  private interrupt(start: number): void {
    const { u32 } = this.core;
    const rip = (this.core.cpuAddress(this.vcpu) + S_RIP) >>> 2;
    const [ripLow = 0, ripHigh = 0] = [u32[rip], u32[rip + 1]];
    const delivered = this.design.prepareEntry(this.vcpu);
    if (delivered && this.interruptible) this.ledger.record(this.interruptRow, (performance.now() - start) * 1e6, ripLow, ripHigh);
    this.interruptible = false;
  }

  /** Choose the next slice so that it takes `SLICE_MS` at the speed of the last one. */
  private adapt(instructions: number, ms: number): void {
    const next = ms <= 0 ? this.slice * 2 : (instructions * SLICE_MS) / ms;
    this.slice = Math.min(MAX_SLICE, Math.max(10_000, Math.min(next, this.slice * 4)));
    this.slice = Math.floor(this.slice);
  }
}
