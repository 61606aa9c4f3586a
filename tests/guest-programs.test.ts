import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { demoPath, testPrograms } from '../guests/src/index.ts';
import { createVm, DESIGN_NAMES, designInfo, type VmOptions } from '../packages/pvm/src/index.ts';

interface Run {
  stdout: string;
  stderr: string;
  exitCode: number;
  signal: number;
}

/** Run a program to its end on the virtual clock. */
async function run(options: VmOptions): Promise<Run> {
  const out: Uint8Array[] = [];
  const err: Uint8Array[] = [];
  const vm = await createVm({ clock: 'icount', onConsole: (chunk) => void out.push(chunk), onStderr: (chunk) => void err.push(chunk), ...options });
  try {
    const { exitCode, signal } = await vm.run();
    return { stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString(), exitCode, signal };
  } finally {
    await vm.dispose();
  }
}

/** Every design that runs programs; `pvm` compiled as well as interpreted, and with both revisions of its ABI. */
const machines: readonly VmOptions[] = [
  { design: 'pvm', jit: 'on' },
  { design: 'pvm', abi: 'rfc-v1', jit: 'on' },
  ...DESIGN_NAMES.filter((design) => designInfo(design).platforms.includes('program')).map((design) => ({ design, jit: 'off' as const })),
];

describe.each(machines)('programs under design $design with $abi jit $jit', (machine) => {
  test('an ordinary C program prints what it prints on a real machine', async () => {
    const expected = readFileSync(new URL('../guests/tests/hello.expected', import.meta.url), 'utf8');
    expect(await run({ program: testPrograms.hello, ...machine })).toEqual({ stdout: expected, stderr: 'to standard error\n', exitCode: 0, signal: 0 });
  });

  test('arguments, environment and exit code pass through', async () => {
    const result = await run({ program: testPrograms.hello, args: ['5', 'two words', ''], env: { HELLO: 'there' }, ...machine });
    expect(result.stdout).toContain('hello, world: 3 arguments [5] [two words] []\n');
    expect(result.stdout).toContain('getenv: there\n');
    expect(result.exitCode).toBe(5);
  });

  test('self-modifying code sees its changes', async () => {
    const result = await run({ program: testPrograms.smc, ...machine });
    expect(result.stdout).toBe('ok rewrite\nok hot\nok straddle\nok self\nok alias\nok kernel\nok remap\nok bulk\nok all\n');
  });

  test('signal handlers see faults and execution goes on', async () => {
    expect((await run({ program: testPrograms.faults, ...machine })).stdout).toBe('ok handlers\nok return\nok raise\nok memory\nok all\n');
  });

  test.each([
    ['segv', 11, /^faults: Segmentation fault \(signal 11\) at rip 0x[0-9a-f]+ address 0x1234\n$/],
    ['fpe', 8, /^faults: Floating point exception \(signal 8\) at rip 0x[0-9a-f]+/],
    ['ill', 4, /^faults: Illegal instruction \(signal 4\) at rip 0x[0-9a-f]+/],
    ['exhaust', 9, /^faults: Killed \(signal 9\): the machine's memory is exhausted\n$/],
    ['abort', 6, /^faults: Aborted \(signal 6\)\n$/],
    ['overflow', 11, /^faults: Segmentation fault \(signal 11\) at rip 0x[0-9a-f]+ address 0x7fffff7f/],
  ])('an unhandled fault (%s) ends the program with a message and code 128 + n', async (which, signal, message) => {
    const result = await run({ program: testPrograms.faults, argv0: '/bin/faults', args: [which], ...machine });
    expect(result.stderr).toMatch(message);
    expect(result.exitCode).toBe(128 + signal);
    expect(result.signal).toBe(signal);
  });
});

test.each<[seed: string, machine: Partial<VmOptions>]>([
  ['5', { abi: 'v2' }],
  ['6', { abi: 'v2' }],
  ['5', { abi: 'rfc-v1' }],
  ['5', { design: 'bare' }],
])('random system calls leave the guest kernel standing (seed %s, %o)', async (seed, machine) => {
  const result = await run({ program: testPrograms.fuzz, args: [seed, '20000'], jit: 'off', ...machine });
  expect(result).toMatchObject({ exitCode: 42, signal: 0 });
});

test('files and standard input reach the program byte for byte', async () => {
  const file = Uint8Array.from({ length: 5000 }, (_, i) => (i * 7) & 127);
  const result = await run({
    program: testPrograms.hello,
    args: ['cat', '/data/some file', '-'],
    files: { '/data/some file': file },
    stdin: 'typed\n',
    jit: 'off',
  });
  expect(result.stdout).toBe(`${Buffer.from(file).toString()}typed\n`);
  expect(result.exitCode).toBe(0);
});

test('a missing file is an error the program can report', async () => {
  const result = await run({ program: testPrograms.hello, args: ['cat', '/nowhere'], jit: 'off' });
  expect(result).toEqual({ stdout: '', stderr: '/nowhere: No such file or directory\n', exitCode: 1, signal: 0 });
});

test.runIf(process.env['PVM_SLOW_TESTS'])('the demo gets every known answer right', async () => {
  const result = await run({ program: demoPath });
  expect(result.stdout).toContain('539777 primes');
  expect(result.stdout).not.toContain('WRONG');
});
