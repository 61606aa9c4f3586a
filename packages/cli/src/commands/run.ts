import {
  type CostProfile,
  createVm,
  formatLedger,
  type GdbServer,
  loadCostProfile,
  modelRun,
  PvmError,
  type Result,
  runReport,
  Symboliser,
  traceLines,
  type Vm,
  VmError,
} from '@pvm/pvm';
import type { Argv, CommandModule } from 'yargs';
import { effectiveConfig } from '../config.ts';
import { UsageError } from '../errors.ts';
import { Ending } from '../host/ending.ts';
import { listenForGdb } from '../host/gdb.ts';
import { note, PcHost, ProgramHost } from '../host/run-host.ts';
import { Saver } from '../host/saver.ts';
import { getImage, isImage } from '../image/images.ts';
import { formatModelled } from '../modelled.ts';
import { OutputFile } from '../output-file.ts';
import { formatHotExits, formatJitStats, formatSummary } from '../summary.ts';
import { runSymbols } from '../symbols.ts';
import { isPc, type RunArgs, runSettings } from './run-arguments.ts';
import { ALL_RUN_OPTIONS, HIDDEN_RUN_OPTIONS } from './run-options.ts';

/** Files that a run writes when it is over. */
interface RunFiles {
  readonly stat: OutputFile | undefined;
  readonly trace: OutputFile | undefined;
}

/** What is to be known of a run goes to its files, also when the guest could not go on. */
async function writeFiles(files: RunFiles, vm: Vm, ended: Result | VmError, symbols: Symboliser): Promise<void> {
  if (files.stat !== undefined) {
    await files.stat.write(`${JSON.stringify(runReport(vm, ended, symbols))}\n`);
    await files.stat.commit();
  }
  if (files.trace !== undefined) {
    for (const line of traceLines(vm.ledger, vm.designName, vm, symbols)) await files.trace.write(line);
    await files.trace.commit();
  }
}

function print(a: RunArgs, vm: Vm, result: Result, symbols: Symboliser, profile: CostProfile | undefined): void {
  if (a.jitStats) process.stderr.write(`\n${formatJitStats(result.summary)}\n`);
  if (!a.json && !a.stat) return;
  const report = runReport(vm, result, symbols);
  const modelled = profile === undefined ? undefined : modelRun(profile, report);
  if (a.json) process.stderr.write(`${JSON.stringify(modelled === undefined ? report : { ...report, modelled })}\n`);
  else {
    const model = modelled === undefined ? '' : `\n${formatModelled(modelled, report)}\n`;
    process.stderr.write(`\n${formatLedger(vm.ledger, a)}\n\n${formatHotExits(report)}\n\n${formatSummary(result.summary)}\n${model}`);
  }
}

async function execute(a: RunArgs, program: readonly string[], files: RunFiles, profile: CostProfile | undefined): Promise<void> {
  const settings = runSettings(a, program);
  const isReported = a.stat || a.json || files.stat !== undefined || files.trace !== undefined || a.symbols.length > 0 || a.perfMap;
  const symbols = isReported ? await runSymbols(a, program) : new Symboliser();
  const end = new Ending(a.timeout);
  const saver = new Saver(a, note);
  const host = isPc(a, program) ? new PcHost(a, end, () => saver.now()) : new ProgramHost(a);
  let vm: Vm | undefined;
  let gdb: GdbServer | undefined;
  try {
    const { stat, json } = a;
    vm = await createVm({
      ...settings,
      ...saver.listen(await host.settings()),
      ...(a.perfMap ? { nameRegion: (rip: bigint) => nameOf(rip, symbols, vm) } : {}),
      sampleTiers: stat || json || a.jitStats,
      signal: end.signal,
    });
    await host.attach(vm);
    saver.attach(vm);
    if (a.gdb !== undefined) gdb = await listenForGdb(vm, a.gdb, a.wait);
    const result = await vm.run().catch(async (error: unknown) => {
      if (error instanceof VmError && vm !== undefined) await writeFiles(files, vm, error, symbols);
      throw error;
    });
    host.restore();
    await writeFiles(files, vm, result, symbols);
    if (end.exitCode === undefined) await saver.done();
    const how = end.exitCode === undefined && result.stopReason === 'panic' ? "the guest's kernel panicked" : end.message;
    if (how !== undefined) note(how);
    print(a, vm, result, symbols, profile);
    if (result.stopReason === 'instruction-limit')
      throw new PvmError('bad-option', `stopped after ${result.summary.instructions} instructions (--max-instructions)`);
    process.exitCode = end.exitCode ?? result.exitCode;
    await gdb?.close(process.exitCode);
  } catch (error) {
    // Ended before there was a machine.
    if (vm !== undefined || end.exitCode === undefined) throw error;
    if (end.message !== undefined) note(end.message);
    process.exitCode = end.exitCode;
  } finally {
    end.dispose();
    host.restore();
    await vm?.dispose();
    await gdb?.close(1);
    await host.close();
    process.stdin.destroy();
  }
}

