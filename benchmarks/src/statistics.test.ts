import { expect, test } from 'vitest';
import { geometricMean, median } from './statistics.ts';

test('the median of an even number of values is between the middle ones', () => {
  expect(median([5, 1, 3])).toBe(3);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(() => median([])).toThrow(RangeError);
});

test('the geometric mean of ratios does not depend on their direction', () => {
  expect(geometricMean([2, 8])).toBeCloseTo(4);
  expect(1 / geometricMean([1 / 2, 1 / 8])).toBeCloseTo(4);
});
