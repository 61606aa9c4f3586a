import type { Options } from 'yargs';
import { MACHINE_OPTIONS } from './machine-options.ts';
import { PC_OPTIONS } from './pc-options.ts';
import { grouped } from './run-groups.ts';
import { SNAPSHOT_OPTIONS } from './snapshot-options.ts';
import { PROFILE_OPTION, SYMBOLS_OPTION, TABLE_OPTIONS } from './table-options.ts';

/** Options of `run` beside those of every machine, for yargs. */
export const RUN_OPTIONS: Readonly<Record<string, Options>> = {
  config: { type: 'string', requiresArg: true, describe: 'Read options from a JSON file: long names as keys, and program; those given here win' },
  'print-config': { type: 'boolean', default: false, describe: 'Print everything that counts as such a file, and run nothing' },
  clock: {
    choices: ['host', 'icount'],
    defaultDescription: 'host',
    requiresArg: true,
    describe: "The guest's clock: the host's, or one that counts instructions, which makes the run repeatable",
  },
  env: { type: 'string', array: true, nargs: 1, default: [], describe: 'NAME=VALUE for the program; may be given again' },
  file: { type: 'string', array: true, nargs: 1, default: [], describe: 'HOST:GUEST, a file for the guest; may be given again' },
  stat: { type: 'boolean', default: false, describe: 'Afterwards print the exits and a summary to stderr' },
  json: { type: 'boolean', default: false, describe: 'The same as JSON' },
  ...TABLE_OPTIONS,
  'stat-out': { type: 'string', requiresArg: true, describe: 'Write the same as JSON to this file, for pvm stat report' },
  trace: { type: 'string', requiresArg: true, describe: 'Write the last exits one by one to this file, as JSON lines' },
  'trace-limit': { type: 'number', default: 262_144, requiresArg: true, describe: 'How many exits a trace keeps' },
  symbols: SYMBOLS_OPTION,
  profile: PROFILE_OPTION,
  ledger: {
    choices: ['sampled', 'all', 'off'],
    default: 'sampled',
    requiresArg: true,
    describe: 'Time the first 2,048 exits, then 1 of 16 down to 1 of 1,024, or all (as with --trace), or do not even count them',
  },
  kernel: { type: 'string', requiresArg: true, describe: 'Without a program: the stock kernel to boot; with one: another PVM guest kernel (ELF64)' },
  ...PC_OPTIONS,
  append: { type: 'string', requiresArg: true, describe: 'Kernel command line' },
  reboot: {
    type: 'boolean',
    default: true,
    describe: 'A reset that the guest asks for, or a triple fault, restarts it; with --no-reboot it ends the machine',
  },
  ...SNAPSHOT_OPTIONS,
  timeout: { type: 'number', requiresArg: true, describe: 'Stop after so many seconds, with exit code 124' },
  'jit-stats': { type: 'boolean', default: false, describe: 'Afterwards print what was compiled, what it cost, and why control left compiled code, to stderr' },
  'code-memory': {
    type: 'string',
    requiresArg: true,
    describe: 'Compiled code (Wasm) that may be in use, 1M to 1024M; when there is more, all is dropped. Default 64M',
  },
  'code-cache': {
    type: 'string',
    requiresArg: true,
    describe: 'Folder that keeps compiled code from run to run: the next one of the same program or kernel starts with it',
  },
  'perf-map': {
    type: 'boolean',
    default: false,
    describe: "Give compiled guest code names for V8's profiler: node --cpu-prof, or --perf-prof for perf; with --symbols the guest's",
  },
  gdb: { type: 'string', requiresArg: true, describe: '[HOST:]PORT, let gdb connect (target remote); vCPUs are threads' },
  wait: { type: 'boolean', default: false, describe: 'With --gdb: run nothing before gdb says so' },
  'max-instructions': { type: 'number', requiresArg: true, describe: 'Stop after so many guest instructions' },
  'count-tlb': { type: 'boolean', describe: 'Count TLB hits of data accesses beside the misses; the guest then runs several times slower' },
  'check-mmu': { type: 'string', describe: 'Check the page tables that the design keeps at every exit, or with =N at every Nth (slow)' },
  'debug-console': { type: 'boolean', default: false, describe: "Show the guest kernel's serial log on stderr" },
};

/** Everything that `run` knows. */
export const ALL_RUN_OPTIONS: Readonly<Record<string, Options>> = grouped({ ...MACHINE_OPTIONS, ...RUN_OPTIONS });
/** The same, which no help mentions. */
export const HIDDEN_RUN_OPTIONS: Readonly<Record<string, Options>> = Object.fromEntries(
  Object.entries(ALL_RUN_OPTIONS).map(([name, option]) => [name, { ...option, hidden: true }]),
);

/** Options of `run` that take their value from the next word, as spelled. */
export const RUN_VALUE_OPTIONS: ReadonlySet<string> = new Set(
  Object.entries(ALL_RUN_OPTIONS)
    .filter(([, option]) => option.requiresArg === true || option.nargs === 1)
    .flatMap(([name, { alias }]) => [`--${name}`, ...[alias ?? []].flat().map((word) => (word.length === 1 ? `-${word}` : `--${word}`))]),
);
