// Measures the same work under every design, in turns, and prints each design's cost as a ratio to bare.
//   node -C source benchmarks/designs.ts [--designs bare,kvm-ept,...] [--passes N] [--only row,...] [--kernel vmlinuz|debian] [--linux-passes N] [--json file]
// Linux times many short batches by itself, so one boot a design is enough on a quiet machine. `--kernel debian` takes Debian's cloud kernel by apt. At the end it says which goals the results reach.
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { DESIGN_NAMES, type DesignName, designInfo, type PlatformKind, publishedFigures } from '../packages/pvm/src/index.ts';
import { debianKernel } from '../tests/debian.ts';
import { COMPUTE_ROWS, type DesignResult, designGoals, summariseTurns } from './src/design-goals.ts';
import { computeInTurns, type DesignRow, exitRow, linuxRows, loopRow } from './src/designs.ts';
import { describeMachine } from './src/machine.ts';
import { median } from './src/statistics.ts';
import { formatTable } from './src/table.ts';

const PAGES_PER_MIB = 256;
const ROWS: readonly DesignRow[] = [
  loopRow('page-fault', 'fault', 512, PAGES_PER_MIB),
  loopRow('getpid', 'getpid', 1_000_000),
  loopRow('hypercall', 'hypercall', 400_000),
  loopRow('cpuid', 'cpuid', 400_000),
  loopRow('msr-write', 'msr-write', 400_000),
  loopRow('pio-out', 'pio-out', 400_000),
  exitRow(
    'shadow fill',
    'fault',
    32,
    [
      ['#PF', /^shadow$/],
      ['EXCEPTION_NMI', /^#PF shadow$/],
    ],
    'prefault',
  ),
  exitRow('table write', 'fault', 32, [
    ['#PF', /^table write$/],
    ['EXCEPTION_NMI', /^#PF (table write|unsync)$/],
  ]),
];

const { values } = parseArgs({
  options: {
    designs: { type: 'string', default: DESIGN_NAMES.join(',') },
    passes: { type: 'string', default: '3' },
    'linux-passes': { type: 'string', default: '1' },
    only: { type: 'string' },
    kernel: { type: 'string' },
    json: { type: 'string' },
  },
});
const designs = (values.designs ?? '').split(',').filter((name): name is DesignName => (DESIGN_NAMES as readonly string[]).includes(name));
const runs = (design: DesignName, platform: PlatformKind) => designInfo(design).platforms.includes(platform);
const passes = Number(values.passes);
const only = values.only?.split(',');

/** What other load leaves of a measurement is the least of all passes; the spread is that of the ratios of single passes. */
function summarise(row: string, unit: string, samples: ReadonlyMap<DesignName, readonly number[]>): DesignResult {
  const measured = [...samples].filter(([, list]) => list.length > 0);
  const bare = samples.get('bare') ?? [];
  const best = Object.fromEntries(measured.map(([design, list]) => [design, Math.min(...list)]));
  const ratios = (f: (list: readonly number[]) => number) =>
    bare.length === 0 ? {} : Object.fromEntries(measured.map(([design, list]) => [design, Number(f(list).toFixed(4))]));
  return {
    row,
    unit,
    best,
    ratioToBare: ratios((list) => Math.min(...list) / Math.min(...bare)),
    medianRatioToBare: ratios((list) => median(list.map((value, i) => value / (bare[i] ?? Number.NaN)))),
  };
}

const results: DesignResult[] = [];
const done = (result: DesignResult) => {
  results.push(result);
  console.error(`${result.row}: ${JSON.stringify(result.spread ?? result.ratioToBare)}`);
};
const programDesigns = designs.filter((design) => runs(design, 'program'));
for (const row of COMPUTE_ROWS.filter((name) => only === undefined || only.includes(name))) {
  const passesOfRow: ReadonlyMap<DesignName, readonly number[]>[] = [];
  // Another design comes first in each pass.
  for (let pass = 0; pass < passes; pass++) {
    const first = pass % programDesigns.length;
    passesOfRow.push(await computeInTurns(row, [...programDesigns.slice(first), ...programDesigns.slice(0, first)]));
  }
  done(summariseTurns(row, programDesigns, passesOfRow));
}
for (const row of ROWS.filter((r) => only === undefined || only.includes(r.name))) {
  const samples = new Map<DesignName, number[]>(designs.map((d) => [d, []]));
  for (let pass = 0; pass < passes; pass++) {
    for (const design of designs) if (runs(design, 'program')) samples.get(design)?.push(await row.measure(design));
  }
  done(summarise(row.name, row.unit, samples));
}
const kernel = values.kernel === 'debian' ? await debianKernel('linux-image-cloud-amd64') : values.kernel;
if (values.kernel === 'debian' && kernel === undefined) console.error('No stock kernel (apt gave none): the rows in Linux are left out.');
if (kernel !== undefined) {
  const samples = new Map<string, Map<DesignName, number[]>>();
  for (let pass = 0; pass < Number(values['linux-passes']); pass++) {
    for (const design of designs.filter((d) => runs(d, 'pc'))) {
      for (const [row, ns] of linuxRows(kernel, design)) {
        const ofRow = samples.get(row) ?? new Map<DesignName, number[]>(designs.map((d) => [d, []]));
        samples.set(row, ofRow);
        ofRow.get(design)?.push(ns);
      }
      console.error(`linux under ${design} done`);
    }
  }
  for (const [row, ofRow] of samples) results.push(summarise(`linux ${row}`, 'ns', ofRow));
}

const cell = (n: number | undefined, digits: number) => (n === undefined || Number.isNaN(n) ? '' : n.toFixed(digits));
const header = ['row', 'unit', ...designs, ...designs.filter((d) => d !== 'bare').map((d) => `${d} / bare`)];
const table = results.map((r) => [
  r.row,
  r.unit,
  ...designs.map((d) => cell(r.best[d], r.unit === 'ms' ? 2 : 0)),
  ...designs.filter((d) => d !== 'bare').map((d) => cell((r.spread === undefined ? r.ratioToBare : r.medianRatioToBare)[d], 3)),
]);
console.log(formatTable(header, table));
const goals = designGoals(results, await publishedFigures());
const reached = goals.map((g) => [g.what, g.isReached ? 'yes' : 'no', g.limit.toString(), `${g.measured.toFixed(g.unit === 'x' ? 3 : 0)} ${g.unit}`]);
console.log(`\n${formatTable(['goal', 'reached', 'at most', 'measured'], reached)}`);
console.log(`\nTook ${(performance.now() / 1000).toFixed(0)} s.`);
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ machine: describeMachine(), passes, goals, results }, undefined, 1)}\n`);
