import { setTimeout as wait } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { CompileRequest, CompileResult } from './jit.ts';
import { WorkerCompiler } from './worker-compiler.ts';

test('a compiler thread that ends by an error says so once', async () => {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const compiler = new WorkerCompiler({ memory, kicks: [0] });
  try {
    // No request at all: the thread cannot even ask how hot it is.
    compiler.request(null as unknown as CompileRequest);
    let result: CompileResult | undefined;
    for (let tries = 0; result === undefined && tries < 500; tries++) {
      await wait(20);
      result = compiler.poll();
    }
    expect(result).toMatchObject({ ids: [], failure: expect.stringContaining('the compiler thread ended') as string });
    expect(compiler.poll()).toBeUndefined();
  } finally {
    await compiler.dispose();
  }
});
