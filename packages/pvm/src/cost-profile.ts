import { PvmError } from './errors.ts';
import { nearest } from './options.ts';
import type { PageTableCounters, TlbCounters } from './summary.ts';

/** What a profile puts a price on: counters of a run or of a marked interval, under one design. */
export interface CostCounters {
  readonly design: string;
  readonly instructions: number;
  /** Counts by reason and sub-reason. */
  readonly exits: readonly { readonly reason: string; readonly sub: string; readonly count: number }[];
  readonly directSyscalls: number;
  readonly directReturns: number;
  readonly pageTables: PageTableCounters;
  readonly tlb: TlbCounters;
}

/** A summand of a prediction. */
export interface CostPart {
  readonly name: string;
  readonly count: number;
  readonly eachNs: number;
}

/** What a run would take on the machine that a profile describes. Never to be shown in one column with measured time. */
export interface ModelledCost {
  readonly totalNs: number;
  readonly parts: readonly CostPart[];
  /** Counters above 0 that the profile has no price for. */
  readonly unpriced: readonly string[];
}

/** Maps counters to nanoseconds of another machine. */
export interface CostProfile {
  readonly name: string;
  /** Where the figures come from, in a form one can look up. */
  readonly source: string;
  predict(counters: CostCounters): ModelledCost;
}

/** Prices of one design in a profile's file, ns. */
interface DesignCosts {
  /** By `REASON sub-reason`, else by `REASON`, else `*`: exit, handling and entry together. */
  readonly exitNs: Readonly<Record<string, number>>;
  readonly directSyscallNs: number;
  readonly directReturnNs: number;
  readonly instructionNs: number;
  /** By name of a page-table or TLB counter (`pagesBuilt`, `tlb.misses`). */
  readonly counterNs: Readonly<Record<string, number>>;
}

/** First key of the file. */
export const PROFILE_SCHEMA = 'pvm-cost-1';
const PROFILE_KEYS = ['schema', 'name', 'source', 'designs'];
const COST_KEYS = ['exitNs', 'directSyscallNs', 'directReturnNs', 'instructionNs', 'counterNs'];

/** A profile that multiplies each counter with a price. */
class LinearProfile implements CostProfile {
  readonly name: string;
  readonly source: string;
  private readonly designs: ReadonlyMap<string, DesignCosts>;

  constructor(name: string, source: string, designs: ReadonlyMap<string, DesignCosts>) {
    this.name = name;
    this.source = source;
    this.designs = designs;
  }

  predict(counters: CostCounters): ModelledCost {
    const costs = this.designs.get(counters.design) ?? this.designs.get('*');
    if (costs === undefined) throw new PvmError('bad-profile', `cost profile ${this.name} says nothing about design ${counters.design}`);
    const parts: CostPart[] = [];
    const unpriced: string[] = [];
    const add = (name: string, count: number, eachNs: number | undefined) => {
      if (count === 0) return;
      if (eachNs === undefined) unpriced.push(name);
      else if (eachNs > 0) parts.push({ name, count, eachNs });
    };
    for (const { reason, sub, count } of counters.exits) {
      const name = sub === '' ? reason : `${reason} ${sub}`;
      add(name, count, costs.exitNs[name] ?? costs.exitNs[reason] ?? costs.exitNs['*']);
    }
    add('direct syscall', counters.directSyscalls, costs.directSyscallNs);
    add('direct return', counters.directReturns, costs.directReturnNs);
    add('instruction', counters.instructions, costs.instructionNs);
    for (const [name, eachNs] of Object.entries(costs.counterNs)) {
      const [group, key = ''] = name.split('.');
      const count = group === 'tlb' ? (counters.tlb as unknown as Readonly<Record<string, number>>)[key] : counters.pageTables[name];
      add(name, count ?? 0, eachNs);
    }
    return { totalNs: parts.reduce((sum, part) => sum + part.count * part.eachNs, 0), parts, unpriced };
  }
}

/**
 * Reads a profile: `{ schema, name, source, designs: { NAME or "*": { exitNs: { REASON: ns }, directSyscallNs, directReturnNs,
 * instructionNs, counterNs: { COUNTER: ns } } } }`; what is left out costs nothing, exits that are left out are reported as unpriced.
 *
 * @param file how messages call the file
 * @throws PvmError `bad-profile`
 */
export function parseCostProfile(text: string, file: string): CostProfile {
  const fail = (what: string) => new PvmError('bad-profile', `${file}: ${what}`);
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw new PvmError('bad-profile', `${file}: not JSON; expected a cost profile`, { cause });
  }
  const { schema, name, source, designs } = known(document, PROFILE_KEYS, 'the profile', fail);
  if (schema !== PROFILE_SCHEMA) throw fail(`expected "schema": "${PROFILE_SCHEMA}"`);
  if (typeof name !== 'string' || name === '') throw fail('"name" must be a text');
  if (typeof source !== 'string' || source === '') throw fail('"source" must say where the figures come from');
  if (typeof designs !== 'object' || designs === null) throw fail('"designs" must be an object');
  const costs = Object.entries(designs).map(([design, value]): [string, DesignCosts] => {
    const where = `designs.${design}`;
    const { exitNs = {}, counterNs = {}, ...rest } = known(value, COST_KEYS, where, fail);
    const number = (key: string) => price(rest[key] ?? 0, `${where}.${key}`, fail);
    const flat = { directSyscallNs: number('directSyscallNs'), directReturnNs: number('directReturnNs'), instructionNs: number('instructionNs') };
    return [design, { ...flat, exitNs: prices(exitNs, `${where}.exitNs`, fail), counterNs: prices(counterNs, `${where}.counterNs`, fail) }];
  });
  return new LinearProfile(name, source, new Map(costs));
}

type Fail = (what: string) => PvmError;

function known(value: unknown, keys: readonly string[], where: string, fail: Fail): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fail(`${where} must be an object`);
  const unknown = Object.keys(value).find((key) => !keys.includes(key));
  if (unknown !== undefined) throw fail(`${where}: unknown key "${unknown}"; did you mean "${nearest(unknown, keys)}"?`);
  return value as Readonly<Record<string, unknown>>;
}

function prices(value: unknown, where: string, fail: Fail): Readonly<Record<string, number>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fail(`${where} must be an object of nanoseconds`);
  return Object.fromEntries(Object.entries(value).map(([key, ns]) => [key, price(ns, `${where}["${key}"]`, fail)]));
}

function price(value: unknown, where: string, fail: Fail): number {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) throw fail(`${where} must be nanoseconds, 0 or more`);
  return value;
}
