import { type ExitRowJson, isLevel, mergeJson } from '@pvm/pvm';
import type { ComparedDesign, Comparison } from './comparison.ts';

/** Where a figure comes from: counted here, measured with the host's clock, or predicted by a cost profile. Never two of them in a row. */
export type Kind = 'counted' | 'host' | 'modelled';

/** A figure of every design. */
export interface Metric {
  readonly name: string;
  readonly kind: Kind;
  /** `ms`, `ns`, or empty: a number of things. */
  readonly unit: string;
  /** One a design, in their order; undefined: the design has none. */
  readonly values: readonly (number | undefined)[];
}

/** A part of the table. */
export interface Section {
  readonly title: string;
  readonly metrics: readonly Metric[];
}

/** Page-table counters that the table has, in its order, by their names in shadow and second-level tables; the JSON document has all. */
const PAGE_TABLE_NAMES: readonly (readonly [name: string, ...keys: string[]])[] = [
  ['table pages built', 'pagesBuilt', 'tablesBuilt'],
  ['table pages zapped', 'pagesZapped', 'tablesZapped'],
  ['table pages reclaimed', 'pagesReclaimed'],
  ['times all tables were dropped', 'reclaims'],
  ['table leaves filled', 'leavesFilled'],
  ['table leaves prefaulted', 'leavesPrefaulted'],
  ['leaves of 4 KiB at the end', 'leaves4K'],
  ['leaves of 2 MiB at the end', 'leaves2M'],
  ['leaves of 1 GiB at the end', 'leaves1G'],
  ['large leaves split', 'splits'],
  ['guest table writes emulated', 'pteWrites'],
  ['tables let out of step', 'pagesUnsynced'],
  ['tables brought back in step', 'pagesSynced'],
  ['longest reverse map at the end', 'rmapMax'],
];
/** Kinds of exit that the table has; rarer ones are one row together. */
const MAX_EXIT_ROWS = 16;

/** The whole table, section by section. */
export function sections(c: Comparison): Section[] {
  const intervals = Math.min(...c.designs.map((d) => d.report.intervals.length));
  return [
    { title: 'Whole run', metrics: wholeRun(c.designs) },
    { title: 'Exits by reason', metrics: exitsByReason(c.designs) },
    ...Array.from({ length: intervals }, (_, i) => interval(c, i)),
  ];
}

function metric(designs: readonly ComparedDesign[], name: string, kind: Kind, unit: string, value: (d: ComparedDesign) => number | undefined): Metric {
  return { name, kind, unit, values: designs.map(value) };
}

function wholeRun(designs: readonly ComparedDesign[]): Metric[] {
  const counted = (name: string, value: (d: ComparedDesign) => number | undefined) => metric(designs, name, 'counted', '', value);
  const host = (name: string, value: (d: ComparedDesign) => number) => metric(designs, name, 'host', 'ms', value);
  const happened = (d: ComparedDesign) => Object.entries(d.report.ledger.worldSwitchesByKind).flatMap(([kind, n]) => (n > 0 ? [kind] : []));
  const kinds = [...new Set(designs.flatMap(happened))];
  return [
    counted('exit code', (d) => d.report.exitCode),
    counted('guest instructions', (d) => d.report.instructions),
    counted('exits', (d) => d.report.exits),
    counted('world switches', (d) => d.report.worldSwitches),
    ...kinds.map((kind) => counted(`  ${kind}`, (d) => d.report.ledger.worldSwitchesByKind[kind])),
    ...pageTables(designs, (d) => d.report.pageTables),
    ...(designs.some((d) => d.report.tlb.hits !== undefined) ? [counted('TLB hits', (d) => d.report.tlb.hits)] : []),
    counted('TLB misses', (d) => d.report.tlb.misses),
    counted('TLB flushes', (d) => d.report.tlb.flushes),
    host('run', (d) => d.report.runMs),
    host('  in the guest', (d) => d.report.guestMs),
    host('  in exits', (d) => d.report.hypervisorMs),
    ...(designs.some((d) => d.modelled !== undefined) ? [metric(designs, 'run', 'modelled', 'ms', (d) => (d.modelled?.totalNs ?? 0) / 1e6)] : []),
  ];
}

function pageTables(designs: readonly ComparedDesign[], of: (d: ComparedDesign) => Readonly<Record<string, number>> | undefined, per = 1): Metric[] {
  return PAGE_TABLE_NAMES.map(([name, ...keys]) =>
    metric(designs, name, 'counted', '', (d) => {
      const counters = of(d) ?? {};
      const key = keys.find((k) => k in counters);
      const n = key === undefined ? undefined : counters[key];
      return n === undefined || key === undefined || isLevel(key) ? n : n / per;
    }),
  ).filter((m) => m.values.some((n) => n !== undefined && n > 0));
}

