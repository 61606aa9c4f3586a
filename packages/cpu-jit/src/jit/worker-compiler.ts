import { getCompileCacheDir } from 'node:module';
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { CompileRequest, CompileResult, Compiler, StoreChanges } from './jit.ts';
import type { StoredModule } from './stored-region.ts';

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
  /** File of compiled code: what it has is used, what is new is added. */
  readonly store?: string | undefined;
}

/** To the thread, after a `Machine`; a `Save` is the last message. */
export type ToThread = CompileRequest | Save;
export interface Save {
  readonly save: StoreChanges;
}
/** From the thread. `loaded` modules were stored, all of which have been sent. A warning is about the store, and `saved` the answer to `Save`, with what prevented it. */
export type FromThread =
  | CompileResult
  | { readonly stored: StoredModule }
  | { readonly loaded: number }
  | { readonly warning: string }
  | { readonly saved: string | undefined };

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
  isLoading: boolean;
  private readonly storedModules: StoredModule[] = [];
  private isSaved: ((failure: string | undefined) => void) | undefined;

  constructor(machine: Machine) {
    this.thread = prepared ?? startThread();
    prepared = undefined;
    this.isLoading = machine.store !== undefined;
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
      this.isLoading = false;
      return { ids: [], failure, bytes: 0, emitMs: 0, engineMs: 0 };
    }
    for (;;) {
      const message = (receiveMessageOnPort(this.thread.port) as { message: FromThread } | undefined)?.message;
      if (message === undefined) return undefined;
      if ('ids' in message) return message;
      this.take(message);
    }
  }
  stored(): StoredModule | undefined {
    return this.storedModules.shift();
  }
  /** What is about stored code. */
  private take(message: Exclude<FromThread, CompileResult>): void {
    if ('stored' in message) this.storedModules.push(message.stored);
    else if ('loaded' in message) this.isLoading = false;
    else if ('warning' in message) warn(message.warning);
    else this.isSaved?.(message.saved);
  }
  async save(changes: StoreChanges): Promise<void> {
    const { port, worker } = this.thread;
    const failure = await new Promise<string | undefined>((resolve) => {
      this.isSaved = resolve;
      worker.once('exit', () => resolve(undefined));
      port.on('message', (message: FromThread) => {
        if (!('ids' in message)) this.take(message);
      });
      port.postMessage({ save: changes });
    });
    if (failure !== undefined) warn(failure);
  }
  async dispose(): Promise<void> {
    this.thread.port.close();
    await this.thread.worker.terminate();
  }
}

/** Code that cannot be stored is no reason to end a run. */
function warn(message: string): void {
  process.emitWarning(message, 'CodeCacheWarning');
}
