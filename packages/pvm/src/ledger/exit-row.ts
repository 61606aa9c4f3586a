import type { Saveable, StateIo } from '@pvm/cpu-jit';
import { type Bucket, Histogram, mergeBuckets, octaves, percentile } from './histogram.ts';

/** Statistics of one kind of exit. Times are nanoseconds of host time between leaving the guest and entering it again. */
export interface ExitStats {
  readonly reason: string;
  /** What it was about: MSR, port, hypercall, instruction, kind of page fault. */
  readonly sub: string;
  /** For exceptions the class of the error code (`errorClass`), else empty. */
  readonly detail: string;
  /** vCPU number; -1: of several. */
  readonly vcpu: number;
  readonly count: number;
  /** How many of them were timed; the times are those of all, as far as these tell, but for the extremes. 0: the times are 0. */
  readonly timed: number;
  /** How many of the timed ones were held up (`Times.isHeldUp`), and what those took; each counts for itself alone in the times. */
  readonly heldUp: number;
  readonly heldUpNs: number;
  readonly totalNs: number;
  readonly minNs: number;
  readonly maxNs: number;
  readonly meanNs: number;
  /** Relative standard deviation of the mean in percent, as perf prints it: stddev / sqrt(count) / mean. */
  readonly relStddevPercent: number;
  /** Latencies by bucket; percentiles and octaves derive from them. */
  readonly buckets: readonly Bucket[];
}

/** Percentiles of a row: within PERCENTILE_ERROR_PERCENT. */
export function percentiles(e: Pick<ExitStats, 'buckets' | 'minNs' | 'maxNs'>): { p50Ns: number; p90Ns: number; p99Ns: number } {
  const at = (fraction: number) => percentile(e.buckets, fraction, e.minNs, e.maxNs);
  return { p50Ns: at(0.5), p90Ns: at(0.9), p99Ns: at(0.99) };
}

/** Element `i` counts exits of [2^i, 2^(i+1)) ns. */
export function log2Histogram(e: Pick<ExitStats, 'buckets'>): number[] {
  return octaves(e.buckets);
}

/** How finely rows are told apart. */
export type RowLevel = 'reason' | 'sub' | 'detail';

/** Statistics of the rows together that are the same at `level`, of all vCPUs or (`perVcpu`) of each. Most samples first. */
export function mergeRows(rows: readonly ExitStats[], level: RowLevel, perVcpu = false): ExitStats[] {
  const groups = new Map<string, ExitStats[]>();
  for (const row of rows) {
    const key = [row.reason, level === 'reason' ? '' : row.sub, level === 'detail' ? row.detail : '', perVcpu ? row.vcpu : ''].join('\0');
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [row]);
    else group.push(row);
  }
  return [...groups.values()].flatMap((group) => union(group, level)).sort((a, b) => b.count - a.count || order(a, b));
}

function union(group: readonly ExitStats[], level: RowLevel): ExitStats[] {
  const [first] = group;
  if (first === undefined) return [];
  const names = { reason: first.reason, sub: level === 'reason' ? '' : first.sub, detail: level === 'detail' ? first.detail : '' };
  if (group.length === 1) return [{ ...first, ...names }];
  const known = group.filter((e) => e.timed > 0);
  const sum = (of: (e: ExitStats) => number) => known.reduce((total, e) => total + of(e), 0);
  const count = group.reduce((total, e) => total + e.count, 0);
  const timed = sum((e) => e.timed);
  const counted = sum((e) => e.count);
  const meanNs = counted === 0 ? 0 : sum((e) => e.totalNs) / counted;
  // Squared differences of the union: within the groups plus between their means.
  const squares = sum((e) => e.count * (((e.relStddevPercent / 100) * e.meanNs) ** 2 * (e.timed - 1) + (e.meanNs - meanNs) ** 2));
  return [
    {
      ...names,
      vcpu: group.every((e) => e.vcpu === first.vcpu) ? first.vcpu : -1,
      ...{ count, timed, heldUp: sum((e) => e.heldUp), heldUpNs: sum((e) => e.heldUpNs), totalNs: meanNs * count, meanNs },
      minNs: timed === 0 ? 0 : Math.min(...known.map((e) => e.minNs)),
      maxNs: Math.max(0, ...known.map((e) => e.maxNs)),
      relStddevPercent: relativeDeviation(timed, meanNs, (squares * timed) / Math.max(1, counted)),
      buckets: mergeBuckets(known.map((e) => e.buckets)),
    },
  ];
}

/** @param squares sum over the timed exits of their squared differences from the mean */
function relativeDeviation(timed: number, mean: number, squares: number): number {
  return timed > 1 && mean > 0 ? (100 * Math.sqrt(Math.max(0, squares) / (timed - 1) / timed)) / mean : 0;
}

function order(a: ExitStats, b: ExitStats): number {
  const [x, y] = [`${a.reason}\0${a.sub}\0${a.detail}`, `${b.reason}\0${b.sub}\0${b.detail}`];
  return x < y ? -1 : x > y ? 1 : a.vcpu - b.vcpu;
}

