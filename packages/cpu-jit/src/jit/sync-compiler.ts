import { compileRequests } from './compile-requests.ts';
import type { CompileRequest, CompileResult, Compiler } from './jit.ts';

/** Compiles on the calling thread, when asked: the same code is compiled at the same point of every run. */
export class SyncCompiler implements Compiler {
  private readonly u8: Uint8Array;
  private readonly results: CompileResult[] = [];
  constructor(u8: Uint8Array) {
    this.u8 = u8;
  }
  request(r: CompileRequest): void {
    this.results.push(...compileRequests(this.u8, [r]));
  }
  poll(): CompileResult | undefined {
    return this.results.shift();
  }
  dispose(): Promise<void> {
    return Promise.resolve();
  }
}
