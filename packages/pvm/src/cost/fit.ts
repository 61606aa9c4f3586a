import type { Prices } from './cost-profile.ts';
import { PRIMITIVE_NAMES, type Primitive, type Steps } from './primitives.ts';

/** Something whose time is known: `steps` take `ns` together. */
export interface Equation {
  readonly name: string;
  readonly steps: Steps;
  readonly ns: number;
}

/**
 * Prices, 0 or more, that make the sum of the squared relative errors of all equations least (Lawson and Hanson's active sets, tried in full:
 * there are few primitives). Primitives that no equation has get none.
 *
 * @returns ns by primitive, to 0.1
 * @throws RangeError when the equations do not determine the prices
 */
export function fitPrices(equations: readonly Equation[]): ReadonlyMap<Primitive, number> {
  let active = PRIMITIVE_NAMES.filter((p) => equations.some((e) => (e.steps[p] ?? 0) > 0));
  const zero: Primitive[] = [];
  for (;;) {
    const solution = leastSquares(equations, active);
    const worst = solution.indexOf(Math.min(...solution));
    const name = active[worst];
    if (name === undefined || (solution[worst] ?? 0) >= 0) {
      const prices = active.map((p, i): [Primitive, number] => [p, Math.round((solution[i] ?? 0) * 10) / 10]);
      return new Map([...prices, ...zero.map((p): [Primitive, number] => [p, 0])]);
    }
    zero.push(name);
    active = active.filter((p) => p !== name);
  }
}

/** Normal equations, each row divided by its time so that relative errors count, by Gauss and Jordan with pivoting. */
function leastSquares(equations: readonly Equation[], unknowns: readonly Primitive[]): number[] {
  const rows = equations.map((e) => unknowns.map((p) => (e.steps[p] ?? 0) / e.ns));
  const product = (i: number, j: number) => rows.reduce((sum, row) => sum + (row[i] ?? 0) * (row[j] ?? 0), 0);
  const matrix = unknowns.map((_, i) => [...unknowns.map((__, j) => product(i, j)), rows.reduce((sum, row) => sum + (row[i] ?? 0), 0)]);
  const n = unknowns.length;
  for (let column = 0; column < n; column++) {
    const pivot = matrix.slice(column).reduce((best, row) => (Math.abs(row[column] ?? 0) > Math.abs(best[column] ?? 0) ? row : best));
    const scale = pivot[column] ?? 0;
    const size = product(column, column);
    if (Math.abs(scale) <= 1e-9 * size) throw new RangeError(`the round trips do not determine ${unknowns[column]}`);
    matrix[matrix.indexOf(pivot)] = matrix[column] ?? [];
    const unit = pivot.map((x) => x / scale);
    matrix[column] = unit;
    for (let i = 0; i < n; i++) {
      const factor = matrix[i]?.[column] ?? 0;
      if (i !== column) matrix[i] = (matrix[i] ?? []).map((x, j) => x - factor * (unit[j] ?? 0));
    }
  }
  return matrix.map((row) => row[n] ?? 0);
}

/** What the prices make of an equation, as a relative error. */
export function relativeError({ steps, ns }: Equation, prices: Prices): number {
  const model = Object.entries(steps).reduce((sum, [p, times]) => sum + times * (prices[p as Primitive]?.ns ?? 0), 0);
  return model / ns - 1;
}
