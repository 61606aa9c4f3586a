import { describe, expect, it } from 'vitest';
import { BoardFuzz } from '../testing/board-fuzz.ts';

/** `scripts/fuzz-devices.ts` goes on as long as wanted. */
const SEEDS = [1, 2, 3, 4];
const STEPS = 2500;

describe.each(['pci', 'mmio'] as const)('devices on %s', (virtio) => {
  it.each(SEEDS)('answer whatever a guest does with their registers and queues (seed %i)', (seed) => {
    const fuzz = new BoardFuzz(seed, virtio);
    try {
      const before = process.memoryUsage().arrayBuffers;
      for (let i = 0; i < STEPS; i++) {
        try {
          fuzz.step();
        } catch (cause) {
          throw new Error(`seed ${seed}, step ${i}`, { cause });
        }
      }
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(256 << 20);
    } finally {
      fuzz.close();
    }
  });
});
