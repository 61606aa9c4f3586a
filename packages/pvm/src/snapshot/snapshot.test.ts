import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createVm, DESIGN_NAMES, designInfo, snapshotInfo, type Vm, type VmOptions } from '../index.ts';
import { COM1, echo, out, outImmediate, powerOff, start, stockKernel, TIMER_VECTOR, waitForTimer, word } from '../testing/stock-guest.ts';

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
});
