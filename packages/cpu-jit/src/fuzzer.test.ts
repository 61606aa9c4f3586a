import { afterAll, beforeAll, expect, test } from 'vitest';
import { type FuzzOptions, fuzz, fuzzDifferences } from '../tests/fuzzer.ts';
import { randomProgram } from '../tests/random-program.ts';
import { Tier } from '../tests/tiers.ts';
import { handlerForms } from './interp/handler-forms.ts';
import { PARTS } from './interp/handler-table.ts';

let wrong: Tier;
let interpreter: Tier;
let compiler: Tier;
beforeAll(async () => {
  wrong = await Tier.create(false);
  interpreter = await Tier.create(false);
  compiler = await Tier.create(true);
  // Plant a bug in one instance of the interpreter: SBB does what SUB does, borrow or not.
  const { table } = wrong.core;
  const list = handlerForms(PARTS.base).map((form, i) => ({ form, index: PARTS.base.first + i }));
  const key = ({ row, opSize, isMem }: (typeof list)[number]['form']) => `${row.operands.join()} ${opSize} ${isMem}`;
  const sub = new Map(list.filter(({ form }) => form.row.name === 'sub').map(({ form, index }) => [key(form), index]));
  for (const { form, index } of list) if (form.row.name === 'sbb') table.set(index, table.get(sub.get(key(form)) ?? index));
});
afterAll(async () => {
  for (const tier of [wrong, interpreter, compiler]) await tier.core.dispose();
});
const MOST_PROGRAMS = 60;
const options = (first: Tier): FuzzOptions => ({
  interpreter: first,
  compiler,
  seed: 1n,
  kinds: ['integer'],
  skipped: new Set(),
  goOn: (programs) => programs < MOST_PROGRAMS,
});

test('a planted bug is found by the fuzzer, named by its seed, and shrunk to at most three instructions that still show it', () => {
  const reported: bigint[] = [];
  const { failure } = fuzz(options(wrong), (seed) => reported.push(seed));
  if (failure === undefined) throw new Error(`not found in ${MOST_PROGRAMS} programs`);
  expect(reported).toEqual([failure.seed]);
  expect(failure.listing.length).toBeLessThanOrEqual(3);
  expect(failure.listing.join('\n')).toContain('sbb');
  expect(failure.differences.length).toBeGreaterThan(0);
  // What is left shows the bug and nothing else: the tier without it agrees.
  const { machine } = randomProgram(failure.seed, { kinds: ['integer'], size: 1, faults: 0, selfModifying: false });
  const program = { seed: failure.seed, nodes: failure.nodes, machine };
  expect(fuzzDifferences(options(wrong), failure.nodes, program, failure.run)).not.toEqual([]);
  expect(fuzzDifferences(options(interpreter), failure.nodes, program, failure.run)).toEqual([]);
}, 120_000);

test('a run of the fuzzer again, from the seed that it named, fails in the same way', () => {
  const first = fuzz(options(wrong), () => {});
  const seed = first.failure?.seed ?? 0n;
  const again = fuzz({ ...options(wrong), seed, goOn: (programs) => programs < 1 }, () => {});
  expect(again.failure?.listing).toEqual(first.failure?.listing);
}, 120_000);
