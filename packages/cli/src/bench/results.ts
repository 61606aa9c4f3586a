import type { CostPart, CostProfile, DesignName, ModelledCost, PublishedFigures } from '@pvm/pvm';
import type { Measured } from './measure.ts';
import type { Table, TableRow } from './rows.ts';

/** First key of the document: which form it has. */
export const BENCH_SCHEMA = 'pvm-bench-1';

/** A row under a design; every figure is of one operation. Published, modelled, counted and measured figures never share a key. */
export interface BenchCell {
  readonly design: DesignName;
  /** Of the paper's machine. */
  readonly paperUs?: number;
  /** Counts times the prices of the profile. */
  readonly modelledUs: number;
  /** Of `modelledUs` against `paperUs`, where the two are about the same operation. */
  readonly modelErrorPercent?: number;
  /** Primitives that the profile has no price for. */
  readonly unpriced: ModelledCost['unpriced'];
  /** What the model is made of, most expensive first. */
  readonly parts: readonly Pick<CostPart, 'name' | 'count' | 'eachNs'>[];
  readonly operations: number;
  readonly exits: number;
  readonly worldSwitches: number;
  readonly instructions: number;
  readonly tlbMisses: number;
  readonly exitsByReason: Readonly<Record<string, number>>;
  /** Measured on this host. */
  readonly hostNs: number;
}

export interface BenchRow {
  readonly name: string;
  readonly cells: readonly BenchCell[];
}

export interface BenchTable {
  readonly title: string;
  readonly model: Table['model'];
  readonly rows: readonly BenchRow[];
  /** Rows that were not measured, and why. */
  readonly skipped: readonly string[];
  readonly notes: readonly string[];
}

/** What `pvm bench table1` and so on print with `--json`. */
export interface BenchDocument {
  readonly schema: typeof BENCH_SCHEMA;
  readonly command: readonly string[];
  readonly profile: { readonly name: string; readonly source: string };
  /** Of the figures in `paperUs`. */
  readonly published: string;
  readonly machine: {
    readonly cpu: string;
    readonly cpus: number;
    readonly node: string;
    /** Of the last minute, when it was over; above `cpus`, host times mean little. */
    readonly loadAverage: number;
  };
  readonly tables: readonly BenchTable[];
}

const rounded = (n: number, digits = 4) => Number(n.toFixed(digits));

/** A row's figures for one design. */
export function benchCell(row: TableRow, design: DesignName, m: Measured, profile: CostProfile, figures: PublishedFigures): BenchCell {
  const per = (n: number) => rounded(n / m.operations);
  const cost = profile.predict({ design, instructions: m.instructions, exits: m.byReason, worldSwitches: m.worldSwitches, tlb: m.tlb });
  const modelledUs = rounded(cost.totalNs / m.operations / 1000);
  const paperUs = row.paper(figures, design);
  return {
    design,
    ...(paperUs === undefined ? {} : { paperUs }),
    ...(paperUs === undefined || row.ratiosOnly === true ? {} : { modelErrorPercent: rounded(100 * (modelledUs / paperUs - 1), 1) }),
    modelledUs,
    unpriced: cost.unpriced,
    parts: cost.parts.map(({ name, count, eachNs }) => ({ name, count: per(count), eachNs: rounded(eachNs, 1) })),
    operations: m.operations,
    exits: per(m.exits),
    worldSwitches: per(m.worldSwitches),
    instructions: per(m.instructions),
    tlbMisses: per(m.tlb.misses),
    exitsByReason: Object.fromEntries(m.byReason.map((e) => [e.sub === '' ? e.reason : `${e.reason} ${e.sub}`, per(e.count)])),
    hostNs: rounded(m.hostNs, 1),
  };
}

/** Ratio of `of` between a cell and the one of `base` in its row; undefined when either has none. */
export function ratio(row: BenchRow, cell: BenchCell, base: DesignName, of: (cell: BenchCell) => number | undefined): number | undefined {
  const [a, b] = [of(cell), row.cells.filter((c) => c.design === base).map(of)[0]];
  return a === undefined || b === undefined || b === 0 ? undefined : a / b;
}

/** How far the model is from the paper in one table. */
export interface ModelErrors {
  readonly cells: number;
  readonly medianPercent: number;
  readonly worstPercent: number;
  /** The same of the ratios to kvm-ept; undefined when there are none. */
  readonly ratios?: Spread;
  /**
   * The same when the guest's own work is not modelled but taken from the paper: its figure for kvm-ept, and on top of it the modelled difference between the
   * designs. Undefined when there are none.
   */
  readonly onTop?: Spread;
}

interface Spread {
  readonly cells: number;
  readonly medianPercent: number;
  readonly worstPercent: number;
}

/** Absolute errors; undefined when the paper has none of the table's figures. */
export function modelErrors(table: BenchTable): ModelErrors | undefined {
  const errors = table.rows.flatMap((row) => row.cells.flatMap((c) => (c.modelErrorPercent === undefined ? [] : [Math.abs(c.modelErrorPercent)])));
  if (errors.length === 0) return undefined;
  const ratios = table.rows.flatMap((row) =>
    row.cells.flatMap((cell) => {
      if (cell.design === 'kvm-ept') return [];
      const [paper, model] = [ratio(row, cell, 'kvm-ept', (c) => c.paperUs), ratio(row, cell, 'kvm-ept', (c) => c.modelledUs)];
      return paper === undefined || model === undefined ? [] : [Math.abs(100 * (model / paper - 1))];
    }),
  );
  const onTop = table.rows.flatMap(onTopOfPaper);
  return {
    ...spread(errors),
    ...(ratios.length === 0 ? {} : { ratios: spread(ratios) }),
    ...(onTop.length === 0 ? {} : { onTop: spread(onTop) }),
  };
}

function onTopOfPaper({ cells }: BenchRow): number[] {
  const base = cells.find((c) => c.design === 'kvm-ept');
  return cells.flatMap((c) => {
    if (c === base || base?.paperUs === undefined || c.paperUs === undefined || c.modelErrorPercent === undefined) return [];
    return [Math.abs(100 * ((base.paperUs + c.modelledUs - base.modelledUs) / c.paperUs - 1))];
  });
}

function spread(errors: readonly number[]): Spread {
  const sorted = [...errors].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
  return { cells: errors.length, medianPercent: rounded(median, 1), worstPercent: rounded(sorted.at(-1) ?? 0, 1) };
}
