import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { parseRunArguments, runSettings } from './commands/run-arguments.ts';
import { configSchema, effectiveConfig } from './config.ts';
import { pvm } from './testing/pvm-process.ts';

const folder = mkdtempSync(join(tmpdir(), 'pvm-config-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = (contents: unknown): string => {
  const path = join(folder, 'vm.json');
  writeFileSync(path, typeof contents === 'string' ? contents : JSON.stringify(contents));
  return path;
};

test('a configuration says what options say, and options of the command line win', async () => {
  const path = file({ $schema: 'x', kernel: 'k', memory: '1G', drive: ['file=a', 'file=b'], reboot: false, timeout: 5, append: '-x y' });
  const plain = await parseRunArguments(['--config', path]);
  expect(runSettings(plain.args, plain.program)).toMatchObject({
    kernel: 'k',
    memory: '1G',
    reboot: false,
    commandLine: '-x y',
    drives: [{ file: 'a' }, { file: 'b' }],
  });
  const other = await parseRunArguments(['--config', path, '-m', '2G', '-drive', 'file=c', '--reboot']);
  expect(runSettings(other.args, other.program)).toMatchObject({ kernel: 'k', memory: '2G', reboot: true, drives: [{ file: 'c' }] });
  const program = file({ program: ['./prog', '--flag'], clock: 'icount' });
  expect((await parseRunArguments(['--config', program])).program).toEqual(['./prog', '--flag']);
  expect((await parseRunArguments(['--config', program, './other'])).program).toEqual(['./other']);
});

test('what --print-config prints says the same again, and the schema has every key of it', async () => {
  const { args, program } = await parseRunArguments(['--clock', 'icount', '--env', 'A=1', './prog', 'x']);
  const config = effectiveConfig(args, program);
  expect(config).toMatchObject({ clock: 'icount', env: ['A=1'], program: ['./prog', 'x'] });
  const again = await parseRunArguments(['--config', file(config)]);
  expect(effectiveConfig(again.args, again.program)).toEqual(config);
  const { properties } = configSchema() as { properties: object };
  for (const key of Object.keys(config)) expect(properties).toHaveProperty([key]);
  const { status, stdout } = pvm(['run', '--config', file(config), '--print-config']);
  expect([status, JSON.parse(stdout)]).toEqual([0, config]);
});

describe('refuses', () => {
  test.each([
    ['an unknown key', { memry: '1G' }, /vm\.json: unknown key "memry"; did you mean "memory"\?/],
    ['a value of another type', { drive: 'file=x' }, /drive: expected an array of strings, got "file=x"/],
    ['text for a switch', { reboot: 'no' }, /reboot: expected true or false/],
    ['what is no JSON', '{ memory: }', /not JSON/],
    ['what is no object', [1], /expected a JSON object/],
    ['a configuration of its own name', { config: 'x' }, /unknown key "config"/],
  ])('%s', async (_, contents, message) => {
    await expect(parseRunArguments(['--config', file(contents)])).rejects.toThrow(message);
  });
  test('a file that is not there', () => {
    expect(pvm(['run', '--config', join(folder, 'none')])).toMatchObject({ status: 2, stderr: expect.stringMatching(/none: no such file\n$/) as string });
  });
});
