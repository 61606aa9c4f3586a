import { type BenchKind, benchPath } from '@pvm/guests';
import { createVm, type Interval, PvmError } from '@pvm/pvm';
import type { Argv, CommandModule, Options } from 'yargs';
import { TABLE_COMMANDS } from './bench-tables.ts';
import { MACHINE_OPTIONS, type MachineArgs, machineSettings } from './machine-options.ts';

/** One row of a benchmark: what is measured, how often by default, and what counts as one operation. */
interface BenchRow {
  readonly name: string;
  readonly kind: BenchKind;
  readonly iterations: number;
  /** Operations per iteration of the guest's loop. */
  readonly opsPerIteration: number;
}

const PAGES_PER_MIB = 256;
const EXIT_ROWS: readonly BenchRow[] = [
  { name: 'getpid', kind: 'getpid', iterations: 1_000_000, opsPerIteration: 1 },
  { name: 'hypercall', kind: 'hypercall', iterations: 200_000, opsPerIteration: 1 },
  { name: 'exception', kind: 'exception', iterations: 200_000, opsPerIteration: 1 },
  { name: 'msr-read', kind: 'msr-read', iterations: 200_000, opsPerIteration: 1 },
  { name: 'msr-write', kind: 'msr-write', iterations: 200_000, opsPerIteration: 1 },
  { name: 'cpuid', kind: 'cpuid', iterations: 200_000, opsPerIteration: 1 },
  { name: 'cpuid-synthetic', kind: 'cpuid-synthetic', iterations: 200_000, opsPerIteration: 1 },
  { name: 'pio-in', kind: 'pio-in', iterations: 200_000, opsPerIteration: 1 },
  { name: 'pio-out', kind: 'pio-out', iterations: 200_000, opsPerIteration: 1 },
];

/** Options of `bench exits` and `bench faults` beside those of every machine, for yargs. */
export const BENCH_OPTIONS: Readonly<Record<string, Options>> = {
  clock: { choices: ['host', 'icount'], default: 'icount', requiresArg: true, describe: "The guest's clock; host time is measured either way" },
  scale: { type: 'number', default: 1, requiresArg: true, describe: 'exits: multiplies the number of operations' },
  // The loop runs once before it is measured: compiled at once, all of the measured part is steady state.
  jit: { ...MACHINE_OPTIONS['jit'], default: 'sync' },
  mib: { type: 'number', default: 1024, requiresArg: true, describe: 'faults: stop when so many MiB were touched' },
  json: { type: 'boolean', default: false, describe: 'JSON on stdout and nothing else' },
};

interface BenchArgs extends MachineArgs {
  readonly clock: 'host' | 'icount';
  readonly json: boolean;
  readonly scale: number;
  readonly mib: number;
}

/** Result of one row, as `--json` prints it. */
export interface BenchOp {
  readonly name: string;
  readonly ops: number;
  readonly exitsPerOp: number;
  readonly worldSwitchesPerOp: number;
  readonly nsPerOp: number;
  readonly instructionsPerOp: number;
  readonly exitsByReason: Readonly<Record<string, number>>;
}

function toOp(row: BenchRow, ops: number, i: Interval): BenchOp {
  const per = (n: number) => Number((n / ops).toFixed(4));
  return {
    name: row.name,
    ops,
    exitsPerOp: per(i.exits),
    worldSwitchesPerOp: per(i.worldSwitches),
    nsPerOp: Number((i.ns / ops).toFixed(1)),
    instructionsPerOp: per(Number(i.instructions)),
    exitsByReason: Object.fromEntries(i.byReason.map((r) => [r.sub === '' ? r.reason : `${r.reason} ${r.sub}`, r.count])),
  };
}

