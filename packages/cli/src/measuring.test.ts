import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { testPrograms } from '@pvm/guests';
import type { RunReport } from '@pvm/pvm';
import { type Browser, chromium } from 'playwright-core';
import { afterAll, describe, expect, test } from 'vitest';
import type { Comparison } from './compare/comparison.ts';
import { figure, label, sections } from './compare/metrics.ts';

const BIN = fileURLToPath(new URL('../bin/pvm.mjs', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'pvm-measuring-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string) => join(folder, name);

function pvm(...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8', input: '', maxBuffer: 1 << 26 });
}

describe('a recorded run', () => {
  const recorded = pvm('run', '--clock', 'icount', '--stat-out', path('run.json'), '--trace', path('trace.jsonl'), '--trace-limit', '500', testPrograms.hello);
  const report = JSON.parse(readFileSync(path('run.json'), 'utf8')) as RunReport;

  test('has every exit in its table, its rows and its switches', () => {
    expect(recorded.status).toBe(0);
    const { ledger } = report;
    const sum = (list: readonly { readonly samples: number }[]) => list.reduce((n, e) => n + e.samples, 0);
    expect(report.exits).toBeGreaterThan(500);
    expect([sum(ledger.exits), sum(ledger.rows), ledger.totalExits]).toEqual([report.exits, report.exits, report.exits]);
    expect(report.worldSwitches).toBe(Object.values(ledger.worldSwitchesByKind).reduce((a, b) => a + b, 0));
    const timeline = Object.values(ledger.timeline.counts).flat();
    expect(timeline.reduce((a, b) => a + b, 0)).toBe(report.exits);
  });

  test('that ends at --max-instructions has its table all the same, and says so by its exit code', () => {
    const { status, stderr } = pvm('run', '--clock', 'icount', '--stat', '--max-instructions', '30000', testPrograms.hello);
    expect(status).not.toBe(0);
    expect(stderr).toMatch(/^VM-EXIT +Samples[\s\S]*^pvm: stopped after 30\d{3} instructions \(--max-instructions\)$/m);
  });

  test('names guest addresses by the symbols of the kernel', () => {
    expect(report.hotExits.find((e) => e.sub === 'table write')?.symbol).toMatch(/^\w+(\+0x[0-9a-f]+)?$/);
  });

  test('is printed by stat report as by run --stat', () => {
    const { status, stdout } = pvm('stat', 'report', path('run.json'), '--percentiles');
    expect(status).toBe(0);
    expect(stdout).toMatch(/^VM-EXIT +Samples +Samples% +Time% +Min Time +Max Time +p50 +p90 +p99 +Avg time$/m);
    expect(stdout).toContain(`Total Samples:${report.exits},`);
    expect(stdout).toContain(`Lost events:${report.exits - 500}.`);
  });

  test('is modelled in a table of its own, whose parts add up', () => {
    const { status, stdout } = pvm('stat', 'report', path('run.json'), '--profile', 'sosp23');
    expect(status).toBe(0);
    const [measured, modelled] = stdout.split(/^(?=MODELLED )/m);
    expect(measured).not.toContain('sosp23');
    expect(modelled).toMatch(/^MODELLED +Count +Each +Total +Share +Made of$/m);
    expect(modelled).toMatch(/^#PF table write +[\d,]+ +[\d.]+ us +[\d.]+ [mu]s +[\d.]+% +2 switch.pvm \+ emulate$/m);
    const shares = [...(modelled ?? '').matchAll(/ ([\d.]+)% /g)].map((m) => Number(m[1]));
    expect(shares.reduce((a, b) => a + b, 0)).toBeCloseTo(100, 0);
    expect(modelled).toMatch(/Modelled time of the run: .*sosp23/);
  });

  test('has a trace that converts to the trace-event format', () => {
    const { status } = pvm('stat', 'trace2perfetto', path('trace.jsonl'), path('perfetto.json'));
    expect(status).toBe(0);
    const document = JSON.parse(readFileSync(path('perfetto.json'), 'utf8')) as { traceEvents: { ph: string }[]; otherData: { lostExits: number } };
    expect(document.traceEvents.filter((e) => e.ph === 'X')).toHaveLength(500);
    expect(document.otherData.lostExits).toBe(report.exits - 500);
  });
});

test('stat live without a terminal prints the table as text and nothing of the guest', () => {
  const { status, stdout, stderr } = pvm('stat', 'live', '--interval', '0.2', '--output', path('out'), '--', '--clock', 'icount', testPrograms.hello);
  expect([status, stderr]).toEqual([0, '']);
  expect(stdout).toMatch(/^VM-EXIT +Samples/m);
  expect(stdout).not.toContain('hello');
  expect(stdout).not.toContain('\x1b');
  expect(readFileSync(path('out'), 'utf8')).toContain('hello, world');
});

describe('compare', () => {
  const prices = { 'switch.pvm': { ns: 500, basis: 'assumed' } };
  const profile = { schema: 'pvm-cost-1', name: 'test', source: 'this test', unit: 'ns', primitives: prices };
  writeFileSync(path('profile.json'), JSON.stringify(profile));
  const run = pvm(
    'compare',
    '--designs',
    'bare,pvm',
    '--json',
    '--html',
    path('report.html'),
    '--profile',
    path('profile.json'),
    '--',
    testPrograms.hello,
    'one',
  );
  const result = JSON.parse(run.stdout) as Comparison;

  test('runs each design once, to the same output', () => {
    expect(run.status).toBe(0);
    expect(result.designs.map((d) => d.design)).toEqual(['bare', 'pvm']);
    expect(result.differences).toEqual([]);
    const [bare, paravirtual] = result.designs;
    expect(bare?.console.bytes).toBeGreaterThan(100);
    expect(paravirtual?.report.exits).toBeGreaterThan(10 * (bare?.report.exits ?? 0));
    expect(paravirtual?.report.pageTables['pagesBuilt']).toBeGreaterThan(0);
    expect(paravirtual?.modelled?.totalNs).toBe(1000 * (paravirtual?.report.exits ?? 0));
  });

  test('keeps measured and modelled time in rows of their own', () => {
    for (const { metrics } of sections(result)) {
      for (const m of metrics.filter((each) => each.unit !== '')) expect(label(m).trim()).toMatch(/^(host|modelled) /);
    }
  });

  const browser = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((file) => existsSync(file));
  test.skipIf(browser === undefined)('draws a page whose figures are those of the JSON (skipped without a Chromium)', async () => {
    const instance: Browser = await chromium.launch({ executablePath: browser ?? '', args: ['--no-sandbox'] });
    try {
      const page = await instance.newPage({ viewport: { width: 1280, height: 900 } });
      const trouble: string[] = [];
      page.on('pageerror', (error) => trouble.push(String(error)));
      page.on('request', (request) => {
        if (!request.url().startsWith('file://')) trouble.push(request.url());
      });
      await page.goto(`file://${path('report.html')}`);
      const tables = await page.evaluate(() =>
        [...document.querySelectorAll('table')].map((table) => ({
          title: document.getElementById(table.getAttribute('aria-labelledby') ?? '')?.textContent,
          designs: [...table.querySelectorAll('thead th')].map((cell) => cell.textContent),
          rows: [...table.querySelectorAll('tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent)),
        })),
      );
      const expected = sections(result).map((s) => ({
        title: s.title,
        designs: ['bare', 'pvm'],
        rows: s.metrics.map((m) => [label(m).trim(), ...m.values.map(figure)]),
      }));
      expect(tables).toEqual(expected);
      const exits = tables[0]?.rows
        .find(([name]) => name === 'exits')
        ?.slice(1)
        .map((text) => Number(text?.replaceAll(',', '')));
      expect(exits).toEqual(result.designs.map((d) => d.report.exits));

      const charts = await page.evaluate(() =>
        [...document.querySelectorAll('canvas')].map((canvas) => {
          const { data } = canvas.getContext('2d')?.getImageData(0, 0, canvas.width, canvas.height) ?? { data: new Uint8ClampedArray() };
          const colours = new Set<number>();
          for (let i = 0; i < data.length; i += 4)
            if (data[i + 3] === 255) colours.add(((data[i] ?? 0) << 16) | ((data[i + 1] ?? 0) << 8) | (data[i + 2] ?? 0));
          return { label: canvas.getAttribute('aria-label') ?? '', role: canvas.getAttribute('role'), colours: colours.size };
        }),
      );
      // Exits, time, switches, latencies, modelled time, and a timeline a design.
      expect(charts).toHaveLength(7);
      for (const chart of charts) expect(chart).toMatchObject({ role: 'img', label: expect.stringMatching(/^\w.*exits/) });
      expect(Math.min(...charts.map((chart) => chart.colours))).toBeGreaterThan(2);

      const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const light = await ground();
      const screenshot = await page.screenshot({ fullPage: true });
      await page.emulateMedia({ colorScheme: 'dark' });
      expect(await ground()).not.toBe(light);
      expect((await page.screenshot({ fullPage: true })).equals(screenshot)).toBe(false);
      expect(screenshot.length).toBeGreaterThan(50_000);
      expect(trouble).toEqual([]);
    } finally {
      await instance.close();
    }
  });
});

describe('wrong input gets one line on stderr, exit code 2 and no file', () => {
  writeFileSync(path('old.json'), '{"schema":"pvm-stat-0"}');
  const hello = testPrograms.hello;
  const cases: [string, string[], RegExp][] = [
    ['stat report of nothing', ['stat', 'report', path('nothing')], /no such file/],
    ['stat report of text', ['stat', 'report', hello], /not JSON/],
    ['stat report of another schema', ['stat', 'report', path('old.json')], /pvm-stat-0.*pvm-stat-1/],
    ['a trace that is none', ['stat', 'trace2perfetto', path('old.json'), path('new.json')], /header/],
    ['an unknown design', ['compare', '--designs', 'bare,pmv', '--', hello], /no design "pmv"; expected some of bare/],
    ['a page that cannot be written', ['compare', '--html', path('no/page.html'), '--', hello], /no folder/],
    ['a design among the arguments of run', ['compare', '--', '--design', 'pvm', hello], /--designs/],
    ['a run that cannot begin', ['compare', '--html', path('new.html'), '--', path('nothing')], /no such file/],
    ['an unknown option of run', ['compare', '--', '--meory', '64M', hello], /meory/],
    ['symbols that are none', ['run', '--symbols', path('old.json'), hello], /System.map/],
    ['a trace of nothing', ['run', '--trace', path('none.jsonl'), '--trace-limit', '0', hello], /--trace-limit 0/],
    ['statistics that cannot be written', ['run', '--stat-out', folder, hello], /is a directory/],
    ['an unknown profile', ['run', '--stat', '--profile', 'sosp32', hello], /did you mean sosp23/],
    ['a profile that is none', ['stat', 'report', path('old.json'), '--profile', path('old.json')], /pvm-stat-1/],
    ['a profile of another schema', ['compare', '--profile', path('old.json'), '--', hello], /pvm-cost-1/],
    ['a profile of a run without a table', ['run', '--profile', 'sosp23', hello], /--stat/],
    ['an interval that is none', ['stat', 'live', '--interval', '0', '--', hello], /interval/],
  ];
  test.each(cases)('%s', (_, args, message) => {
    const before = readdirSync(folder);
    const { status, stdout, stderr } = pvm(...args);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect([status, stdout]).toEqual([2, '']);
    expect(readdirSync(folder)).toEqual(before);
  });
});
