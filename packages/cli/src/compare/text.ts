import { formatTable } from '@pvm/pvm';
import { unpricedNote } from '../modelled.ts';
import type { Comparison } from './comparison.ts';
import { figure, label, type Section, sections } from './metrics.ts';

/** The table for a terminal. */
export function formatComparison(c: Comparison): string {
  const heading = ['', ...c.designs.map((d) => d.design)];
  const block = (s: Section) => [[s.title], ...s.metrics.map((m) => [`  ${label(m)}`, ...m.values.map(figure)])];
  const rows = [heading, ...sections(c).flatMap(block)].map((row) => heading.map((_, i) => row[i] ?? ''));
  const notes = [
    ...(c.profile === undefined ? [] : [`Modelled times: cost profile ${c.profile.name} (${c.profile.source}). All other times: this host's clock.`]),
    ...unpriced(c),
    c.differences.length === 0 ? 'Exit codes and console output are the same under all designs (but for kernel timestamps).' : 'THE RESULTS DIFFER:',
    ...c.differences.map((line) => `  ${line}`),
  ];
  return [...formatTable(rows), '', ...notes].join('\n');
}

/** What modelled times are without, if any. */
export function unpriced(c: Comparison): string[] {
  const note = unpricedNote([...new Set(c.designs.flatMap((d) => d.modelled?.unpriced ?? []))]);
  return note === '' ? [] : [note];
}

/** The same as comma-separated values (RFC 4180): section, name, kind, unit, a column a design. */
export function comparisonCsv(c: Comparison): string {
  const quote = (cell: string) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  const rows = [
    ['section', 'name', 'kind', 'unit', ...c.designs.map((d) => d.design)],
    ...sections(c).flatMap((s) => s.metrics.map((m) => [s.title, m.name.trim(), m.kind, m.unit, ...m.values.map((n) => (n === undefined ? '' : String(n)))])),
  ];
  return rows.map((row) => `${row.map(quote).join(',')}\r\n`).join('');
}
