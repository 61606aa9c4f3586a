import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { benchPath, testPrograms } from './index.ts';

const script = fileURLToPath(new URL('../native-host/run.sh', import.meta.url));
const out = mkdtempSync(join(tmpdir(), 'pvm-native-host-'));

function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(script, args, { encoding: 'utf8', env: { ...process.env, OUT: out }, input: 'typed\n' });
}

afterAll(() => rmSync(out, { recursive: true }));

/** Needs an x86-64 Linux with gcc and permission to trace a child. */
const works = process.arch === 'x64' && run(benchPath, 'getpid', '1').stdout.startsWith('getpid 1 ');

describe.skipIf(!works)('the guest kernel on the real CPU', () => {
  test('runs an ordinary C program', () => {
    const expected = readFileSync(fileURLToPath(new URL('../tests/hello.expected', import.meta.url)), 'utf8');
    expect(run(testPrograms.hello)).toMatchObject({ status: 0, stdout: expected, stderr: 'to standard error\n' });
  });

  test('delivers faults as signals', () => {
    expect(run(testPrograms.faults).stdout).toBe('ok handlers\nok return\nok raise\nok memory\nok all\n');
  });

  test('ends a faulting program with a message', () => {
    const result = run(testPrograms.faults, 'segv');
    expect(result.status).toBe(139);
    expect(result.stderr).toMatch(/^faults\.elf: Segmentation fault \(signal 11\) at rip 0x[0-9a-f]+ address 0x1234\n$/);
  });

  test('lets a program change its code', () => {
    expect(run(testPrograms.smc).stdout).toMatch(/ok all\n$/);
  });

  test.each(['1', '2', '3', '4'])('survives random system calls (seed %s)', (seed) => {
    expect(run(testPrograms.fuzz, seed, '10000')).toMatchObject({ status: 42 });
  });

  test('passes files and standard input to the program', () => {
    expect(run('-f', `${script}:run.sh`, testPrograms.hello, 'cat', '/run.sh', '-').stdout).toBe(`${readFileSync(script, 'utf8')}typed\n`);
  });
});
