import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { createVm, type Interval, type Result, type Vm, VmError, type VmOptions } from './index.ts';

const guests = (path: string) => fileURLToPath(new URL(`../../../guests/${path}`, import.meta.url));
const bench = guests('bench/bench.elf');
const directory = mkdtempSync(join(tmpdir(), 'pvm-'));

/** A file that is not what it should be. */
function file(name: string, contents: string | Uint8Array): string {
  const path = join(directory, name);
  writeFileSync(path, contents);
  return path;
}

const machines: Vm[] = [];
afterAll(() => Promise.all(machines.map((vm) => vm.dispose())));

async function run(options: VmOptions): Promise<{ result: Result; vm: Vm; out: string; err: string }> {
  const text = { out: '', err: '' };
  const vm = await createVm({
    clock: 'icount',
    jit: 'off',
    memory: '32M',
    onConsole: (chunk) => {
      text.out += new TextDecoder().decode(chunk);
    },
    onStderr: (chunk) => {
      text.err += new TextDecoder().decode(chunk);
    },
    ...options,
  });
  machines.push(vm);
  return { result: await vm.run(), vm, ...text };
}

/** The measured interval of `bench kind n`. */
async function measure(kind: string, n: number, options: Partial<VmOptions> = {}): Promise<Interval> {
  const { result } = await run({ program: bench, args: [kind, String(n)], ...options });
  const [interval] = result.intervals;
  if (interval === undefined) throw new Error(`bench ${kind} marked nothing`);
  return interval;
}
const count = (i: Interval, reason: string, sub = '') => i.byReason.find((e) => e.reason === reason && e.sub === sub)?.count ?? 0;

describe('createVm refuses', () => {
  const header = new Uint8Array(64);
  header.set([0x7f, 0x45, 0x4c, 0x46, 1, 1, 1]);
  it.each([
    [
      'an unknown option, naming the nearest',
      { program: bench, optimisation: {} },
      'bad-option',
      /unknown option "optimisation"; did you mean "optimisations"\?/,
    ],
    ['no program', {}, 'bad-option', /option program is missing/],
    ['a wrong type', { program: bench, sampleTiers: 'yes' }, 'bad-option', /option sampleTiers: expected true or false, got "yes"/],
    ['an unknown switch', { program: bench, optimisations: { turbo: true } }, 'bad-option', /option optimisations: expected an object from direct-switch/],
    ['too little memory', { program: bench, memory: '1M' }, 'bad-option', /option memory: expected 8M to 3584M, got "1M"/],
    ['a program that leaves no memory', { program: bench, memory: '8M', files: { '/big': new Uint8Array(8 << 20) } }, 'memory-too-small', /do not fit/],
    ['a design that does not exist', { program: bench, design: 'vmx' }, 'bad-option', /expected one of bare/],
    ['a relative guest path', { program: bench, files: { x: 'y' } }, 'bad-option', /absolute guest paths/],
    ['a missing file', { program: join(directory, 'none') }, 'unreadable-file', /none: no such file/],
    ['a directory', { program: directory }, 'unreadable-file', /is a directory/],
    ['a script', { program: file('script', '#!/bin/sh\n') }, 'not-elf', /script: not an ELF file/],
    ['a 32-bit ELF', { program: file('elf32', header) }, 'elf-32-bit', /elf32: 32-bit ELF/],
  ])('%s', async (_what, options, code, message) => {
    const error: unknown = await createVm(options as VmOptions).catch((e: unknown) => e);
    expect(error).toMatchObject({ code });
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).not.toContain('\n');
  });
});

