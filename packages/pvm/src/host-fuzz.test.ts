import { expect, it } from 'vitest';
import { FuzzRandom, HOST_INPUTS } from './testing/host-fuzz.ts';

/** Inputs of each kind; `scripts/fuzz-host.ts` goes on as long as wanted. */
const ROUNDS: Readonly<Record<string, number>> = { kernelImage: 400, files: 300, options: 3000, snapshot: 8 };

it.each(Object.entries(HOST_INPUTS))('input of the kind %s is taken, or refused by a typed error of one line', async (name, input) => {
  const before = process.memoryUsage().arrayBuffers;
  for (let seed = 1; seed <= (ROUNDS[name] ?? 0); seed++) {
    try {
      await input(new FuzzRandom(seed));
    } catch (cause) {
      throw new Error(`${name}, seed ${seed}`, { cause });
    }
  }
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(512 << 20);
});
