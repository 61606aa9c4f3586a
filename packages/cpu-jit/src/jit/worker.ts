// Thread of WorkerCompiler: takes requests, compiles those that wait together, posts modules back.
import { enableCompileCache, flushCompileCache } from 'node:module';
import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import { BD_COUNT } from '../layout.ts';
import type { CompileRequest } from './jit.ts';
import type { Machine, WorkerStart } from './worker-compiler.ts';

/** Guest instructions compiled into one module: more would delay the first of its regions, fewer would cost a module each. */
const BATCH_INSNS = 250;

const { port, cache } = workerData as WorkerStart;
/** Requests that wait, in no order. */
const waiting: CompileRequest[] = [];

function takeMessages(): void {
  for (let r = receiveMessageOnPort(port); r !== undefined; r = receiveMessageOnPort(port)) waiting.push((r as { message: CompileRequest }).message);
}

/** Entries so far of the request's block: the interpreter goes on counting while it waits. */
function heat(u32: Uint32Array, r: CompileRequest): number {
  return u32[(r.desc + BD_COUNT) >>> 2] ?? 0;
}

/** Takes the hottest requests out of the queue; those that merge regions, which take longest and run already, by themselves when there is nothing else. */
function nextBatch(u32: Uint32Array): CompileRequest[] {
  const merges = waiting.filter((r) => r.isMerge);
  const others = waiting.filter((r) => !r.isMerge).sort((a, b) => heat(u32, b) - heat(u32, a));
  if (others.length === 0) return waiting.splice(0, 1);
  let insns = 0;
  let size = 0;
  for (const r of others) {
    if (insns >= BATCH_INSNS) break;
    insns += r.insnCount;
    size++;
  }
  waiting.splice(0, waiting.length, ...merges, ...others.slice(size));
  return others.slice(0, size);
}

/** A thread must be told of the process's cache, and one that is terminated would not write what is new in it. */
async function loadCompiler(): Promise<typeof import('./compile-requests.ts')> {
  if (cache !== undefined) enableCompileCache(cache);
  const loaded = await import('./compile-requests.ts');
  if (cache !== undefined) flushCompileCache();
  return loaded;
}

/** Not awaited here: a thread that is ended while it still loads the code generator ends quietly. */
const compiler = loadCompiler();

function serve({ memory, kicks }: Machine): void {
  const u8 = new Uint8Array(memory.buffer);
  const u32 = new Uint32Array(memory.buffer);
  const u64 = new BigUint64Array(memory.buffer);
  port.on('message', async (first: CompileRequest) => {
    waiting.push(first);
    const { compileRequests } = await compiler;
    for (;;) {
      takeMessages();
      const batch = nextBatch(u32);
      if (batch.length === 0) return;
      for (const result of compileRequests(u8, batch)) port.postMessage(result);
      for (const kick of kicks) Atomics.store(u64, kick >>> 3, 0n);
    }
  });
}
port.once('message', serve);
