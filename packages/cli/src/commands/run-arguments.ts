import { type LedgerTiming, snapshotPlatform, type VmOptions } from '@pvm/pvm';
import yargs from 'yargs';
import { UsageError } from '../errors.ts';
import { parseGdbAddress } from '../host/gdb.ts';
import { splitProgram } from '../split.ts';
import { type MachineArgs, machineSettings } from './machine-options.ts';
import { type PcArgs, pcSettings } from './pc-options.ts';
import { ALL_RUN_OPTIONS } from './run-options.ts';
import { checkSnapshotArgs, type SnapshotArgs } from './snapshot-options.ts';

export interface RunArgs extends MachineArgs, PcArgs, SnapshotArgs {
  readonly clock: 'host' | 'icount' | undefined;
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
  readonly append: string | undefined;
  readonly reboot: boolean;
  readonly timeout: number | undefined;
  readonly jitStats: boolean;
  readonly codeMemory: string | undefined;
  readonly codeCache: string | undefined;
  readonly perfMap: boolean;
  readonly gdb: string | undefined;
  readonly wait: boolean;
  readonly maxInstructions: number | undefined;
  readonly checkMmu: string | undefined;
  readonly countTlb: boolean | undefined;
  readonly debugConsole: boolean;
}

/** Longest that `setTimeout` waits, s. */
const MAX_TIMEOUT = 2_147_483;

/** `host:guest`; a path alone has the same name in the guest. */
function parseFile(spec: string): [string, string] {
  const colon = spec.lastIndexOf(':');
  const [host, guest] = colon < 0 ? [spec, spec] : [spec.slice(0, colon), spec.slice(colon + 1)];
  if (host === '' || !guest.startsWith('/')) throw new UsageError(`--file ${spec}: expected HOST:GUEST with an absolute path in the guest`);
  return [guest, host];
}

function parseEnv(spec: string): [string, string] {
  const equals = spec.indexOf('=');
  if (equals < 1) throw new UsageError(`--env ${spec}: expected NAME=VALUE`);
  return [spec.slice(0, equals), spec.slice(equals + 1)];
}

/** Whether the machine is a PC for a stock kernel; a restored one is what its snapshot says. @throws PvmError */
export function isPc(a: SnapshotArgs, program: readonly string[]): boolean {
  return a.restore === undefined ? program.length === 0 : snapshotPlatform(a.restore) === 'pc';
}

function isAnything(a: RunArgs, program: readonly string[]): boolean {
  return program.length > 0 || a.kernel !== undefined || a.restore !== undefined;
}

/** The part of `VmOptions` that the command line of `run` sets: everything but input and output. */
export function runSettings(a: RunArgs, program: readonly string[]): VmOptions {
  const [path, ...args] = program;
  checkSnapshotArgs(a);
  if (path !== undefined && a.restore !== undefined) throw new UsageError(`run: --restore goes on with what the snapshot is of; leave ${path} out`);
  if (!isAnything(a, program)) throw new UsageError('run: name a program; for example: pvm run ./hello');
  if (path !== undefined) refuse(a, CONSOLES, (option) => `${option} is for a stock kernel; a program has the standard streams`);
  if (a.timeout !== undefined && !(a.timeout > 0 && a.timeout <= MAX_TIMEOUT))
    throw new UsageError(`--timeout: expected seconds, more than 0 and at most ${MAX_TIMEOUT}`);
  if (a.gdb !== undefined) parseGdbAddress(a.gdb);
  else if (a.wait) throw new UsageError('--wait belongs to --gdb PORT');
  if (a.trace !== undefined && !(a.traceLimit > 0)) throw new UsageError(`--trace-limit ${a.traceLimit}: expected a number of exits, 1 to 16777216`);
  return {
    ...machineSettings(a),
    ...(path === undefined ? {} : { program: path, args }),
    ...(a.clock === undefined ? {} : { clock: a.clock }),
    ...(a.env.length > 0 ? { env: Object.fromEntries(a.env.map(parseEnv)) } : {}),
    ...(a.file.length > 0 ? { files: Object.fromEntries(a.file.map(parseFile)) } : {}),
    ...pcSettings(a),
    ...(isPc(a, program) ? { reboot: a.reboot } : {}),
    ...(a.kernel === undefined ? {} : { kernel: a.kernel }),
    ...(a.append === undefined ? {} : { commandLine: a.append }),
    ...(a.restore === undefined ? {} : { restore: a.restore }),
    ...(a.maxInstructions === undefined ? {} : { maxInstructions: a.maxInstructions }),
    ...(a.countTlb === true ? { countTlb: true } : {}),
    ...(a.checkMmu === undefined ? {} : { checkMmu: a.checkMmu === '' || Number(a.checkMmu) }),
    ledger: a.ledger,
    ...(a.codeMemory === undefined ? {} : { codeMemory: a.codeMemory }),
    ...(a.codeCache === undefined ? {} : { codeCache: a.codeCache }),
    ...(a.trace === undefined ? {} : { traceLimit: a.traceLimit }),
  };
}

/** Reads the arguments of `run` where they follow another command and `--`. @throws UsageError, PvmError */
export async function parseRunArguments(words: readonly string[]): Promise<{ args: RunArgs; program: string[] }> {
  const { own, program } = splitProgram(['run', ...words]);
  const parsed = await yargs(own.slice(1))
    .options(ALL_RUN_OPTIONS)
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

/** Options that connect a PC with the outside, and those that only `run` itself follows. */
const CONSOLES = ['serial', 'virtioConsole', 'display', 'channel', 'vsock', 'vsockListen'] as const;
const OUTSIDE = [...CONSOLES, 'timeout', 'save', 'restore'] as const;

/** @throws UsageError when one of the `keys` was given */
function refuse(a: RunArgs, keys: readonly (typeof OUTSIDE)[number][], why: (option: string) => string): void {
  const given = keys.find((key) => (Array.isArray(a[key]) ? a[key].length > 0 : a[key] !== undefined));
  if (given !== undefined) throw new UsageError(why(`--${given.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`));
}

/** @throws UsageError when a command that runs what follows -- is given nothing to run */
export function refuseNothing(command: string, a: RunArgs, program: readonly string[]): void {
  if (!isAnything(a, program)) throw new UsageError(`${command}: name after -- what to run; for example: pvm ${command} -- ./hello`);
}

/** @throws UsageError when they are given to a command that would forget them */
export function refuseOutside(command: string, a: RunArgs): void {
  refuse(a, OUTSIDE, (option) => `${command} does not take ${option}; pvm run does`);
}
