import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { CompileRequest, CompileResult, Compiler } from './jit.ts';

/** What the worker is started with. */
export interface WorkerStart {
  readonly memory: WebAssembly.Memory;
  readonly port: MessagePort;
  /** Addresses of the u64s the worker stores 0 to when a result is ready: S_ICOUNT_LIMIT of each vCPU, so that generated code returns at its next check. */
  readonly kicks: readonly number[];
}

/** Compiles on a worker thread. Results are picked up with `poll`, without an event loop. */
export class WorkerCompiler implements Compiler {
  private readonly worker: Worker;
  private readonly port: MessagePort;
  /** Set when the worker failed and nobody was told yet. Guests then go on in the interpreter. */
  private failure: Error | undefined;

  constructor(memory: WebAssembly.Memory, kicks: readonly number[]) {
    const { port1, port2 } = new MessageChannel();
    this.port = port1;
    const isSource = import.meta.url.endsWith('.ts');
    const start: WorkerStart = { memory, port: port2, kicks };
    this.worker = new Worker(new URL(isSource ? './worker.ts' : './worker.js', import.meta.url), {
      workerData: start,
      transferList: [port2],
      execArgv: isSource ? ['-C', 'source'] : [],
    });
    this.worker.on('error', (error: Error) => {
      this.failure = error;
    });
    this.worker.unref();
    port1.unref();
  }
  request(r: CompileRequest): void {
    this.port.postMessage(r);
  }
  poll(): CompileResult | undefined {
    if (this.failure !== undefined) {
      const failure = `the compiler thread ended: ${this.failure.message}`;
      this.failure = undefined;
      return { ids: [], failure, bytes: 0, emitMs: 0, engineMs: 0 };
    }
    return (receiveMessageOnPort(this.port) as { message: CompileResult } | undefined)?.message;
  }
  async dispose(): Promise<void> {
    this.port.close();
    await this.worker.terminate();
  }
}
