import { COMPILER_STALLS, type CpuStats } from '@pvm/cpu-jit';
import type { Design } from './designs/design.ts';
import type { ExitLedger } from './ledger.ts';

/** What a run cost, measured on this machine. */
export interface Summary {
  /** How the design ran this guest, where it has more than one way. */
  readonly form: string | undefined;
  /** Guest instructions retired. */
  readonly instructions: bigint;
  /** Host time from the first instruction to the stop, ms; without waiting for input. */
  readonly runMs: number;
  /** Million guest instructions per second of `runMs`. */
  readonly mips: number;
  /** Parts of `runMs` spent in the hypervisor (exit handling), and in the guest. */
  readonly hypervisorMs: number;
  readonly guestMs: number;
  /** Parts of `guestMs` in the interpreter and in compiled code, from samples; undefined without `sampleTiers`. */
  readonly interpreterMs: number | undefined;
  readonly compiledMs: number | undefined;
  /** Time spent on compiling: on the compiler thread, and the part of `guestMs` it took on the machine's own thread. */
  readonly compileMs: number;
  readonly compileStallMs: number;
  /** VM exits; world switches of all kinds. */
  readonly exits: number;
  readonly worldSwitches: number;
  readonly shadowPagesBuilt: number;
  /** Counters of the CPU. */
  readonly cpu: CpuStats;
  /** Syscalls the guest kernel does not know: number and count. */
  readonly unknownSyscalls: ReadonlyMap<number, number>;
}

/** What a summary is made of. */
interface RunCounts {
  readonly cpu: CpuStats;
  readonly design: Pick<Design, 'form' | 'shadowPagesBuilt'>;
  readonly ledger: Pick<ExitLedger, 'totalNs' | 'worldSwitches'>;
  readonly runMs: number;
  readonly unknownSyscalls: ReadonlyMap<number, number>;
}

export function summarise({ cpu, design, ledger, runMs, unknownSyscalls }: RunCounts): Summary {
  const hypervisorMs = ledger.totalNs / 1e6;
  const { exits, total } = ledger.worldSwitches();
  const guestMs = Math.max(0, runMs - hypervisorMs);
  return {
    form: design.form,
    instructions: cpu.instructions,
    runMs,
    mips: runMs > 0 ? Number(cpu.instructions) / 1e3 / runMs : 0,
    hypervisorMs,
    guestMs,
    ...tierTimes(guestMs, cpu),
    exits,
    worldSwitches: total,
    shadowPagesBuilt: design.shadowPagesBuilt(),
    cpu,
    unknownSyscalls,
  };
}

/** Guest time by tier: what the CPU's samples say of it. */
function tierTimes(guestMs: number, cpu: CpuStats): Pick<Summary, 'interpreterMs' | 'compiledMs' | 'compileMs' | 'compileStallMs'> {
  const { samples, jit } = cpu;
  const seen = (samples?.interpreter ?? 0) + (samples?.compiled ?? 0);
  const stall = COMPILER_STALLS.reduce((sum, cause) => sum + cpu.stalls[cause].ms, 0);
  const share = (n: number) => (seen === 0 ? undefined : (Math.max(0, guestMs - stall) * n) / seen);
  return {
    interpreterMs: share(samples?.interpreter ?? 0),
    compiledMs: share(samples?.compiled ?? 0),
    compileMs: (jit?.emitMs ?? 0) + (jit?.engineMs ?? 0),
    compileStallMs: stall,
  };
}

/** Work on shadow or second-level page tables by name: counts, but for `isLevel`. */
export type PageTableCounters = Readonly<Record<string, number>>;

const LEVELS: ReadonlySet<string> = new Set(['frames', 'framesFree', 'unsync', 'tracked', 'leaves4K', 'leaves2M', 'leaves1G', 'leavesMmio']);

/** Page-table counters that say how much there is now, not how often something happened. */
export function isLevel(name: string): boolean {
  return LEVELS.has(name) || name.endsWith('Max');
}

