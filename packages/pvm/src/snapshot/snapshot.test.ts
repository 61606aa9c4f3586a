import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { afterAll, describe, expect, it } from 'vitest';
import { createVm, DESIGN_NAMES, designInfo, snapshotInfo, type Vm, type VmOptions } from '../index.ts';
import { COM1, out, outImmediate, powerOff, start, stockKernel, TIMER_VECTOR, waitForTimer, word } from '../testing/stock-guest.ts';
import { restoreMachine, type SavedMachine } from './machine-state.ts';
import { SnapshotReader } from './reader.ts';

const folder = mkdtempSync(join(tmpdir(), 'pvm-snapshot-test-'));
afterAll(() => rmSync(folder, { recursive: true }));
const guest = (name: string) => new URL(`../../../../guests/${name}`, import.meta.url).pathname;

/** What must not depend on whether a run was interrupted. */
interface Outcome {
  console: string;
  exitCode: number;
  stopReason: string;
  instructions: bigint;
  exits: Readonly<Record<string, number>>;
  worldSwitches: object;
  pageTables: object;
}

interface Session {
  readonly vm: Vm;
  /** Runs to the end. */
  outcome(): Promise<Outcome>;
  /** Console output so far. */
  readonly text: { value: string };
}

async function session(options: VmOptions): Promise<Session> {
  const text = { value: '' };
  const onText = (chunk: Uint8Array) => {
    text.value += Buffer.from(chunk).toString('latin1');
  };
  const isRestored = options.restore !== undefined;
  const vm = await createVm({
    jit: 'off',
    ...(isRestored ? {} : { clock: 'icount', memory: '16M' }),
    onConsole: onText,
    onStderr: onText,
    onSerial: onText,
    ...options,
  });
  const outcome = async (): Promise<Outcome> => {
    try {
      const { exitCode, stopReason, summary } = await vm.run();
      return {
        console: text.value,
        exitCode,
        stopReason,
        instructions: summary.instructions,
        exits: Object.fromEntries(vm.ledger.entries().map((e) => [`${e.reason} ${e.sub}`.trim(), e.count])),
        worldSwitches: vm.ledger.worldSwitches(),
        pageTables: vm.pageTables(),
      };
    } finally {
      await vm.dispose();
    }
  };
  return { vm, outcome, text };
}

/** Runs with a snapshot at `at` instructions and to the end, and again from the snapshot. */
async function twice(options: VmOptions, at: number, onRestore: VmOptions = {}): Promise<{ whole: Outcome; resumed: Outcome; snapshot: Uint8Array }> {
  const first = await session(options);
  let before = '';
  const saved = first.vm.save({ at }).then((bytes) => {
    before = first.text.value;
    return bytes;
  });
  const whole = await first.outcome();
  const snapshot = await saved;
  const resumed = await (await session({ jit: options.jit ?? 'off', ...onRestore, restore: snapshot })).outcome();
  return { whole, resumed: { ...resumed, console: before + resumed.console }, snapshot };
}

/** sti; hlt; jmp to the hlt; at each of `ticks` timer interrupts the handler writes a letter. */
const ticker = (ticks: number) =>
  stockKernel([0xbb, ...word(ticks, 4), ...start, ...waitForTimer, 0xeb, 0xfd], {
    [TIMER_VECTOR]: [...out(COM1, 0x54), 0xff, 0xcb, 0x74, 0x06, ...outImmediate(0x20, 0x20), 0x48, 0xcf, ...powerOff],
  });

describe.each(DESIGN_NAMES)('a snapshot under %s', (design) => {
  it.runIf(designInfo(design).platforms.includes('program'))('lets a program go on with the same output and the same counters', async () => {
    const { whole, resumed } = await twice({ program: guest('tests/smc.elf'), design }, 600_000);
    expect(whole.instructions).toBeGreaterThan(700_000n);
    expect(resumed).toEqual(whole);
  });

  it.runIf(designInfo(design).platforms.includes('pc'))('lets a stock kernel go on with its timers and interrupts', async () => {
    const { whole, resumed } = await twice({ kernel: ticker(40), design }, 150);
    expect(whole.console).toBe('T'.repeat(40));
    expect(resumed).toEqual(whole);
  });
});

