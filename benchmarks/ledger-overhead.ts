// What the exit ledger costs: the same runs with the ledger sampling, timing all exits, and off, in turns; the fastest of each. JSON lines.
//
//   node -C source benchmarks/ledger-overhead.ts [ROUNDS]
import { benchPath, demoPath } from '../guests/src/index.ts';
import { createVm, type LedgerTiming, type VmOptions } from '../packages/pvm/src/index.ts';

const ROUNDS = Number(process.argv[2] ?? 6);

const TIMINGS: readonly LedgerTiming[] = ['sampled', 'all', 'off'];

const WORKLOADS: Readonly<Record<string, VmOptions>> = {
  'demo program': { program: demoPath },
  'page faults': { program: benchPath, args: ['fault', '1024'] },
  getpid: { program: benchPath, args: ['getpid', '1000000'] },
  'hypercalls only': { program: benchPath, args: ['hypercall', '3000000'] },
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

for (const [workload, options] of Object.entries(WORKLOADS)) {
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
  const overhead = (timing: LedgerTiming) => Number((100 * (Math.min(...ms[timing]) / base - 1)).toFixed(2));
  const result = { workload, exits, offMs: Number(base.toFixed(2)), overheadPercent: { sampled: overhead('sampled'), all: overhead('all') } };
  console.log(JSON.stringify(result));
}