/** Counters of the soft TLB and the page walker. */
export interface TlbCounters {
  /** Data accesses that hit; absent unless the option `countTlb` asks for it. */
  readonly hits?: number;
  readonly misses: number;
  readonly flushes: number;
  readonly walks: number;
}

/** An interval that the guest's program marked (`bench`). */
export interface Interval {
  readonly id: number;
  /** Operations that it has, as the program says; 1 or more. */
  readonly operations: number;
  /** Host time, ns. */
  readonly ns: number;
  /** Processor time of the machine's thread, ns, which other load does not lengthen; NaN where Node cannot tell (before 23.9). */
  readonly cpuNs: number;
  readonly instructions: bigint;
  readonly exits: number;
  readonly worldSwitches: number;
  readonly directSyscalls: number;
  readonly directReturns: number;
  readonly pageTables: PageTableCounters;
  readonly tlb: TlbCounters;
  /** Exits of the interval by reason and sub-reason. */
  readonly byReason: readonly { readonly reason: string; readonly sub: string; readonly count: number }[];
}

/** Counters at one moment. */
export interface Snapshot {
  /** Host time before and after the counters were read, ns: the reading stays outside the interval. */
  readonly beforeNs: number;
  readonly afterNs: number;
  /** The same in processor time. */
  readonly cpuBeforeNs: number;
  readonly cpuAfterNs: number;
  readonly instructions: bigint;
  readonly exits: number;
  readonly worldSwitches: number;
  readonly directSyscalls: number;
  readonly directReturns: number;
  readonly entries: readonly { readonly reason: string; readonly sub: string; readonly count: number }[];
  readonly pageTables: PageTableCounters;
  readonly tlb: TlbCounters;
}

/** What happened between two snapshots. */
export function interval(id: number, operations: number, begin: Snapshot, end: Snapshot): Interval {
  const before = new Map(begin.entries.map((e) => [`${e.reason}\0${e.sub}`, e.count]));
  return {
    id,
    operations,
    ns: end.beforeNs - begin.afterNs,
    cpuNs: end.cpuBeforeNs - begin.cpuAfterNs,
    instructions: end.instructions - begin.instructions,
    exits: end.exits - begin.exits,
    worldSwitches: end.worldSwitches - begin.worldSwitches,
    directSyscalls: end.directSyscalls - begin.directSyscalls,
    directReturns: end.directReturns - begin.directReturns,
    pageTables: differences(begin.pageTables, end.pageTables),
    tlb: {
      ...(end.tlb.hits === undefined ? {} : { hits: end.tlb.hits - (begin.tlb.hits ?? 0) }),
      misses: end.tlb.misses - begin.tlb.misses,
      flushes: end.tlb.flushes - begin.tlb.flushes,
      walks: end.tlb.walks - begin.tlb.walks,
    },
    byReason: end.entries
      .map((e) => ({ reason: e.reason, sub: e.sub, count: e.count - (before.get(`${e.reason}\0${e.sub}`) ?? 0) }))
      .filter((e) => e.count > 0),
  };
}

function differences(begin: PageTableCounters, end: PageTableCounters): PageTableCounters {
  return Object.fromEntries(Object.entries(end).map(([name, n]) => [name, isLevel(name) ? n : n - (begin[name] ?? 0)]));
}

const nothing = new Int32Array(new SharedArrayBuffer(4));
const NAP_MS = 0.05;

/** Processor time of this thread, ns, or NaN. Takes a nap: the system brings the time up to date when a thread leaves the processor, else only every few milliseconds. */
export function threadCpuNs(): number {
  Atomics.wait(nothing, 0, 0, NAP_MS);
  const usage: NodeJS.CpuUsage | undefined = process.threadCpuUsage?.();
  return usage === undefined ? Number.NaN : (usage.user + usage.system) * 1000;
}
