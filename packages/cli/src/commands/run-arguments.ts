import type { LedgerTiming, VmOptions } from '@pvm/pvm';
import type { Options } from 'yargs';
import yargs from 'yargs';
import { UsageError } from '../errors.ts';
import { splitProgram } from '../split.ts';
import { MACHINE_OPTIONS, type MachineArgs, machineSettings } from './machine-options.ts';
import { PROFILE_OPTION, SYMBOLS_OPTION, TABLE_OPTIONS } from './table-options.ts';

export interface RunArgs extends MachineArgs {
  readonly clock: 'host' | 'icount';
  readonly env: readonly string[];
  readonly file: readonly string[];
  readonly stat: boolean;
  readonly json: boolean;
  readonly sort: 'samples' | 'time';
  readonly by: 'reason' | 'sub' | 'detail';
  readonly percentiles: boolean;
  readonly statOut: string | undefined;
  readonly trace: string | undefined;
  readonly traceLimit: number;
  readonly symbols: readonly string[];
  readonly profile: string | undefined;
  readonly ledger: LedgerTiming;
  readonly kernel: string | undefined;
  readonly initrd: string | undefined;
  readonly drive: readonly string[];
  readonly append: string;
  readonly maxInstructions: number | undefined;
  readonly checkMmu: string | undefined;
  readonly debugConsole: boolean;
}

/** Options of `run` beside those of every machine, for yargs. */
export const RUN_OPTIONS: Readonly<Record<string, Options>> = {
  clock: {
    choices: ['host', 'icount'],
    default: 'host',
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
    describe: 'Time the first 8,192 exits, then 1 of 32 and 1 of 256, or all (as with --trace), or do not even count them',
  },
  kernel: { type: 'string', requiresArg: true, describe: 'Without a program: the stock kernel to boot; with one: another PVM guest kernel (ELF64)' },
  initrd: { type: 'string', requiresArg: true, describe: 'RAM disk of a stock kernel' },
  drive: {
    type: 'string',
    array: true,
    nargs: 1,
    default: [],
    describe: 'file=IMAGE[,readonly=on][,snapshot=on], a virtio disk of a stock kernel (raw image); may be given again',
  },
  append: { type: 'string', default: '', requiresArg: true, describe: 'Kernel command line' },
  'max-instructions': { type: 'number', requiresArg: true, describe: 'Stop after so many guest instructions' },
  'check-mmu': { type: 'string', describe: 'Check the page tables that the design keeps at every exit, or with =N at every Nth (slow)' },
  'debug-console': { type: 'boolean', default: false, describe: "Show the guest kernel's serial log on stderr" },
};

/** `host:guest`; a path alone has the same name in the guest. */
function parseFile(spec: string): [string, string] {
  const colon = spec.lastIndexOf(':');
  const [host, guest] = colon < 0 ? [spec, spec] : [spec.slice(0, colon), spec.slice(colon + 1)];
  if (host === '' || !guest.startsWith('/')) throw new UsageError(`--file ${spec}: expected HOST:GUEST with an absolute path in the guest`);
  return [guest, host];
}

/** QEMU's spelling; of its words those that mean what we do anyway are taken. */
function parseDrive(spec: string): { file: string; readOnly: boolean; snapshot: boolean } {
  const drive = { file: '', readOnly: false, snapshot: false };
  for (const word of spec.split(',')) {
    const [key = '', value = ''] = word.split(/=(.*)/s);
    if (key === 'file') drive.file = value;
    else if (key === 'readonly' && /^(on|off)$/.test(value)) drive.readOnly = value === 'on';
    else if (key === 'snapshot' && /^(on|off)$/.test(value)) drive.snapshot = value === 'on';
    else if (word !== 'if=virtio' && word !== 'format=raw')
      throw new UsageError(`--drive ${spec}: do not know "${word}"; expected file=IMAGE[,readonly=on][,snapshot=on]`);
  }
  if (drive.file === '') throw new UsageError(`--drive ${spec}: expected file=IMAGE[,readonly=on][,snapshot=on]`);
  return drive;
}

function parseEnv(spec: string): [string, string] {
  const equals = spec.indexOf('=');
  if (equals < 1) throw new UsageError(`--env ${spec}: expected NAME=VALUE`);
  return [spec.slice(0, equals), spec.slice(equals + 1)];
}

/** The part of `VmOptions` that the command line of `run` sets: everything but input and output. */
export function runSettings(a: RunArgs, program: readonly string[]): VmOptions {
  const [path, ...args] = program;
  if (path === undefined && a.kernel === undefined) throw new UsageError('run: name a program; for example: pvm run ./hello');
  if (a.trace !== undefined && !(a.traceLimit > 0)) throw new UsageError(`--trace-limit ${a.traceLimit}: expected a number of exits, 1 to 16777216`);
  return {
    ...machineSettings(a),
    ...(path === undefined ? {} : { program: path, args }),
    clock: a.clock,
    ...(a.env.length > 0 ? { env: Object.fromEntries(a.env.map(parseEnv)) } : {}),
    ...(a.file.length > 0 ? { files: Object.fromEntries(a.file.map(parseFile)) } : {}),
    ...(a.initrd === undefined ? {} : { initrd: a.initrd }),
    ...(a.drive.length > 0 ? { drives: a.drive.map(parseDrive) } : {}),
    ...(a.kernel === undefined ? {} : { kernel: a.kernel }),
    commandLine: a.append,
    ...(a.maxInstructions === undefined ? {} : { maxInstructions: a.maxInstructions }),
    ...(a.checkMmu === undefined ? {} : { checkMmu: a.checkMmu === '' || Number(a.checkMmu) }),
    ledger: a.ledger,
    ...(a.trace === undefined ? {} : { traceLimit: a.traceLimit }),
  };
}

/** Reads the arguments of `run` where they follow another command and `--`. @throws UsageError, PvmError */
export async function parseRunArguments(words: readonly string[]): Promise<{ args: RunArgs; program: string[] }> {
  const { own, program } = splitProgram(['run', ...words]);
  const parsed = await yargs(own.slice(1))
    .options({ ...MACHINE_OPTIONS, ...RUN_OPTIONS })
    .strict()
    .help(false)
    .version(false)
    .exitProcess(false)
    .fail((message, error) => {
      throw error ?? new UsageError(`in the arguments of run: ${message.replace(/\s*\n\s*/g, ' ')}`);
    })
    .parseAsync();
  return { args: parsed as unknown as RunArgs, program };
}
