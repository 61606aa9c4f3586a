/** The middle of the values, the mean of the two middle ones of an even number. Throws RangeError on none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const high = sorted[sorted.length >> 1];
  const low = sorted[(sorted.length - 1) >> 1];
  if (high === undefined || low === undefined) throw new RangeError('the median of nothing is not defined');
  return (low + high) / 2;
}

/** Throws RangeError on no values. */
export function geometricMean(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('the mean of nothing is not defined');
  return Math.exp(values.reduce((sum, v) => sum + Math.log(v), 0) / values.length);
}
