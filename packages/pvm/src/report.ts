import type { ExitLedger, ExitStats } from './ledger.ts';

/** Names and units in the keys, one object a row; for `--json`. */
export interface LedgerJson {
  readonly exits: readonly {
    readonly reason: string;
    readonly sub: string;
    readonly samples: number;
    readonly totalNs: number;
    readonly minNs: number;
    readonly maxNs: number;
    readonly avgNs: number;
    readonly relStddevPercent: number;
    readonly histogramLog2Ns: readonly number[];
  }[];
  readonly totalExits: number;
  readonly totalNs: number;
  readonly worldSwitches: number;
  readonly directSyscalls: number;
  readonly directReturns: number;
}

/** The ledger as plain data. */
export function ledgerJson(ledger: ExitLedger): LedgerJson {
  const switches = ledger.worldSwitches();
  return {
    exits: ledger.entries().map((e) => ({
      reason: e.reason,
      sub: e.sub,
      samples: e.count,
      totalNs: Math.round(e.totalNs),
      minNs: Math.round(e.minNs),
      maxNs: Math.round(e.maxNs),
      avgNs: round(e.meanNs, 1),
      relStddevPercent: round(e.relStddevPercent, 2),
      histogramLog2Ns: e.histogram,
    })),
    totalExits: switches.exits,
    totalNs: Math.round(ledger.totalNs),
    worldSwitches: switches.total,
    directSyscalls: switches.directSyscalls,
    directReturns: switches.directReturns,
  };
}

/** The columns of `perf kvm stat`. With `bySub` each sub-reason has a row, else one row a reason. */
export function formatLedger(ledger: ExitLedger, options: { bySub?: boolean; sort?: 'samples' | 'time' } = {}): string {
  const { bySub = true, sort = 'samples' } = options;
  const entries = bySub ? ledger.entries() : mergeSubs(ledger.entries());
  const samples = entries.reduce((sum, e) => sum + e.count, 0);
  const time = entries.reduce((sum, e) => sum + e.totalNs, 0);
  entries.sort((a, b) => (sort === 'time' ? b.totalNs - a.totalNs : b.count - a.count));
  const label = (e: ExitStats) => (bySub && e.sub !== '' ? `${e.reason} ${e.sub}` : e.reason);
  const rows = [
    ['VM-EXIT', 'Samples', 'Samples%', 'Time%', 'Min Time', 'Max Time', 'Avg time'],
    ...entries.map((e) => [
      label(e),
      String(e.count),
      percent(e.count, samples),
      percent(e.totalNs, time),
      microseconds(e.minNs),
      microseconds(e.maxNs),
      `${microseconds(e.meanNs)} ( +- ${e.relStddevPercent.toFixed(2).padStart(6)}% )`,
    ]),
  ];
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
  lines.splice(1, 0, '');
  const w = ledger.worldSwitches();
  lines.push('', `Total Samples:${samples}, Total events handled time:${microseconds(time)}.`);
  lines.push(
    `World switches:${w.total} (exits and entries ${w.exits * 2}, direct syscalls ${w.directSyscalls}, direct returns ${w.directReturns}). Lost events:0.`,
  );
  return lines.join('\n');
}

function mergeSubs(entries: readonly ExitStats[]): ExitStats[] {
  const merged = new Map<string, ExitStats[]>();
  for (const e of entries) merged.set(e.reason, [...(merged.get(e.reason) ?? []), e]);
  return [...merged].map(([reason, group]) => {
    const count = group.reduce((sum, e) => sum + e.count, 0);
    const totalNs = group.reduce((sum, e) => sum + e.totalNs, 0);
    const mean = totalNs / count;
    // Variance of the union: within the groups plus between their means.
    const squares = group.reduce(
      (sum, e) => sum + ((e.relStddevPercent / 100) * e.meanNs) ** 2 * e.count * (e.count - 1) + e.count * (e.meanNs - mean) ** 2,
      0,
    );
    return {
      reason,
      sub: '',
      count,
      totalNs,
      minNs: Math.min(...group.map((e) => e.minNs)),
      maxNs: Math.max(...group.map((e) => e.maxNs)),
      meanNs: mean,
      relStddevPercent: count > 1 && mean > 0 ? (100 * Math.sqrt(squares / (count - 1) / count)) / mean : 0,
      histogram: (group[0]?.histogram ?? []).map((_, i) => group.reduce((sum, e) => sum + (e.histogram[i] ?? 0), 0)),
    };
  });
}

function percent(part: number, whole: number): string {
  return `${(whole === 0 ? 0 : (100 * part) / whole).toFixed(2)}%`;
}
function microseconds(ns: number): string {
  return `${(ns / 1000).toFixed(2)}us`;
}
function round(n: number, digits: number): number {
  return Number(n.toFixed(digits));
}
