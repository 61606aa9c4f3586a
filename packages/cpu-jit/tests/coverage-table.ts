/** The generated part of README.md: rows, forms, vectors and gaps, by opcode map. */
import { type CodeSize, formKey, forms, rows } from '../src/decoder/index.ts';
import type { Form, Row } from '../src/decoder/types.ts';
import { semantics } from '../src/semantics/index.ts';
import { compiledForms, groupOf, isExempt, recording } from './coverage.ts';
import { WITHOUT_VECTORS } from './without-vectors.ts';

const BEGIN = '<!-- coverage: begin (npm run coverage-table) -->';
const END = '<!-- coverage: end -->';
const FLAG_NAMES: Readonly<Record<string, string>> = { o: 'OF', s: 'SF', z: 'ZF', a: 'AF', p: 'PF', c: 'CF' };

function table(header: readonly string[], lines: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  return [line(header), `|${header.map((_, i) => (i === 0 ? '---|' : '---:|')).join('')}`, ...lines.map(line)].join('\n');
}

/** Forms of 16- and 32-bit code that 64-bit code lacks. */
function legacyForms(): Form[] {
  const byKey = new Map([...forms(16), ...forms(32)].filter((f) => f.row.mode === 'i64').map((f) => [formKey(f), f]));
  return [...byKey.values()];
}

function groups(): string {
  const { cases } = recording();
  const legacy = legacyForms();
  const list = [...forms(64), ...legacy];
  const compiled = new Set([...compiledForms([...forms(64)], 64), ...compiledForms(legacy, 32)]);
  /** In code of all sizes. */
  const recordedCases = (f: Form): number => [16, 32, 64].reduce((sum, size) => sum + (cases.get(size as CodeSize)?.get(formKey(f)) ?? 0), 0);
  const names = [...new Set(rows.map(groupOf))].sort();
  const numbers = (inGroup: (row: Row) => boolean): number[] => {
    const mine = list.filter((f) => inGroup(f.row));
    const known = mine.filter((f) => semantics[f.row.name] !== undefined);
    const recorded = mine.filter((f) => recordedCases(f) > 0);
    return [
      rows.filter(inGroup).length,
      mine.length,
      mine.filter((f) => compiled.has(formKey(f))).length,
      known.filter((f) => !compiled.has(formKey(f))).length,
      recorded.length,
      recorded.reduce((sum, f) => sum + recordedCases(f), 0),
      known.length - known.filter((f) => recordedCases(f) > 0).length,
      mine.length - known.length,
    ];
  };
  return table(
    ['opcode map', 'rows', 'forms', 'compiled', 'interpreted only', 'recorded on silicon', 'cases', 'from the manual only', 'always #UD'],
    [...names.map((name) => [name, ...numbers((row) => groupOf(row) === name)]), ['**all**', ...numbers(() => true)]],
  );
}

function files(): string {
  const { files: counts, total } = recording();
  return table(['file in tests/vectors', 'cases'], [...[...counts].map(([file, n]) => [file, n]), ['**all**', total]]);
}

function addressing(): string {
  const { addressing: counts } = recording();
  return table(
    ['memory operand', 'cases'],
    [...counts].sort((a, b) => b[1] - a[1]),
  );
}

/** Mnemonics by the flags that the manual leaves undefined after them (`Row.undef`). */
function undefinedFlags(): string {
  const byMask = new Map<string, Set<string>>();
  for (const row of rows) {
    if (row.undef === undefined) continue;
    const flags = [...'oszapc'].filter((f) => row.undef?.includes(f)).map((f) => FLAG_NAMES[f]);
    const key = flags.join(' ');
    byMask.set(key, (byMask.get(key) ?? new Set()).add(row.name.replace(/^imul\d$/, 'imul').toUpperCase()));
  }
  return table(
    ['undefined flags', 'rows'],
    [...byMask].sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, names]) => [key, [...names].join(', ')]),
  ).replace('|---:|', '|---|');
}

function withoutVectors(): string {
  const byReason = new Map<string, string[]>();
  for (const [name, why] of Object.entries(WITHOUT_VECTORS)) byReason.set(why, [...(byReason.get(why) ?? []), name.toUpperCase()]);
  return [...byReason].map(([why, names]) => `- ${names.join(', ')}: ${why}.`).join('\n');
}

function unimplemented(): string {
  const names = [...new Set(rows.filter((r) => semantics[r.name] === undefined).map((r) => r.name.toUpperCase()))];
  return names.length === 0 ? 'Every row has semantics.' : `Rows without semantics, which raise #UD: ${names.join(', ')}.`;
}

function generated(): string {
  const unrecorded = [...forms(64)].filter((f) => isExempt(f, 64)).length;
  return [
    BEGIN,
    'A form is a row with an operand size, a register or memory operand and, where they matter, a repeat prefix and an address size.',
    'Forms of 64-bit code; those that only 16- and 32-bit code has are a line of their own. Compiled: the region compiler makes code for the form, out of line',
    'calls to the runtime included. Such code is interpreted all the same while MXCSR asks for another rounding mode or unmasked exceptions (floating point), while CR0.TS or CR0.EM is set (SSE), or',
    'while segments are not flat (32-bit code), and 16-bit code always.',
    '',
    groups(),
    '',
    files(),
    '',
    addressing(),
    '',
    `Without vectors (${unrecorded} forms), tested from the manual:`,
    '',
    withoutVectors(),
    '',
    `${unimplemented()} Flags the manual leaves undefined are listed in each row (\`undef\`); the integer vectors are compared with them all the same:`,
    '',
    undefinedFlags(),
    END,
  ].join('\n');
}

/** `readme` with its generated part made anew. Throws `TypeError` when the markers are missing. */
export function withCoverage(readme: string): string {
  const [from, to] = [readme.indexOf(BEGIN), readme.indexOf(END)];
  if (from < 0 || to < from) throw new TypeError(`README.md: expected a part between ${BEGIN} and ${END}`);
  return readme.slice(0, from) + generated() + readme.slice(to + END.length);
}
