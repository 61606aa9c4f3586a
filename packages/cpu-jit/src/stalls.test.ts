import { describe, expect, it } from 'vitest';
import { LONG_STALL_MS, StallClock } from './stalls.ts';

function spin(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

describe('stalls of the vCPU thread', () => {
  it('counts a nested measurement once, for the innermost cause', () => {
    const clock = new StallClock();
    const start = performance.now();
    clock.measure('link', () => {
      spin(1);
      clock.measure('instantiate', () => spin(4));
      clock.measure('instantiate', () => spin(0));
    });
    const elapsed = performance.now() - start;
    const { link, instantiate, grow } = clock.counts();
    expect(instantiate.ms).toBeGreaterThanOrEqual(4);
    expect(instantiate.long).toBe(1);
    expect(link.ms).toBeGreaterThanOrEqual(1);
    expect(link.ms + instantiate.ms).toBeLessThanOrEqual(elapsed);
    expect(grow).toEqual({ ms: 0, longestMs: 0, long: 0 });
  });
  it('counts what throws, and goes on with the cause around it', () => {
    const clock = new StallClock();
    const start = performance.now();
    let thrown: unknown;
    clock.measure('grow', () => {
      try {
        clock.measure('decode', () => {
          spin(LONG_STALL_MS + 1);
          throw new Error('no');
        });
      } catch (e) {
        thrown = e;
      }
      spin(1);
    });
    const elapsed = performance.now() - start;
    const { decode, grow } = clock.counts();
    expect(thrown).toEqual(new Error('no'));
    expect(decode.long).toBe(1);
    expect(grow.ms).toBeGreaterThanOrEqual(1);
    expect(decode.ms + grow.ms).toBeLessThanOrEqual(elapsed);
  });
  it('sees collections while they are observed', async () => {
    const clock = new StallClock();
    clock.observeCollections();
    const kept: object[] = [];
    for (let i = 0; i < 3_000_000; i++) if (i % 3 === 0) kept[i % 1000] = { i };
    await new Promise((resolve) => setTimeout(resolve, 20));
    clock.dispose();
    expect(clock.counts().collect.ms).toBeGreaterThan(0);
  });
});
