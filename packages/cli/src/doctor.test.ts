import { expect, test } from 'vitest';
import { findings } from './commands/doctor.ts';
import { pvm } from './testing/pvm-process.ts';

test('pvm doctor has a line for each thing, and this host can do everything that is needed', () => {
  const { status, stdout, stderr } = pvm(['doctor']);
  expect([status, stderr]).toEqual([0, '']);
  expect(stdout.trimEnd().split('\n')).toHaveLength(findings().length);
  expect(stdout).toMatch(/^(?:(?:ok {3}|warn ) .*\n)+$/);
  expect(stdout).toContain('WebAssembly tail calls');
});

test('pvm completion prints a script that asks pvm', () => {
  expect(pvm(['completion']).stdout).toContain('--get-yargs-completions');
  expect(pvm(['--get-yargs-completions', 'pvm', 'run', '--virt']).stdout).toMatch(/^--virtio-console$/m);
});
