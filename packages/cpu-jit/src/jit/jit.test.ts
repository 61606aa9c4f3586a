import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CpuCore } from '../cpu.ts';
import { EXIT_HLT, INTERCEPT_HLT, S_HOT_THRESHOLD, V_INTERCEPTS, V_NATIVE } from '../layout.ts';

const CODE = 0x1000;
const SIZE = 0x2000;
/** mov ecx, 40; loop: add eax, n (as often as `length` says); dec ecx; jnz loop; hlt */
function program(n: number, length: number): Uint8Array {
  const body = Array.from({ length }, () => [0x05, n & 0xff, (n >> 8) & 0xff, 0, 0]).flat();
  const back = body.length + 2 + 6;
  const jump = [0x0f, 0x85, ...[0, 8, 16, 24].map((shift) => (-back >> shift) & 0xff)];
  return Uint8Array.from([0xb9, 40, 0, 0, 0, ...body, 0xff, 0xc9, ...jump, 0xf4]);
}

describe('compiled code', () => {
  let core: CpuCore;
  beforeAll(async () => {
    core = await CpuCore.create({ ramBytes: 1 << 20, jit: 'sync', codeBytes: 100_000 });
    core.u32[(core.cpuAddress(0) + S_HOT_THRESHOLD) >>> 2] = 16;
    core.enterFlat(0, 'protected', { rip: 0n });
    core.u32[(core.cpuAddress(0) + V_NATIVE) >>> 2] = 1;
    core.u32[(core.cpuAddress(0) + V_INTERCEPTS) >>> 2] = INTERCEPT_HLT;
  });
  afterAll(() => core.dispose());

  /** Runs a program at `at` and returns EAX. */
  const run = (code: Uint8Array, at: number): number => {
    core.u8.set(code, core.ramBase + at);
    core.dirtyCode(core.ramBase + at, code.length);
    core.setReg(0, 0, 0n);
    core.setRip(0, BigInt(at));
    expect(core.run(0)).toBe(EXIT_HLT);
    return Number(core.getReg(0, 0));
  };

  it('of code that is overwritten goes, and its table slots are used again', () => {
    const places = core.table.length;
    for (let n = 1; n < 60; n++) expect(run(program(n, 20), CODE)).toBe(n * 20 * 40);
    const { jit } = core.stats();
    expect(jit?.regions).toBeGreaterThanOrEqual(59);
    expect(jit?.liveRegions).toBeLessThan(5);
    expect(jit?.evictions).toBe(0);
    expect(core.table.length).toBe(places);
  });

  it('comes again when only the end of its region has changed', () => {
    const at = CODE + 3 * SIZE;
    const far = 128;
    /** loop: add eax, 1; dec ecx; jnz loop; jmp far */
    const loop = [0x05, 1, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf7, 0xe9, far - 14, 0, 0, 0];
    core.u8.set(loop, core.ramBase + at);
    /** far: add eax, n; hlt */
    const end = (n: number) => [0x05, n, 0, 0, 0, 0xf4];
    const runLoop = (turns: number): number => {
      core.setReg(0, 0, 0n);
      core.setReg(0, 1, BigInt(turns));
      core.setRip(0, BigInt(at));
      expect(core.run(0)).toBe(EXIT_HLT);
      return Number(core.getReg(0, 0));
    };
    core.u8.set(end(9), core.ramBase + at + far);
    // What follows the loop has run often enough to be taken in when the loop becomes hot.
    for (let i = 0; i < 10; i++) expect(runLoop(1)).toBe(10);
    expect(runLoop(100)).toBe(109);
    core.u8.set(end(7), core.ramBase + at + far);
    core.dirtyCode(core.ramBase + at + far, end(7).length);
    const before = core.stats().compiledInstructions;
    expect(runLoop(10_000)).toBe(10_007);
    expect(core.stats().compiledInstructions - before).toBeGreaterThan(29_000);
  });

  it('is bounded: all of it goes when there is too much', () => {
    for (let n = 1; n < 80; n++) {
      expect(run(program(n, 100), CODE + SIZE + n * SIZE)).toBe(n * 100 * 40);
      // The last region comes on top.
      expect(core.stats().jit?.liveBytes).toBeLessThan(140_000);
    }
    expect(core.stats().jit?.evictions).toBeGreaterThan(0);
    expect(core.stats().jit?.liveRegions).toBeGreaterThan(0);
  });

  it('says how many instructions it retired, and why it came back', () => {
    const { instructions, compiledInstructions, compiledCodeLeft, compiledEntries } = core.stats();
    expect(compiledInstructions).toBeGreaterThan(Number(instructions) / 3);
    expect(compiledInstructions).toBeLessThan(Number(instructions));
    expect(compiledCodeLeft.reduce((sum, n) => sum + n, 0)).toBe(compiledEntries);
  });
});

describe('code that is stored', () => {
  const folder = mkdtempSync(join(tmpdir(), 'pvm-jit-'));
  const codeCache = join(folder, 'a.pvm-code');
  afterAll(() => rmSync(folder, { recursive: true }));

  /** Runs a program at each of these places, twice; `change` is written over its first bytes in between. */
  async function run(places: readonly number[], change: readonly number[] = []) {
    const core = await CpuCore.create({ ramBytes: 1 << 20, codeCache });
    core.enterFlat(0, 'protected', { rip: 0n });
    core.u32[(core.cpuAddress(0) + S_HOT_THRESHOLD) >>> 2] = 16;
    core.u32[(core.cpuAddress(0) + V_NATIVE) >>> 2] = 1;
    core.u32[(core.cpuAddress(0) + V_INTERCEPTS) >>> 2] = INTERCEPT_HLT;
    // What is stored has arrived.
    await core.compiled();
    const results: number[] = [];
    for (const at of places) {
      for (const code of [program(3, 20), Uint8Array.from(change)]) {
        core.u8.set(code, core.ramBase + at);
        core.dirtyCode(core.ramBase + at, code.length);
        core.setReg(0, 0, 0n);
        core.setRip(0, BigInt(at));
        expect(core.run(0)).toBe(EXIT_HLT);
        results.push(Number(core.getReg(0, 0)));
        await core.compiled();
      }
    }
    const { jit, instructions, compiledInstructions } = core.stats();
    await core.dispose();
    return { results, instructions, compiledInstructions, regions: jit?.regions, reused: jit?.reused };
  }

  it('runs in the next run from the first time on, with the same results, wherever it lies in a page of its own', async () => {
    const first = await run([CODE]);
    expect(first).toMatchObject({ results: [2400, 2400], regions: 1, reused: 0 });
    expect(readdirSync(folder)).toEqual(['a.pvm-code']);
    const second = await run([CODE, CODE + SIZE]);
    expect(second).toMatchObject({ results: [2400, 2400, 2400, 2400], regions: 0, reused: 2, instructions: first.instructions * 2n });
    // All but the first instruction of each run, up to the loop.
    expect(second.compiledInstructions).toBeGreaterThan(Number(second.instructions) * 0.95);
  });
  it('is not used for code that differs by now', async () => {
    // mov ecx, 20 instead of 40, and add eax, 4 instead of 3 the first of twenty times.
    expect(await run([CODE], [0xb9, 20, 0, 0, 0, 0x05, 4])).toMatchObject({ results: [2400, 20 * 61], reused: 1 });
  });
});