/** An exit that stands for others was held up when it took so many times what 99 of 100 of its kind take, and no less than a host's scheduler takes away at once. */
const HELD_UP = 16;
const HELD_UP_NS = 50_000;
/** Before so many of a kind were timed nobody knows what is usual. */
const USUAL = 64;

/** Times of one row on one vCPU. */
class Times implements Saveable {
  timed = 0;
  heldUp = 0;
  heldUpNs = 0;
  /** Exits that the timed ones stand for. */
  weight = 0;
  min = Number.POSITIVE_INFINITY;
  max = 0;
  /** Weighted sums of differences from the first sample, and of their squares: no division per sample, and no cancellation when all are alike. */
  private base: number;
  differences = 0;
  squares = 0;
  readonly histogram = new Histogram();

  constructor(first: number) {
    this.base = first;
  }

  get first(): number {
    return this.base;
  }

  /** @param stands how many exits it stands for, unless it was held up */
  add(ns: number, stands: number): void {
    let weight = stands;
    if (stands > 1 && ns > HELD_UP_NS && this.isHeldUp(ns)) {
      weight = 1;
      this.heldUp++;
      this.heldUpNs += ns;
    }
    this.timed++;
    this.weight += weight;
    if (ns < this.min) this.min = ns;
    if (ns > this.max) this.max = ns;
    const difference = ns - this.base;
    this.differences += weight * difference;
    this.squares += weight * difference * difference;
    this.histogram.add(ns, weight);
  }

  /** So far outside what was seen that the host's scheduler or a collection of garbage fell into it: that others took as long is unlikely. */
  private isHeldUp(ns: number): boolean {
    return this.timed >= USUAL && ns > HELD_UP * percentile(this.histogram.buckets(), 0.99, this.min, this.max);
  }

  state(s: StateIo): void {
    s.fields(this, ['timed', 'heldUp', 'heldUpNs', 'weight', 'min', 'max', 'base', 'differences', 'squares', 'histogram']);
  }
}

/** One kind of exit: a reason, what it was about, and by vCPU what those took that were timed. */
export class ExitRow implements Saveable {
  readonly reason: string;
  readonly sub: string;
  readonly detail: string;
  private readonly times: (Times | undefined)[] = [];

  constructor(reason: string, sub: string, detail: string) {
    this.reason = reason;
    this.sub = sub;
    this.detail = detail;
  }

  /** An exit took `ns`, and so did `weight` exits about. */
  time(ns: number, weight: number, vcpu: number): void {
    const times = this.times[vcpu];
    if (times !== undefined) times.add(ns, weight);
    else {
      const made = new Times(ns);
      made.add(ns, weight);
      while (this.times.length < vcpu) this.times.push(undefined);
      this.times[vcpu] = made;
    }
  }

  /** @param counts exits by vCPU, timed or not */
  totalNs(counts: Float64Array): number {
    return counts.reduce((sum, n, vcpu) => sum + n * meanOf(this.times[vcpu]), 0);
  }

  /** Statistics of each vCPU that had such exits. */
  stats(counts: Float64Array): ExitStats[] {
    return Array.from(counts).flatMap((count, vcpu) => (count === 0 ? [] : [this.statsOf(vcpu, count)]));
  }

  private statsOf(vcpu: number, count: number): ExitStats {
    const { reason, sub, detail } = this;
    const names = { reason, sub, detail, vcpu, count };
    const times = this.times[vcpu];
    if (times === undefined) return { ...names, timed: 0, heldUp: 0, heldUpNs: 0, totalNs: 0, minNs: 0, maxNs: 0, meanNs: 0, relStddevPercent: 0, buckets: [] };
    const { timed, heldUp, heldUpNs, weight, min: minNs, max: maxNs, differences, squares } = times;
    const meanNs = meanOf(times);
    const deviations = ((squares - differences ** 2 / weight) * timed) / weight;
    return {
      ...{ ...names, timed, heldUp, heldUpNs, totalNs: meanNs * count, minNs, maxNs, meanNs },
      relStddevPercent: relativeDeviation(timed, meanNs, deviations),
      buckets: times.histogram.buckets(count / weight),
    };
  }

  state(s: StateIo): void {
    const vcpus = s.value(
      'vcpus',
      this.times.flatMap((times, vcpu) => (times === undefined ? [] : [vcpu])),
    );
    if (s.restoring) {
      this.times.length = 0;
      for (let vcpu = 0; vcpu <= Math.min(7, Math.max(-1, ...vcpus)); vcpu++) this.times.push(vcpus.includes(vcpu) ? new Times(0) : undefined);
    }
    for (const times of this.times) if (times !== undefined) s.part('times', times);
  }
}

function meanOf(times: Times | undefined): number {
  return times === undefined ? 0 : times.first + times.differences / times.weight;
}
