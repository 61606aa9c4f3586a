import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { codeCacheFile } from './code-cache-file.ts';
import { createVm, type VmOptions } from './index.ts';

const bench = fileURLToPath(new URL('../../../guests/bench/bench.elf', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'pvm-code-'));
afterAll(() => rmSync(folder, { recursive: true }));

async function run(options: Partial<VmOptions>) {
  let out = '';
  await using vm = await createVm({
    ...{ program: bench, args: ['getpid', '2000'], clock: 'icount', memory: '32M' },
    onConsole: (chunk) => {
      out += new TextDecoder().decode(chunk);
    },
    ...options,
  });
  const { summary, exitCode } = await vm.run();
  return { out, exitCode, instructions: summary.instructions, exits: summary.exits, jit: summary.cpu.jit };
}

describe('a folder of compiled code', () => {
  const codeCache = join(folder, 'made', 'here');
  it('changes nothing of what a guest does; what is damaged is warned of once, and does no harm', async () => {
    const { jit: _, ...plain } = await run({ jit: 'off' });
    const path = codeCacheFile(codeCache, { program: bench, kernel: undefined, cpu: 'v2' });
    mkdirSync(codeCache, { recursive: true });
    writeFileSync(path, 'something else');
    const warnings: string[] = [];
    const listener = (w: Error) => warnings.push(`${w.name}: ${w.message}`);
    process.on('warning', listener);
    try {
      expect(await run({ codeCache })).toMatchObject(plain);
    } finally {
      process.off('warning', listener);
    }
    expect(warnings).toEqual([`CodeCacheWarning: the code cache ${path} is damaged, and will be written anew: its checksum is wrong`]);
  });

  it('has a file for each guest and processor, by the contents', () => {
    const options = { program: bench, kernel: undefined, cpu: 'v2' } as const;
    const path = codeCacheFile(codeCache, options);
    expect(codeCacheFile(codeCache, { ...options, program: readFileSync(bench) })).toBe(path);
    expect(codeCacheFile(codeCache, { ...options, program: new Uint8Array(0), kernel: bench })).toBe(path);
    expect(codeCacheFile(codeCache, { ...options, program: Uint8Array.of(1) })).not.toBe(path);
    expect(codeCacheFile(codeCache, { ...options, cpu: 'v3' })).not.toBe(path);
  });

  it.each([
    [{ codeCache: 5 }, /option codeCache: expected the path of a folder, got 5/],
    [{ codeCache, jit: 'sync' }, /option codeCache is for jit "on"; with "sync" no code is kept/],
    [{ codeCache, nameRegion: () => 'x' }, /option codeCache: code with names/],
  ])('is refused with options that it does not go with: %o', async (options, message) => {
    await expect(run(options as Partial<VmOptions>)).rejects.toThrow(message);
  });
});