/** Runs one loop in a fresh machine. The guest runs it once to warm up, then marks the measured part. */
async function measure(row: BenchRow, iterations: number, a: BenchArgs): Promise<BenchOp> {
  const vm = await createVm({ ...machineSettings(a), program: benchPath, argv0: 'bench', args: [row.kind, String(iterations)], clock: a.clock });
  try {
    const result = await vm.run();
    const marked = result.intervals.at(-1);
    if (result.exitCode !== 0 || marked === undefined) throw new PvmError('wrong-state', `the ${row.name} benchmark ended with exit code ${result.exitCode}`);
    return toOp(row, iterations * row.opsPerIteration, marked);
  } finally {
    await vm.dispose();
  }
}

function print(ops: readonly BenchOp[], json: boolean): void {
  if (json) {
    process.stdout.write(`${JSON.stringify({ ops })}\n`);
    return;
  }
  const rows = [
    ['operation', 'operations', 'exits/op', 'world switches/op', 'ns/op', 'instructions/op', 'exits by reason'],
    ...ops.map((o) => [
      o.name,
      o.ops.toLocaleString('en-US'),
      o.exitsPerOp.toFixed(3),
      o.worldSwitchesPerOp.toFixed(3),
      o.nsPerOp.toFixed(1),
      o.instructionsPerOp.toFixed(1),
      Object.entries(o.exitsByReason)
        .map(([reason, n]) => `${reason} ${n.toLocaleString('en-US')}`)
        .join(', '),
    ]),
  ];
  const widths = (rows[0] ?? []).map((_, c) => Math.max(...rows.map((r) => r[c]?.length ?? 0)));
  const isText = (c: number) => c === 0 || c === widths.length - 1;
  for (const r of rows) {
    process.stdout.write(
      `${r
        .map((cell, c) => (isText(c) ? cell.padEnd(widths[c] ?? 0) : cell.padStart(widths[c] ?? 0)))
        .join('  ')
        .trimEnd()}\n`,
    );
  }
}

async function measureLoops(what: 'exits' | 'faults', a: BenchArgs): Promise<void> {
  if (!(a.scale > 0)) throw new PvmError('bad-option', `option --scale: expected a positive number, got ${a.scale}`);
  if (!Number.isInteger(a.mib) || a.mib < 1) throw new PvmError('bad-option', `option --mib: expected a positive whole number, got ${a.mib}`);
  const rows: readonly BenchRow[] = what === 'exits' ? EXIT_ROWS : [{ name: 'page-fault', kind: 'fault', iterations: a.mib, opsPerIteration: PAGES_PER_MIB }];
  const ops: BenchOp[] = [];
  for (const row of rows) ops.push(await measure(row, what === 'exits' ? Math.max(1, Math.round(row.iterations * a.scale)) : row.iterations, a));
  print(ops, a.json);
}

const loops = (what: 'exits' | 'faults', describe: string): CommandModule<object, BenchArgs> => ({
  command: what,
  describe,
  builder: (y) => y.options({ ...MACHINE_OPTIONS, ...BENCH_OPTIONS }) as unknown as Argv<BenchArgs>,
  handler: (a) => measureLoops(what, a),
});

/** `pvm bench exits`, `pvm bench table1` and so on. */
export const benchCommand: CommandModule<object, object> = {
  command: 'bench',
  describe: 'Measure round trips, page faults, or the tables of the paper beside its figures',
  builder: (y) => {
    const all = TABLE_COMMANDS.reduce(
      (chain, command) => chain.command(command),
      y.command(loops('exits', 'Round trips of one machine')).command(loops('faults', 'The page-fault loop in one machine')),
    );
    return all
      .demandCommand(2, `bench: say what: exits, faults, ${TABLE_COMMANDS.map(({ command }) => command).join(', ')}`)
      .example('pvm bench exits', 'Round trips: getpid, hypercall, #UD, MSR, CPUID, port I/O')
      .example('pvm bench table1', "The paper's table 1 under every design, modelled and counted")
      .example('pvm bench all --kernel vmlinuz --json', 'All tables, as data');
  },
  handler: () => undefined,
};
