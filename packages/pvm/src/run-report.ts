import { LEFT_NAMES } from '@pvm/cpu-jit';
import type { CostProfile, ModelledCost } from './cost/cost-profile.ts';
import { intervalCounters, runCounters } from './cost/counters.ts';
import { PvmError, VmError } from './errors.ts';
import { type LedgerJson, ledgerJson } from './ledger/ledger-json.ts';
import type { Interval, PageTableCounters, Summary, TlbCounters } from './summary.ts';
import type { Symboliser } from './symbols/symboliser.ts';
import type { Result, Vm } from './vm.ts';

/** First key of the document: which form it has. */
export const REPORT_SCHEMA = 'pvm-stat-1';
/** Guest addresses that a report names. */
const HOT_EXITS = 40;

/** A guest address of many exits. */
export interface HotExit {
  readonly reason: string;
  readonly sub: string;
  readonly detail: string;
  /** Hexadecimal, with 0x. */
  readonly rip: string;
  /** `name+0xoffset`; absent: no symbol file knows the address. */
  readonly symbol?: string;
  /** Exits there; at most `maxOvercount` too high (and an estimate from those that were timed, after 2,048 exits). */
  readonly samples: number;
  readonly maxOvercount: number;
}

/** An interval that the guest marked, as plain data. */
export type IntervalJson = Omit<Interval, 'instructions'> & { readonly instructions: number };

/** Everything that is known of a run, as plain data with units in the keys. All times are host time, measured; nothing is modelled. */
export interface RunReport {
  readonly schema: typeof REPORT_SCHEMA;
  readonly design: string;
  /** How it ran this guest, where it has more than one way. */
  readonly form?: string | undefined;
  readonly clock: 'host' | 'icount';
  /** Of the program, 128 + n when signal n killed it; 70: the guest could not go on. */
  readonly exitCode: number;
  /** Why the machine stopped: `StopReason`, or the code of the error that ended it. */
  readonly stopReason: string;
  readonly signal: number;
  readonly instructions: number;
  readonly mips: number;
  readonly runMs: number;
  /** Parts of `runMs` in the guest and in exits. */
  readonly guestMs: number;
  readonly hypervisorMs: number;
  /** Parts of `guestMs`; absent when the run did not sample them. */
  readonly interpreterMs?: number | undefined;
  readonly compiledMs?: number | undefined;
  readonly compileMs: number;
  readonly compileStallMs: number;
  readonly exits: number;
  readonly worldSwitches: number;
  readonly shadowPagesBuilt: number;
  readonly tlbMisses: number;
  readonly tlbFlushes: number;
  readonly pageTables: PageTableCounters;
  readonly tlb: TlbCounters;
  readonly jit?: unknown;
  readonly unknownSyscalls: Readonly<Record<string, number>>;
  readonly ledger: LedgerJson;
  /** Exits that a trace had no room for. */
  readonly lostEvents: number;
  readonly hotExits: readonly HotExit[];
  /** MSR LSTAR, hexadecimal: where the kernel is in memory, for symbols. */
  readonly syscallEntry: string;
  readonly intervals: readonly IntervalJson[];
}

/** An interval as plain data. */
export function intervalJson(i: Interval): IntervalJson {
  return { ...i, instructions: Number(i.instructions) };
}

/** What a cost profile makes of a run: time of another machine. */
export interface ModelledRun {
  readonly profile: { readonly name: string; readonly source: string };
  readonly run: ModelledCost;
  /** As `intervals` of the report. */
  readonly intervals: readonly ModelledCost[];
}

/** @throws PvmError `bad-profile` for a report of a design that is not known */
export function modelRun(profile: CostProfile, report: RunReport): ModelledRun {
  const { name, source } = profile;
  const intervals = report.intervals.map((i) => profile.predict(intervalCounters(report.design, i)));
  return { profile: { name, source }, run: profile.predict(runCounters(report)), intervals };
}

/** The report of a machine that has run, or that could not go on (`VmError`). */
export function runReport(vm: Vm, ended: Result | VmError, symbols: Symboliser): RunReport {
  const died = ended instanceof VmError;
  const summary = died ? vm.stats() : ended.summary;
  return {
    schema: REPORT_SCHEMA,
    design: vm.designName,
    clock: vm.clock,
    exitCode: ended.exitCode,
    stopReason: died ? ended.code : ended.stopReason,
    signal: died ? 0 : ended.signal,
    ...summaryJson(summary),
    pageTables: vm.pageTables(),
    tlb: vm.tlb(),
    ledger: ledgerJson(vm.ledger),
    lostEvents: vm.ledger.trace?.lost ?? 0,
    hotExits: hotExits(vm, symbols),
    syscallEntry: hex(vm.syscallEntry),
    intervals: died ? [] : ended.intervals.map(intervalJson),
  };
}

function hotExits(vm: Vm, symbols: Symboliser): HotExit[] {
  return vm.ledger.hotRips(HOT_EXITS).map(({ row, rip, count, maxOvercount }) => {
    const { reason, sub, detail } = vm.ledger.name(row);
    const symbol = symbols.find(rip, vm);
    return { reason, sub, detail, rip: hex(rip), ...(symbol === undefined ? {} : { symbol }), samples: count, maxOvercount };
  });
}

/** The same addresses with names from other symbol files; those that these do not know keep theirs. */
export function renameHotExits(report: RunReport, symbols: Symboliser): RunReport {
  const at = { syscallEntry: BigInt(report.syscallEntry) };
  const hotExits = report.hotExits.map((e) => {
    const symbol = symbols.find(BigInt(e.rip), at) ?? e.symbol;
    return symbol === undefined ? e : { ...e, symbol };
  });
  return { ...report, hotExits };
}

