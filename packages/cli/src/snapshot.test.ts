import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { COM1, echo, out, powerOff, stockKernel } from '../../pvm/src/testing/stock-guest.ts';
import { pvm, startPvm } from './testing/pvm-process.ts';

const folder = mkdtempSync(join(tmpdir(), 'pvm-cli-snapshot-'));
afterAll(() => rmSync(folder, { recursive: true }));
const hello = new URL('../../../guests/tests/hello.elf', import.meta.url).pathname;
const text = (s: string) => [...s].flatMap((c) => out(COM1, c.charCodeAt(0)));
/** Says "login:", sends back one byte, says "bye" and powers off. */
const kernel = join(folder, 'kernel');
writeFileSync(kernel, stockKernel([...text('login:'), ...echo, ...text('bye'), ...powerOff]));
const file = join(folder, 'vm.pvmsnap');

describe('pvm run', () => {
  test('saves at a number of instructions, and goes on from there in another process', () => {
    const whole = pvm(['run', '--clock', 'icount', hello, 'x']);
    const options = ['--clock', 'icount', '--save', file, '--save-at', '300000'];
    expect(pvm(['run', ...options, hello, 'x'])).toMatchObject({
      status: whole.status,
      stdout: whole.stdout,
      stderr: expect.stringContaining('snapshot written to'),
    });
    const first = pvm(['run', ...options, '--save-exit', hello, 'x']);
    expect(first.status).toBe(0);
    const rest = pvm(['run', '--restore', file]);
    expect(first.stdout + rest.stdout).toBe(whole.stdout);
    expect(rest.status).toBe(whole.status);
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test('saves when the guest says something', () => {
    expect(pvm(['run', '--kernel', kernel, '-m', '16M', '--save', file, '--save-on', 'login:', '--save-exit'])).toMatchObject({ status: 0, stdout: 'login:' });
    expect(pvm(['run', '--restore', file], 'z')).toMatchObject({ status: 0, stdout: 'zbye', stderr: '' });
    expect(pvm(['run', '--restore', file, '-m', '16', '--jit', 'off'], 'y')).toMatchObject({ status: 0, stdout: 'ybye', stderr: '' });
  });

  test.each([
    [['--restore', file, '-m', '32M'], /machine with memory 16777216, not 33554432/],
    [['--restore', file, '--clock', 'icount'], /machine with clock "host", not "icount"/],
    [['--restore', file, '--kernel', kernel], /--kernel has no effect on a restored machine/],
    [['--restore', file, hello], /--restore goes on with what the snapshot is of; leave .*hello.elf out/],
    [['--restore', kernel], /kernel: is not a snapshot of pvm/],
    [['--restore', join(folder, 'none')], /none: no such file/],
    [['--save-at', '5', hello], /--save-at needs --save FILE/],
    [['--save-exit', hello], /--save-exit needs --save FILE/],
    [['--save', file, '--save-at', '5', '--save-on', 'x', hello], /give one of them/],
    [['--save', join(folder, 'a/b'), '--save-at', '5', hello], /cannot be written: no folder/],
    [['--save', file, '--save-on', 'never said', hello], /the guest never said "never said": no snapshot was taken/],
    [['--save', file, '--save-at', '1000000000000', hello], /ended before the snapshot was due/],
  ])('refuses %j', (args, message) => {
    expect(pvm(['run', ...args])).toMatchObject({ status: 2, stderr: expect.stringMatching(message) });
  });

  test('that is killed while it saves leaves no half-written snapshot', async () => {
    const other = join(folder, 'killed.pvmsnap');
    const run = startPvm(['run', '--kernel', kernel, '-m', '1G', '--save', other, '--save-on', 'login:']);
    await run.says('login:');
    run.child.kill('SIGKILL');
    expect(await run.ended).toBe('SIGKILL');
    if (existsSync(other)) expect(pvm(['snapshot', 'info', other]).status).toBe(0);
  });
});

test('pvm snapshot info says what a snapshot is of, and finds damage', () => {
  const { status, stdout } = pvm(['snapshot', 'info', file]);
  expect(status).toBe(0);
  expect(stdout).toMatch(/machine +stock kernel under bare, 16 MiB, 1 vCPU, v2, clock host\n/);
  expect(JSON.parse(pvm(['snapshot', 'info', '--json', file]).stdout)).toMatchObject({ isCurrent: true, sources: { image: kernel } });
  const damaged = join(folder, 'damaged');
  const bytes = readFileSync(file);
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
  writeFileSync(damaged, bytes);
  expect(pvm(['snapshot', 'info', damaged])).toMatchObject({ status: 2, stderr: expect.stringMatching(/damaged: is damaged or cut off/) });
});
