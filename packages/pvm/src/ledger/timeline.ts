import type { Saveable, StateIo } from '@pvm/cpu-jit';

/** Most intervals that a timeline has, and what it distinguishes. */
const BINS = 256;
const MAX_REASONS = 64;
const FIRST_WIDTH = 4096;

/** Exits over the course of a run: `counts[reason][i]` in the i-th interval of `widthInstructions`. */
export interface TimelineData {
  readonly widthInstructions: number;
  readonly counts: Readonly<Record<string, readonly number[]>>;
}

/**
 * Counts exits over retired guest instructions in constant memory: when the run outgrows the intervals, neighbours are added together and
 * each becomes twice as long. Instructions, not host time, so that the designs' timelines of a repeatable run lie side by side.
 */
export class Timeline implements Saveable {
  private width = FIRST_WIDTH;
  private readonly reasons: string[] = [];
  private readonly counts: Float64Array[] = [];

  /** Number of the series for `reason`. */
  series(reason: string): number {
    const known = this.reasons.indexOf(reason);
    if (known >= 0) return known;
    if (this.reasons.length >= MAX_REASONS - 1 && reason !== 'other') return this.series('other');
    this.counts.push(new Float64Array(BINS));
    return this.reasons.push(reason) - 1;
  }

  /** An exit after `instructions` that stands for `weight` of them. */
  add(series: number, instructions: number, weight = 1): void {
    while (instructions >= this.width * BINS) this.halve();
    const bins = this.counts[series];
    const at = Math.floor(instructions / this.width);
    if (bins !== undefined) bins[at] = (bins[at] ?? 0) + weight;
  }

  private halve(): void {
    for (const bins of this.counts) {
      for (let i = 0; i < BINS / 2; i++) bins[i] = (bins[2 * i] ?? 0) + (bins[2 * i + 1] ?? 0);
      bins.fill(0, BINS / 2);
    }
    this.width *= 2;
  }

  /** What was counted; series without exits, and intervals after the last exit, are left out. */
  data(): TimelineData {
    const used = 1 + Math.max(-1, ...this.counts.map((bins) => bins.findLastIndex((n) => n > 0)));
    const series = this.reasons.map((reason, i): [string, number[]] => [reason, [...(this.counts[i] ?? [])].slice(0, used)]);
    return { widthInstructions: this.width, counts: Object.fromEntries(series.filter(([, bins]) => bins.some((n) => n > 0))) };
  }

  /** After the series were made again in the same order. */
  state(s: StateIo): void {
    s.fields(this, ['width', 'counts']);
  }
}
