/** What the designs' speed is held to, as ratios in one run; those between designs are the paper's. */
import type { DesignName, PublishedFigures } from '../../packages/pvm/src/index.ts';
import { median } from './statistics.ts';

/** One row of `bench:designs`: the least of all passes, and the ratio of each design to bare. */
export interface DesignResult {
  readonly row: string;
  readonly unit: string;
  readonly best: Readonly<Record<string, number>>;
  readonly ratioToBare: Readonly<Record<string, number>>;
  readonly medianRatioToBare: Readonly<Record<string, number>>;
  /** Lowest and highest median ratio of a pass, for machines that take turns. */
  readonly spread?: Readonly<Record<string, readonly [low: number, high: number]>>;
}

/** A number of the results beside the most it should be. */
export interface DesignGoal {
  readonly what: string;
  readonly limit: number;
  readonly measured: number;
  readonly unit: string;
  readonly isReached: boolean;
}

/** Rows of programs that only compute. */
export const COMPUTE_ROWS = ['sieve', 'sha256', 'nbody', 'hash-table', 'trees'] as const;
const COMPUTE_LIMIT = 1.03;
const GETPID_LIMIT = 1.3;
const EPT_LIMIT = 1.15;
const SHADOW_FILL_NS = 3000;
const ROUND_TRIP_NS = 800;
/** Rows of our own and of stock Linux, and the paper's row that bounds what a shadow design may cost beside kvm-ept. */
const AGAINST_EPT = [
  { row: 'page-fault', published: ['table4', 'page fault'] },
  { row: 'linux page-fault', published: ['table4', 'page fault'] },
  { row: 'linux fork+exit+wait', published: ['table3', 'fork'] },
] as const;
const SHADOW_DESIGNS = [
  ['kvm-spt', 'kvm-spt-bm'],
  ['pvm', 'pvm-bm'],
] as const;

/**
 * A row whose machines took turns: each round is compared with bare's beside it. A machine that does the same as another may be some percent slower all its
 * life, by where its memory lies, so the ratio is the median of the passes' medians.
 */
export function summariseTurns(row: string, designs: readonly DesignName[], passes: readonly ReadonlyMap<DesignName, readonly number[]>[]): DesignResult {
  const least = (design: DesignName) => Math.min(...passes.flatMap((pass) => pass.get(design) ?? []));
  const medians = (design: DesignName) =>
    passes.map((pass) => median((pass.get(design) ?? []).map((ms, i) => ms / (pass.get('bare')?.[i] ?? Number.NaN)).filter((ratio) => !Number.isNaN(ratio))));
  const of = <T>(value: (design: DesignName) => T) => Object.fromEntries(designs.map((design) => [design, value(design)]));
  const best = of(least);
  if (!designs.includes('bare')) return { row, unit: 'ms', best, ratioToBare: {}, medianRatioToBare: {} };
  const four = (n: number) => Number(n.toFixed(4));
  return {
    ...{ row, unit: 'ms', best },
    ratioToBare: of((design) => four(least(design) / least('bare'))),
    medianRatioToBare: of((design) => four(median(medians(design)))),
    spread: of((design) => [four(Math.min(...medians(design))), four(Math.max(...medians(design)))] as const),
  };
}

/** The goals whose rows were measured. */
export function designGoals(results: readonly DesignResult[], figures: PublishedFigures): DesignGoal[] {
  const goals: DesignGoal[] = [];
  const goal = (what: string, measured: number | undefined, limit: number, unit: string) => {
    if (measured === undefined || Number.isNaN(measured)) return;
    goals.push({ what, limit: Number(limit.toFixed(2)), measured, unit, isReached: measured <= limit });
  };
  const of = (row: string) => results.find((r) => r.row === row);
  const ratio = (row: string, design: DesignName, base: DesignName) => {
    const { [design]: time, [base]: baseTime } = of(row)?.best ?? {};
    return time === undefined || baseTime === undefined ? undefined : time / baseTime;
  };
  const designs: readonly DesignName[] = ['kvm-ept', 'kvm-spt', 'pvm'];
  for (const design of designs) {
    const ratios = COMPUTE_ROWS.map((row) => of(row)?.medianRatioToBare[design]).filter((n) => n !== undefined);
    goal(`programs that compute, ${design} / bare, the worst of ${ratios.length}`, ratios.length === 0 ? undefined : Math.max(...ratios), COMPUTE_LIMIT, 'x');
  }
  goal('getpid, pvm / bare', ratio('getpid', 'pvm', 'bare'), GETPID_LIMIT, 'x');
  for (const { row, published } of AGAINST_EPT) {
    goal(`${row}, kvm-ept / bare`, ratio(row, 'kvm-ept', 'bare'), EPT_LIMIT, 'x');
    const paper = figures[published[0]][published[1]];
    for (const [design, column] of SHADOW_DESIGNS) {
      const [ept, shadow] = [paper?.['kvm-ept-bm']?.[0], paper?.[column]?.[0]];
      if (ept !== undefined && shadow !== undefined) goal(`${row}, ${design} / kvm-ept (the paper's)`, ratio(row, design, 'kvm-ept'), shadow / ept, 'x');
    }
  }
  for (const [design] of SHADOW_DESIGNS) goal(`shadow fill, ${design}`, of('shadow fill')?.best[design], SHADOW_FILL_NS, 'ns');
  for (const design of designs) goal(`hypercall, an exit's round trip, ${design}`, of('hypercall')?.best[design], ROUND_TRIP_NS, 'ns');
  return goals;
}
