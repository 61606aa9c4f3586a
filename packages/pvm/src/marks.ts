import type { CpuCore } from '@pvm/cpu-jit';
import type { ExitLedger } from './ledger.ts';
import { type Interval, interval, type PageTableCounters, type Snapshot, type TlbCounters, threadCpuNs } from './summary.ts';

/** Counters of a machine. */
export interface Counters {
  readonly ledger: ExitLedger;
  pageTables(): PageTableCounters;
  tlb(): TlbCounters;
}

/** Intervals that the guest's program marks. */
export class Marks {
  /** In order of their ends. */
  readonly intervals: Interval[] = [];
  private readonly begun = new Map<number, { readonly operations: number; readonly at: Snapshot }>();
  private readonly core: CpuCore;
  private readonly vcpu: number;
  private readonly counters: Counters;

  constructor(core: CpuCore, vcpu: number, counters: Counters) {
    this.core = core;
    this.vcpu = vcpu;
    this.counters = counters;
  }

  /** @param operations that the interval will have */
  begin(id: number, operations: number): void {
    this.begun.set(id, { operations, at: this.snapshot() });
  }

  /** Does nothing when the interval was not begun. */
  end(id: number): void {
    const start = this.begun.get(id);
    if (start !== undefined) this.intervals.push(interval(id, start.operations, start.at, this.snapshot()));
  }

  private snapshot(): Snapshot {
    const beforeNs = performance.now() * 1e6;
    const cpuBeforeNs = threadCpuNs();
    const { ledger } = this.counters;
    const { exits, total, directSyscalls, directReturns } = ledger.worldSwitches();
    const { instructions } = this.core.stats(this.vcpu);
    const counters = {
      exits,
      worldSwitches: total,
      directSyscalls,
      directReturns,
      entries: ledger.counts(),
      pageTables: this.counters.pageTables(),
      tlb: this.counters.tlb(),
    };
    return { beforeNs, cpuBeforeNs, instructions, ...counters, cpuAfterNs: threadCpuNs(), afterNs: performance.now() * 1e6 };
  }
}
