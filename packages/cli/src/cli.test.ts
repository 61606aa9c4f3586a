import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { benchPath, testPrograms } from '@pvm/guests';
import { afterAll, describe, expect, test } from 'vitest';
import { codeCacheFile } from '../../pvm/src/code-cache-file.ts';
import { BIN, pvm } from './testing/pvm-process.ts';

const folder = mkdtempSync(join(tmpdir(), 'pvm-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

function fileWith(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** The table of exits that a run printed: row -> samples. */
function samples(stdout: string): Record<string, number> {
  const rows = [...stdout.matchAll(/^(#?[A-Z][^\n]*?) {2,}(\d+) +\d+\.\d+% /gm)];
  return Object.fromEntries(rows.map((r) => [r[1] ?? '', Number(r[2])]));
}

describe('the embedded demo', () => {
  // Deterministic under the virtual clock: a change means that guest kernel, shadow MMU or exits work differently.
  const EXITS = {
    '#PF table write': 11026,
    '#PF guest': 10028,
    ERETU: 10027,
    '#PF shadow': 274,
    'HYPERCALL TLB_FLUSH_CURRENT': 41,
    '#GP OUT 0x500': 36,
  };
  const runs = (['off', 'sync'] as const).map((jit) => ({ jit, ...pvm(['demo', '--clock', 'icount', '--jit', jit]) }));

  test.each(runs)('ends well with exactly the expected exits, --jit $jit', ({ status, stdout, stderr }) => {
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(stdout).toContain('539777 primes');
    expect(stdout).toContain('b69dae56a14d1a83');
    expect(stdout).not.toContain('WRONG');
    expect(samples(stdout)).toMatchObject(EXITS);
  });
  test('retires the same instructions interpreted and compiled', () => {
    const counts = runs.map(({ stdout }) => /^instructions +([\d,]+)/m.exec(stdout)?.[1]);
    expect(counts[0]).toMatch(/^\d/);
    expect(counts[1]).toBe(counts[0]);
  });
});

test.runIf(existsSync('/proc/self')).each([
  ['--version', 0, ''],
  [
    'image get debian',
    2,
    expect.stringMatching(/^pvm: the folder \/proc\/nope\/pvm\/images\/\S+ cannot be made: .*; XDG_CACHE_HOME may name another place\n$/),
  ],
])('pvm %s ends where the cache of the user cannot be made', (words, status, stderr) => {
  const env = { ...process.env, XDG_CACHE_HOME: '/proc/nope' };
  expect(spawnSync(process.execPath, [BIN, ...words.split(' ')], { encoding: 'utf8', env, timeout: 60_000 })).toMatchObject({ status, stderr });
});

test('a damaged code cache is warned of in one line, and is written anew', () => {
  const path = codeCacheFile(folder, { program: benchPath, kernel: undefined, cpu: 'v2' });
  writeFileSync(path, 'something else');
  const { status, stderr } = pvm(['run', '--code-cache', folder, benchPath, 'getpid', '2000000']);
  expect([status, stderr]).toEqual([0, `pvm: warning: the code cache ${path} is damaged, and will be written anew: its checksum is wrong\n`]);
  expect(readFileSync(path, 'latin1')).toMatch(/^PVMCODE1/);
});

test('bench --json prints one JSON document; a getpid costs no exit, without direct switch two', () => {
  const ops = (args: string[]) => {
    const { status, stdout, stderr } = pvm(['bench', 'exits', '--json', '--scale', '0.1', ...args]);
    expect([status, stderr]).toEqual([0, '']);
    const parsed = JSON.parse(stdout) as { ops: { name: string; exitsPerOp: number; worldSwitchesPerOp: number; nsPerOp: number }[] };
    return new Map(parsed.ops.map((o) => [o.name, o]));
  };
  const direct = ops([]);
  // The system calls that mark the interval are inside it with one switch each.
  const about = (n: number) => expect.closeTo(n, 3) as number;
  expect(direct.get('getpid')).toMatchObject({ exitsPerOp: 0, worldSwitchesPerOp: about(2) });
  for (const name of ['hypercall', 'exception', 'msr-read', 'msr-write', 'cpuid-synthetic', 'pio-in', 'pio-out']) {
    expect(direct.get(name), name).toMatchObject({ exitsPerOp: 1, worldSwitchesPerOp: 2 });
  }
  expect(direct.get('cpuid')).toMatchObject({ exitsPerOp: 0 });
  expect(ops(['--no-direct-switch']).get('getpid')).toMatchObject({ exitsPerOp: about(2), worldSwitchesPerOp: about(4) });
});

describe('run', () => {
  test('passes arguments, input, output and the exit code through', () => {
    const { status, stdout } = pvm(['run', testPrograms.hello, 'one', '--two']);
    expect(stdout).toContain('one');
    expect(stdout).toContain('--two');
    expect(status).toBe(0);
  });
  test('--jit-stats says which share of the instructions was compiled, --gdb where to connect', () => {
    const { status, stdout, stderr } = pvm(['run', '--jit', 'sync', '--jit-stats', '--gdb', '0', testPrograms.hello]);
    expect(status).toBe(0);
    expect(stdout).not.toContain('instructions');
    expect(stderr).toMatch(/^pvm: gdb can connect: target remote 127\.0\.0\.1:\d+$/m);
    const [, compiled, interpreted] = /^instructions +[\d,]+: compiled ([\d.]+) %, interpreted ([\d.]+) %$/m.exec(stderr) ?? [];
    expect(Number(compiled) + Number(interpreted)).toBeCloseTo(100, 0);
    expect(stderr).toMatch(/^ {2}no region +[\d,]+ \(/m);
  });
});

describe('wrong input gets one line on stderr and exit code 2', () => {
  const elf = readFileSync(testPrograms.hello);
  const patched = (offset: number, ...bytes: number[]) => {
    const copy = Uint8Array.from(elf);
    copy.set(bytes, offset);
    return copy;
  };
  const cases: [string, string[], RegExp][] = [
    ['no command', [], /name a command/],
    ['an unknown command', ['rnu'], /run/],
    ['an unknown option', ['run', '--meory', '64M', 'x'], /memory/],
    ['a bad choice', ['run', '--clock', 'sundial', 'x'], /host.*icount/],
    ['no program', ['run'], /name a program/],
    ['an unknown switch', ['run', '--opt', 'no-prefalt', testPrograms.hello], /--opt no-prefalt: .*prefault/],
    [
      'a switch of another design',
      ['run', '--design', 'bare', '--opt', 'prefault', '--kernel', testPrograms.hello],
      /design bare has no optimisation prefault/,
    ],
    ['a missing file', ['run', join(folder, 'nothing')], /no such file/],
    ['a folder', ['run', folder], /directory/],
    ['not an ELF', ['run', fileWith('text', new TextEncoder().encode('#!/bin/sh\n'))], /not an ELF/],
    ['a 32-bit ELF', ['run', fileWith('elf32', patched(4, 1))], /32-bit/],
    ['a truncated ELF', ['run', fileWith('short', elf.subarray(0, 3000))], /truncated/],
    ['too little memory', ['run', '-m', '1M', testPrograms.hello], /8M/],
    ['a kernel that is none', ['run', '--kernel', fileWith('nokernel', new Uint8Array(5000))], /neither a bzImage/],
    ['a missing RAM disk', ['run', '--kernel', fileWith('nokernel', new Uint8Array(5000)), '--initrd', join(folder, 'nothing')], /no such file/],
    ['an empty RAM disk', ['run', '--kernel', testPrograms.hello, '--initrd', fileWith('empty', new Uint8Array(0))], /is empty; expected a RAM disk/],
    ['a RAM disk beside a program', ['run', '--initrd', testPrograms.hello, testPrograms.hello], /initrd/],
    ['a bad --drive', ['run', '--kernel', 'x', '--drive', 'disk.img'], /expected file=IMAGE/],
    ['a bad --file', ['run', '--file', 'x', testPrograms.hello], /HOST:GUEST/],
    ['a bad scale', ['bench', 'exits', '--scale', '-1'], /scale/],
    ['a benchmark that is none', ['bench', 'tabel1'], /table1/],
    ['no benchmark', ['bench'], /table1.*figure10/],
    ['a benchmark in Linux without a kernel', ['bench', 'lmbench'], /--kernel FILE/],
    ['a benchmark in a kernel that is not there', ['bench', 'table3', '--kernel', '/no/vmlinuz'], /no such file/],
    ['a benchmark with an unknown profile', ['bench', 'table1', '--profile', 'sosp32'], /sosp23/],
    ['a calibration that cannot be written', ['calibrate', '--out', '/no/profile.json'], /--out/],
  ];
  test.each(cases)('%s', (_, args, message) => {
    const { status, stdout, stderr } = pvm(args);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect([status, stdout]).toEqual([2, '']);
  });
});

test('help is as wide as COLUMNS says where there is no terminal', () => {
  const widest = (columns: string) => {
    const { stdout } = spawnSync(process.execPath, [BIN, 'run', '--help'], { encoding: 'utf8', env: { ...process.env, COLUMNS: columns } });
    return Math.max(...stdout.split('\n').map((line) => line.length));
  };
  expect(widest('80')).toBeLessThanOrEqual(80);
  expect(widest('60')).toBeLessThanOrEqual(60);
  // The usual width.
  for (const columns of ['x', '1000']) expect(widest(columns)).toSatisfy((width: number) => width > 100 && width <= 110);
});
