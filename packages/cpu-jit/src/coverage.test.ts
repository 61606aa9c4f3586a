import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { describeForm, isExempt, recording } from '../tests/coverage.ts';
import { withCoverage } from '../tests/coverage-table.ts';
import { WITHOUT_VECTORS } from '../tests/without-vectors.ts';
import { formKey, forms, rows } from './decoder/index.ts';

const { cases, addressing, total } = recording();
const SIZES = [16, 32, 64] as const;
const ADDRESSING = ['other segment', '16-bit address', '32-bit address', 'RIP-relative', 'base and index, scaled', 'absolute', 'base and displacement', 'LOCK'];

test.each(SIZES)('every form of %i-bit code was recorded on silicon, or there is a reason why it cannot be', (size) => {
  const missing = [...forms(size)].filter((f) => !isExempt(f, size) && !cases.get(size)?.has(formKey(f)));
  // A new file of vectors is listed in tests/vector-sources.ts.
  expect(missing.map(describeForm)).toEqual([]);
});

test('at least 100,000 cases are recorded, and a thousand of each way to address memory', () => {
  expect(total).toBeGreaterThanOrEqual(100_000);
  for (const kind of ADDRESSING) expect([kind, (addressing.get(kind) ?? 0) >= 1000]).toEqual([kind, true]);
});

test('nothing is excused from vectors that has them, or is in no table', () => {
  const names = new Set(rows.map((r) => r.name));
  for (const name of Object.keys(WITHOUT_VECTORS)) expect([name, names.has(name)]).toEqual([name, true]);
  for (const size of SIZES) {
    const excused = [...forms(size)].filter((f) => isExempt(f, size) && cases.get(size)?.has(formKey(f)));
    expect(excused.map(describeForm)).toEqual([]);
  }
});

test('the table in README.md is what scripts/coverage-table.ts makes of the tables and vectors as they are', { timeout: 120_000 }, () => {
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  expect(readme, 'run: npm run coverage-table, in packages/cpu-jit').toBe(withCoverage(readme));
});

test('flags that the manual leaves undefined are named in the row, with letters of status flags', () => {
  for (const row of rows)
    if (row.undef !== undefined) expect([row.name, /^[oszapc]+$/.test(row.undef), new Set(row.undef).size]).toEqual([row.name, true, row.undef.length]);
});
