import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

/** In a process of its own: the tests' process has handles that come and go. */
const PROGRAM = `
import { createVm } from ${JSON.stringify(new URL('../index.ts', import.meta.url).href)};
import { COM1, echo, out, stockKernel } from ${JSON.stringify(new URL('../testing/stock-guest.ts', import.meta.url).href)};
// Node opens the process's own streams when they, or a thread, are first used.
process.stdout.write('');
process.stderr.write('');
const before = process.getActiveResourcesInfo().sort();
const kernel = stockKernel([...out(COM1, 0x3e), ...echo, 0xeb, 0xfe]);
const never = { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined), return: async () => ({ done: true, value: undefined }) }) };
for (const jit of ['on', 'off']) {
  const abort = new AbortController();
  await using vm = await createVm({
    kernel, jit, memory: '16M', stdin: never, vsock: true, signal: abort.signal, sampleTiers: true,
    drives: [{ file: new Uint8Array(4096) }], shares: [{ folder: '.', tag: 'x' }], consolePorts: [{ name: 'a', input: never }],
    onSerial: () => setTimeout(() => abort.abort(), 20).unref(),
  });
  const { stopReason } = await vm.run();
  if (stopReason !== 'aborted') throw new Error(stopReason);
}
// A worker that ends takes a turn of the event loop or two.
for (let i = 0; i < 50 && process.getActiveResourcesInfo().length > before.length; i++) await new Promise((resolve) => setTimeout(resolve, 20));
console.log(JSON.stringify({ before, after: process.getActiveResourcesInfo().sort() }));
`;

it('a machine that was aborted and disposed of leaves no handle, thread or timer', () => {
  const root = fileURLToPath(new URL('../../../..', import.meta.url));
  const output = execFileSync(process.execPath, ['-C', 'source', '--input-type=module', '-e', PROGRAM], { encoding: 'utf8', cwd: root, timeout: 50_000 });
  const { before, after } = JSON.parse(output) as { before: string[]; after: string[] };
  // The last look is from a timer's callback.
  expect(after.filter((name) => name !== 'Timeout')).toEqual(before.filter((name) => name !== 'Timeout'));
});
