import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BenchKind, benchPath, type LmbenchRow, lmbenchPath, lmbenchRows } from '@pvm/guests';
import { buildCpio, createVm, type DesignName, type IntervalJson, intervalJson, PvmError } from '@pvm/pvm';
import { runDesign } from '../compare/run-design.ts';
import type { TableRow } from './rows.ts';

/** What a row cost under a design. Counts are exact sums over all intervals. */
export interface Measured {
  readonly operations: number;
  readonly instructions: number;
  readonly exits: number;
  readonly worldSwitches: number;
  readonly tlb: { readonly misses: number };
  readonly byReason: readonly { readonly reason: string; readonly sub: string; readonly count: number }[];
  /** Host time of an operation in the fastest interval, ns: what nothing disturbed (`hostNs`). */
  readonly hostNs: number;
}

/** Intervals shorter than this are not timed by processor time, of which looking at it takes some. */
const LONG_NS = 5e6;

/** Host time of an interval: the thread's processor time, which other load does not lengthen, if the interval is long enough for it. */
function hostNs({ ns, cpuNs }: IntervalJson): number {
  return cpuNs >= LONG_NS ? Math.min(ns, cpuNs) : ns;
}

/** Puts the intervals of a row together. */
export function together(intervals: readonly IntervalJson[]): Measured {
  const sum = (of: (i: IntervalJson) => number) => intervals.reduce((total, i) => total + of(i), 0);
  const reasons = new Map<string, { reason: string; sub: string; count: number }>();
  for (const { reason, sub, count } of intervals.flatMap((i) => i.byReason)) {
    const row = reasons.get(`${reason}\0${sub}`) ?? { reason, sub, count: 0 };
    row.count += count;
    reasons.set(`${reason}\0${sub}`, row);
  }
  return {
    operations: sum((i) => i.operations),
    instructions: sum((i) => i.instructions),
    exits: sum((i) => i.exits),
    worldSwitches: sum((i) => i.worldSwitches),
    tlb: { misses: sum((i) => i.tlb.misses) },
    byReason: [...reasons.values()].sort((a, b) => b.count - a.count),
    hostNs: Math.min(...intervals.map((i) => hostNs(i) / i.operations)),
  };
}

/** Machines that a loop of our own kernel is measured in at full length; each gives one interval. */
const MACHINES = 3;

/** A shortened measurement does not repeat itself: it is for a look, or for a test. */
export function machinesFor(scale: number): number {
  return scale < 1 ? 1 : MACHINES;
}

/** A loop of our own kernel, in fresh machines. Hot code is compiled at once: the loop runs once before it is measured. */
export async function measureProgram(
  design: DesignName,
  kind: BenchKind,
  iterations: number,
  without: TableRow['without'],
  machines: number,
): Promise<Measured> {
  const intervals: IntervalJson[] = [];
  for (let i = 0; i < machines; i++) {
    const vm = await createVm({
      design,
      program: benchPath,
      argv0: 'bench',
      args: [kind, String(iterations)],
      clock: 'icount',
      jit: 'sync',
      optimisations: without === undefined ? {} : { [without]: false },
    });
    try {
      const { exitCode, intervals: marked } = await vm.run();
      const interval = marked.at(-1);
      if (exitCode !== 0 || interval === undefined) throw new PvmError('wrong-state', `the benchmark ${kind} ended with exit code ${exitCode} under ${design}`);
      intervals.push(intervalJson(interval));
    } finally {
      await vm.dispose();
    }
  }
  return together(intervals);
}

const MEMORY = '128M';
/** A PVM kernel leaves its tables together: the hypervisor's user and kernel shadows keep them apart. */
const isolation = (design: DesignName) => (design === 'pvm' ? 'pti=off' : 'pti=on');

/** RAM disk and command line with which a stock kernel runs rows of `lmbench` (and how often each in an interval) and powers off. */
export async function lmbenchGuest(design: DesignName, rows: ReadonlyMap<LmbenchRow, number>): Promise<{ initrd: Uint8Array; commandLine: string }> {
  const words = [...rows].map(([row, n]) => `${row}:${n}`).join(' ');
  const initrd = buildCpio([{ name: 'init', data: await readFile(lmbenchPath), mode: 0o755 }]);
  return { initrd, commandLine: `console=ttyS0 quiet panic=-1 ${isolation(design)} -- ${words}` };
}

/**
 * Rows of `lmbench` in one boot of a stock kernel.
 *
 * @param rows and how often each is run in an interval
 * @throws UsageError when the machine cannot begin; PvmError `wrong-state` when the kernel did not come to a row
 */
export async function measureLinux(
  design: DesignName,
  kernel: string,
  rows: ReadonlyMap<LmbenchRow, number>,
  signal: AbortSignal,
): Promise<ReadonlyMap<LmbenchRow, Measured>> {
  const folder = await mkdtemp(join(tmpdir(), 'pvm-bench-'));
  try {
    const initrd = join(folder, 'initrd');
    const guest = await lmbenchGuest(design, rows);
    await writeFile(initrd, guest.initrd);
    const machine = ['--kernel', kernel, '--initrd', initrd, '-m', MEMORY, '--append', guest.commandLine];
    const { report, console } = await runDesign(design, machine, folder, undefined, signal);
    return new Map(
      [...rows.keys()].map((row) => {
        const intervals = report.intervals.filter((i) => lmbenchRows[i.id] === row);
        if (intervals.length === 0) {
          const last = console.text.trimEnd().split('\n').slice(-1).join('');
          throw new PvmError('wrong-state', `${kernel} under ${design} did not come to the row ${row} (${report.stopReason}); its last line: ${last}`);
        }
        return [row, together(intervals)];
      }),
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
