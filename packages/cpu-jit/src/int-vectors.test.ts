import { describe, expect, test } from 'vitest';
import { compiled, differences, type Executor, interpreted } from '../tests/int-replay.ts';
import { readIntVectors } from '../tests/int-vectors.ts';
import { kindOf } from '../tests/random-instruction.ts';
import { decode, formKey, forms } from './decoder/index.ts';

const encodings = readIntVectors();

/** Up to twenty differences, as text. */
function replay(execute: Executor, list: typeof encodings): string[] {
  const found: string[] = [];
  for (const encoding of list) {
    for (const c of encoding.cases) found.push(...differences(encoding, c, execute(encoding, c.before), true));
    if (found.length > 20) break;
  }
  return found;
}

describe('integer instructions recorded on silicon', () => {
  test('cover every form of the tables, with at least 100,000 cases', () => {
    const covered = new Set<number>();
    for (const { code } of encodings) {
      const bytes = new Uint8Array(16);
      bytes.set(code);
      const insn = decode(bytes, 0, 16, 64);
      if (typeof insn !== 'string') covered.add(formKey(insn));
    }
    const missing = [...forms(64)].filter((f) => kindOf(f) === 'integer' && !covered.has(formKey(f)));
    expect(missing.map((f) => `${f.row.name} ${f.row.operands.join()}`)).toEqual([]);
    expect(encodings.reduce((n, e) => n + e.cases.length, 0)).toBeGreaterThanOrEqual(100_000);
  });
  test('give the same results interpreted, page faults and flags the SDM leaves undefined included', async () => {
    expect(replay(await interpreted(), encodings)).toEqual([]);
  });
  test('give the same results compiled', async () => {
    expect(replay(await compiled(encodings), encodings)).toEqual([]);
  });
});
