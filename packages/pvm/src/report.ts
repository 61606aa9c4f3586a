import { type ExitStats, percentiles, type RowLevel } from './ledger/exit-row.ts';
import { type LedgerJson, ledgerJson, mergeJson } from './ledger/ledger-json.ts';
import type { ExitLedger } from './ledger.ts';

/** How the table of exits is laid out. */
export interface TableOptions {
  /** A row a reason, a sub-reason (default), or each class of error code. */
  readonly by?: RowLevel;
  /** Default: samples. */
  readonly sort?: 'samples' | 'time';
  /** Only this vCPU; default all together. */
  readonly vcpu?: number;
  /** Columns for the 50th, 90th and 99th percentile. Default false. */
  readonly percentiles?: boolean;
  /** At most so many rows; the footer counts all. Default: all. */
  readonly rows?: number;
  /** Exits that a trace lost, for the footer. */
  readonly lost?: number;
  /** Characters that a line should have at most: columns are left out until it has, those first that tell least, and the footer takes more lines. Default: no limit. */
  readonly width?: number;
}

/** In the order in which they are left out. */
const OPTIONAL_COLUMNS = ['Min Time', 'Max Time', 'p50', 'p90', 'Samples%'];

/** The columns of `perf kvm stat`. */
export function formatLedger(ledger: ExitLedger, options: TableOptions = {}): string {
  return formatExits(ledgerJson(ledger), { lost: ledger.trace?.lost ?? 0, ...options });
}

/** The same of a recorded ledger. */
export function formatExits(ledger: LedgerJson, options: TableOptions = {}): string {
  const { by = 'sub', sort = 'samples', rows: limit = Number.POSITIVE_INFINITY, lost = 0 } = options;
  const entries = mergeJson(ledger.rows, by, options.vcpu);
  const samples = entries.reduce((sum, e) => sum + e.count, 0);
  const time = entries.reduce((sum, e) => sum + e.totalNs, 0);
  if (sort === 'time') entries.sort((a, b) => b.totalNs - a.totalNs);
  const extra = options.percentiles === true;
  const table = [
    ['VM-EXIT', 'Samples', 'Samples%', 'Time%', 'Min Time', 'Max Time', ...(extra ? ['p50', 'p90', 'p99'] : []), 'Avg time'],
    ...entries.slice(0, limit).map((e) => [...cells(e, samples, time), ...(extra ? percentileCells(e) : []), averageCell(e)]),
  ];
  const width = options.width ?? Number.POSITIVE_INFINITY;
  const lines = formatTable(narrowed(table, width));
  lines.splice(1, 0, '');
  if (entries.length > limit) lines.push(`... ${entries.length - limit} more`);
  const footer = [`Total Samples:${samples}, Total events handled time:${microseconds(time)}.`];
  const heldUp = entries.reduce((sum, e) => sum + e.heldUp, 0);
  if (heldUp > 0)
    footer.push(`Held up by the host:${heldUp} of the timed, ${microseconds(entries.reduce((sum, e) => sum + e.heldUpNs, 0))}; each counts for itself alone.`);
  const directFaults = ledger.worldSwitchesByKind['direct fault'] ?? 0;
  footer.push(
    `World switches:${ledger.worldSwitches} (exits and entries ${ledger.totalExits * 2}, direct syscalls ${ledger.directSyscalls}, direct returns ${ledger.directReturns}${directFaults > 0 ? `, direct faults ${directFaults}` : ''}). Lost events:${lost}.`,
  );
  return [...lines, '', ...footer.flatMap((line) => wrapLine(line, width))].join('\n');
}

/** A line in pieces of at most `width` characters, divided between words where that is possible. */
export function wrapLine(line: string, width: number): string[] {
  if (line.length <= width) return [line];
  const space = line.lastIndexOf(' ', width);
  const end = space > 0 ? space : width;
  return [line.slice(0, end), ...wrapLine(line.slice(end).trimStart(), width)];
}

function narrowed(table: readonly (readonly string[])[], width: number): readonly (readonly string[])[] {
  let fitting = table;
  for (const name of OPTIONAL_COLUMNS) {
    if (Math.max(...formatTable(fitting).map((line) => line.length)) <= width) break;
    const left = fitting[0]?.indexOf(name) ?? -1;
    if (left >= 0) fitting = fitting.map((row) => row.filter((_, column) => column !== left));
  }
  return fitting;
}

function cells(e: ExitStats, samples: number, time: number): string[] {
  const label = [e.reason, e.sub, e.detail === '' ? '' : `(${e.detail})`].filter((part) => part !== '').join(' ');
  return [label, String(e.count), percent(e.count, samples), percent(e.totalNs, time), microseconds(e.minNs), microseconds(e.maxNs)];
}

function percentileCells(e: ExitStats): string[] {
  const { p50Ns, p90Ns, p99Ns } = percentiles(e);
  return [p50Ns, p90Ns, p99Ns].map(microseconds);
}

function averageCell(e: ExitStats): string {
  return `${microseconds(e.meanNs)} ( +- ${e.relStddevPercent.toFixed(2).padStart(6)}% )`;
}

/** Lines of a table: the columns in `left` (default the first) left-justified, others right. */
export function formatTable(rows: readonly (readonly string[])[], left: readonly number[] = [0]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((cell, column) => (left.includes(column) ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
}

function percent(part: number, whole: number): string {
  return `${(whole === 0 ? 0 : (100 * part) / whole).toFixed(2)}%`;
}
function microseconds(ns: number): string {
  return `${(ns / 1000).toFixed(2)}us`;
}
