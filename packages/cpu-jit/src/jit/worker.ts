// Thread of WorkerCompiler: takes requests, compiles those that wait together, posts modules back.
import { enableCompileCache, flushCompileCache } from 'node:module';
import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import { BD_COUNT } from '../layout.ts';
import { IdleCollector } from './idle-collector.ts';
import type { CompileRequest } from './jit.ts';
import type { FromThread, Machine, Save, ToThread, WorkerStart } from './worker-compiler.ts';
import type { WorkerStore } from './worker-store.ts';

/** Guest instructions compiled into one module: more would delay the first of its regions, fewer would cost a module each. */
const BATCH_INSNS = 250;

const { port, cache } = workerData as WorkerStart;
/** Requests that wait, in no order. */
const waiting: CompileRequest[] = [];
let save: Save | undefined;

function take(message: ToThread): void {
  if ('save' in message) save = message;
  else waiting.push(message);
}
function takeMessages(): void {
  for (let r = receiveMessageOnPort(port); r !== undefined; r = receiveMessageOnPort(port)) take((r as { message: ToThread }).message);
}
function post(message: FromThread): void {
  port.postMessage(message);
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

function serve({ memory, kicks, store: file }: Machine): void {
  const u8 = new Uint8Array(memory.buffer);
  const u32 = new Uint32Array(memory.buffer);
  const u64 = new BigUint64Array(memory.buffer);
  const kick = () => {
    for (const at of kicks) Atomics.store(u64, at >>> 3, 0n);
  };
  const store = file === undefined ? undefined : openStore(file, kick);
  const collector = new IdleCollector();
  port.on('message', async (first: ToThread) => {
    take(first);
    collector.busy();
    const { compileRequests } = await compiler;
    for (;;) {
      takeMessages();
      if (save !== undefined) {
        post({ saved: (await store)?.save(save.save) });
        return;
      }
      const batch = nextBatch(u32);
      if (batch.length === 0) {
        collector.idle();
        return;
      }
      const known = await store;
      for (const { wasm, ...result } of compileRequests(u8, batch)) {
        const storeId = result.module === undefined || wasm === undefined ? undefined : known?.add(wasm);
        post(storeId === undefined ? result : { ...result, storeId });
      }
      kick();
    }
  });
}

/** Posts the modules of the store, in the order in which they were needed before. */
async function openStore(file: string, kick: () => void): Promise<WorkerStore> {
  const { WorkerStore: Store } = await import('./worker-store.ts');
  const store = new Store(file);
  if (store.failure !== undefined) post({ warning: store.failure });
  let loaded = 0;
  for (const stored of store.compiled()) {
    post({ stored });
    kick();
    loaded++;
  }
  post({ loaded });
  return store;
}
port.once('message', serve);
