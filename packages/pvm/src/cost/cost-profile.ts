import { PvmError } from '../errors.ts';
import { nearest } from '../option-checks.ts';
import type { TlbCounters } from '../summary.ts';
import { exitSteps } from './composition.ts';
import { PRIMITIVE_NAMES, type Primitive, type Steps } from './primitives.ts';

/** What a profile puts a price on: counters of a run or of a marked interval, under one design. */
export interface CostCounters {
  readonly design: string;
  readonly instructions: number;
  /** Counts by reason and sub-reason. */
  readonly exits: readonly { readonly reason: string; readonly sub: string; readonly count: number }[];
  /** Crossings of all kinds; what exits and their entries do not account for are direct switches. */
  readonly worldSwitches: number;
  readonly tlb: Pick<TlbCounters, 'misses'>;
}

/** A summand of a prediction: something that was counted, and what one of it consists of. */
export interface CostPart {
  readonly name: string;
  readonly count: number;
  readonly steps: Steps;
  readonly eachNs: number;
}

/** What a run would take on the machine that a profile describes. Never to be shown in one column with measured time. */
export interface ModelledCost {
  readonly totalNs: number;
  /** Most expensive first. */
  readonly parts: readonly CostPart[];
  /** Primitives that occurred and that the profile has no price for: `totalNs` is without them. */
  readonly unpriced: readonly Primitive[];
}

/** Where a price comes from: solved for from round trips, or taken for granted (`note` says why). */
export type Basis = 'fitted' | 'assumed';
export interface Price {
  readonly ns: number;
  readonly basis: Basis;
  readonly note?: string;
}
export type Prices = Readonly<Partial<Record<Primitive, Price>>>;

/** A profile's file: prices in nanoseconds of the primitives of `PRIMITIVES`; those that it leaves out are not priced. */
export interface ProfileDocument {
  readonly schema: typeof PROFILE_SCHEMA;
  readonly name: string;
  readonly source: string;
  readonly unit: 'ns';
  readonly primitives: Prices;
}

/** First key of the file. */
export const PROFILE_SCHEMA = 'pvm-cost-1';
const PROFILE_KEYS = ['schema', 'name', 'source', 'unit', 'primitives'];
const PRICE_KEYS = ['ns', 'basis', 'note'];

/** What each exit, crossing, instruction and TLB miss of `counters` consists of. @throws PvmError `bad-profile`: no such design */
export function counted(counters: CostCounters): Omit<CostPart, 'eachNs'>[] {
  const { design, exits, instructions, worldSwitches, tlb } = counters;
  const parts = exits.map(({ reason, sub, count }) => {
    const steps = exitSteps(design, reason, sub);
    if (steps === undefined) throw new PvmError('bad-profile', `it is not known what exits of a design ${design} consist of`);
    return { name: sub === '' ? reason : `${reason} ${sub}`, count, steps };
  });
  const direct = worldSwitches - 2 * exits.reduce((sum, e) => sum + e.count, 0);
  return [
    ...parts,
    { name: 'direct switches', count: direct, steps: { 'switch.direct': 1 } },
    { name: 'guest instructions', count: instructions, steps: { instruction: 1 } },
    { name: 'TLB misses', count: tlb.misses, steps: { 'tlb.miss': 1 } },
  ];
}

/** Maps counters to nanoseconds of another machine. */
export class CostProfile {
  readonly name: string;
  /** Where the figures come from, in a form one can look up. */
  readonly source: string;
  readonly prices: Prices;

  constructor({ name, source, primitives }: Pick<ProfileDocument, 'name' | 'source' | 'primitives'>) {
    this.name = name;
    this.source = source;
    this.prices = primitives;
  }

  /** @throws PvmError `bad-profile` for a design that is not known */
  predict(counters: CostCounters): ModelledCost {
    const unpriced = new Set<Primitive>();
    const parts: CostPart[] = [];
    for (const { name, count, steps } of counted(counters)) {
      if (count === 0) continue;
      let eachNs = 0;
      for (const [primitive, times] of Object.entries(steps) as [Primitive, number][]) {
        const price = this.prices[primitive];
        if (price === undefined) unpriced.add(primitive);
        else eachNs += times * price.ns;
      }
      if (eachNs > 0) parts.push({ name, count, steps, eachNs });
    }
    parts.sort((a, b) => b.count * b.eachNs - a.count * a.eachNs);
    return { totalNs: parts.reduce((sum, part) => sum + part.count * part.eachNs, 0), parts, unpriced: [...unpriced] };
  }
}

/**
 * Reads a profile (`ProfileDocument`). Unknown keys and primitives are refused.
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
  const { schema, name, source, unit, primitives } = known(document, PROFILE_KEYS, 'the profile', fail);
  if (schema !== PROFILE_SCHEMA) throw fail(`expected "schema": "${PROFILE_SCHEMA}"`);
  if (typeof name !== 'string' || name === '') throw fail('"name" must be a text');
  if (typeof source !== 'string' || source === '') throw fail('"source" must say where the figures come from');
  if (unit !== 'ns') throw fail('"unit" must be "ns"');
  const prices = Object.entries(known(primitives, PRIMITIVE_NAMES, '"primitives"', fail)).map(([primitive, value]) => {
    const where = `primitives["${primitive}"]`;
    const { ns, basis, note } = known(value, PRICE_KEYS, where, fail);
    if (typeof ns !== 'number' || !Number.isFinite(ns) || ns < 0) throw fail(`${where}.ns must be nanoseconds, 0 or more`);
    if (basis !== 'fitted' && basis !== 'assumed') throw fail(`${where}.basis must be "fitted" or "assumed"`);
    if (note !== undefined && typeof note !== 'string') throw fail(`${where}.note must be a text`);
    return [primitive, { ns, basis, ...(note === undefined ? {} : { note }) }];
  });
  return new CostProfile({ name, source, primitives: Object.fromEntries(prices) as Prices });
}

type Fail = (what: string) => PvmError;

function known(value: unknown, keys: readonly string[], where: string, fail: Fail): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fail(`${where} must be an object`);
  const unknown = Object.keys(value).find((key) => !keys.includes(key));
  if (unknown !== undefined) throw fail(`${where}: unknown key "${unknown}"; did you mean "${nearest(unknown, keys)}"?`);
  return value as Readonly<Record<string, unknown>>;
}
