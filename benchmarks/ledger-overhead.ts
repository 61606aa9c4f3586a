// What the exit ledger costs: the same runs with the ledger sampling, timing all exits, and off, in turns. JSON lines, or all of it into a file.
// `overheadPercent` compares the fastest runs, `medianPercent` is the median over the rounds, which other load on the machine disturbs less.
//
//   node -C source benchmarks/ledger-overhead.ts [--rounds N] [--only WORKLOAD,...] [--json FILE]
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { benchPath, demoPath } from '../guests/src/index.ts';
import { createVm, type LedgerTiming, type VmOptions } from '../packages/pvm/src/index.ts';
import { describeMachine } from './src/machine.ts';
import { median } from './src/statistics.ts';

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '9' }, only: { type: 'string' }, json: { type: 'string' } } });
const ROUNDS = Number(values.rounds);
if (!Number.isInteger(ROUNDS) || ROUNDS < 1) throw new RangeError(`--rounds: expected a whole number from 1, got ${values.rounds}`);
const only = values.only?.split(',');

const TIMINGS: readonly LedgerTiming[] = ['sampled', 'all', 'off'];

const WORKLOADS: Readonly<Record<string, VmOptions>> = {
  'demo program': { program: demoPath },
  'page faults': { program: benchPath, args: ['fault', '1024'] },
  getpid: { program: benchPath, args: ['getpid', '1000000'] },
  'hypercalls only': { program: benchPath, args: ['hypercall', '3000000'] },
  'hypercalls only, kvm-ept': { program: benchPath, args: ['hypercall', '3000000'], design: 'kvm-ept' },
  'page faults, kvm-spt': { program: benchPath, args: ['fault', '512'], design: 'kvm-spt' },
};

/** CPU time of one run, ms: other work on the machine disturbs it less than the time of day. */
async function time(options: VmOptions, ledger: LedgerTiming): Promise<{ ms: number; exits: number }> {
  const vm = await createVm({ ...options, clock: 'icount', jit: 'sync', ledger });
  try {
    const before = process.cpuUsage();
    const { summary } = await vm.run();
    const { user, system } = process.cpuUsage(before);
    return { ms: (user + system) / 1000, exits: summary.exits };
  } finally {
    await vm.dispose();
  }
}

const percent = (ratio: number): number => Number((100 * (ratio - 1)).toFixed(2));
const results: object[] = [];
for (const [workload, options] of Object.entries(WORKLOADS).filter(([name]) => only === undefined || only.includes(name))) {
  const ms: Record<LedgerTiming, number[]> = { sampled: [], all: [], off: [] };
  let exits = 0;
  await time(options, 'off');
  for (let round = 0; round < ROUNDS; round++) {
    for (let turn = 0; turn < TIMINGS.length; turn++) {
      // Each comes first, second and last equally often.
      const ledger = TIMINGS[(round + turn) % TIMINGS.length] ?? 'off';
      const run = await time(options, ledger);
      ms[ledger].push(run.ms);
      if (ledger !== 'off') exits = run.exits;
    }
  }
  const base = Math.min(...ms.off);
  const fastest = (timing: LedgerTiming) => percent(Math.min(...ms[timing]) / base);
  const middle = (timing: LedgerTiming) => percent(median(ms[timing].map((t, round) => t / (ms.off[round] ?? Number.NaN))));
  results.push({
    workload,
    exits,
    offMs: Number(base.toFixed(2)),
    overheadPercent: { sampled: fastest('sampled'), all: fastest('all') },
    medianPercent: { sampled: middle('sampled'), all: middle('all') },
  });
  console.log(JSON.stringify(results.at(-1)));
}
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ machine: describeMachine(), rounds: ROUNDS, results }, undefined, 1)}\n`);
