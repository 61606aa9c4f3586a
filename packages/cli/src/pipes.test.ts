import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, describe, expect, test } from 'vitest';
import { COM1, out, powerOff, stockKernel } from '../../pvm/src/testing/stock-guest.ts';
import { BIN, pvm, startPvm } from './testing/pvm-process.ts';

const folder = mkdtempSync(join(tmpdir(), 'pvm-pipes-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Sends K and powers off. */
const hello = join(folder, 'hello');
writeFileSync(hello, stockKernel([...out(COM1, 0x4b), ...powerOff]));
const pipe = join(folder, 'pipe');
execFileSync('mkfifo', [pipe]);

const quoted = (...words: string[]) => words.map((word) => `'${word}'`).join(' ');
const command = (...args: string[]) => quoted(process.execPath, BIN, ...args);
const shell = (line: string) => spawnSync('sh', ['-c', line], { encoding: 'utf8' });

describe('a pipe as input', () => {
  test('is read to its end, whoever writes it and whenever', async () => {
    expect(shell(`cat '${hello}' | ${command('run', '--kernel', '/dev/stdin')}`)).toMatchObject({ status: 0, stdout: 'K', stderr: '' });
    const run = startPvm(['run', '--stat', '--kernel', pipe]);
    expect(shell(`cat '${hello}' > '${pipe}'`).status).toBe(0);
    expect([await run.ended, run.stdout()]).toEqual([0, 'K']);
  });

  test.each([
    ['a kernel', ['--kernel', pipe]],
    ['a RAM disk', ['--kernel', hello, '--initrd', pipe, '--code-cache', join(folder, 'cache')]],
    ['a program', [pipe]],
  ])('that nobody writes, as %s, is waited for until the time limit', (_, args) => {
    const { status, stdout, stderr } = pvm(['run', '--timeout', '0.4', ...args]);
    expect({ status, stdout, stderr }).toEqual({ status: 124, stdout: '', stderr: 'pvm: stopped after 0.4 s (--timeout)\n' });
  });

  test.each([
    ['SIGTERM', 143, ['run', '--kernel', pipe]],
    ['SIGINT', 0, ['stat', 'live', '--input', pipe, '--', '--kernel', hello]],
  ] as const)('that nobody writes is waited for until %s', async (signal, code, args) => {
    const run = startPvm(args);
    // When it begins to listen for signals cannot be seen; before, they end it as any process.
    for (const ended = run.ended.then(() => true); !(await Promise.race([ended, setTimeout(700, false)])); ) run.child.kill(signal);
    expect([code, signal]).toContain(await run.ended);
    expect(run.stderr()).toBe('');
  });
});

describe('a pipe for a console', () => {
  test('gets everything, and waits for its reader until the time limit', async () => {
    const args = ['run', '--kernel', hello, '--serial', `file:${pipe}`];
    expect(pvm([...args, '--timeout', '0.4'])).toMatchObject({ status: 124, stdout: '', stderr: 'pvm: stopped after 0.4 s (--timeout)\n' });
    const run = startPvm(args);
    expect([await readFile(pipe, 'utf8'), await run.ended]).toEqual(['K', 0]);
  });
});

describe.skipIf(!existsSync('/dev/full'))('standard output that cannot be written', () => {
  test.each([
    ['of a guest', command('run', '--stat-out', join(folder, 'stat'), '--kernel', hello)],
    ['of a command', command('doctor')],
    ['of help', command('--help')],
    ["of a command's help", command('run', '--help')],
    ['of the version', command('--version')],
    ['of the script for completion', command('completion')],
    ['of completion', command('--get-yargs-completions', 'pvm', 'run', '--ker')],
  ])('%s is said in one line, and nothing is left behind', (_, line) => {
    const there = readdirSync(folder);
    expect(shell(`${line} > /dev/full`)).toMatchObject({ status: 2, stderr: 'pvm: standard output: no space left on the device\n' });
    expect(readdirSync(folder)).toEqual(there);
  });
});
