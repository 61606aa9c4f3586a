import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { benchKinds, benchPath, demoPath, kernelPath, lmbenchPath, lmbenchRows, smpPath, testPrograms } from './index.ts';

const folder = fileURLToPath(new URL('..', import.meta.url));
/** First line of `gcc --version` and of `ld --version` of the compiler that built the committed images. */
const toolchain = readFileSync(join(folder, 'toolchain.txt'), 'utf8');

function firstLine(command: string): string {
  return spawnSync(command, ['--version'], { encoding: 'utf8' }).stdout?.split('\n')[0] ?? '';
}

const present = `${firstLine('gcc')}\n${firstLine('ld')}\n`;

describe('committed images', () => {
  test('are ELF executables for x86-64', () => {
    for (const path of [kernelPath, demoPath, benchPath, lmbenchPath, smpPath]) {
      const header = readFileSync(path).subarray(0, 20);
      expect([...header.subarray(0, 6)], path).toEqual([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
      expect(header.readUInt16LE(18), path).toBe(62);
    }
  });

  test('the program for stock kernels has its rows in the order of the package', () => {
    const image = readFileSync(lmbenchPath, 'latin1');
    const source = readFileSync(join(folder, 'linux/lmbench.c'), 'utf8');
    expect([...source.matchAll(/^\t\{ "([a-z-]+)", /gm)].map((m) => m[1])).toEqual([...lmbenchRows]);
    for (const row of lmbenchRows) expect(image).toContain(`${row}\0`);
  });

  test('the benchmark program knows every kind that the package names', () => {
    const image = readFileSync(benchPath, 'latin1');
    for (const kind of benchKinds) expect(image).toContain(`${kind}\0`);
  });
});

describe.skipIf(present !== toolchain)(`a rebuild with ${toolchain.split('\n')[0]} gives the same bytes`, () => {
  let out = '';
  beforeAll(() => {
    out = mkdtempSync(join(tmpdir(), 'pvm-guests-'));
  });
  afterAll(() => rmSync(out, { recursive: true }));

  function make(...args: string[]): void {
    const result = spawnSync('make', ['-s', '-j2', ...args], { cwd: folder, encoding: 'utf8' });
    expect(result.status, result.stderr).toBe(0);
  }

  test('of the kernel', () => {
    make('-C', 'kernel', `OUT=${join(out, 'kernel.elf')}`, `OBJ=${join(out, 'kernel')}`);
    expect(readFileSync(join(out, 'kernel.elf')).equals(readFileSync(kernelPath))).toBe(true);
  });

  test('of the programs', () => {
    make('programs', `OUT=${out}`);
    expect(readFileSync(join(out, 'demo/demo.elf')).equals(readFileSync(demoPath))).toBe(true);
    expect(readFileSync(join(out, 'tests/fuzz.elf')).equals(readFileSync(testPrograms.fuzz))).toBe(true);
    expect(readFileSync(join(out, 'smp/smp.elf')).equals(readFileSync(smpPath))).toBe(true);
    expect(readFileSync(join(out, 'bench/bench.elf')).equals(readFileSync(benchPath))).toBe(true);
    expect(readFileSync(join(out, 'linux/lmbench.elf')).equals(readFileSync(lmbenchPath))).toBe(true);
  });
});
