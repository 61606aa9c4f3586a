import { DESIGN_NAMES, type DesignName, type IntervalJson, loadCostProfile, PRIMITIVES, parseCostProfile, publishedFigures } from '@pvm/pvm';
import { describe, expect, it } from 'vitest';
import { calibrate } from './calibrate.ts';
import { formatBench } from './format.ts';
import { together } from './measure.ts';
import { benchCell, modelErrors } from './results.ts';
import { TABLES } from './rows.ts';
import { runBench } from './run.ts';

const figures = await publishedFigures();
const sosp23 = await loadCostProfile('sosp23');
const quiet = { signal: new AbortController().signal, progress: () => undefined, command: ['test'] };

describe('the tables', () => {
  const published = [
    ['table1', figures.table1],
    ['table2', figures.table2],
    ['table3', figures.table3],
    ['table4', figures.table4],
  ] as const;
  it.each(published)('%s has every row of the paper, with every column of a design that is here', (name, rows) => {
    const [table] = TABLES[name];
    const expected = Object.values(rows).flatMap((columns) => Object.entries(columns).flatMap(([column, us]) => (column.includes('nst') ? [] : us)));
    const here = table.rows.flatMap((row) => DESIGN_NAMES.filter((d) => row.designs?.includes(d) ?? true).map((design) => row.paper(figures, design)));
    expect(expected).toEqual(expect.arrayContaining(here.filter((us) => us !== undefined)));
    expect(here.filter((us) => us !== undefined).length).toBeGreaterThanOrEqual(Object.keys(rows).length);
    if (name !== 'table2') expect(table.rows.map((row) => row.name)).toEqual(Object.keys(rows));
  });
});

const interval = (over: Partial<IntervalJson>): IntervalJson => ({
  id: 0,
  operations: 10,
  ns: 1000,
  cpuNs: 1000,
  instructions: 100,
  exits: 10,
  worldSwitches: 20,
  directSyscalls: 0,
  directReturns: 0,
  pageTables: {},
  tlb: { misses: 5, flushes: 0, walks: 5 },
  byReason: [{ reason: 'VMCALL', sub: 'unknown', count: 10 }],
  ...over,
});

it('intervals of a row are counted together, and timed by the fastest', () => {
  const m = together([interval({}), interval({ ns: 500, byReason: [{ reason: 'HLT', sub: '', count: 10 }] })]);
  expect(m).toMatchObject({ operations: 20, instructions: 200, exits: 20, hostNs: 50 });
  expect(m.byReason).toHaveLength(2);
});

it('a cell has the error of the model against the paper, and a row without a figure has none', () => {
  const [hypercall] = TABLES.table1[0].rows;
  if (hypercall === undefined) throw new Error('table 1 is empty');
  const cell = benchCell(hypercall, 'kvm-ept', together([interval({})]), sosp23, figures);
  expect(cell).toMatchObject({ paperUs: 0.46, exits: 1, worldSwitches: 2, instructions: 10, unpriced: ['tlb.miss'] });
  expect(cell.modelErrorPercent).toBeCloseTo(100 * (cell.modelledUs / 0.46 - 1), 1);
  expect(benchCell(hypercall, 'kvm-spt', together([interval({})]), sosp23, figures)).not.toHaveProperty('paperUs');
});

const document = await runBench({ ...quiet, tables: TABLES.table1, designs: ['kvm-ept', 'pvm'], profile: sosp23, kernel: undefined, scale: 0.001 });

describe('table 1, measured', () => {
  const [table] = document.tables;

  it('is one exit an operation, and the model within 10 % of the paper', () => {
    expect(table?.rows).toHaveLength(5);
    for (const cell of table?.rows.flatMap((row) => row.cells) ?? []) {
      expect([cell.exits, cell.worldSwitches]).toEqual([1, 2]);
      expect(Math.abs(cell.modelErrorPercent ?? Number.NaN)).toBeLessThan(10);
      expect(cell.hostNs).toBeGreaterThan(0);
    }
    if (table !== undefined) expect(modelErrors(table)?.medianPercent).toBeLessThan(4);
  });

  it('is printed with paper, modelled, counted and measured figures in columns of their own', () => {
    const text = formatBench(document);
    expect(text).toMatch(/^ +paper +modelled +error of +counted +counted +counted +host time /m);
    expect(text).toMatch(/^hypercall +kvm-ept +0\.46 +0\.4\d +\+\d% +1 +2 +\d+ +[\d,]+ +1\.00/m);
    expect(text).toContain('fitted on these figures');
    expect(text).toContain('nested');
  });
});

it("the error of what a design adds is that of the paper's kvm-ept figure and the modelled difference", () => {
  const zero = { unpriced: [], parts: [], operations: 1, exits: 0, worldSwitches: 0, instructions: 0, tlbMisses: 0, exitsByReason: {}, hostNs: 1 };
  const cell = (design: DesignName, paperUs: number, modelledUs: number) => ({ ...zero, design, paperUs, modelledUs, modelErrorPercent: 0 });
  const rows = [{ name: 'stat', cells: [cell('kvm-ept', 10, 1), cell('kvm-spt', 20, 7), cell('pvm', 8, 3)] }];
  // 10 + 6 against 20, and 10 + 2 against 8.
  expect(modelErrors({ title: '', model: 'prediction', rows, skipped: [], notes: [] })?.onTop).toEqual({ cells: 2, medianPercent: 35, worstPercent: 50 });
});

it('rows that need a stock kernel are left out without one, and said to be', async () => {
  const without = await runBench({ ...quiet, tables: TABLES.lmbench, designs: ['bare'], profile: sosp23, kernel: undefined, scale: 1 });
  expect(without.tables.flatMap((t) => t.rows)).toEqual([]);
  expect(formatBench(without)).toMatch(/Left out without a stock kernel.*fork, exec, sh/);
});

it('a calibration prices everything that a profile can price', async () => {
  const { profile, residuals } = await calibrate('test', 'the machine of this test', 0.001, () => undefined);
  expect(parseCostProfile(JSON.stringify(profile), 'test').prices).toEqual(profile.primitives);
  expect(Object.keys(profile.primitives).sort()).toEqual(Object.keys(PRIMITIVES).sort());
  expect(residuals.length).toBeGreaterThan(Object.keys(PRIMITIVES).length);
});
