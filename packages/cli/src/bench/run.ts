import { availableParallelism, cpus, loadavg } from 'node:os';
import type { LmbenchRow } from '@pvm/guests';
import { type CostProfile, type DesignName, type PublishedFigures, publishedFigures } from '@pvm/pvm';
import { type Measured, machinesFor, measureLinux, measureProgram } from './measure.ts';
import { BENCH_SCHEMA, type BenchDocument, type BenchRow, type BenchTable, benchCell } from './results.ts';
import type { Table, TableRow } from './rows.ts';

export interface BenchPlan {
  readonly command: readonly string[];
  readonly tables: readonly Table[];
  readonly designs: readonly DesignName[];
  readonly profile: CostProfile;
  /** Stock kernel for the rows that need one. */
  readonly kernel: string | undefined;
  /** Multiplies the number of operations. */
  readonly scale: number;
  readonly signal: AbortSignal;
  /** Says what is being done. */
  progress(what: string): void;
}

type LinuxRows = ReadonlyMap<DesignName, ReadonlyMap<LmbenchRow, Measured>>;

const times = (n: number, scale: number) => Math.max(1, Math.round(n * scale));
const designsOf = (row: TableRow, plan: BenchPlan) => plan.designs.filter((d) => row.designs === undefined || row.designs.includes(d));

/** Boots the stock kernel once under each design, for all rows that any table has of it. */
async function bootAll(plan: BenchPlan): Promise<LinuxRows> {
  const { kernel, tables, designs, scale } = plan;
  const rows = new Map<LmbenchRow, number>();
  for (const { workload } of tables.flatMap((t) => t.rows)) if (workload.on === 'linux') rows.set(workload.row, times(workload.iterations, scale));
  const measured = new Map<DesignName, ReadonlyMap<LmbenchRow, Measured>>();
  if (kernel === undefined || rows.size === 0) return measured;
  for (const design of designs) {
    plan.progress(`${rows.size} rows in a stock kernel under ${design}`);
    measured.set(design, await measureLinux(design, kernel, rows, plan.signal));
  }
  return measured;
}

async function measureRow(row: TableRow, plan: BenchPlan, linux: LinuxRows, figures: PublishedFigures): Promise<BenchRow> {
  const cells = [];
  for (const design of designsOf(row, plan)) {
    plan.signal.throwIfAborted();
    const { workload } = row;
    let measured: Measured | undefined;
    if (workload.on === 'linux') measured = linux.get(design)?.get(workload.row);
    else {
      const kind = typeof workload.kind === 'function' ? workload.kind(design) : workload.kind;
      measured = await measureProgram(design, kind, times(workload.iterations, plan.scale), row.without, machinesFor(plan.scale));
    }
    if (measured !== undefined) cells.push(benchCell(row, design, measured, plan.profile, figures));
  }
  return { name: row.name, cells };
}

async function measureTable(table: Table, plan: BenchPlan, linux: LinuxRows, figures: PublishedFigures): Promise<BenchTable> {
  const rows: BenchRow[] = [];
  const left = table.rows.filter((row) => row.workload.on === 'linux' && plan.kernel === undefined);
  for (const row of table.rows.filter((r) => !left.includes(r) && designsOf(r, plan).length > 0)) {
    if (row.workload.on === 'program') plan.progress(`${table.title.split(':')[0]}, ${row.name}`);
    rows.push(await measureRow(row, plan, linux, figures));
  }
  const { title, model, notes } = table;
  const skipped = left.length === 0 ? [] : [`Left out without a stock kernel (--kernel): ${left.map((row) => row.name).join(', ')}.`];
  return { title, model, rows, skipped, notes };
}

/** Measures tables and puts them beside the paper. */
export async function runBench(plan: BenchPlan): Promise<BenchDocument> {
  const figures = await publishedFigures();
  const linux = await bootAll(plan);
  const tables: BenchTable[] = [];
  for (const table of plan.tables) tables.push(await measureTable(table, plan, linux, figures));
  const { name, source } = plan.profile;
  return {
    schema: BENCH_SCHEMA,
    command: plan.command,
    profile: { name, source },
    published: figures.source,
    machine: { cpu: cpus()[0]?.model ?? 'unknown', cpus: availableParallelism(), node: process.version, loadAverage: loadavg()[0] ?? 0 },
    tables,
  };
}
