import type { BenchKind, LmbenchRow } from '@pvm/guests';
import type { DesignName, PublishedFigures } from '@pvm/pvm';

/** Where a row comes from: a loop of our own kernel, or one of `lmbench` in a stock kernel. `iterations` rounds in an interval. */
export type Workload =
  | { readonly on: 'program'; readonly kind: BenchKind | ((design: DesignName) => BenchKind); readonly iterations: number }
  | { readonly on: 'linux'; readonly row: LmbenchRow; readonly iterations: number };

/** A row of the paper's tables, and how it is measured here. */
export interface TableRow {
  readonly name: string;
  readonly workload: Workload;
  /** The row's figures in the paper by design, microseconds; undefined: it has none. */
  paper(figures: PublishedFigures, design: DesignName): number | undefined;
  /** The paper does not say how much an operation does: only ratios between designs compare. */
  readonly ratiosOnly?: boolean;
  /** Designs that it is about; default all. */
  readonly designs?: readonly DesignName[];
  /** The switch of design pvm that it turns off. */
  readonly without?: 'direct-switch';
}

/** A table of the paper. */
export interface Table {
  readonly title: string;
  /** Whether the profile was fitted on it, or predicts it. */
  readonly model: 'fit' | 'prediction';
  readonly rows: readonly TableRow[];
  /** What to know before comparing. */
  readonly notes: readonly string[];
}

type TableName = 'table1' | 'table2' | 'table3' | 'table4';
/** A column of the paper; table 1 has no column for shadow paging under KVM. */
const TABLE1_COLUMNS: Readonly<Partial<Record<DesignName, string>>> = { 'kvm-ept': 'kvm-bm', pvm: 'pvm-bm' };
const COLUMNS: Readonly<Partial<Record<DesignName, string>>> = { 'kvm-ept': 'kvm-ept-bm', 'kvm-spt': 'kvm-spt-bm', pvm: 'pvm-bm' };
const [KPTI_ON, KPTI_OFF] = [0, 1];

function paper(table: TableName, row: string, columns = COLUMNS, which = KPTI_ON): TableRow['paper'] {
  return (figures, design) => figures[table][row]?.[columns[design] ?? '']?.[which];
}
const none = (): undefined => undefined;

const trip = (name: string, kind: (BenchKind & string) | ((design: DesignName) => BenchKind), iterations = 100_000): TableRow => ({
  name,
  workload: { on: 'program', kind, iterations },
  paper: paper('table1', name, TABLE1_COLUMNS),
});

const TABLE1: Table = {
  title: 'Table 1: VM exit and entry, round trip (our kernel)',
  model: 'fit',
  rows: [
    trip('hypercall', 'hypercall'),
    trip('exception', 'exception'),
    trip('msr', 'msr-read'),
    trip('cpuid', (design) => (design === 'pvm' ? 'cpuid-synthetic' : 'cpuid')),
    trip('pio', 'pio-in'),
  ],
  notes: ['The figures of the paper are those with kernel page-table isolation.'],
};

const DIRECT_COLUMNS = { ...COLUMNS, pvm: 'pvm-bm-direct-switch' };
const getpid: Workload = { on: 'program', kind: 'getpid', iterations: 1_000_000 };
const TABLE2: Table = {
  title: 'Table 2: getpid',
  model: 'prediction',
  rows: [
    { name: 'getpid', workload: getpid, paper: paper('table2', 'getpid', DIRECT_COLUMNS, KPTI_OFF) },
    { name: 'getpid, no direct switch', workload: getpid, designs: ['pvm'], without: 'direct-switch', paper: paper('table2', 'getpid', COLUMNS, KPTI_OFF) },
    { name: 'getpid, Linux with KPTI', workload: { on: 'linux', row: 'getpid', iterations: 8_000 }, paper: paper('table2', 'getpid', DIRECT_COLUMNS) },
  ],
  notes: ['The first two rows are our kernel, which does not isolate its page tables; they stand against the figures without isolation.'],
};

const linux = (table: TableName, name: string, row: LmbenchRow, iterations: number): TableRow => ({
  name,
  workload: { on: 'linux', row, iterations },
  paper: paper(table, name),
});

const LINUX_NOTES = [
  'Stock kernel with page-table isolation; without it under pvm, whose user and kernel shadows are apart anyway, as in a PVM kernel.',
  "The paper's kernel, file system and programs differ: ratios to kvm-ept compare better than times.",
];

const TABLE3: Table = {
  title: 'Table 3: LMbench, processes (stock Linux, one process)',
  model: 'prediction',
  rows: [
    linux('table3', 'null io', 'null-io', 4_000),
    linux('table3', 'stat', 'stat', 1_500),
    linux('table3', 'open/close', 'open-close', 800),
    linux('table3', 'select tcp', 'select-tcp', 160),
    linux('table3', 'signal install', 'signal-install', 6_000),
    linux('table3', 'signal handle', 'signal-handle', 1_000),
    linux('table3', 'fork', 'fork', 40),
    linux('table3', 'exec', 'exec', 20),
    linux('table3', 'sh', 'sh', 10),
  ],
  notes: [
    ...LINUX_NOTES,
    'What exec and sh start is 8 KiB and static, and our sh only forks and executes: they have far less to map, read and link than in the paper.',
  ],
};

const TABLE4: Table = {
  title: 'Table 4: LMbench, memory (stock Linux)',
  model: 'prediction',
  rows: [
    { ...linux('table4', 'mmap', 'mmap', 2), ratiosOnly: true },
    linux('table4', 'protection fault', 'protection-fault', 1_000),
    linux('table4', 'page fault', 'page-fault', 3),
    linux('table4', 'select 100 fds', 'select', 400),
  ],
  notes: [
    ...LINUX_NOTES,
    'mmap maps, writes and unmaps 4 MiB; the paper does not say how much it maps, so only the ratios compare.',
    'protection fault is the fault with its signal, handler and return.',
  ],
};

const FIGURE10: Table = {
  title: 'Figure 10: allocate 1 MiB, touch each page, release (one process; an operation is one page)',
  model: 'prediction',
  rows: [
    { name: 'our kernel', workload: { on: 'program', kind: 'fault', iterations: 96 }, paper: none },
    { name: 'Linux', workload: { on: 'linux', row: 'allocate', iterations: 4 }, paper: none },
  ],
  notes: ['The figure has no numbers to compare with: at one process kvm-ept is best and pvm slower.', ...LINUX_NOTES.slice(0, 1)],
};

/** Tables by the word that asks for them. */
export const TABLES = {
  table1: [TABLE1],
  table2: [TABLE2],
  table3: [TABLE3],
  table4: [TABLE4],
  figure10: [FIGURE10],
  lmbench: [TABLE3, TABLE4],
  all: [TABLE1, TABLE2, TABLE3, TABLE4, FIGURE10],
} as const satisfies Readonly<Record<string, readonly Table[]>>;
export type TablesName = keyof typeof TABLES;

/** Columns of the paper that have no design here. */
export const MISSING_COLUMNS = 'Left out: the columns of nested virtualisation (kvm-ept-nst, kvm-nst, pvm-nst), for which there is no design here yet.';
