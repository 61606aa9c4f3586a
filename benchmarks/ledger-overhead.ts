// What the exit ledger costs: a machine's ledger is set to `off`, `sampled` (the default) and `all` in turns, for a round of equal work each, in an order that changes; a round is
// compared with the one without a ledger beside it, by the processor time of the machine's thread. JSON lines, or all of it into a file.
//
//   node -C source benchmarks/ledger-overhead.ts [--machines N] [--rounds N] [--only WORKLOAD,...] [--json FILE]
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { createVm, type DesignName, type LedgerTiming, type Vm } from '../packages/pvm/src/index.ts';
import { threadCpuNs } from '../packages/pvm/src/summary.ts';
import { buildProgram } from './src/build.ts';
import { describeMachine } from './src/machine.ts';
import { median } from './src/statistics.ts';
import { endsRound } from './src/turns.ts';

interface Workload {
  readonly name: string;
  readonly kind: 'fault' | 'getpid' | 'hypercall';
  readonly design: DesignName;
  /** Operations of a round, which then lasts some 5 ms. */
  readonly operations: number;
}

const WORKLOADS: readonly Workload[] = [
  { name: 'page faults', kind: 'fault', design: 'pvm', operations: 2048 },
  { name: 'page faults (kvm-spt)', kind: 'fault', design: 'kvm-spt', operations: 2048 },
  { name: 'page faults (kvm-ept)', kind: 'fault', design: 'kvm-ept', operations: 4096 },
  { name: 'getpid', kind: 'getpid', design: 'pvm', operations: 40_000 },
  { name: 'hypercalls only', kind: 'hypercall', design: 'pvm', operations: 20_000 },
  { name: 'hypercalls only (kvm-ept)', kind: 'hypercall', design: 'kvm-ept', operations: 20_000 },
];
const ORDERS: readonly (readonly LedgerTiming[])[] = [
  ['off', 'sampled', 'all'],
  ['sampled', 'all', 'off'],
  ['all', 'off', 'sampled'],
  ['off', 'all', 'sampled'],
  ['sampled', 'off', 'all'],
  ['all', 'sampled', 'off'],
];
/** A quarter of the rounds goes by until hot code is compiled and the ledger samples as seldom as it does in a long run. */
const WARM_UP = 0.25;
/** With fewer in a round, time is not told per exit. */
const MANY_EXITS = 1000;

const { values } = parseArgs({
  options: {
    machines: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '600' },
    only: { type: 'string' },
    json: { type: 'string' },
  },
});

function positive(option: 'machines' | 'rounds', least: number, most: number): number {
  const n = Number(values[option]);
  if (!Number.isInteger(n) || n < least || n > most)
    throw new RangeError(`--${option}: expected a whole number from ${least} to ${most}, got ${values[option]}`);
  return n;
}
const machines = positive('machines', 1, 100);
const rounds = positive('rounds', 40, 1000);
const only = values.only?.split(',');

interface Measured {
  /** Processor time of rounds, ns, by timing; those with the same index are neighbours. */
  readonly ns: Readonly<Record<LedgerTiming, number[]>>;
  readonly exitsOfRound: number;
}

async function measure({ kind, design, operations }: Workload): Promise<Measured> {
  const ns: Record<LedgerTiming, number[]> = { off: [], sampled: [], all: [] };
  let done = 0;
  let begun = 0;
  let exits = 0;
  let timing: LedgerTiming = 'sampled';
  const late: { vm?: Vm } = {};
  const onConsole = (chunk: Uint8Array): undefined => {
    if (!endsRound(chunk) || late.vm === undefined) return;
    const spent = threadCpuNs() - begun;
    const { ledger } = late.vm;
    if (done === 1) exits = ledger.totalExits - exits;
    if (done === 0) exits = ledger.totalExits;
    done++;
    const warmUp = Math.floor(rounds * WARM_UP);
    if (done > warmUp) {
      const i = done - warmUp - 1;
      if (i > 0) ns[timing].push(spent);
      timing = ORDERS[Math.floor(i / 3) % ORDERS.length]?.[i % 3] ?? 'off';
      ledger.timing = timing;
    }
    begun = threadCpuNs();
  };
  const environment = { EXITS_KIND: kind, EXITS_OPERATIONS: String(operations) };
  await using vm = await createVm({
    program: buildProgram('exits'),
    args: [String(rounds), 'live'],
    env: environment,
    design,
    clock: 'icount',
    jit: 'sync',
    onConsole,
  });
  late.vm = vm;
  const { exitCode } = await vm.run();
  if (exitCode !== 0) throw new Error(`the guest's program ended with exit code ${exitCode}`);
  return { ns, exitsOfRound: exits };
}

const rounded = (n: number) => Number(n.toFixed(2));
const results: object[] = [];
for (const workload of WORKLOADS.filter(({ name }) => only === undefined || only.includes(name))) {
  const all: Measured[] = [];
  for (let machine = 0; machine < machines; machine++) all.push(await measure(workload));
  const exits = all[0]?.exitsOfRound ?? Number.NaN;
  const added = (timing: LedgerTiming) => all.flatMap(({ ns }) => ns[timing].slice(0, ns.off.length).map((t, i) => t - (ns.off[i] ?? Number.NaN)));
  const off = median(all.flatMap(({ ns }) => ns.off));
  const perExit = (ns: number) => (exits < MANY_EXITS ? {} : { nsPerExit: rounded(ns / exits) });
  const cost = (timing: LedgerTiming) => ({ percent: rounded((100 * median(added(timing))) / off), ...perExit(median(added(timing))) });
  results.push({ workload: workload.name, exitsOfRound: exits, roundUs: rounded(off / 1000), ...perExit(off), sampled: cost('sampled'), all: cost('all') });
  console.log(JSON.stringify(results.at(-1)));
}
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ machine: describeMachine(), machines, rounds, results }, undefined, 1)}\n`);
