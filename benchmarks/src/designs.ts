import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { benchPath } from '../../guests/src/index.ts';
import { buildCpio } from '../../packages/machine/src/index.ts';
import {
  createVm,
  type DesignName,
  designInfo,
  type ExitLedger,
  type Optimisation,
  percentiles,
  type Result,
  type VmOptions,
} from '../../packages/pvm/src/index.ts';
import { buildLinuxProgram, buildProgram } from './build.ts';
import { inTurns } from './turns.ts';

/** One thing that is measured under several designs. */
export interface DesignRow {
  readonly name: string;
  readonly unit: 'ns';
  /** One measurement under a design, in `unit`; every number that other load can only make larger. */
  measure(design: DesignName): Promise<number>;
}

/** Hot code is compiled at once and on this thread, so that the second half of a run is steady state and its processor time all there is. */
async function runVm(options: VmOptions): Promise<{ result: Result; ledger: ExitLedger }> {
  const vm = await createVm({ clock: 'icount', jit: 'sync', ...options });
  try {
    const result = await vm.run();
    if (result.exitCode !== 0) throw new Error(`the guest's program ended with exit code ${result.exitCode}`);
    return { result, ledger: vm.ledger };
  } finally {
    await vm.dispose();
  }
}

async function run(options: VmOptions): Promise<Result> {
  return (await runVm(options)).result;
}

/** What programs that compute are measured by: the first half of the rounds goes by until hot code is compiled. */
const COMPUTE_ROUNDS = 60;

/** A program of `programs/` in a machine of each design at once, which take turns after each round: processor time of the rounds of the second half, ms; those with the same index are neighbours. */
export async function computeInTurns(name: string, designs: readonly DesignName[]): Promise<ReadonlyMap<DesignName, readonly number[]>> {
  const program = buildProgram(name);
  const turns = await inTurns(designs.map((design) => ({ design, program, args: [String(COMPUTE_ROUNDS), 'live'], memory: '256M' })));
  return new Map(designs.map((design, i) => [design, (turns[i]?.rounds ?? []).slice(COMPUTE_ROUNDS >> 1).map((ns) => ns / 1e6)]));
}

/** A loop of the guest's `bench`: the time of an operation, after the loop has run once. */
export function loopRow(name: string, kind: string, iterations: number, perIteration = 1): DesignRow {
  return {
    name,
    unit: 'ns',
    measure: async (design) => {
      const { intervals } = await run({ design, program: benchPath, args: [kind, String(iterations)] });
      return (intervals.at(-1)?.cpuNs ?? Number.NaN) / (iterations * perIteration);
    },
  };
}

/**
 * Exits of some kinds in a loop of the guest's `bench`: the median time from leaving the guest to entering it again. NaN under designs that have none.
 *
 * @param without a switch to turn off in the designs that have it on: with `prefault` a fill is no exit of its own
 */
export function exitRow(name: string, kind: string, iterations: number, reasons: readonly ExitKind[], without?: Optimisation): DesignRow {
  return {
    name,
    unit: 'ns',
    measure: async (design) => {
      const isOn = without !== undefined && designInfo(design).optimisations[without] === true;
      const optimisations = isOn ? { [without]: false } : {};
      const { ledger } = await runVm({ design, program: benchPath, args: [kind, String(iterations)], ledger: 'all', optimisations });
      const rows = ledger.entries().filter((e) => reasons.some(([reason, sub]) => e.reason === reason && sub.test(e.sub)));
      const most = rows.toSorted((a, b) => b.count - a.count)[0];
      return most === undefined ? Number.NaN : percentiles(most).p50Ns;
    },
  };
}

type ExitKind = readonly [reason: string, sub: RegExp];

const CLI = join(import.meta.dirname, '../../packages/cli/bin/pvm.mjs');

/** Rows of linux/process.c, measured by the guest itself on the host's clock; one boot, in a process of its own, measures all of them. */
export function linuxRows(kernel: string, design: DesignName): ReadonlyMap<string, number> {
  const directory = mkdtempSync(join(tmpdir(), 'pvm-benchmarks-'));
  const initrd = join(directory, 'initrd');
  try {
    writeFileSync(initrd, buildCpio([{ name: 'init', data: readFileSync(buildLinuxProgram('process')), mode: 0o755 }]));
    const machine = ['--design', design, '--kernel', kernel, '--initrd', initrd, '--append', 'console=ttyS0 quiet panic=-1', '-m', '256M'];
    const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, 'run', ...machine], { encoding: 'utf8', input: '' });
    if (status !== 0) throw new Error(`pvm run --design ${design}: exit ${status}: ${stderr.slice(-500)}`);
    return new Map([...stdout.matchAll(/^(\S+) (\d+\.\d)\r?$/gm)].map((m) => [m[1] ?? '', Number(m[2])]));
  } finally {
    rmSync(directory, { recursive: true });
  }
}
