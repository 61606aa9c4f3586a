import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import {
  createVm,
  formatExits,
  loadCostProfile,
  loadSymbols,
  modelRun,
  PvmError,
  parseRunReport,
  readInputFile,
  renameHotExits,
  toPerfetto,
  type Vm,
  type VmOptions,
} from '@pvm/pvm';
import type { Argv, CommandModule } from 'yargs';
import { UsageError } from '../errors.ts';
import { formatModelled } from '../modelled.ts';
import { OutputFile } from '../output-file.ts';
import { GuestTail } from '../stat/guest-tail.ts';
import { LiveView, printLive, showLive } from '../stat/live.ts';
import { formatHotExits } from '../summary.ts';
import { parseRunArguments, refuseNothing, refuseOutside, runSettings } from './run-arguments.ts';
import { PROFILE_OPTION, SYMBOLS_OPTION, TABLE_OPTIONS } from './table-options.ts';

interface TableArgs {
  readonly sort: 'samples' | 'time';
  readonly by: 'reason' | 'sub' | 'detail';
  readonly percentiles: boolean;
  readonly vcpu: number | undefined;
}

interface ReportArgs extends TableArgs {
  readonly file: string;
  readonly symbols: readonly string[];
  readonly profile: string | undefined;
}

interface LiveArgs extends TableArgs {
  readonly interval: number;
  readonly input: string | undefined;
  readonly output: string | undefined;
}

const VCPU_OPTION = { type: 'number', requiresArg: true, describe: 'Only this vCPU; default all together' } as const;
/** Lines of guest output that the live view keeps. */
const TAIL_LINES = 50;

/** Options of `stat live`, for yargs. */
export const LIVE_OPTIONS = {
  ...TABLE_OPTIONS,
  vcpu: VCPU_OPTION,
  interval: { type: 'number', default: 1, requiresArg: true, describe: 'Seconds between two refreshes' },
  input: { type: 'string', requiresArg: true, describe: "The guest's input, a file; default: none (the keyboard belongs to the view)" },
  output: { type: 'string', requiresArg: true, describe: "Write the guest's output to this file as well" },
} as const;

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
    const known: Readonly<Record<string, string>> = { ENOENT: 'no such file', EACCES: 'permission denied', EISDIR: 'is a directory' };
    throw new UsageError(`${path}: ${known[code] ?? code}`);
  }
}

async function report(a: ReportArgs): Promise<void> {
  let run = parseRunReport(await readText(a.file), a.file);
  if (a.symbols.length > 0) run = renameHotExits(run, await loadSymbols(a.symbols));
  const vcpus = new Set(run.ledger.rows.map((row) => row.vcpu));
  if (a.vcpu !== undefined && !vcpus.has(a.vcpu)) throw new UsageError(`--vcpu ${a.vcpu}: ${a.file} has exits of vCPU ${[...vcpus].join(', ')}`);
  const { vcpu, ...layout } = a;
  const table = formatExits(run.ledger, { ...layout, ...(vcpu === undefined ? {} : { vcpu }), lost: run.lostEvents });
  const model = a.profile === undefined ? '' : `\n${formatModelled(modelRun(await loadCostProfile(a.profile), run), run)}\n`;
  process.stdout.write(
    `Design ${run.design}, ${run.instructions.toLocaleString('en-US')} instructions, ${run.runMs.toFixed(1)} ms (host time, measured)\n\n${table}\n\n${formatHotExits(run)}\n${model}`,
  );
}

async function convert(from: string, to: string): Promise<void> {
  if (!existsSync(from)) throw new UsageError(`${from}: no such file`);
  const file = await OutputFile.open(to, 'the output');
  try {
    for await (const piece of toPerfetto(createInterface({ input: createReadStream(from), crlfDelay: Number.POSITIVE_INFINITY }), from))
      await file.write(piece);
    await file.commit();
  } finally {
    await file.discard();
  }
}

