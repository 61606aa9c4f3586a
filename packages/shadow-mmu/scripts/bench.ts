/**
 * Nanoseconds per shadow fill, PTE write and root switch, in the hot state, on a machine with no guest: the MMU's own cost.
 * Run with `node -C source packages/shadow-mmu/scripts/bench.ts`.
 */
import { FAULT_FIXED, FAULT_TRACKED, MODE_NX, MODE_SMEP, ShadowMmu } from '../src/index.ts';
import { ACCESS_READ, ACCESS_WRITE, PTE_A, PTE_D, PTE_P, PTE_U, PTE_W } from '../src/paging.ts';

const MIB = 0x10_0000;
const POOL = 2 * MIB;
const POOL_FRAMES = 4096;
const RAM = POOL + POOL_FRAMES * 4096;
const RAM_BYTES = 64 * MIB;
const memory = new SharedArrayBuffer(RAM + RAM_BYTES);
const view = new DataView(memory);
let flushes = 0;
const mmu = (prefetch: number) =>
  new ShadowMmu({
    memory,
    framePoolBase: POOL,
    framePoolFrames: POOL_FRAMES,
    ramBase: RAM,
    ramBytes: RAM_BYTES,
    gpaToHpa: (gpa) => (gpa < RAM_BYTES ? RAM + gpa : -1),
    vcpus: 1,
    prefetch,
    flush: {
      flushArray: () => flushes++,
      invlpg: () => flushes++,
      flushAll: () => flushes++,
    },
  });

/** One root at 0x1000 that maps 8 MiB of 4 KiB pages at 0, tables from 0x2000, data from 16 MiB. */
const BITS = PTE_P | PTE_W | PTE_U | PTE_A | PTE_D;
const put = (gpa: number, value: number) => {
  view.setUint32(RAM + gpa, value, true);
  view.setUint32(RAM + gpa + 4, 0, true);
};
put(0x1000, 0x2000 | BITS);
put(0x2000, 0x3000 | BITS);
for (let table = 0; table < 4; table++) {
  put(0x3000 + table * 8, (0x4000 + table * 0x1000) | BITS);
  for (let i = 0; i < 512; i++) put(0x4000 + table * 0x1000 + i * 8, (16 * MIB + (table * 512 + i) * 4096) | BITS);
}
const PAGES = 2048;

function measure(name: string, operations: number, body: () => void): void {
  for (let i = 0; i < 20; i++) body();
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 30; i++) {
    const start = performance.now();
    body();
    best = Math.min(best, performance.now() - start);
  }
  console.log(`${name.padEnd(58)} ${((best * 1e6) / operations).toFixed(0).padStart(6)} ns`);
}

const expectAll = (got: number, wanted: number) => {
  if (got !== wanted) throw new Error(`fault answered ${got}, expected ${wanted}`);
};

for (const prefetch of [1, 8]) {
  const m = mmu(prefetch);
  m.load(0, 0x1000, 0x1000, MODE_NX | MODE_SMEP, true);
  measure(`fill a 4 KiB page (prefetch ${prefetch}), with zapAll, per fault`, PAGES / prefetch, () => {
    m.zapAll();
    for (let i = 0; i < PAGES; i += prefetch) expectAll(m.fault(0, 1, i << 12, 0, ACCESS_WRITE), FAULT_FIXED);
  });
}
const m = mmu(1);
m.load(0, 0x1000, 0x1000, MODE_NX | MODE_SMEP, true);
measure('fault on an entry that is there already', PAGES, () => {
  for (let i = 0; i < PAGES; i++) expectAll(m.fault(0, 1, i << 12, 0, ACCESS_READ), FAULT_FIXED);
});
const source = 256;
measure('PTE write that drops a leaf, then the fill, per pair', PAGES, () => {
  for (let i = 0; i < PAGES; i++) {
    view.setUint32(source, (16 * MIB + i * 4096) | (BITS & ~PTE_A), true);
    m.emulateWrite(RAM + 0x4000 + i * 8, 8, source);
    expectAll(m.fault(0, 1, i << 12, 0, ACCESS_WRITE), FAULT_FIXED);
  }
});
measure('PTE write that remaps a present leaf', 512, () => {
  for (let i = 0; i < 512; i++) {
    view.setUint32(source, (16 * MIB + ((i * 7) & 511) * 4096) | BITS, true);
    m.emulateWrite(RAM + 0x4000 + i * 8, 8, source);
    if ((i & 15) === 0) m.fault(0, 1, i << 12, 0, ACCESS_READ);
  }
});
measure('PTE write that changes nothing visible', 2048, () => {
  view.setUint32(source, BITS & ~PTE_P, true);
  for (let i = 0; i < 2048; i++) m.emulateWrite(RAM + 0x3000 + 8 * 100, 8, source);
  m.fault(0, 1, 0, 0, ACCESS_READ);
});
put(0x8000, 0x2000 | BITS);
measure('switch between two cached roots', 1000, () => {
  for (let i = 0; i < 1000; i++) m.load(0, (i & 1) !== 0 ? 0x1000 : 0x8000, (i & 1) !== 0 ? 0x1000 : 0x8000, MODE_NX | MODE_SMEP, true);
});
view.setUint32(source, 0x3000 | BITS, true);
m.emulateWrite(RAM + 0x4000, 8, source);
measure('write fault on a page table', 1000, () => {
  m.load(0, 0x1000, 0x1000, MODE_NX | MODE_SMEP, true);
  for (let i = 0; i < 1000; i++) expectAll(m.fault(0, 1, 0, 0, ACCESS_WRITE), FAULT_TRACKED);
});
m.check();
console.log(flushes, 'flush calls', m.stats());