describe('a program in the guest', () => {
  it('prints and ends with its exit code', async () => {
    const { result, out } = await run({ program: bench, args: ['getpid', '10'] });
    expect(out).toMatch(/^getpid 10 \d+\n$/);
    expect(result).toMatchObject({ exitCode: 0, stopReason: 'poweroff', signal: 0 });
    expect(result.summary.unknownSyscalls.size).toBe(0);
  });

  it('passes a failure through', async () => {
    expect((await run({ program: bench, args: ['nonsense'] })).result.exitCode).toBe(2);
  });

  it('runs only once', async () => {
    const { vm } = await run({ program: bench, args: ['getpid', '1'] });
    await expect(vm.run()).rejects.toMatchObject({ code: 'wrong-state' });
  });

  it('fails with what a receiver of its output throws', async () => {
    const onConsole = () => {
      throw new RangeError('no room');
    };
    await expect(run({ program: bench, args: ['getpid', '10'], onConsole })).rejects.toThrow('no room');
  });

  it('stops when it is aborted', async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    const { result } = await run({ program: bench, args: ['getpid', '1000000000'], signal: controller.signal });
    expect(result.stopReason).toBe('aborted');
  });

  it('stops at a limit of instructions', async () => {
    const { result } = await run({ program: bench, args: ['getpid', '1000000000'], maxInstructions: 2_000_000 });
    expect(result.stopReason).toBe('instruction-limit');
    expect(Number(result.summary.instructions)).toBeLessThan(2_010_000);
  });

  it('ends in a report when its kernel cannot go on', async () => {
    // A kernel that is a single UD2, before any PVCS.
    const kernel = new Uint8Array(0x1002);
    const view = new DataView(kernel.buffer);
    kernel.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
    view.setUint16(16, 2, true);
    view.setUint16(18, 62, true);
    view.setBigUint64(24, 0x10_0000n, true);
    view.setBigUint64(32, 64n, true);
    view.setUint16(54, 56, true);
    view.setUint16(56, 1, true);
    view.setUint32(64, 1, true);
    view.setBigUint64(72, 0x1000n, true);
    for (const at of [80, 88]) view.setBigUint64(at, 0x10_0000n, true);
    for (const at of [96, 104]) view.setBigUint64(at, 2n, true);
    kernel.set([0x0f, 0x0b], 0x1000);
    const error: unknown = await run({ program: bench, kernel }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(VmError);
    const { message, report, exitCode, code } = error as VmError;
    expect({ message, exitCode, code }).toEqual({
      message: 'triple fault: #UD before the guest set a PVCS (MSR_PVM_VCPU_STRUCT)',
      exitCode: 70,
      code: 'triple-fault',
    });
    expect(report).toMatch(/rip 0000000000100000/);
    expect(report).toMatch(/last exits, newest first:\n +0000000000100000 {2}#UD/);
  });
});

describe('what operations cost', () => {
  const N = 500;

  it('a getpid is no exit and two world switches with direct switching', async () => {
    const i = await measure('getpid', N);
    expect(i.exits).toBe(0);
    expect(Math.round(i.worldSwitches / N)).toBe(2);
    expect(i.directSyscalls).toBeGreaterThanOrEqual(N);
  });

  it('and two exits and four world switches without', async () => {
    const [i, direct] = await Promise.all([measure('getpid', N, { optimisations: { 'direct-switch': false } }), measure('getpid', N)]);
    expect(count(i, 'SYSCALL')).toBe(direct.directSyscalls);
    expect(i.exits).toBe(direct.worldSwitches);
    expect(i.worldSwitches).toBe(2 * direct.worldSwitches);
  });

  it.each([
    ['hypercall', 'HYPERCALL', 'unknown'],
    ['exception', '#UD', ''],
    ['cpuid-synthetic', '#GP', 'CPUID'],
    ['pio-in', '#GP', 'IN 0x3fd'],
  ])('a %s is one exit', async (kind, reason, sub) => {
    const i = await measure(kind, N);
    expect(i.exits).toBe(N);
    expect(count(i, reason, sub)).toBe(N);
    expect(i.worldSwitches).toBe(2 * N);
  });

  it('a bare CPUID is none', async () => {
    expect((await measure('cpuid', N)).exits).toBe(0);
  });

  it('a page fault is one guest fault, one return, and a write for each level of the table that is new', async () => {
    const MIB = 2;
    const i = await measure('fault', MIB);
    expect(i.operations).toBe(MIB * 256);
    expect(count(i, '#PF', 'guest')).toBe(256 * MIB);
    expect(count(i, 'ERETU')).toBe(256 * MIB);
    expect(count(i, '#PF', 'table write')).toBeGreaterThanOrEqual(256 * MIB);
  });

  it('the counts are the same with every way to run the code', async () => {
    const [off, on, sync] = await Promise.all((['off', 'on', 'sync'] as const).map((jit) => measure('fault', 4, { jit })));
    const counts = (i: Interval | undefined) => ({ instructions: i?.instructions, switches: i?.worldSwitches, byReason: i?.byReason });
    expect(counts(on)).toEqual(counts(off));
    expect(counts(sync)).toEqual(counts(off));
  });
});

describe('the processor level', () => {
  it('v3 lets a C library choose other functions, with the same result', async () => {
    const expected = await run({ program: guests('tests/hello.elf'), clock: 'icount' });
    const got = await run({ program: guests('tests/hello.elf'), clock: 'icount', cpu: 'v3' });
    expect([got.result.exitCode, got.out]).toEqual([expected.result.exitCode, expected.out]);
    expect(got.result.summary.instructions).not.toBe(expected.result.summary.instructions);
  });
  it('is v2 or v3', async () => {
    await expect(createVm({ program: bench, cpu: 'v4' as 'v3' })).rejects.toThrow('option cpu: expected one of v2, v3');
  });
});
