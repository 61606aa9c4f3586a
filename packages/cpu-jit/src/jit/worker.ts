// Thread of WorkerCompiler: takes requests, compiles those that wait together, posts modules back.
import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import { compileRequests } from './compile-requests.ts';
import type { CompileRequest } from './jit.ts';
import type { WorkerStart } from './worker-compiler.ts';

/** Requests compiled into one module: more would delay the first of them. */
const BATCH = 8;

const { memory, port, kick } = workerData as WorkerStart;
const u8 = new Uint8Array(memory.buffer);
const u64 = new BigUint64Array(memory.buffer);

function next(): CompileRequest | undefined {
  return (receiveMessageOnPort(port) as { message: CompileRequest } | undefined)?.message;
}

port.on('message', (first: CompileRequest) => {
  const batch = [first];
  for (;;) {
    while (batch.length < BATCH) {
      const r = next();
      if (r === undefined) break;
      batch.push(r);
    }
    if (batch.length === 0) return;
    for (const result of compileRequests(u8, batch)) port.postMessage(result);
    Atomics.store(u64, kick >>> 3, 0n);
    batch.length = 0;
  }
});