describe('a snapshot', () => {
  it('of a machine with several vCPUs is of all of them', async () => {
    const { whole, resumed } = await twice({ kernel: guest('smp/smp.elf'), vcpus: 3, memory: '64M' }, 300_000);
    expect(whole.stopReason).toBe('poweroff');
    expect(resumed).toEqual(whole);
  });

  it.each([
    ['sync', 'sync'],
    ['off', 'on'],
  ] as const)('is the same to guests whose code is compiled: --jit %s, restored with %s', async (jit, later) => {
    const { whole, resumed } = await twice({ program: guest('tests/smc.elf'), jit }, 400_000, { jit: later });
    expect(resumed).toEqual(whole);
  });

  it('changes nothing in the run it is taken of', async () => {
    const options: VmOptions = { program: guest('tests/smc.elf') };
    const { whole } = await twice(options, 600_000);
    expect(await (await session(options)).outcome()).toEqual(whole);
  });

  it('can be taken before the machine runs, and of a restored machine', async () => {
    const fresh = await session({ kernel: ticker(3) });
    const first = await fresh.vm.save();
    const whole = await fresh.outcome();
    const again = await session({ restore: first });
    const second = await again.vm.save();
    await again.vm.dispose();
    expect(await (await session({ restore: second })).outcome()).toEqual(whole);
  });

  it('of a program that waits for input lets it wait for the input of the restored machine', async () => {
    const never: AsyncIterable<Uint8Array> = { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }) };
    const first = await session({ program: catOneByte(), stdin: never });
    const running = first.outcome();
    await new Promise((resolve) => setTimeout(resolve, 50));
    const snapshot = await first.vm.save({ stop: true });
    expect(await running).toMatchObject({ stopReason: 'saved', console: '' });
    expect(await (await session({ restore: snapshot, stdin: 'x' })).outcome()).toMatchObject({ console: 'x', stopReason: 'poweroff' });
  });

  it("lets the guest's time go on from where it was with the host's clock", async () => {
    const first = await session({ kernel: ticker(30), clock: 'host' });
    const saved = first.vm.save({ at: 200, stop: true });
    await first.outcome();
    const rest = await (await session({ restore: await saved })).outcome();
    expect(rest.stopReason).toBe('poweroff');
    expect(first.text.value.length + rest.console.length).toBe(30);
  });

  it('holds what a guest wrote to an overlay and to a disk in memory', async () => {
    const file = join(folder, 'disk.img');
    writeFileSync(file, new Uint8Array(65536).fill(1));
    const inMemory = new Uint8Array(65536);
    const drives = [{ file, snapshot: true }, { file: inMemory }];
    const { vm } = await session({ kernel: ticker(1), drives });
    const snapshot = await vm.save();
    await vm.dispose();
    await expect(createVm({ restore: snapshot })).rejects.toThrow('drive 1 of the snapshot was an image in memory');
    await (await createVm({ restore: snapshot, drives })).dispose();
    await expect(createVm({ restore: snapshot, drives: [{ file, snapshot: true }, { file: new Uint8Array(512) }] })).rejects.toThrow(/a disk has 512 bytes/);
    await expect(createVm({ restore: snapshot, drives: [{ file }, { file: inMemory }] })).rejects.toThrow(/machine with drives .*"snapshot":true/);
    appendFileSync(file, new Uint8Array(512));
    await expect(createVm({ restore: snapshot, drives })).rejects.toThrow(/disk.img: was changed after the snapshot/);
  });
});

