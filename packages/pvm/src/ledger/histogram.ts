import type { Saveable, StateIo } from '@pvm/cpu-jit';

/** Buckets of an octave. A percentile is the middle of its bucket, so it is at most half a bucket, 1/32 = 3.125 %, off. */
const SUB_BUCKETS = 16;
const SUB_BITS = 4;
/** Octaves with a bucket of their own; the last bucket holds everything from 2^40 ns (18 minutes) on. */
const LAST_OCTAVE = 40;
const BUCKETS = (LAST_OCTAVE - SUB_BITS + 1) * SUB_BUCKETS + 1;
const INT32 = 2 ** 31;

/** Largest relative error of a percentile, in percent. */
export const PERCENTILE_ERROR_PERCENT = 100 / (2 * SUB_BUCKETS);

/** A non-empty bucket: its least value in nanoseconds, and how many samples it holds. */
export type Bucket = readonly [lowNs: number, count: number];

/** Bucket of a latency: exact below 16 ns, then 16 to the octave. */
function bucketOf(ns: number): number {
  if (ns < SUB_BUCKETS) return ns < 0 ? 0 : Math.floor(ns);
  let value = ns;
  let shifted = 0;
  while (value >= INT32) {
    value /= 2;
    shifted++;
  }
  const octave = 31 - Math.clz32(value);
  const index = (octave + shifted - SUB_BITS + 1) * SUB_BUCKETS + ((value >>> (octave - SUB_BITS)) & (SUB_BUCKETS - 1));
  return index < BUCKETS ? index : BUCKETS - 1;
}

/** Least value of bucket `index`, ns. */
function lowOf(index: number): number {
  if (index < SUB_BUCKETS) return index;
  const octave = Math.floor(index / SUB_BUCKETS) + SUB_BITS - 1;
  return (1 + (index % SUB_BUCKETS) / SUB_BUCKETS) * 2 ** octave;
}

/** Counts latencies in constant memory: log2 buckets, each divided into 16. */
export class Histogram implements Saveable {
  private readonly counts = new Float64Array(BUCKETS);

  /** @param ns latency in nanoseconds; fractions are dropped */
  add(ns: number, weight = 1): void {
    const i = bucketOf(ns);
    this.counts[i] = (this.counts[i] ?? 0) + weight;
  }

  /** Non-empty buckets, shortest latency first, with counts times `scale`. */
  buckets(scale = 1): Bucket[] {
    const found: Bucket[] = [];
    this.counts.forEach((count, i) => {
      if (count > 0) found.push([lowOf(i), scale === 1 ? count : Math.max(1, Math.round(count * scale))]);
    });
    return found;
  }

  state(s: StateIo): void {
    s.fields(this, ['counts']);
  }
}

/** Adds up the buckets of several histograms. */
export function mergeBuckets(histograms: readonly (readonly Bucket[])[]): Bucket[] {
  const sums = new Map<number, number>();
  for (const histogram of histograms) for (const [low, count] of histogram) sums.set(low, (sums.get(low) ?? 0) + count);
  return [...sums].sort((a, b) => a[0] - b[0]);
}

/**
 * The latency that `fraction` (0 to 1) of the samples do not exceed (nearest rank), ns, within PERCENTILE_ERROR_PERCENT; 0 without samples.
 *
 * @param minNs,maxNs the exact extremes, between which every percentile lies
 */
export function percentile(buckets: readonly Bucket[], fraction: number, minNs: number, maxNs: number): number {
  const samples = buckets.reduce((sum, [, count]) => sum + count, 0);
  const rank = Math.max(1, Math.ceil(fraction * samples));
  let seen = 0;
  for (const [low, count] of buckets) {
    seen += count;
    if (seen >= rank) return Math.min(maxNs, Math.max(minNs, low + width(low) / 2));
  }
  return 0;
}

/** Width of the bucket that begins at `low`, ns; 0 where a bucket is one value. */
function width(low: number): number {
  return low < SUB_BUCKETS ? 0 : 2 ** (Math.floor(Math.log2(low)) - SUB_BITS);
}

/** The same samples by octave: element `i` counts latencies of [2^i, 2^(i+1)) ns, element 0 also everything shorter. */
export function octaves(buckets: readonly Bucket[]): number[] {
  const counts: number[] = [];
  for (const [low, count] of buckets) {
    const octave = low < 1 ? 0 : Math.floor(Math.log2(low));
    while (counts.length <= octave) counts.push(0);
    counts[octave] = (counts[octave] ?? 0) + count;
  }
  return counts;
}
