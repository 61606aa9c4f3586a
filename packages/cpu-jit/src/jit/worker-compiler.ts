import { getCompileCacheDir } from 'node:module';
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { CompileRequest, CompileResult, Compiler } from './jit.ts';

/** What the thread is made with. */
export interface WorkerStart {
  /** Carries a `Machine`, then requests; results come back. */
  readonly port: MessagePort;
  /** Folder of the process's compile cache, which a thread has to be told of. */
  readonly cache: string | undefined;
}

/** What the thread compiles for. */
export interface Machine {
  readonly memory: WebAssembly.Memory;
  /** Addresses of the u64s the worker stores 0 to when a result is ready: S_ICOUNT_LIMIT of each vCPU, then RUN_LIMIT, so that generated code returns at its next check. */
  readonly kicks: readonly number[];
}

interface Thread {
  readonly worker: Worker;
  readonly port: MessagePort;
  /** Set when the thread failed and nobody was told yet. */
  failure: Error | undefined;
}

/** A thread that no machine has taken yet. */
let prepared: Thread | undefined;

/** V8's young generation of the thread. Without a limit it comes to 48 MiB; with 12 collecting takes four times as long, a fifteenth of the thread's time. */
const YOUNG_MIB = 24;

function startThread(): Thread {
  const { port1, port2 } = new MessageChannel();
  const isSource = import.meta.url.endsWith('.ts');
  const start: WorkerStart = { port: port2, cache: getCompileCacheDir() };
  const worker = new Worker(new URL(isSource ? './worker.ts' : './worker.js', import.meta.url), {
    workerData: start,
    transferList: [port2],
    execArgv: isSource ? ['-C', 'source'] : [],
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB },
  });
  worker.unref();
  port1.unref();
  const thread: Thread = { worker, port: port1, failure: undefined };
  worker.on('error', (error: Error) => {
    thread.failure = error;
  });
  return thread;
}

/** Starts the thread of the next machine, so that it loads the code generator while the process loads everything else. It does not keep the process alive. */
export function prepareCompiler(): void {
  prepared ??= startThread();
}

/** Compiles on a worker thread. Results are picked up with `poll`, without an event loop. */
export class WorkerCompiler implements Compiler {
  private readonly thread: Thread;

  constructor(machine: Machine) {
    this.thread = prepared ?? startThread();
    prepared = undefined;
    this.thread.port.postMessage(machine);
  }
  request(r: CompileRequest): void {
    this.thread.port.postMessage(r);
  }
  poll(): CompileResult | undefined {
    // Guests then go on in the interpreter.
    if (this.thread.failure !== undefined) {
      const failure = `the compiler thread ended: ${this.thread.failure.message}`;
      this.thread.failure = undefined;
      return { ids: [], failure, bytes: 0, emitMs: 0, engineMs: 0 };
    }
    return (receiveMessageOnPort(this.thread.port) as { message: CompileResult } | undefined)?.message;
  }
  async dispose(): Promise<void> {
    this.thread.port.close();
    await this.thread.worker.terminate();
  }
}
