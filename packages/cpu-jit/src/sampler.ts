import { Worker } from 'node:worker_threads';
import { CPU_BASE, S_TIER } from './layout.ts';

/** Milliseconds between two samples. */
const PERIOD_MS = 1;

/** Samples by what the vCPU was running. */
export interface TierSamples {
  readonly none: number;
  readonly interpreter: number;
  readonly compiled: number;
}

// The thread only reads one word of shared memory; as text it needs no file of its own and no loader.
const THREAD = `
const { workerData: { memory, counts, at, period } } = require('node:worker_threads');
const state = new Int32Array(memory.buffer), out = new Int32Array(counts), idle = new Int32Array(new SharedArrayBuffer(4));
while (Atomics.load(out, 3) === 0) {
  Atomics.wait(idle, 0, 0, period);
  Atomics.add(out, state[at] % 3, 1);
}
`;

/** Watches vCPU 0 from a thread of its own: which share of the time goes to the interpreter and to compiled code. */
export class TierSampler {
  private readonly counts = new Int32Array(new SharedArrayBuffer(16));
  private readonly worker: Worker;

  constructor(memory: WebAssembly.Memory) {
    const workerData = { memory, counts: this.counts.buffer, at: (CPU_BASE + S_TIER) >>> 2, period: PERIOD_MS };
    this.worker = new Worker(THREAD, { eval: true, workerData, execArgv: [] });
    this.worker.unref();
  }
  samples(): TierSamples {
    const [none = 0, interpreter = 0, compiled = 0] = this.counts;
    return { none, interpreter, compiled };
  }
  async dispose(): Promise<void> {
    Atomics.store(this.counts, 3, 1);
    await this.worker.terminate();
  }
}
