import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { DESIGN_NAMES } from '../designs/index.ts';
import { exitSteps } from './composition.ts';
import { type CostCounters, parseCostProfile } from './cost-profile.ts';
import { fitPrices, relativeError } from './fit.ts';
import { publishedProfile, table1Equations } from './published.ts';
import { loadCostProfile, publishedFigures } from './shipped.ts';

const priced = (ns: number) => ({ ns, basis: 'fitted' });
const PROFILE = {
  schema: 'pvm-cost-1',
  name: 'example',
  source: 'this test',
  unit: 'ns',
  primitives: { 'switch.pvm': priced(100), 'switch.direct': priced(40), 'handle.fault': priced(700), emulate: priced(1000), instruction: priced(0.5) },
};
const counters: CostCounters = {
  design: 'pvm',
  instructions: 1000,
  exits: [
    { reason: '#PF', sub: 'guest', count: 2 },
    { reason: '#PF', sub: 'table write', count: 3 },
    { reason: '#GP', sub: 'RDMSR TSC', count: 1 },
  ],
  worldSwitches: 2 * 6 + 10,
  tlb: { misses: 50 },
};
const parse = (document: object) => parseCostProfile(JSON.stringify(document), 'p.json');

describe('a prediction', () => {
  it('is the sum of what each exit, direct switch and instruction consists of, and names what has no price', () => {
    const cost = parse(PROFILE).predict(counters);
    expect(cost.totalNs).toBe(2 * (200 + 700) + 3 * (200 + 1000) + (200 + 1000) + 10 * 40 + 1000 * 0.5);
    expect(cost.parts.map((p) => p.name)).toEqual(['#PF table write', '#PF guest', '#GP RDMSR TSC', 'guest instructions', 'direct switches']);
    expect(cost.unpriced).toEqual(['handle.register', 'tlb.miss']);
  });

  it('without a hypervisor is instructions only', () => {
    const exits = [{ reason: 'IO_INSTRUCTION', sub: 'OUT 0x80', count: 1 }];
    expect(parse(PROFILE).predict({ ...counters, design: 'bare', exits, worldSwitches: 2 }).totalNs).toBe(500);
  });

  it('of an unknown design is refused', () => {
    expect(() => parse(PROFILE).predict({ ...counters, design: 'vm370' })).toThrow(/design vm370/);
  });
});

it.each(DESIGN_NAMES.filter((name) => name !== 'bare'))('every exit of %s is at least two world switches', (design) => {
  const steps = exitSteps(design, 'ANYTHING', '') ?? {};
  expect((steps['switch.vmx'] ?? 0) + (steps['switch.pvm'] ?? 0)).toBe(2);
});

describe('a fit', () => {
  const equation = (steps: object, ns: number) => ({ name: '', steps, ns });
  it('finds the prices that equations were made of', () => {
    const equations = [equation({ emulate: 1, instruction: 10 }, 30), equation({ emulate: 2 }, 40), equation({ instruction: 7, 'tlb.miss': 1 }, 10)];
    expect(Object.fromEntries(fitPrices(equations))).toEqual({ emulate: 20, instruction: 1, 'tlb.miss': 3 });
  });
  it('gives no negative price', () => {
    expect(Object.fromEntries(fitPrices([equation({ emulate: 1 }, 10), equation({ emulate: 1, instruction: 1 }, 9)]))).toMatchObject({ instruction: 0 });
  });
  it('says which price the equations leave open', () => {
    expect(() => fitPrices([equation({ emulate: 1, instruction: 1 }, 10)])).toThrow(/determine/);
  });
});

describe('the profile sosp23', () => {
  it('is what its script makes of table 1', async () => {
    const shipped = await readFile(new URL('../../profiles/sosp23.json', import.meta.url), 'utf8');
    expect(`${JSON.stringify(publishedProfile(await publishedFigures()), undefined, 2)}\n`).toBe(shipped);
  });
  it('does not change with the other tables', async () => {
    const figures = await publishedFigures();
    expect(publishedProfile({ ...figures, table2: {}, table3: {}, table4: {} })).toEqual(publishedProfile(figures));
  });
  it('gives all of table 1 within 10 %', async () => {
    const { prices } = await loadCostProfile('sosp23');
    const errors = table1Equations(await publishedFigures()).map((e) => Math.abs(relativeError(e, prices)));
    expect(errors).toHaveLength(20);
    expect(Math.max(...errors)).toBeLessThan(0.1);
  });
  it('is found by name only', async () => {
    await expect(loadCostProfile('sops23')).rejects.toThrow(/did you mean sosp23/);
    await expect(loadCostProfile('./none.json')).rejects.toThrow(/no such file/);
  });
});

const withPrice = (price: unknown) => JSON.stringify({ ...PROFILE, primitives: { emulate: price } });
it.each([
  ['text', 'hello', /not JSON/],
  ['another schema', '{"schema":"x"}', /pvm-cost-1/],
  ['an unknown key', '{"shcema":"x"}', /did you mean "schema"/],
  ['no source', '{"schema":"pvm-cost-1","name":"x"}', /source/],
  ['another unit', JSON.stringify({ ...PROFILE, unit: 'us' }), /"unit" must be "ns"/],
  ['an unknown primitive', JSON.stringify({ ...PROFILE, primitives: { emulation: priced(1) } }), /did you mean "emulate"/],
  ['a negative price', withPrice(priced(-1)), /primitives\["emulate"\]\.ns/],
  ['a price without its basis', withPrice({ ns: 1 }), /basis/],
])('refuses %s', (_, text, message) => {
  expect(() => parseCostProfile(text, 'p.json')).toThrow(message);
});
