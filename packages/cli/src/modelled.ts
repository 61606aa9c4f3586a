import { formatTable, type ModelledCost, type ModelledRun, PRIMITIVES, type RunReport, type Steps } from '@pvm/pvm';

/** Nanoseconds in the largest unit that fits. */
export function duration(ns: number): string {
  if (ns < 1e3) return `${ns.toFixed(1)} ns`;
  if (ns < 1e6) return `${(ns / 1e3).toFixed(2)} us`;
  return ns < 1e9 ? `${(ns / 1e6).toFixed(2)} ms` : `${(ns / 1e9).toFixed(2)} s`;
}

/** `2 switch.pvm + emulate`. */
function composition(steps: Steps): string {
  return Object.entries(steps)
    .map(([primitive, times]) => (times === 1 ? primitive : `${times} ${primitive}`))
    .join(' + ');
}

/** Says which primitives a prediction is without; empty when it has all. */
export function unpricedNote(names: readonly ModelledCost['unpriced'][number][]): string {
  return names.length === 0 ? '' : `No price in the profile, so not in it: ${names.map((name) => `${name} (${PRIMITIVES[name]})`).join(', ')}.`;
}

/** What a cost profile makes of a run: a table of its own, for nothing in it was measured here. */
export function formatModelled({ profile, run, intervals }: ModelledRun, { intervals: marked }: Pick<RunReport, 'intervals'>): string {
  const rows = run.parts.map(({ name, count, steps, eachNs }) => {
    const share = (100 * count * eachNs) / run.totalNs;
    return [name, count.toLocaleString('en-US'), duration(eachNs), duration(count * eachNs), `${share.toFixed(1)}%`, composition(steps)];
  });
  const table = formatTable([['MODELLED', 'Count', 'Each', 'Total', 'Share', 'Made of'], ...rows], [0, 5]);
  const perOperation = intervals.map(({ totalNs }, i) => {
    const n = marked[i]?.operations ?? 1;
    const of = n === 1 ? '' : ` an operation (${n.toLocaleString('en-US')} of them)`;
    return `Interval ${i + 1}: ${duration(totalNs / n)}${of}.`;
  });
  const notes = [`Modelled time of the run: ${duration(run.totalNs)}. Cost profile ${profile.name} (${profile.source}).`, unpricedNote(run.unpriced)];
  return [...table, '', ...perOperation, ...notes.filter((line) => line !== '')].join('\n');
}