/** Samples of each kind of exit, most frequent first. */
export function exitCounts(rows: readonly ExitRowJson[]): Map<string, number> {
  return new Map(mergeJson(rows, 'sub').map((e) => [exitName(e), e.count]));
}

function exitName(e: { readonly reason: string; readonly sub: string }): string {
  return e.sub === '' ? e.reason : `${e.reason} ${e.sub}`;
}

function exitsByReason(designs: readonly ComparedDesign[]): Metric[] {
  return countRows(
    designs,
    designs.map((d) => exitCounts(d.report.ledger.rows)),
    1,
  );
}

function countRows(designs: readonly ComparedDesign[], counts: readonly ReadonlyMap<string, number>[], per: number): Metric[] {
  const names = [...new Set(counts.flatMap((c) => [...c.keys()]))];
  const total = (name: string) => counts.reduce((sum, c) => sum + (c.get(name) ?? 0), 0);
  names.sort((a, b) => total(b) - total(a));
  const shown = names.slice(0, names.length > MAX_EXIT_ROWS ? MAX_EXIT_ROWS - 1 : MAX_EXIT_ROWS);
  const rest = names.slice(shown.length);
  const row = (name: string, of: readonly string[]) => ({
    name,
    kind: 'counted' as const,
    unit: '',
    values: designs.map((_, i) => of.reduce((sum, n) => sum + (counts[i]?.get(n) ?? 0), 0) / per),
  });
  return [...shown.map((name) => row(name, [name])), ...(rest.length > 0 ? [row(`${rest.length} other kinds`, rest)] : [])];
}

function interval(c: Comparison, i: number): Section {
  const { designs } = c;
  const at = (d: ComparedDesign) => d.report.intervals[i];
  const operations = c.operations ?? Math.max(1, ...designs.map((d) => at(d)?.operations ?? 1));
  const per = (name: string, kind: Kind, unit: string, value: (d: ComparedDesign) => number | undefined) =>
    metric(designs, name, kind, unit, (d) => {
      const n = value(d);
      return n === undefined ? undefined : n / operations;
    });
  const counts = designs.map((d) => new Map(at(d)?.byReason.map((e) => [exitName(e), e.count])));
  return {
    title: operations === 1 ? `Interval ${i + 1}` : `Interval ${i + 1}, per operation (${operations.toLocaleString('en-US')} of them)`,
    metrics: [
      per('guest instructions', 'counted', '', (d) => at(d)?.instructions),
      per('exits', 'counted', '', (d) => at(d)?.exits),
      per('world switches', 'counted', '', (d) => at(d)?.worldSwitches),
      ...countRows(designs, counts, operations).map((m) => ({ ...m, name: `  ${m.name}` })),
      ...pageTables(designs, (d) => at(d)?.pageTables, operations),
      ...(designs.some((d) => at(d)?.tlb.hits !== undefined) ? [per('TLB hits', 'counted', '', (d) => at(d)?.tlb.hits)] : []),
      per('TLB misses', 'counted', '', (d) => at(d)?.tlb.misses),
      per('TLB flushes', 'counted', '', (d) => at(d)?.tlb.flushes),
      per('time', 'host', 'ns', (d) => at(d)?.ns),
      ...(c.profile === undefined ? [] : [per('time', 'modelled', 'ns', (d) => d.modelledIntervals?.[i]?.totalNs)]),
    ],
  };
}

const KIND_LABEL: Readonly<Record<Kind, string>> = { counted: '', host: 'host ', modelled: 'modelled ' };

/** How a table calls a metric: where a time comes from is part of its name. */
export function label(m: Metric): string {
  const indent = /^ */.exec(m.name)?.[0] ?? '';
  return `${indent}${m.unit === '' ? '' : KIND_LABEL[m.kind]}${m.name.trim()}${m.unit === '' ? '' : `, ${m.unit}`}`;
}

/** A figure for people: whole numbers in groups, others with as many places as they need; a dash for none. */
export function figure(n: number | undefined): string {
  if (n === undefined) return '-';
  if (Number.isInteger(n) || Math.abs(n) >= 1000) return Math.round(n).toLocaleString('en-US');
  return n.toLocaleString('en-US', { minimumFractionDigits: 0, maximumFractionDigits: Math.abs(n) >= 10 ? 1 : 3 });
}
