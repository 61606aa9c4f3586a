import {
  type CostProfile,
  createVm,
  formatLedger,
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
import { UsageError } from '../errors.ts';
import { Keyboard } from '../keyboard.ts';
import { formatModelled } from '../modelled.ts';
import { writeTo } from '../output.ts';
import { OutputFile } from '../output-file.ts';
import { formatHotExits, formatSummary } from '../summary.ts';
import { runSymbols } from '../symbols.ts';
import { MACHINE_OPTIONS } from './machine-options.ts';
import { RUN_OPTIONS, type RunArgs, runSettings } from './run-arguments.ts';

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
  const isReported = a.stat || a.json || files.stat !== undefined || files.trace !== undefined || a.symbols.length > 0;
  const symbols = isReported ? await runSymbols(a, program) : new Symboliser();
  const abort = new AbortController();
  const onSignal = () => abort.abort();
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  const isProgram = program.length > 0;
  const keyboard = isProgram ? undefined : new Keyboard(process.stdin, onSignal);
  let vm: Vm | undefined;
  try {
    vm = await createVm({
      ...settings,
      sampleTiers: a.stat || a.json,
      stdin: keyboard?.input() ?? process.stdin,
      terminals: (process.stdin.isTTY ? 1 : 0) | (process.stdout.isTTY ? 2 : 0) | (process.stderr.isTTY ? 4 : 0),
      onConsole: writeTo(process.stdout),
      onStderr: writeTo(process.stderr),
      ...(isProgram ? (a.debugConsole ? { onSerial: writeTo(process.stderr) } : {}) : { onSerial: writeTo(process.stdout) }),
      signal: abort.signal,
    });
    const result = await vm.run().catch(async (error: unknown) => {
      if (error instanceof VmError && vm !== undefined) await writeFiles(files, vm, error, symbols);
      throw error;
    });
    await writeFiles(files, vm, result, symbols);
    if (result.stopReason === 'instruction-limit')
      throw new PvmError('bad-option', `stopped after ${result.summary.instructions} instructions (--max-instructions)`);
    print(a, vm, result, symbols, profile);
    process.exitCode = result.exitCode;
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
    keyboard?.restore();
    await vm?.dispose();
    process.stdin.destroy();
  }
}

/** `pvm run`; `program` is what follows its options. */
export function runCommand(program: readonly string[]): CommandModule<object, RunArgs> {
  return {
    command: 'run',
    describe: 'Run a static x86-64 Linux program, or boot a stock kernel: pvm run [options] PROGRAM [ARGS...]',
    builder: (y) =>
      y
        .usage(
          `pvm run [options] PROGRAM [ARGS...]
pvm run --kernel FILE [--initrd FILE] [--append LINE] [options]

Runs a static x86-64 Linux ELF as the user program of a PVM guest. Standard input and output and the exit code pass through.
Without a program, boots a stock kernel on a PC with one CPU; its first serial port is standard input and output. On a terminal, Ctrl-A X ends the machine.`,
        )
        .options({ ...MACHINE_OPTIONS, ...RUN_OPTIONS })
        .example('pvm run ./hello world', 'Run a program with an argument')
        .example('pvm run --stat --clock icount ./busybox seq 5', 'Repeatable, and with the exit table')
        .example('pvm run --file notes.txt:/notes.txt ./busybox cat /notes.txt', 'Give the guest a file')
        .example('pvm run --kernel vmlinuz --initrd initrd.img --append console=ttyS0 -m 512M', 'Boot a Linux distribution kernel') as unknown as Argv<RunArgs>,
    handler: async (a) => {
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
