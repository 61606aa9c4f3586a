import { formatTable } from '@pvm/pvm';
import { unpricedNote } from '../modelled.ts';
import { type BenchCell, type BenchDocument, type BenchRow, type BenchTable, modelErrors, ratio } from './results.ts';
import { MISSING_COLUMNS } from './rows.ts';

const BASE = 'kvm-ept';

/** Three significant digits from 1 on, two places below. */
function figure(n: number | undefined): string {
  if (n === undefined) return '-';
  return n >= 100 ? Math.round(n).toLocaleString('en-US') : n.toFixed(n >= 10 ? 1 : 2);
}

function countFigure(n: number): string {
  return Number.isInteger(n) ? n.toLocaleString('en-US') : n < 0.005 ? '<0.01' : figure(n);
}

const percent = (n: number | undefined) => (n === undefined ? '-' : `${n > 0 ? '+' : ''}${n.toFixed(0)}%`);

function line(row: BenchRow, cell: BenchCell, isFirst: boolean): string[] {
  const times = (of: (c: BenchCell) => number | undefined) => figure(ratio(row, cell, BASE, of));
  return [
    isFirst ? row.name : '',
    cell.design,
    figure(cell.paperUs),
    figure(cell.modelledUs),
    percent(cell.modelErrorPercent),
    countFigure(cell.exits),
    countFigure(cell.worldSwitches),
    Math.round(cell.instructions).toLocaleString('en-US'),
    Math.round(cell.hostNs).toLocaleString('en-US'),
    times((c) => c.paperUs),
    times((c) => c.modelledUs),
    times((c) => c.hostNs),
  ];
}

function errors(table: BenchTable): string {
  const e = modelErrors(table);
  if (e === undefined) return 'Modelled: a prediction that the paper has no figures for.';
  const how = table.model === 'fit' ? 'fitted on these figures (with and without page-table isolation)' : 'a prediction, fitted on table 1 only';
  const ratios =
    e.ratios === undefined
      ? ''
      : `; of the ratio to ${BASE} in the median ${e.ratios.medianPercent} %, at worst ${e.ratios.worstPercent} % (${e.ratios.cells} figures)`;
  const onTop =
    e.onTop === undefined || table.model === 'fit'
      ? ''
      : ` What a design adds, on top of the paper's own figure for ${BASE}: in the median ${e.onTop.medianPercent} %, at worst ${e.onTop.worstPercent} % (${e.onTop.cells} figures).`;
  return `Modelled: ${how}. Error against the paper: in the median ${e.medianPercent} %, at worst ${e.worstPercent} % (${e.cells} figures)${ratios}.${onTop}`;
}

function formatOne(table: BenchTable): string {
  const ratios = `x ${BASE}`;
  // Two lines of heading: where the figures of a column come from, and what they are.
  const head = [
    ['', '', 'paper', 'modelled', 'error of', 'counted', 'counted', 'counted', 'host time', ratios, ratios, ratios],
    ['operation', 'design', 'us', 'us', 'the model', 'exits', 'switches', 'instructions', 'here, ns', 'paper', 'modelled', 'here'],
  ];
  const rows = table.rows.flatMap((row) => row.cells.map((cell, i) => line(row, cell, i === 0)));
  return [table.title, '', ...formatTable([...head, ...rows], [0, 1]), '', errors(table), ...table.notes, ...table.skipped].join('\n');
}

/** Everything for a terminal. */
export function formatBench(d: BenchDocument): string {
  const notes = [
    `Paper: ${d.published}. Modelled: counts here times prices of the cost profile ${d.profile.name} (${d.profile.source}).`,
    unpricedNote([...new Set(d.tables.flatMap((t) => t.rows.flatMap((r) => r.cells.flatMap((c) => c.unpriced))))]),
    'Exits, world switches and instructions are counted here, per operation; measured here is host time of an operation on this machine, in the fastest interval.',
    ...(d.machine.loadAverage > d.machine.cpus
      ? [`This machine was busy (load ${d.machine.loadAverage.toFixed(1)} on ${d.machine.cpus} processors): its host times mean little.`]
      : []),
    MISSING_COLUMNS,
  ];
  return [...d.tables.map(formatOne), notes.filter((note) => note !== '').join('\n')].join('\n\n\n');
}
