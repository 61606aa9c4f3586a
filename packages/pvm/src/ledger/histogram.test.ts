import { expect, it } from 'vitest';
import { type Bucket, Histogram, mergeBuckets, octaves, PERCENTILE_ERROR_PERCENT, percentile } from './histogram.ts';

function bucketsOf(samples: readonly number[]): Bucket[] {
  const histogram = new Histogram();
  for (const ns of samples) histogram.add(ns);
  return histogram.buckets();
}

/** xorshift32, so that every run has the same samples. */
function random(seed: number): () => number {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}

it('gives percentiles within the error it states, from nanoseconds to minutes', () => {
  const next = random(0x5eed);
  for (const spread of [2, 10, 26]) {
    const samples = Array.from({ length: 5000 }, () => 2 ** (4 + spread * next())).sort((a, b) => a - b);
    const buckets = bucketsOf(samples);
    const [min = 0, max = 0] = [samples[0], samples.at(-1)];
    for (const fraction of [0.01, 0.5, 0.9, 0.99, 1]) {
      const exact = samples[Math.ceil(fraction * samples.length) - 1] ?? 0;
      const error = (100 * Math.abs(percentile(buckets, fraction, min, max) - exact)) / exact;
      expect(error, `${fraction} of 2^${spread}`).toBeLessThanOrEqual(PERCENTILE_ERROR_PERCENT);
    }
  }
});

it('is exact below 16 ns and when all samples are the same', () => {
  expect(percentile(bucketsOf([1, 2, 3]), 0.5, 1, 3)).toBe(2);
  expect(percentile(bucketsOf([1000, 1000]), 0.99, 1000, 1000)).toBe(1000);
  expect(percentile([], 0.5, 0, 0)).toBe(0);
});

it.each([
  [0, 0],
  [15.9, 15],
  [16, 16],
  [33, 32],
  [34, 34],
  [2 ** 31, 2 ** 31],
  [2 ** 39 * 1.5, 2 ** 39 * 1.5],
  [2 ** 60, 2 ** 40],
])('puts %d ns into the bucket of %d', (ns, low) => {
  expect(bucketsOf([ns])).toEqual([[low, 1]]);
});

it('adds histograms up, and by octaves', () => {
  const [a, b] = [bucketsOf([5, 40, 40]), bucketsOf([5, 63, 64])];
  const merged = mergeBuckets([a, b]);
  expect(merged).toEqual(bucketsOf([5, 5, 40, 40, 63, 64]));
  expect(octaves(merged)).toEqual([0, 0, 2, 0, 0, 3, 1]);
});