describe('a snapshot file', () => {
  const path = join(folder, 'vm.pvmsnap');

  it('appears complete, says what it is of, and is restored by path', async () => {
    const { vm } = await session({ kernel: ticker(2), commandLine: 'quiet' });
    await vm.saveTo(path);
    await vm.dispose();
    expect(readdirSync(folder).filter((name) => name.startsWith('vm.'))).toEqual(['vm.pvmsnap']);
    const info = snapshotInfo(path);
    expect(info).toMatchObject({ isCurrent: true, instructions: '0', vcpus: 1, sources: { image: null, commandLine: 'quiet' } });
    expect(info.config).toMatchObject({ platform: 'pc', design: 'bare', memory: 16 << 20, clock: 'icount' });
    expect((await (await session({ restore: path })).outcome()).console).toBe('TT');
  });

  it('goes through a link or into a pipe, and leaves both what they are', async () => {
    const { vm } = await session({ kernel: stockKernel(powerOff) });
    const [target, link, pipe] = [join(folder, 'target'), join(folder, 'link'), join(folder, 'pipe')];
    writeFileSync(target, 'before');
    symlinkSync('target', link);
    await vm.saveTo(link);
    expect([readlinkSync(link), snapshotInfo(readFileSync(target)).config.platform]).toEqual(['target', 'pc']);
    execFileSync('mkfifo', [pipe]);
    const piped = buffer(spawn('cat', [pipe]).stdout);
    await vm.saveTo(pipe);
    expect([statSync(pipe).isFIFO(), snapshotInfo(await piped).config.platform]).toEqual([true, 'pc']);
    await vm.dispose();
  });

  it('is not written where it cannot be, and not of a machine that has ended', async () => {
    const { vm } = await session({ kernel: stockKernel(powerOff) });
    await expect(vm.saveTo(join(folder, 'no', 'where'))).rejects.toThrow(/cannot be written: no folder/);
    const late = expect(vm.save({ at: 1e9 })).rejects.toThrow('ended before the snapshot was due');
    await vm.run();
    await late;
    await expect(vm.save()).rejects.toThrow('the machine has ended');
    await expect(vm.saveTo(path)).rejects.toThrow('the machine has ended');
    await vm.dispose();
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  it.each([
    ['is empty', (b: Uint8Array) => b.subarray(0, 0), 'bad-snapshot', /is not a snapshot/],
    ['is something else', () => new TextEncoder().encode('hello, this is a text file'), 'bad-snapshot', /is not a snapshot/],
    ['is cut off', (b: Uint8Array) => b.subarray(0, b.length - 100), 'bad-snapshot', /damaged or cut off/],
    ['is cut off early', (b: Uint8Array) => b.subarray(0, 10), 'bad-snapshot', /cut off/],
    ['has a changed bit', (b: Uint8Array) => b.with(b.length >> 1, (b[b.length >> 1] ?? 0) ^ 4), 'bad-snapshot', /damaged/],
    ['has a changed bit in its header', (b: Uint8Array) => b.with(20, (b[20] ?? 0) ^ 4), 'bad-snapshot', /damaged/],
    ['has a changed bit at its end', (b: Uint8Array) => b.with(b.length - 40, (b.at(-40) ?? 0) ^ 4), 'bad-snapshot', /damaged/],
    ['has another format', (b: Uint8Array) => b.with(8, 99), 'snapshot-mismatch', /format 99, this version of pvm reads format 1/],
    ['is of another build', (b: Uint8Array) => sealed(b, '"layout":"', '"layout":"0'), 'snapshot-mismatch', /another build of pvm/],
    ['describes no machine', (b: Uint8Array) => sealed(b, '"platform":"pc"', '"platform":"tv"'), 'bad-snapshot', /describes no machine/],
    ['has an impossible option', (b: Uint8Array) => sealed(b, '"cpu":"v2"', '"cpu":"v9"'), 'bad-option', /option cpu/],
  ])('that %s is refused', async (_, change, code, message) => {
    const bytes = change(new Uint8Array(readFileSync(path)));
    await expect(createVm({ restore: bytes })).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it.each<[VmOptions, RegExp]>([
    [{ memory: '32M' }, /machine with memory 16777216, not 33554432/],
    [{ design: 'kvm-ept' }, /machine with design "bare", not "kvm-ept"/],
    [{ cpu: 'v3' }, /machine with cpu "v2", not "v3"/],
    [{ clock: 'host' }, /machine with clock "icount", not "host"/],
    [{ vsock: true }, /machine with vsock false, not true/],
    [{ vcpus: 2 }, /machine with vcpus 1, not 2/],
    [{ kernel: 'vmlinuz' }, /option kernel has no effect on a restored machine/],
    [{ drives: [{ file: new Uint8Array(512) }] }, /machine with drives \[\]/],
  ])('is refused by a machine with %o', async (options, message) => {
    await expect(createVm({ restore: path, ...options })).rejects.toMatchObject({ code: 'snapshot-mismatch', message: expect.stringMatching(message) });
  });
});

/** A static program whose headers and code are one page at 0x400000: read(0, buffer, 1); write(1, buffer, 1); exit_group(0). */
function catOneByte(): Uint8Array {
  const code = [
    ...[0x31, 0xc0, 0x31, 0xff, 0xbe, ...word(0x40_0800, 4), 0xba, ...word(1, 4), 0x0f, 0x05],
    ...[0xb8, ...word(1, 4), 0xbf, ...word(1, 4), 0x0f, 0x05],
    ...[0xb8, ...word(231, 4), 0x31, 0xff, 0x0f, 0x05],
  ];
  const ident = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, ...word(0, 9)];
  const header = [...ident, ...word(2, 2), ...word(62, 2), ...word(1, 4), ...word(0x40_0078, 8), ...word(64, 8), ...word(0, 8)];
  const sizes = [...word(0, 4), ...word(64, 2), ...word(56, 2), ...word(1, 2), ...word(0, 6)];
  const segment = [...word(1, 4), ...word(7, 4), ...word(0, 8), ...word(0x40_0000, 8), ...word(0x40_0000, 8), ...word(4096, 8), ...word(4096, 8)];
  const image = new Uint8Array(4096);
  image.set([...header, ...sizes, ...segment, ...word(4096, 8), ...code]);
  return image;
}

/** The snapshot with a part of its header replaced, and a checksum that is right. */
function sealed(bytes: Uint8Array, from: string, to: string): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = view.getUint32(12, true);
  const header = Buffer.from(
    Buffer.from(bytes.subarray(16, 16 + length))
      .toString()
      .replace(from, to),
  );
  const prefix = Buffer.from(bytes.subarray(0, 16));
  prefix.writeUInt32LE(header.length, 12);
  const body = Buffer.concat([prefix, header, bytes.subarray(16 + length, bytes.length - 32)]);
  return new Uint8Array(Buffer.concat([body, createHash('sha256').update(body).digest()]));
}

it('a snapshot whose values a part of the machine cannot use is refused as a bad one', async () => {
  await using vm = await createVm({ kernel: stockKernel(powerOff), jit: 'off', clock: 'icount', memory: '8M' });
  const snapshot = SnapshotReader.open(await vm.save());
  const { core, options } = vm as unknown as SavedMachine;
  const state = { state: () => void new Uint8Array(-1) };
  await expect(restoreMachine({ core, options, state }, snapshot)).rejects.toMatchObject({ code: 'bad-snapshot', cause: expect.any(RangeError) });
});