async function live(a: LiveArgs, words: readonly string[]): Promise<void> {
  if (!(a.interval >= 0.1 && a.interval <= 3600)) throw new PvmError('bad-option', `option --interval: expected 0.1 to 3600 seconds, got ${a.interval}`);
  const { args, program } = await parseRunArguments(words);
  refuseNothing('stat live', args, program);
  refuseOutside('stat live', args);
  if (args.stat || args.json || args.statOut !== undefined || args.trace !== undefined || args.profile !== undefined)
    throw new UsageError('stat live: --stat, --json, --stat-out, --trace and --profile belong to pvm run; the final table is printed anyway');
  const tail = new GuestTail(TAIL_LINES);
  const copy = a.output === undefined ? undefined : createWriteStream(a.output);
  if (copy !== undefined)
    await new Promise<void>((resolve, reject) =>
      copy.once('open', () => resolve()).once('error', (e) => reject(new UsageError(`--output ${a.output}: ${e.message}`))),
    );
  const take = (chunk: Uint8Array) => {
    tail.add(chunk);
    if (copy !== undefined && !copy.write(chunk)) return new Promise<void>((resolve) => copy.once('drain', () => resolve()));
    return undefined;
  };
  const abort = new AbortController();
  const quit = () => abort.abort();
  process.once('SIGINT', quit).once('SIGTERM', quit).once('SIGHUP', quit);
  const sinks: Pick<VmOptions, 'onConsole' | 'onStderr' | 'onSerial'> = program.length > 0 ? { onConsole: take, onStderr: take } : { onSerial: take };
  const { signal } = abort;
  let vm: Vm | undefined;
  try {
    const stdin = a.input === undefined ? {} : { stdin: await readInputFile(a.input, a.input, signal) };
    vm = await createVm({ ...runSettings(args, program), ...sinks, ...stdin, signal });
    const view = new LiveView(vm, tail, a, a.vcpu);
    const run = vm.run();
    // What fails, fails below, after the terminal is itself again.
    const done = run.catch(() => undefined);
    const intervalMs = a.interval * 1000;
    await (process.stdout.isTTY ? showLive(view, process.stdin, process.stdout, intervalMs, done, quit) : printLive(view, process.stdout, intervalMs, done));
    const result = await run;
    process.stdout.write(`${view.title()}\n\n${view.table()}\n`);
    process.exitCode = result.stopReason === 'aborted' ? 0 : result.exitCode;
  } catch (error) {
    if (vm !== undefined || !signal.aborted) throw error;
  } finally {
    process.off('SIGINT', quit).off('SIGTERM', quit).off('SIGHUP', quit);
    await vm?.dispose();
    copy?.end();
    process.stdin.destroy();
  }
}

const reportCommand: CommandModule<object, ReportArgs> = {
  command: 'report <file>',
  describe: 'Print what pvm run --stat-out recorded, in the columns of perf kvm stat',
  builder: (y) =>
    y
      .positional('file', { type: 'string', demandOption: true })
      .options({ ...TABLE_OPTIONS, vcpu: VCPU_OPTION, symbols: SYMBOLS_OPTION, profile: PROFILE_OPTION }) as unknown as Argv<ReportArgs>,
  handler: report,
};

const liveCommand = (words: readonly string[]): CommandModule<object, LiveArgs> => ({
  command: 'live',
  describe: 'Run a machine and watch its exits: pvm stat live [options] -- RUN-ARGUMENTS',
  builder: (y) =>
    y
      .usage(
        `pvm stat live [options] -- RUN-ARGUMENTS

Runs what pvm run RUN-ARGUMENTS would run and shows its exits, again and again. On a terminal: a full screen, with the last lines of the guest's output below; without one: plain text. The guest's output goes nowhere else unless --output names a file. Keys: q or Ctrl-C end the run; s, b, v, p change the table.`,
      )
      .options(LIVE_OPTIONS) as unknown as Argv<LiveArgs>,
  handler: (a) => live(a, words),
});

const convertCommand: CommandModule<object, { trace: string; output: string }> = {
  command: 'trace2perfetto <trace> <output>',
  describe: 'Convert a trace of pvm run --trace to the trace-event format, for ui.perfetto.dev and chrome://tracing',
  builder: (y) => y.positional('trace', { type: 'string', demandOption: true }).positional('output', { type: 'string', demandOption: true }),
  handler: (a) => convert(a.trace, a.output),
};

/** `pvm stat report|live|trace2perfetto`; `words` is what follows `--`. */
export function statCommand(words: readonly string[]): CommandModule<object, object> {
  return {
    command: 'stat <what>',
    describe: 'Look at the exits of a run, recorded or live, or convert a trace',
    builder: (y) => y.command(reportCommand).command(liveCommand(words)).command(convertCommand).demandCommand(2, 'stat: say report, live or trace2perfetto'),
    handler: () => undefined,
  };
}
