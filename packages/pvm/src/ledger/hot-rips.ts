import type { Saveable, StateIo } from '@pvm/cpu-jit';

/** Sets of a table, and entries of a set. */
const SETS = 128;
const WAYS = 8;

/** A place in the guest that exits. */
export interface HotRip {
  /** Ledger row of the exits. */
  readonly row: number;
  readonly rip: bigint;
  /** Exits there; too high by at most `maxOvercount`. */
  readonly count: number;
  readonly maxOvercount: number;
}

/**
 * Finds the guest addresses of the most exits in constant memory: Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient
 * Computation of Frequent and Top-k Elements in Data Streams", 2005), in a set-associative table. A new address takes the
 * place of the rarest of its set and inherits its count, which bounds the error.
 */
export class HotRips implements Saveable {
  private readonly low = new Uint32Array(SETS * WAYS);
  private readonly high = new Uint32Array(SETS * WAYS);
  private readonly row = new Uint32Array(SETS * WAYS);
  private readonly count = new Float64Array(SETS * WAYS);
  private readonly overcount = new Float64Array(SETS * WAYS);

  /** An exit of ledger row `row` at RIP (low and high 32 bits) that stands for `weight` of them. */
  add(row: number, ripLow: number, ripHigh: number, weight = 1): void {
    const { low, high, count } = this;
    const first = ((Math.imul(ripLow ^ Math.imul(row, 0x9e37_79b1), 0x85eb_ca6b) >>> 16) & (SETS - 1)) * WAYS;
    let rarest = first;
    for (let i = first; i < first + WAYS; i++) {
      if (low[i] === ripLow && high[i] === ripHigh && this.row[i] === row) {
        count[i] = (count[i] ?? 0) + weight;
        return;
      }
      if ((count[i] ?? 0) < (count[rarest] ?? 0)) rarest = i;
    }
    const inherited = count[rarest] ?? 0;
    low[rarest] = ripLow;
    high[rarest] = ripHigh;
    this.row[rarest] = row;
    this.overcount[rarest] = inherited;
    count[rarest] = inherited + weight;
  }

  /** The addresses of the most exits, most first. */
  top(n: number): HotRip[] {
    return Array.from(this.count, (count, i) => ({
      row: this.row[i] ?? 0,
      rip: (BigInt(this.high[i] ?? 0) << 32n) | BigInt(this.low[i] ?? 0),
      count,
      maxOvercount: this.overcount[i] ?? 0,
    }))
      .filter((e) => e.count > 0)
      .sort((a, b) => b.count - a.count || a.row - b.row || (a.rip < b.rip ? -1 : 1))
      .slice(0, n);
  }

  state(s: StateIo): void {
    s.fields(this, ['low', 'high', 'row', 'count', 'overcount']);
  }
}
