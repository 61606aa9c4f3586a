import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { assemble, CODE_BYTES, shrink, weight } from '../tests/program.ts';
import { randomMachine, randomProgram } from '../tests/random-program.ts';
import { describeEnd, readPrograms } from '../tests/recorded-programs.ts';
import { compareRuns, type RunOptions, Tier } from '../tests/tiers.ts';

const HLT = 0xf4;
const folder = mkdtempSync(join(tmpdir(), 'pvm-random-'));
afterAll(() => rmSync(folder, { recursive: true }));
let interpreter: Tier;
let compiler: Tier;
beforeAll(async () => {
  interpreter = await Tier.create(false);
  compiler = await Tier.create(true);
});

describe('programs recorded on silicon', () => {
  const programs = readPrograms();
  const replay = (tier: Tier, list: typeof programs): string[] => {
    const found: string[] = [];
    for (const { seed, code, ...recorded } of list) {
      const bytes = new Uint8Array(CODE_BYTES).fill(HLT);
      bytes.set(Buffer.from(code, 'hex'));
      tier.load(bytes, randomMachine(BigInt(seed)));
      const end = tier.run({ warm: true }).at(-1);
      if (end === undefined) throw new Error('a run has an end');
      const got = describeEnd(end.vector, end);
      if (JSON.stringify(got) !== JSON.stringify(recorded)) found.push(`seed ${seed}: ${JSON.stringify({ got, recorded })}`);
    }
    return found;
  };

  test('end the same interpreted', () => {
    expect(replay(interpreter, programs)).toEqual([]);
  });
  test('end the same compiled', () => {
    expect(
      replay(
        compiler,
        programs.filter((_, i) => i % 9 === 0),
      ),
    ).toEqual([]);
    expect(compiler.core.stats(0).compiledEntries).toBeGreaterThan(0);
  });
});

describe('both tiers', () => {
  let stops = 0;
  const compare = (seeds: number, options: (n: number) => RunOptions, selfModifying = false): string[] => {
    const found: string[] = [];
    for (let n = 0; n < seeds; n++) {
      const program = randomProgram(BigInt(1000 + n), { kinds: ['integer', 'sse', 'x87'], size: 20 + n * 3, faults: n % 3 === 0 ? 40 : 0, selfModifying });
      const code = assemble(program.nodes);
      const run = (tier: Tier) => {
        tier.load(code, program.machine, n % 2 === 0);
        return tier.run(options(n));
      };
      const expected = run(interpreter);
      stops += expected.length - 1;
      found.push(...compareRuns(expected, run(compiler)).map((line) => `seed ${program.seed}: ${line}`));
    }
    return found;
  };

  test('end with the same registers, memory, retired instructions and faults', () => {
    expect(compare(36, (n) => ({ warm: n % 4 !== 0 }))).toEqual([]);
  });
  test('stop for the instruction limit at the same points', () => {
    stops = 0;
    expect(compare(28, (n) => ({ interval: 1 + (n % 23), warm: n % 4 !== 0 }))).toEqual([]);
    expect(stops).toBeGreaterThan(100);
  });
  test('take interrupts between the same instructions', async () => {
    const tiers = [await Tier.create(false), await Tier.create(true)] as const;
    for (const tier of tiers) tier.takeInterrupts();
    const found: string[] = [];
    let taken = 0n;
    for (let n = 0; n < 24; n++) {
      const program = randomProgram(BigInt(2000 + n), {
        kinds: ['integer', 'sse', 'x87'],
        size: 40 + n * 4,
        faults: n % 3 === 0 ? 40 : 0,
        selfModifying: n % 2 === 0,
      });
      const code = assemble(program.nodes);
      const [a, b] = tiers.map((tier) => {
        tier.load(code, program.machine);
        return tier.run({ interval: 9 + ((n * 7) % 31), warm: n % 4 !== 0 });
      });
      if (a === undefined || b === undefined) throw new Error('there are two tiers');
      found.push(...compareRuns(a, b).map((line) => `seed ${program.seed}: ${line}`));
      const log = a.at(-1)?.log;
      if (log !== undefined) taken += new DataView(log.buffer, log.byteOffset).getBigUint64(0, true);
    }
    expect(found).toEqual([]);
    expect(taken).toBeGreaterThan(50n);
    expect(tiers[1].core.stats(0).compiledEntries).toBeGreaterThan(0);
    for (const tier of tiers) await tier.core.dispose();
  });
  test('see code that changes itself', () => {
    expect(compare(24, (n) => ({ warm: n % 2 === 0 }), true)).toEqual([]);
  });
});

/** Runs random programs with code that is compiled beside them, and kept in `codeCache`; returns how many regions of it were used. */
async function compareWithBackground(codeCache: string): Promise<number> {
  const [expecting, tier] = [await Tier.create(false), await Tier.create(true, true, 'v2', codeCache)];
  for (const t of [expecting, tier]) t.takeInterrupts();
  const found: string[] = [];
  const ROUNDS = 6;
  let compiledEntries = 0;
  let stops = 0;
  for (let n = 0; n < 10; n++) {
    const program = randomProgram(BigInt(3000 + n), { kinds: ['integer', 'sse'], size: 20 + n * 4, faults: n % 3 === 0 ? 40 : 0, selfModifying: n % 2 === 0 });
    const code = assemble(program.nodes);
    const options: RunOptions = { interval: n % 3 === 1 ? 0 : 9 + ((n * 7) % 31) };
    expecting.load(code, program.machine);
    const expected = expecting.run(options);
    stops += expected.length - 1;
    tier.load(code, program.machine);
    found.push(...compareRuns(expected, tier.run(options)));
    // The compiler's thread needs a while to start.
    for (let round = 0; round < ROUNDS || (compiledEntries === 0 && round < 400); round++) {
      await new Promise((done) => setTimeout(done, (round % ROUNDS) * 5));
      found.push(...compareRuns(expected, tier.again(options)).map((line) => `seed ${program.seed}, round ${round}: ${line}`));
      compiledEntries += tier.core.stats(0).compiledEntries;
    }
  }
  expect(found).toEqual([]);
  expect(compiledEntries).toBeGreaterThan(0);
  expect(stops).toBeGreaterThan(20);
  const reused = tier.core.stats().jit?.reused ?? 0;
  for (const t of [expecting, tier]) await t.core.dispose();
  return reused;
}

test('code compiled in the background may replace interpreted code at any time, between interrupts, faults and changes of the code', async () => {
  await compareWithBackground(join(folder, 'a.pvm-code'));
});

test('code of an earlier run may run from the first time on', async () => {
  expect(await compareWithBackground(join(folder, 'a.pvm-code'))).toBeGreaterThan(10);
});

test('shrinking keeps what fails and drops the rest', () => {
  const { nodes } = randomProgram(5n, { kinds: ['integer'], size: 100, faults: 0, selfModifying: false });
  const hasLoop = (list: typeof nodes): boolean =>
    list.some((n) => n.kind === 'loop' || ('body' in n && hasLoop(n.body)) || (n.kind === 'if' && (hasLoop(n.yes) || hasLoop(n.no))));
  expect(hasLoop(nodes)).toBe(true);
  expect(weight(shrink(nodes, hasLoop))).toBe(1);
});
