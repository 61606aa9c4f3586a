import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { CpuCore } from './cpu.ts';
import { NO_LIMIT } from './cpu-options.ts';
import { ACCESS_READ, CS, EXIT_HLT, EXIT_IO, EXIT_LIMIT, EXIT_SHUTDOWN, S_EXIT_ACCESS, S_EXIT_VA, S_EXIT_VALUE, S_HOT_THRESHOLD } from './layout.ts';

/** `tests/guests/*.S`, assembled; loaded and entered at 0000:8000 in real mode. */
const LOAD = 0x8000;
const PORT_STEP = 0xe9;
const PORT_RAISE = 0xea;
const PORT_RAISE_LATER = 0xeb;
const PORT_NMI = 0xec;
const PORT_END = 0xf4;
const VECTOR = 0x55;
const NEVER = 2_000_000n;

interface Result {
  /** Numbers of the checks passed, in order. */
  readonly steps: number[];
  /** `K` when all were, `F` at the first failure. */
  readonly end: string;
  /** How the run ended afterwards. */
  readonly reason: number;
  readonly instructions: bigint;
  /** Regions compiled. */
  readonly regions: number;
}

async function run(guest: string, jit: 'off' | 'on' | 'sync'): Promise<Result> {
  const core = await CpuCore.create({ ramBytes: 16 << 20, jit });
  try {
    core.u8.set(readFileSync(new URL(`../tests/guests/${guest}.bin`, import.meta.url)), core.ramBase + LOAD);
    core.resetToReal(0);
    core.setSegment(0, CS, { selector: 0, base: 0n, limit: 0xffff, attr: 0x9b });
    core.modeChanged(0);
    core.setRip(0, BigInt(LOAD));
    const cpu = core.cpuAddress(0);
    const field = (offset: number) => core.view.getUint32(cpu + offset, true);
    if (jit !== 'off') core.view.setUint32(cpu + S_HOT_THRESHOLD, 2, true);
    const steps: number[] = [];
    let end = '';
    for (;;) {
      core.setLimit(0, end === '' && core.stats(0).instructions < NEVER ? NEVER : NO_LIMIT);
      let reason = core.run(0);
      while (reason === EXIT_IO) {
        const port = field(S_EXIT_VA) & 0xffff;
        const value = field(S_EXIT_VALUE) & 0xff;
        const reads = field(S_EXIT_ACCESS) === ACCESS_READ;
        core.completeIo(0, reads ? port & 0xff : 0);
        if (port === PORT_STEP) steps.push(value);
        else if (port === PORT_END) end += String.fromCharCode(value);
        else if (port === PORT_NMI) core.setNmi(0);
        else if (port === PORT_RAISE) core.setInterrupt(0, VECTOR);
        else if (port === PORT_RAISE_LATER) core.setLimit(0, core.stats(0).instructions + 1000n);
        reason = core.run(0);
      }
      if (reason === EXIT_HLT && core.interruptible(0)) continue;
      if (reason === EXIT_LIMIT && core.stats(0).instructions < NEVER) {
        core.setInterrupt(0, VECTOR);
        continue;
      }
      return { steps, end, reason, instructions: core.stats(0).instructions, regions: core.stats(0).jit?.regions ?? 0 };
    }
  } finally {
    await core.dispose();
  }
}

const GUESTS = [
  { guest: 'long-mode', checks: 14, what: 'goes from real to long mode, takes every kind of event, and ends in a triple fault' },
  { guest: 'protection', checks: 6, what: 'sees pages, ports and privilege levels protected, and SYSENTER, call gates, PCIDs and NMIs work' },
] as const;

describe.each(GUESTS)('a guest that $what', ({ guest, checks }) => {
  const counts = new Map<string, bigint>();
  for (const jit of ['off', 'on', 'sync'] as const) {
    test(`finds everything right (JIT ${jit})`, async () => {
      const result = await run(guest, jit);
      expect(result.steps).toEqual(Array.from({ length: checks }, (_, i) => i + 1));
      expect(result.end).toBe('K');
      expect(result.reason).toBe(EXIT_SHUTDOWN);
      counts.set(jit, result.instructions);
    });
  }
  test('retires the same instructions whether and when code is compiled', () => {
    expect([counts.get('on'), counts.get('sync')]).toEqual([counts.get('off'), counts.get('off')]);
  });
});

describe('32-bit code with flat segments', () => {
  test('computes the same interpreted and compiled, and is interpreted while a segment is not flat', async () => {
    const interpreted = await run('flat32', 'off');
    const compiled = await run('flat32', 'sync');
    expect(interpreted.end).toBe('K');
    expect(interpreted.steps).toHaveLength(5);
    expect({ ...compiled, regions: 0 }).toEqual(interpreted);
    expect(compiled.regions).toBeGreaterThan(5);
  });
});
