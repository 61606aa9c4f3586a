import { existsSync } from 'node:fs';
import { DESIGN_NAMES, loadCostProfile } from '@pvm/pvm';
import type { Argv, CommandModule } from 'yargs';
import { formatBench } from '../bench/format.ts';
import { TABLES, type TablesName } from '../bench/rows.ts';
import { runBench } from '../bench/run.ts';
import { UsageError } from '../errors.ts';
import { parseDesigns } from './compare.ts';
import { PROFILE_OPTION } from './table-options.ts';

interface TablesArgs {
  readonly kernel: string | undefined;
  readonly designs: string;
  readonly profile: string;
  readonly scale: number;
  readonly json: boolean;
}

/** Options of `bench table1` and the like, for yargs. */
export const BENCH_TABLE_OPTIONS = {
  kernel: { type: 'string', requiresArg: true, describe: 'Stock kernel for the rows in Linux (Debian: the vmlinuz of linux-image-cloud-amd64)' },
  designs: { type: 'string', default: DESIGN_NAMES.join(','), requiresArg: true, describe: 'Designs, separated by commas' },
  profile: { ...PROFILE_OPTION, default: 'sosp23' },
  scale: { type: 'number', default: 1, requiresArg: true, describe: 'Multiplies the number of operations' },
  json: { type: 'boolean', default: false, describe: 'JSON on stdout and nothing else there' },
} as const;

const DESCRIPTIONS: Readonly<Record<TablesName, string>> = {
  table1: 'Round trips: hypercall, exception, MSR, CPUID, port I/O',
  table2: 'getpid, with and without direct switch; with --kernel in Linux too',
  table3: 'LMbench, processes: null io, stat, open, select, signals, fork, exec, sh (needs --kernel)',
  table4: 'LMbench, memory: mmap, protection fault, page fault, select (needs --kernel)',
  figure10: 'Allocate 1 MiB, touch, release; with --kernel in Linux too',
  lmbench: 'table3 and table4 in one boot (needs --kernel)',
  all: 'All of these; without --kernel those that need none',
};
/** Words whose rows all need a stock kernel. */
const NEED_KERNEL: ReadonlySet<TablesName> = new Set(['table3', 'table4', 'lmbench']);

function checkKernel(what: TablesName, kernel: string | undefined): void {
  if (kernel === undefined && NEED_KERNEL.has(what))
    throw new UsageError(
      `bench ${what} needs --kernel FILE, a stock Linux kernel; Debian's: apt-get download a linux-image-*-cloud-amd64, dpkg -x it, and take boot/vmlinuz-*`,
    );
  if (kernel !== undefined && !existsSync(kernel)) throw new UsageError(`--kernel ${kernel}: no such file`);
}

async function measureTables(what: TablesName, a: TablesArgs): Promise<void> {
  if (!(a.scale > 0)) throw new UsageError(`--scale ${a.scale}: expected a number above 0`);
  checkKernel(what, a.kernel);
  const designs = parseDesigns(a.designs);
  const profile = await loadCostProfile(a.profile);
  const abort = new AbortController();
  const onSignal = () => abort.abort();
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  try {
    const { kernel, scale } = a;
    const command = [
      'pvm',
      'bench',
      what,
      ...(kernel === undefined ? [] : ['--kernel', kernel.replace(/^.*\//, '')]),
      ...(scale === 1 ? [] : ['--scale', String(scale)]),
    ];
    const progress = (text: string) => void process.stderr.write(`${text}\n`);
    const document = await runBench({ command, tables: TABLES[what], designs, profile, kernel, scale, signal: abort.signal, progress });
    process.stdout.write(a.json ? `${JSON.stringify(document, undefined, 1)}\n` : `${formatBench(document)}\n`);
  } catch (error) {
    if (abort.signal.aborted) throw new UsageError('bench: interrupted');
    throw error;
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

/** `pvm bench table1` ... `pvm bench all`. */
export const TABLE_COMMANDS = (Object.keys(TABLES) as TablesName[]).map(
  (what): CommandModule<object, TablesArgs> => ({
    command: what,
    describe: DESCRIPTIONS[what],
    builder: (y) => y.options(BENCH_TABLE_OPTIONS) as unknown as Argv<TablesArgs>,
    handler: (a) => measureTables(what, a),
  }),
);