/** What profilers show for guest code. */
function nameOf(rip: bigint, symbols: Symboliser, vm: Vm | undefined): string {
  const symbol = symbols.find(rip, { syscallEntry: vm?.syscallEntry ?? 0n });
  return `guest:0x${rip.toString(16)}${symbol === undefined ? '' : `:${symbol}`}`;
}

/** `pvm run NAME` is a stock kernel, and options as the image has them where none are given. @throws UsageError */
async function withImage(a: RunArgs, words: readonly string[]): Promise<{ a: RunArgs; program: readonly string[] }> {
  const [name = '', ...rest] = words;
  if (a.kernel !== undefined || !(await isImage(name))) return { a, program: words };
  if (rest.length > 0) throw new UsageError(`run ${name}: options come before the name of an image; do not know what to do with "${rest.join(' ')}"`);
  const { kernel, initrd, append, memory } = await getImage(name);
  const line = [append, terminalParameters(), a.append].filter(Boolean).join(' ');
  return { a: { ...a, kernel, initrd: a.initrd ?? initrd, append: line, memory: a.memory ?? memory }, program: [] };
}

/** A serial port does not carry the size and kind of the terminal; Linux hands such words of its command line to init, as variables. */
function terminalParameters(): string {
  const { isTTY, columns, rows } = process.stdout;
  const term = process.env['TERM'] ?? '';
  return isTTY ? `${/^[\w.+-]+$/.test(term) ? `TERM=${term} ` : ''}COLUMNS=${columns} LINES=${rows}` : '';
}

/** Its options, with all that is said of them in its help. */
function described(y: Argv): Argv {
  return y
    .usage(
      `pvm run [options] PROGRAM [ARGS...]
pvm run --kernel FILE [--initrd FILE] [--append LINE] [options]
pvm run --restore FILE [options]
pvm run [options] debian

Runs a static x86-64 Linux ELF as the user program of a PVM guest: standard input and output and the exit code pass through. With --kernel and no program, boots a stock kernel on a PC, whose first serial port is standard input and output. What follows the program, or --, belongs to it. QEMU's spellings (-kernel, -drive, -no-reboot) are taken as well.

Keys on a PC's terminal: Ctrl-A X ends the machine, Ctrl-A P presses its power button (as SIGPWR does), Ctrl-A S saves a snapshot, Ctrl-A H shows help.

Exit codes of a PC: 0 powered off, reset with --no-reboot, or Ctrl-A X; (value << 1) | 1 value was written to the debug-exit port; 70 it cannot go on (triple fault); 71 its kernel panicked; 124 --timeout; 129, 130, 131, 143 SIGHUP, SIGINT, SIGQUIT, SIGTERM.`,
    )
    .options(ALL_RUN_OPTIONS)
    .example('pvm run debian', 'Fetch a small Debian where that is needed (pvm image), and boot it to a shell')
    .example('pvm run ./hello world', 'Run a program with an argument')
    .example('pvm run --stat --clock icount ./busybox seq 5', 'Repeatable, and with the exit table')
    .example('pvm run --kernel vmlinuz --drive file=disk.img,snapshot=on --append "root=/dev/vda"', 'Boot from a disk image, which stays as it is')
    .example('pvm run --gdb 1234 --wait ./hello', "Then: gdb hello -ex 'target remote :1234'")
    .example('pvm run --file notes.txt:/notes.txt ./busybox cat /notes.txt', 'Give the guest a file')
    .example('pvm run --kernel vmlinuz --save vm.pvmsnap --save-on login: --save-exit ...', 'Boot to the prompt and save')
    .example('pvm run --restore vm.pvmsnap', 'Go on from there')
    .example('pvm run --kernel vmlinuz --initrd initrd.img --append console=ttyS0 -m 512M', 'Boot a Linux distribution kernel');
}

/** `pvm run`; `words` are what follows its options. Without `isHelpWanted` its help would be empty. */
export function runCommand(words: readonly string[], isHelpWanted: boolean): CommandModule<object, RunArgs> {
  return {
    command: 'run',
    describe: 'Run a static x86-64 Linux program, or boot a stock kernel: pvm run [options] PROGRAM [ARGS...]',
    builder: (y) => (isHelpWanted ? described(y) : y.options(HIDDEN_RUN_OPTIONS)) as unknown as Argv<RunArgs>,
    handler: async (given) => {
      if (given.printConfig) {
        process.stdout.write(`${JSON.stringify(effectiveConfig(given, words), null, 2)}\n`);
        return;
      }
      const { a, program } = await withImage(given, words);
      runSettings(a, program);
      if (a.profile !== undefined && !a.stat && !a.json)
        throw new UsageError('--profile belongs to --stat or --json; of a recorded run: pvm stat report FILE --profile');
      const profile = a.profile === undefined ? undefined : await loadCostProfile(a.profile);
      const files: { stat?: OutputFile; trace?: OutputFile } = {};
      try {
        if (a.statOut !== undefined) files.stat = await OutputFile.open(a.statOut, '--stat-out');
        if (a.trace !== undefined) files.trace = await OutputFile.open(a.trace, '--trace');
        await execute(a, program, { stat: files.stat, trace: files.trace }, profile);
      } finally {
        await files.stat?.discard();
        await files.trace?.discard();
      }
    },
  };
}
