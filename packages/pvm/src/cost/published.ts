import { PvmError } from '../errors.ts';
import { exitSteps } from './composition.ts';
import { PROFILE_SCHEMA, type Price, type ProfileDocument } from './cost-profile.ts';
import { type Equation, fitPrices } from './fit.ts';
import type { Primitive } from './primitives.ts';

/** Microseconds by row and column of the paper; one value, or one with and one without kernel page-table isolation. */
type Table = Readonly<Record<string, Readonly<Record<string, readonly number[]>>>>;

/** Published figures (profiles/sosp23-figures.json). */
export interface PublishedFigures {
  readonly source: string;
  /** Microseconds of one world switch, as the paper's text has them. */
  readonly worldSwitch: Readonly<Record<string, number>>;
  readonly table1: Table;
  readonly table2: Table;
  readonly table3: Table;
  readonly table4: Table;
}

/** Columns of table 1 that are machines without another hypervisor below, and the designs that they are here. */
const COLUMNS = { 'kvm-bm': 'kvm-ept', 'pvm-bm': 'pvm' } as const;

/** The exit that each row of table 1 is, under KVM and under PVM. */
const EXITS: Readonly<Record<string, Readonly<Record<keyof typeof COLUMNS, readonly [reason: string, sub: string]>>>> = {
  hypercall: { 'kvm-bm': ['VMCALL', 'unknown'], 'pvm-bm': ['HYPERCALL', 'unknown'] },
  exception: { 'kvm-bm': ['EXCEPTION_NMI', '#UD'], 'pvm-bm': ['#UD', ''] },
  msr: { 'kvm-bm': ['MSR_READ', '0xc0000103'], 'pvm-bm': ['#GP', 'RDMSR TSC_AUX'] },
  cpuid: { 'kvm-bm': ['CPUID', '0x0'], 'pvm-bm': ['#GP', 'CPUID'] },
  pio: { 'kvm-bm': ['IO_INSTRUCTION', 'IN 0x3fd'], 'pvm-bm': ['#GP', 'IN 0x3fd'] },
};

const BY_SWITCHER = 'pvm (L2-L1 by switcher)';
const ASSUMED_INSTRUCTION_NS = 0.4;

/** Table 1 as equations: each round trip is one exit. Both columns count, with and without page-table isolation. */
export function table1Equations({ table1 }: PublishedFigures): Equation[] {
  return Object.entries(EXITS).flatMap(([row, exits]) =>
    (Object.keys(COLUMNS) as (keyof typeof COLUMNS)[]).flatMap((column) => {
      const figures = table1[row]?.[column];
      const steps = exitSteps(COLUMNS[column], ...exits[column]);
      if (figures === undefined || steps === undefined) throw new PvmError('bad-profile', `table 1 has no figures for ${row} under ${column}`);
      return figures.map((us, i) => ({ name: `${row} ${column} ${i === 0 ? 'with' : 'without'} KPTI`, steps, ns: us * 1000 }));
    }),
  );
}

/** The profile of the paper's machine, from its table 1 and nothing else of it. */
export function publishedProfile(figures: PublishedFigures): ProfileDocument {
  const fitted = fitPrices(table1Equations(figures));
  const primitives: Partial<Record<Primitive, Price>> = {};
  for (const [primitive, ns] of fitted) primitives[primitive] = { ns, basis: 'fitted' };
  const direct = figures.worldSwitch[BY_SWITCHER];
  if (direct === undefined) throw new PvmError('bad-profile', `there is no figure of a world switch "${BY_SWITCHER}"`);
  primitives['switch.direct'] = {
    ns: direct * 1000,
    basis: 'assumed',
    note: "the paper's time of one world switch by the switcher, beside its tables; table 1 has no crossing without the hypervisor's part",
  };
  primitives.instruction = { ns: ASSUMED_INSTRUCTION_NS, basis: 'assumed', note: 'one instruction a cycle at 2.5 GHz; table 1 says nothing of it' };
  return {
    schema: PROFILE_SCHEMA,
    name: 'sosp23',
    source: `table 1 of ${figures.source.replace(/: tables.*$/, '')}, columns kvm-bm and pvm-bm`,
    unit: 'ns',
    primitives,
  };
}
