import { expect, it } from 'vitest';
import { HotRips } from './hot-rips.ts';

it('counts exactly while there is room', () => {
  const rips = new HotRips();
  for (let i = 0; i < 30; i++) for (let n = 0; n <= i; n++) rips.add(1, 0x40_0000 + 16 * i, 0xffff_ffff);
  expect(rips.top(2)).toEqual([
    { row: 1, rip: 0xffff_ffff_0040_01d0n, count: 30, maxOvercount: 0 },
    { row: 1, rip: 0xffff_ffff_0040_01c0n, count: 29, maxOvercount: 0 },
  ]);
});

it('finds the frequent ones among any number of rare ones, and bounds its error', () => {
  const rips = new HotRips();
  for (let i = 0; i < 200_000; i++) {
    rips.add(0, Math.imul(i, 0x9e37_79b1), 0);
    if (i % 20 === 0) rips.add(7, 0x1234, 0);
  }
  const [first] = rips.top(1);
  expect(first).toMatchObject({ row: 7, rip: 0x1234n });
  expect(first?.count).toBeGreaterThanOrEqual(10_000);
  expect((first?.count ?? 0) - (first?.maxOvercount ?? 0)).toBeLessThanOrEqual(10_000);
});

it('tells different exits of one address apart', () => {
  const rips = new HotRips();
  rips.add(1, 0x10, 0);
  rips.add(2, 0x10, 0);
  expect(rips.top(10)).toHaveLength(2);
});
