import type { ExitLedger, WorldSwitches } from '../ledger.ts';
import { type ExitStats, log2Histogram, mergeRows, percentiles, type RowLevel } from './exit-row.ts';
import type { Bucket } from './histogram.ts';
import type { TimelineData } from './timeline.ts';

/** Statistics of one kind of exit as plain data. Times are host time, measured. */
export interface ExitJson {
  readonly reason: string;
  readonly sub: string;
  readonly samples: number;
  /** How many of them were timed; the times below are estimates from these, the extremes are theirs. */
  readonly timedSamples: number;
  /** Timed exits, and their time, that took more than 16 times the 99th percentile of their kind: something of the host fell into them, and each counts for itself alone. */
  readonly heldUpSamples: number;
  readonly heldUpNs: number;
  readonly totalNs: number;
  readonly minNs: number;
  readonly maxNs: number;
  readonly avgNs: number;
  readonly relStddevPercent: number;
  /** Within 3.2 %. */
  readonly p50Ns: number;
  readonly p90Ns: number;
  readonly p99Ns: number;
  /** Element `i` counts exits of [2^i, 2^(i+1)) ns. */
  readonly histogramLog2Ns: readonly number[];
}

/** The same for one vCPU and class of error code. */
export interface ExitRowJson extends Omit<ExitJson, 'histogramLog2Ns'> {
  readonly detail: string;
  readonly vcpu: number;
  /** Non-empty histogram buckets: least value in ns (a 16th of an octave wide), number of samples. */
  readonly bucketsNs: readonly Bucket[];
}

/** The ledger as plain data, names and units in the keys. */
export interface LedgerJson {
  /** By reason and sub-reason, of all vCPUs, most samples first. */
  readonly exits: readonly ExitJson[];
  /** By reason, sub-reason, detail and vCPU. */
  readonly rows: readonly ExitRowJson[];
  readonly totalExits: number;
  readonly totalNs: number;
  readonly worldSwitches: number;
  readonly directSyscalls: number;
  readonly directReturns: number;
  readonly worldSwitchesByKind: Readonly<Record<string, number>>;
  readonly timeline: TimelineData;
}

/** The ledger as plain data. */
export function ledgerJson(ledger: ExitLedger): LedgerJson {
  const switches = ledger.worldSwitches();
  const rows = ledger.stats();
  return {
    exits: mergeRows(rows, 'sub').map((e) => ({ reason: e.reason, sub: e.sub, ...figures(e), histogramLog2Ns: log2Histogram(e) })),
    rows: rows.map((e) => ({ reason: e.reason, sub: e.sub, detail: e.detail, vcpu: e.vcpu, ...figures(e), bucketsNs: e.buckets })),
    totalExits: switches.exits,
    totalNs: Math.round(ledger.totalNs),
    worldSwitches: switches.total,
    directSyscalls: switches.directSyscalls,
    directReturns: switches.directReturns,
    worldSwitchesByKind: switchesByKind(switches),
    timeline: ledger.timelineData(),
  };
}

/** Rows of the document together that are the same at `level`; `vcpu` chooses one. */
export function mergeJson(rows: readonly ExitRowJson[], level: RowLevel, vcpu?: number): ExitStats[] {
  const chosen = vcpu === undefined ? rows : rows.filter((row) => row.vcpu === vcpu);
  return mergeRows(
    chosen.map(({ samples, timedSamples, heldUpSamples, avgNs, bucketsNs, ...rest }) => {
      return { ...rest, count: samples, timed: timedSamples, heldUp: heldUpSamples, meanNs: avgNs, buckets: bucketsNs };
    }),
    level,
  );
}

function switchesByKind(w: WorldSwitches): Record<string, number> {
  return { exit: w.exits, entry: w.exits, 'direct syscall': w.directSyscalls, 'direct return': w.directReturns, 'direct fault': w.directFaults };
}

function figures(e: ExitStats): Omit<ExitJson, 'reason' | 'sub' | 'histogramLog2Ns'> {
  const { p50Ns, p90Ns, p99Ns } = percentiles(e);
  return {
    samples: e.count,
    timedSamples: e.timed,
    heldUpSamples: e.heldUp,
    heldUpNs: Math.round(e.heldUpNs),
    totalNs: Math.round(e.totalNs),
    minNs: Math.round(e.minNs),
    maxNs: Math.round(e.maxNs),
    avgNs: round(e.meanNs, 3),
    relStddevPercent: round(e.relStddevPercent, 5),
    p50Ns: Math.round(p50Ns),
    p90Ns: Math.round(p90Ns),
    p99Ns: Math.round(p99Ns),
  };
}

function round(n: number, digits: number): number {
  return Number(n.toFixed(digits));
}