function hex(n: bigint): string {
  return `0x${n.toString(16)}`;
}

function summaryJson(s: Summary) {
  return {
    ...(s.form === undefined ? {} : { form: s.form }),
    instructions: Number(s.instructions),
    mips: s.mips,
    runMs: s.runMs,
    guestMs: s.guestMs,
    hypervisorMs: s.hypervisorMs,
    interpreterMs: s.interpreterMs,
    compiledMs: s.compiledMs,
    compileMs: s.compileMs,
    compileStallMs: s.compileStallMs,
    exits: s.exits,
    worldSwitches: s.worldSwitches,
    shadowPagesBuilt: s.shadowPagesBuilt,
    tlbMisses: s.cpu.tlbMisses,
    tlbFlushes: s.cpu.tlbFlushes,
    jit:
      s.cpu.jit === undefined
        ? undefined
        : {
            ...s.cpu.jit,
            stalls: s.cpu.stalls,
            compiledEntries: s.cpu.compiledEntries,
            jumpCacheMisses: s.cpu.jumpCacheMisses,
            compiledInstructions: s.cpu.compiledInstructions,
            left: Object.fromEntries(LEFT_NAMES.map((name, i) => [name, s.cpu.compiledCodeLeft[i] ?? 0])),
          },
    unknownSyscalls: Object.fromEntries(s.unknownSyscalls),
  };
}

type Shape = Readonly<Record<string, (value: unknown) => boolean>>;
const isNumber = (v: unknown) => typeof v === 'number' && Number.isFinite(v);
const isString = (v: unknown) => typeof v === 'string';
const isHex = (v: unknown) => typeof v === 'string' && /^0x[0-9a-f]{1,16}$/.test(v);
const fits =
  (shape: Shape) =>
  (v: unknown): boolean =>
    typeof v === 'object' && v !== null && Object.entries(shape).every(([key, check]) => check((v as Readonly<Record<string, unknown>>)[key]));
const listOf = (check: (v: unknown) => boolean) => (v: unknown) => Array.isArray(v) && v.every(check);
const numbers = (v: unknown) => typeof v === 'object' && v !== null && Object.values(v).every(isNumber);
const bucket = (v: unknown) => Array.isArray(v) && v.length === 2 && v.every(isNumber);

const NAMES: Shape = { reason: isString, sub: isString };
const TIMES: Shape = {
  ...Object.fromEntries(
    ['samples', 'timedSamples', 'heldUpSamples', 'heldUpNs', 'totalNs', 'minNs', 'maxNs', 'avgNs', 'relStddevPercent', 'p50Ns', 'p90Ns', 'p99Ns'].map((k) => [
      k,
      isNumber,
    ]),
  ),
};
const COUNTERS = ['worldSwitches', 'directSyscalls', 'directReturns'];
const EXIT = fits({ ...NAMES, ...TIMES, histogramLog2Ns: listOf(isNumber) });
const ROW = fits({ ...NAMES, ...TIMES, detail: isString, vcpu: isNumber, bucketsNs: listOf(bucket) });
const LEDGER = fits({
  exits: listOf(EXIT),
  rows: listOf(ROW),
  ...Object.fromEntries(['totalExits', 'totalNs', ...COUNTERS].map((k) => [k, isNumber])),
  worldSwitchesByKind: numbers,
  timeline: fits({ widthInstructions: isNumber, counts: (v) => typeof v === 'object' && v !== null && Object.values(v).every(listOf(isNumber)) }),
});
const DOCUMENT: Shape = {
  design: isString,
  stopReason: isString,
  ...Object.fromEntries(
    ['exitCode', 'instructions', 'mips', 'runMs', 'guestMs', 'hypervisorMs', 'exits', 'worldSwitches', 'lostEvents'].map((k) => [k, isNumber]),
  ),
  pageTables: numbers,
  tlb: numbers,
  ledger: LEDGER,
  hotExits: listOf(fits({ ...NAMES, detail: isString, rip: isHex, samples: isNumber })),
  syscallEntry: isHex,
  intervals: listOf(
    fits({
      id: isNumber,
      operations: isNumber,
      ns: isNumber,
      exits: isNumber,
      worldSwitches: isNumber,
      pageTables: numbers,
      tlb: numbers,
      byReason: listOf(fits(NAMES)),
    }),
  ),
};

/**
 * Reads a report back.
 *
 * @param name how messages call the file
 * @throws PvmError `bad-report` that names what is wrong
 */
export function parseRunReport(text: string, name: string): RunReport {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw new PvmError('bad-report', `${name}: not JSON; expected what pvm run --stat-out wrote`, { cause });
  }
  const { schema } = typeof document === 'object' && document !== null && 'schema' in document ? document : { schema: undefined };
  if (schema !== REPORT_SCHEMA) {
    const found = typeof schema === 'string' ? `a document of schema "${schema}"` : 'no statistics';
    throw new PvmError('bad-report', `${name}: ${found}; expected schema "${REPORT_SCHEMA}", what pvm run --stat-out wrote`);
  }
  const wrong = Object.entries(DOCUMENT).find(([key, check]) => !check((document as Readonly<Record<string, unknown>>)[key]));
  if (wrong !== undefined) throw new PvmError('bad-report', `${name}: the value of "${wrong[0]}" is missing or not what schema "${REPORT_SCHEMA}" has there`);
  return document as RunReport;
}
