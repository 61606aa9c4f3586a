/**
 * Fuzzes the host's side for as long as wanted: devices as the worst guest would treat them, and everything that people and files give it.
 *
 *     node -C source scripts/fuzz-host.ts [SECONDS] [FIRST-SEED] [KIND]     KIND: pci, mmio, kernelImage, files, options, snapshot
 *
 * Stops at the first input that ends in anything but a typed error, and prints kind and seed: the same again with 1 FIRST-SEED KIND.
 */
import { BoardFuzz } from '../packages/machine/src/testing/board-fuzz.ts';
import { FuzzRandom, HOST_INPUTS } from '../packages/pvm/src/testing/host-fuzz.ts';

const STEPS = 2500;
const [seconds = '60', first = '1', only] = process.argv.slice(2);

function devices(virtio: 'pci' | 'mmio', seed: number): void {
  const fuzz = new BoardFuzz(seed, virtio);
  try {
    for (let i = 0; i < STEPS; i++) fuzz.step();
  } finally {
    fuzz.close();
  }
}

const kinds: Readonly<Record<string, (seed: number) => void | Promise<void>>> = {
  pci: (seed) => devices('pci', seed),
  mmio: (seed) => devices('mmio', seed),
  ...Object.fromEntries(Object.entries(HOST_INPUTS).map(([name, input]) => [name, (seed: number) => input(new FuzzRandom(seed))])),
};
const end = performance.now() + Number(seconds) * 1000;
let seed = Number(first);
let inputs = 0;
for (; performance.now() < end; seed++) {
  for (const [kind, run] of Object.entries(kinds)) {
    if (only !== undefined && kind !== only) continue;
    try {
      await run(seed);
      inputs++;
    } catch (e) {
      console.error(`${kind}, seed ${seed}:`, e);
      process.exit(1);
    }
  }
}
console.log(`${inputs} inputs, seeds ${first} to ${seed - 1}: nothing but typed errors; ${process.memoryUsage().rss >> 20} MiB resident`);
