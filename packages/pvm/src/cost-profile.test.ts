import { expect, it } from 'vitest';
import { type CostCounters, parseCostProfile } from './cost-profile.ts';

const PROFILE = {
  schema: 'pvm-cost-1',
  name: 'example',
  source: 'table 1',
  designs: {
    pvm: { exitNs: { '#PF': 500, '#PF guest': 800 }, directSyscallNs: 70, counterNs: { pagesBuilt: 100, 'tlb.misses': 2 } },
    '*': { exitNs: { '*': 1000 } },
  },
};
const counters: CostCounters = {
  design: 'pvm',
  instructions: 1e6,
  exits: [
    { reason: '#PF', sub: 'guest', count: 2 },
    { reason: '#PF', sub: 'shadow', count: 3 },
    { reason: 'HLT', sub: '', count: 1 },
  ],
  directSyscalls: 10,
  directReturns: 10,
  pageTables: { pagesBuilt: 4, leavesFilled: 9 },
  tlb: { misses: 50, flushes: 1, walks: 50 },
};

it('multiplies counters with the most particular price, and names what has none', () => {
  const cost = parseCostProfile(JSON.stringify(PROFILE), 'p.json').predict(counters);
  expect(cost.totalNs).toBe(2 * 800 + 3 * 500 + 10 * 70 + 4 * 100 + 50 * 2);
  expect(cost.unpriced).toEqual(['HLT']);
});

it('has a price for other designs under "*"', () => {
  expect(parseCostProfile(JSON.stringify(PROFILE), 'p.json').predict({ ...counters, design: 'bare' }).totalNs).toBe(6000);
  const only = { ...PROFILE, designs: { pvm: {} } };
  expect(() => parseCostProfile(JSON.stringify(only), 'p.json').predict({ ...counters, design: 'bare' })).toThrow(/nothing about design bare/);
});

it.each([
  ['text', 'hello', /not JSON/],
  ['another schema', '{"schema":"x"}', /pvm-cost-1/],
  ['an unknown key', '{"shcema":"x"}', /did you mean "schema"/],
  ['no source', '{"schema":"pvm-cost-1","name":"x","designs":{}}', /source/],
  ['a negative price', JSON.stringify({ ...PROFILE, designs: { pvm: { exitNs: { HLT: -1 } } } }), /exitNs\["HLT"\]/],
])('refuses %s', (_, text, message) => {
  expect(() => parseCostProfile(text, 'p.json')).toThrow(message);
});
