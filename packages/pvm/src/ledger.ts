// Not the global of the same name: each look at that one goes through a getter.
import { performance } from 'node:perf_hooks';
import { type Saveable, StateError, type StateIo } from '@pvm/cpu-jit';
import type { DirectSwitches } from './designs/design.ts';
import { ExitRow, type ExitStats, mergeRows } from './ledger/exit-row.ts';
import { type HotRip, HotRips } from './ledger/hot-rips.ts';
import { exitClass } from './ledger/sub-reasons.ts';
import { Timeline, type TimelineData } from './ledger/timeline.ts';
import { TraceRing } from './ledger/trace.ts';

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
  /** Page faults injected without an exit. */
  readonly directFaults: number;
  /** exits * 2 + direct switches. */
  readonly total: number;
}

/** A power of two. */
const RING = 32;
/** Where counts begin in `hot`, and the count that is folded when a timed exit meets it: 32 bits do not last. */
const FIRST_COUNT = 4 * RING;
const FOLD = 2 ** 16;
/** vCPUs that a machine has at most. */
const VCPUS = 8;
/** Sub-reasons come from the guest (ports, MSR numbers): a reason that has so many rows puts the rest into one, `other`. */
const MAX_ROWS_OF_REASON = 128;
/** For rows that are made ahead. Reasons come from the designs, so this many are never reached. */
const MAX_ROWS = 2 ** 16;
const OTHER = 'other';
/**
 * A look at the clock takes 30 to 70 ns, timing an exit 400, an exit from 200 ns on: timing each of them would be felt. From so many exits on one of
 * `period` is timed.
 */
const TIMED = [
  { from: 0, period: 1 },
  { from: 2048, period: 16 },
  { from: 32_768, period: 64 },
  { from: 262_144, period: 256 },
  { from: 2_097_152, period: 1024 },
] as const;
/** Exits to the next that is timed when none are. */
const NEVER = 2 ** 30;

/**
 * Which exits are timed; all are counted. `sampled`: the first 2,048, then fewer and fewer, from 1 of 16 to 1 of 1,024 (after 2 million), chosen by chance (the
 * same in each run) and weighted.
 * `off`: nothing is even counted, to measure what the ledger costs.
 */
export type LedgerTiming = 'sampled' | 'all' | 'off';

export interface LedgerOptions {
  /** Default: sampled; a trace needs, and sets, `all`. */
  readonly timing?: LedgerTiming;
  /** Guest instructions that a vCPU has retired, for timeline and trace. Default: always 0. */
  readonly instructions?: (vcpu: number) => number;
  /** Keep the last so many exits one by one. Default 0. */
  readonly traceLimit?: number;
}

/**
 * Counts and times every VM exit, by reason and sub-reason, in constant memory. Callers intern a reason once
 * (`row`), take the time when the exit begins (`start`) and record by number when it ends (`finish`): nothing is allocated.
 */
export class ExitLedger implements Saveable {
  private mode: LedgerTiming;
  private isOn: boolean;
  /** The last exits one by one, if asked for. */
  readonly trace: TraceRing | undefined;
  private readonly rows: ExitRow[] = [];
  /**
   * What each exit writes, in one array since each array costs the engine its checks: the last exits (row, RIP low and high, unused), from `FIRST_COUNT` on
   * exits by row and vCPU: row * VCPUS + vCPU.
   */
  private hot = new Int32Array(FIRST_COUNT + 256 * VCPUS);
  /** What was taken out of the counts of `hot` before they overflowed. */
  private folded = new Float64Array(256 * VCPUS);
  private readonly byName = new Map<string, number>();
  private readonly rowsOfReason = new Map<string, number>();
  private readonly rips = new HotRips();
  private readonly timeline = new Timeline();
  /** Series of the timeline, by row. */
  private readonly seriesOf: number[] = [];
  private readonly instructions: (vcpu: number) => number;
  private readonly begun = performance.now();
  /**
   * Exits so far in 32 bits, when the next one is timed, how many exits that stands for, and the state of a xorshift32: 32-bit numbers always, since the engine
   * keeps a field that once held another in a box of its own, which each exit would then read and write.
   */
  private now = 0;
  private nextTimed = 0;
  private weight = 1;
  private chance = 0x9e37_79b9 | 0;
  /** Exits up to `seen` of `now`. */
  private exitsSeen = 0;
  private seen = 0;
  private readonly directCounts: () => DirectSwitches;

  /** @param directCounts reads the switcher's counters of direct switches */
  constructor(directCounts: () => DirectSwitches = () => ({ syscalls: 0, returns: 0 }), options: LedgerOptions = {}) {
    const { timing = 'sampled', instructions = () => 0, traceLimit = 0 } = options;
    this.directCounts = directCounts;
    this.mode = traceLimit > 0 ? 'all' : timing;
    this.isOn = this.mode !== 'off';
    this.instructions = instructions;
    this.trace = traceLimit > 0 ? new TraceRing(traceLimit) : undefined;
  }

