/** Statistics of one kind of exit. Times are nanoseconds of host time between leaving the guest and entering it again. */
export interface ExitStats {
  readonly reason: string;
  readonly sub: string;
  readonly count: number;
  readonly totalNs: number;
  readonly minNs: number;
  readonly maxNs: number;
  readonly meanNs: number;
  /** Relative standard deviation of the mean in percent, as perf prints it: stddev / sqrt(count) / mean. */
  readonly relStddevPercent: number;
  /** Element `i` counts exits of [2^i, 2^(i+1)) ns; the last one also everything longer. */
  readonly histogram: readonly number[];
}

/** An exit kept for the report of a guest that died. */
export interface RecentExit {
  readonly reason: string;
  readonly sub: string;
  readonly rip: bigint;
}

/** Crossings between two of {user, kernel, hypervisor}; an exit and the entry that follows are two. */
export interface WorldSwitches {
  /** Exits from and entries into the guest. */
  readonly exits: number;
  /** Direct switches user -> kernel and back, made by the switcher without an exit. */
  readonly directSyscalls: number;
  readonly directReturns: number;
  /** exits * 2 + direct switches. */
  readonly total: number;
}

const HISTOGRAM_BUCKETS = 24;
const RING = 32;
/** Sub-reasons come from the guest (ports, MSR numbers): beyond this many rows the rest share one per reason. */
const MAX_ROWS = 512;

class Row {
  readonly reason: string;
  readonly sub: string;
  count = 0;
  total = 0;
  min = Number.POSITIVE_INFINITY;
  max = 0;
  /** Welford's running mean and sum of squared differences. */
  mean = 0;
  m2 = 0;
  readonly histogram = new Float64Array(HISTOGRAM_BUCKETS);
  constructor(reason: string, sub: string) {
    this.reason = reason;
    this.sub = sub;
  }
}

/**
 * Counts and times every VM exit, by reason and sub-reason, in constant memory. Callers intern a reason once
 * (`row`) and then record by number, so that recording allocates nothing.
 */
export class ExitLedger {
  private readonly rows: Row[] = [];
  private readonly byName = new Map<string, number>();
  private readonly ringRow = new Uint16Array(RING);
  private readonly ringRip = new Uint32Array(2 * RING);
  private exits = 0;
  private readonly directCounts: () => { syscalls: number; returns: number };

  /** @param directCounts reads the switcher's counters of direct switches */
  constructor(directCounts: () => { syscalls: number; returns: number } = () => ({ syscalls: 0, returns: 0 })) {
    this.directCounts = directCounts;
  }

  /** Number of the row for `reason` and `sub`, made when it is new. */
  row(reason: string, sub = ''): number {
    const name = `${reason}\0${sub}`;
    const known = this.byName.get(name);
    if (known !== undefined) return known;
    if (this.rows.length >= MAX_ROWS && sub !== 'other') return this.row(reason, 'other');
    const id = this.rows.push(new Row(reason, sub)) - 1;
    this.byName.set(name, id);
    return id;
  }

  /** One exit of row `id` that took `ns`; the guest was at RIP (low and high 32 bits). */
  record(id: number, ns: number, ripLow: number, ripHigh: number): void {
    const row = this.rows[id];
    if (row === undefined) throw new RangeError(`no exit reason ${id}`);
    row.count++;
    row.total += ns;
    if (ns < row.min) row.min = ns;
    if (ns > row.max) row.max = ns;
    const delta = ns - row.mean;
    row.mean += delta / row.count;
    row.m2 += delta * (ns - row.mean);
    const bucket = ns < 1 ? 0 : Math.min(HISTOGRAM_BUCKETS - 1, 31 - Math.clz32(Math.min(ns, 0x7fff_ffff)));
    row.histogram[bucket] = (row.histogram[bucket] ?? 0) + 1;
    const at = this.exits++ % RING;
    this.ringRow[at] = id;
    this.ringRip[2 * at] = ripLow;
    this.ringRip[2 * at + 1] = ripHigh;
  }

  /** Exits so far, of all reasons. */
  get totalExits(): number {
    return this.exits;
  }

  /** Host time spent outside the guest for exits, ns. */
  get totalNs(): number {
    return this.rows.reduce((sum, row) => sum + row.total, 0);
  }

  /** Exits of `reason`, or of one of its sub-reasons. */
  count(reason: string, sub?: string): number {
    return this.rows.reduce((sum, row) => (row.reason === reason && (sub === undefined || row.sub === sub) ? sum + row.count : sum), 0);
  }

  /** All rows that have been recorded at least once, most samples first. */
  entries(): ExitStats[] {
    return this.rows
      .filter((row) => row.count > 0)
      .map((row) => ({
        reason: row.reason,
        sub: row.sub,
        count: row.count,
        totalNs: row.total,
        minNs: row.min,
        maxNs: row.max,
        meanNs: row.mean,
        relStddevPercent: row.count > 1 && row.mean > 0 ? (100 * Math.sqrt(row.m2 / (row.count - 1) / row.count)) / row.mean : 0,
        histogram: [...row.histogram],
      }))
      .sort((a, b) => b.count - a.count || compare(a.reason, b.reason) || compare(a.sub, b.sub));
  }

  worldSwitches(): WorldSwitches {
    const { syscalls, returns } = this.directCounts();
    return { exits: this.exits, directSyscalls: syscalls, directReturns: returns, total: this.exits * 2 + syscalls + returns };
  }

  /** The last exits, oldest first. */
  recent(): RecentExit[] {
    const n = Math.min(this.exits, RING);
    return Array.from({ length: n }, (_, i) => {
      const at = (this.exits - n + i) % RING;
      const row = this.rows[this.ringRow[at] ?? 0];
      return { reason: row?.reason ?? '', sub: row?.sub ?? '', rip: (BigInt(this.ringRip[2 * at + 1] ?? 0) << 32n) | BigInt(this.ringRip[2 * at] ?? 0) };
    });
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
