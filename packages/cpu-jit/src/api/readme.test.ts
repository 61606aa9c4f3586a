import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { expect, test } from 'vitest';
import { Cpu } from './index.ts';

const README = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
const EXAMPLES = [...README.matchAll(/```ts\n(.*?)```/gs)].map((m) => m[1] ?? '').filter((code) => code.includes('Cpu.create'));

/** Runs an example of the README, and returns what it prints. */
async function output(code: string): Promise<unknown[][]> {
  const printed: unknown[][] = [];
  const body = stripTypeScriptTypes(code.replace(/^import .*$/gm, ''));
  const AsyncFunction = (async () => undefined).constructor as new (...parts: string[]) => (cpu: typeof Cpu, console: unknown) => Promise<void>;
  await new AsyncFunction('Cpu', 'console', body)(Cpu, { log: (...values: unknown[]) => printed.push(values) });
  return printed;
}

test.each([
  [0, [[{ kind: 'hlt' }, 42n]]],
  [1, [['out', 128, 65], [{ kind: 'hlt' }]]],
  [2, [['inc rax'], ['mov ebx,DWORD PTR ds:0x500000'], [{ kind: 'memory', access: 'read', address: 5242880n, size: 4, why: 'unmapped', rip: 4099n }]]],
])('example %i of the README prints what it says', async (n, expected) => {
  expect(await output(EXAMPLES[n] ?? '')).toEqual(expected);
});

test('there are no other examples', () => {
  expect(EXAMPLES.length).toBe(3);
});