  private grow(): void {
    const { folded, hot } = this;
    this.folded = new Float64Array(2 * folded.length);
    this.folded.set(folded);
    this.hot = new Int32Array(FIRST_COUNT + 2 * folded.length);
    this.hot.set(hot);
  }

  get timing(): LedgerTiming {
    return this.mode;
  }

  /** From the next exit on; those while it is `off` are missing in all counts. */
  set timing(timing: LedgerTiming) {
    this.mode = timing;
    this.isOn = timing !== 'off';
    this.chooseNextTimed();
  }

  /** Number of the row for `reason`, `sub` and `detail`, made when it is new. */
  row(reason: string, sub = '', detail = ''): number {
    const name = `${reason}\0${sub}\0${detail}`;
    const known = this.byName.get(name);
    if (known !== undefined) return known;
    const siblings = this.rowsOfReason.get(reason) ?? 0;
    if (siblings >= MAX_ROWS_OF_REASON && sub !== OTHER) return this.row(reason, OTHER);
    if (this.rows.length >= MAX_ROWS) throw new RangeError('too many exit reasons');
    this.rowsOfReason.set(reason, siblings + 1);
    const id = this.rows.push(new ExitRow(reason, sub, detail)) - 1;
    if (this.rows.length * VCPUS > this.folded.length) this.grow();
    this.seriesOf.push(this.timeline.series(exitClass(reason, sub)));
    this.byName.set(name, id);
    return id;
  }

  /** An exit begins: the time for `finish`, 0 when it is not timed. */
  start(): number {
    return ((this.now - this.nextTimed) | 0) < 0 ? 0 : this.startTimed();
  }

  private startTimed(): number {
    this.chooseNextTimed();
    return this.mode === 'off' ? 0 : performance.now();
  }

  /** Each exit, or after this one from 1 to twice the period at random, which it is on average. */
  private chooseNextTimed(): void {
    this.exitsSeen = this.totalExits;
    this.seen = this.now;
    const period = this.mode === 'sampled' ? (TIMED.findLast(({ from }) => this.exitsSeen >= from)?.period ?? 1) : 1;
    this.weight = period;
    this.nextTimed = (this.now + (this.mode === 'off' ? NEVER : period === 1 ? 0 : this.gap(period))) | 0;
  }

  private gap(period: number): number {
    let x = this.chance;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.chance = x;
    return 1 + ((x >>> 1) % (2 * period - 1));
  }

  /**
   * The exit of row `id` that began at `start` is over: the guest was at RIP (low and high 32 bits; signed is cheaper, since an address of a
   * kernel is then no number that must be allocated).
   */
  finish(id: number, start: number, ripLow: number, ripHigh: number, vcpu = 0): void {
    if (start !== 0) this.record(id, (performance.now() - start) * 1e6, ripLow, ripHigh, vcpu);
    else if (this.isOn) this.tally(id, ripLow, ripHigh, vcpu);
  }

  /** One exit of row `id` that took `ns` and is just over. */
  record(id: number, ns: number, ripLow: number, ripHigh: number, vcpu = 0): void {
    if (!this.isOn) return;
    this.tally(id, ripLow, ripHigh, vcpu);
    const { weight } = this;
    this.fold(id * VCPUS + vcpu);
    this.rows[id]?.time(ns, weight, vcpu);
    this.rips.add(id, ripLow >>> 0, ripHigh >>> 0, weight);
    const instructions = this.instructions(vcpu);
    this.timeline.add(this.seriesOf[id] ?? 0, instructions, weight);
    if (this.trace !== undefined) this.trace.add(id, vcpu, (performance.now() - this.begun) * 1e6 - ns, ns, ripLow, ripHigh, instructions);
  }

  private tally(id: number, ripLow: number, ripHigh: number, vcpu: number): void {
    const { hot, now } = this;
    const at = FIRST_COUNT + id * VCPUS + vcpu;
    const count = hot[at];
    if (count === undefined) throw new RangeError(`no exit reason ${id}`);
    hot[at] = count + 1;
    this.now = (now + 1) | 0;
    const last = (now & (RING - 1)) * 4;
    hot[last] = id;
    // Whole numbers for the engine, too, which would convert what may be a fraction.
    hot[last + 1] = ripLow | 0;
    hot[last + 2] = ripHigh | 0;
  }

  private fold(row: number): void {
    const count = this.hot[FIRST_COUNT + row] ?? 0;
    if (count < FOLD) return;
    this.folded[row] = (this.folded[row] ?? 0) + count;
    this.hot[FIRST_COUNT + row] = 0;
  }

  /** Exits so far, of all reasons. */
  get totalExits(): number {
    return this.exitsSeen + ((this.now - this.seen) >>> 0);
  }

  /** Host time spent outside the guest for exits, ns; what was not timed is taken to last as long as what was. */
  get totalNs(): number {
    return this.rows.reduce((sum, row, id) => sum + row.totalNs(this.countsOf(id)), 0);
  }

  /** Exits of `reason`, or of one of its sub-reasons. */
  count(reason: string, sub?: string): number {
    return this.counts().reduce((sum, row) => (row.reason === reason && (sub === undefined || row.sub === sub) ? sum + row.count : sum), 0);
  }

  /** vCPUs that have had exits. */
  vcpus(): number[] {
    return [...new Set(this.stats().map((e) => e.vcpu))].sort((a, b) => a - b);
  }

  /** What a row stands for. */
  name(id: number): { readonly reason: string; readonly sub: string; readonly detail: string } {
    return this.rows[id] ?? { reason: '', sub: '', detail: '' };
  }

  /** Every kind of exit that has happened, by reason and sub-reason, of all vCPUs; most samples first. */
  entries(): ExitStats[] {
    return mergeRows(this.stats(), 'sub');
  }

  /** The same as finely as it is known: by detail and vCPU too. */
  stats(): ExitStats[] {
    return this.rows.flatMap((row, id) => row.stats(this.countsOf(id)));
  }

  /** Samples by reason and sub-reason, cheaply: for differences between two moments. */
  counts(): { readonly reason: string; readonly sub: string; readonly count: number }[] {
    const sums = new Map<string, { reason: string; sub: string; count: number }>();
    this.rows.forEach(({ reason, sub }, id) => {
      const count = this.countsOf(id).reduce((all, n) => all + n, 0);
      const sum = sums.get(`${reason}\0${sub}`);
      if (sum !== undefined) sum.count += count;
      else if (count > 0) sums.set(`${reason}\0${sub}`, { reason, sub, count });
    });
    return [...sums.values()];
  }

  /** Exits of a row on each vCPU. */
  private countsOf(id: number): Float64Array {
    return Float64Array.from({ length: VCPUS }, (_, vcpu) => {
      const row = id * VCPUS + vcpu;
      return (this.folded[row] ?? 0) + (this.hot[FIRST_COUNT + row] ?? 0);
    });
  }

  /** The guest addresses of the most exits. */
  hotRips(n: number): HotRip[] {
    return this.rips.top(n);
  }

  /** Exits by reason over the course of the run. */
  timelineData(): TimelineData {
    return this.timeline.data();
  }

  worldSwitches(): WorldSwitches {
    const { syscalls, returns, faults = 0 } = this.directCounts();
    const exits = this.totalExits;
    return { exits, directSyscalls: syscalls, directReturns: returns, directFaults: faults, total: exits * 2 + syscalls + returns + faults };
  }

  /** The last exits, oldest first. */
  recent(): RecentExit[] {
    const n = Math.min(this.totalExits, RING);
    return Array.from({ length: n }, (_, i) => {
      const at = ((this.now - n + i) & (RING - 1)) * 4;
      const { reason, sub } = this.name(this.hot[at] ?? 0);
      return { reason, sub, rip: (BigInt((this.hot[at + 2] ?? 0) >>> 0) << 32n) | BigInt((this.hot[at + 1] ?? 0) >>> 0) };
    });
  }

  /** Everything but the trace, which begins anew. Rows keep their numbers, which designs remember. */
  state(s: StateIo): void {
    const names = s.value(
      'rows',
      this.rows.map(({ reason, sub, detail }) => ({ reason, sub, detail })),
    );
    if (s.restoring) this.internAgain(names);
    s.fields(this, ['rows', 'timeline', 'rips', 'hot', 'folded', 'now', 'nextTimed', 'weight', 'chance', 'exitsSeen', 'seen']);
  }

  private internAgain(names: readonly RowName[]): void {
    names.forEach((name, id) => {
      if (!isRowName(name)) throw new StateError(`ledger row ${id} has no name`);
      const { reason, sub, detail } = name;
      if (this.row(reason, sub, detail) !== id) throw new StateError(`ledger row ${id} (${reason}) is not that of this design`);
    });
    if (this.rows.length !== names.length) throw new StateError(`the ledger has ${this.rows.length} rows, in the snapshot it had ${names.length}`);
  }
}

interface RowName {
  readonly reason: string;
  readonly sub: string;
  readonly detail: string;
}

/** Is it one? A damaged snapshot has anything. */
function isRowName(value: RowName | undefined): value is RowName {
  return [value?.reason, value?.sub, value?.detail].every((text) => typeof text === 'string');
}
