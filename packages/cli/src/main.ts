import { PvmError, VmError } from '@pvm/pvm';
import yargs from 'yargs';
import { benchCommand } from './commands/bench.ts';
import { calibrateCommand } from './commands/calibrate.ts';
import { compareCommand } from './commands/compare.ts';
import { demoCommand } from './commands/demo.ts';
import { doctorCommand } from './commands/doctor.ts';
import { imageCommand } from './commands/image.ts';
import { jitCommand } from './commands/jit.ts';
import { runCommand } from './commands/run.ts';
import { snapshotCommand } from './commands/snapshot.ts';
import { statCommand } from './commands/stat.ts';
import { EXIT_GUEST, EXIT_USAGE, UsageError } from './errors.ts';
import { asOption, explain } from './explain.ts';
import { endOnOutputError, sayWarnings } from './output.ts';
import { splitProgram } from './split.ts';

const DESCRIPTION = `pvm - run x86-64 Linux programs in a PVM guest, and see what every VM exit cost

Usage: pvm <command> [options]`;

/** Longer lines are hard to read; with shorter ones no word would fit beside the options. */
const WIDEST_HELP = 110;
const NARROWEST_HELP = 40;

/** Runs the command line; sets the exit code of the process. Never throws for wrong input. */
export async function main(argv: readonly string[]): Promise<void> {
  endOnOutputError();
  sayWarnings();
  const debug = argv.includes('--debug');
  try {
    const { own, program } = splitProgram(argv);
    await yargs(own)
      .scriptName('pvm')
      .usage(DESCRIPTION)
      .command(runCommand(program, isHelpWanted(own)))
      .command(compareCommand(program))
      .command(statCommand(program))
      .command(benchCommand)
      .command(calibrateCommand)
      .command(jitCommand(program))
      .command(snapshotCommand)
      .command(imageCommand)
      .command(doctorCommand)
      .completion('completion', 'Print a script for completion in bash or zsh: pvm completion >> ~/.bashrc')
      .command(demoCommand)
      .option('debug', { type: 'boolean', default: false, describe: 'Show a stack trace when pvm itself fails', global: true })
      .demandCommand(1, 'name a command: run, compare, stat, bench, calibrate, jit, snapshot, image, doctor or demo (pvm --help lists them)')
      .strict()
      .recommendCommands()
      .wrap(helpWidth())
      .version('0.1.0')
      .help()
      .alias('h', 'help')
      .epilogue('Exit codes: that of the program; 128+n when signal n killed it; 2 wrong use or unsuitable file; 70 the guest cannot go on.')
      // Help is written as everything else: what goes wrong is heard of later, when this process must still be there.
      .exitProcess(false)
      .fail((message, error) => {
        throw error ?? new UsageError(explain(message, own));
      })
      .parseAsync();
  } catch (error) {
    process.exitCode = report(error, debug);
  }
}

/** In characters: the terminal's, or what `COLUMNS` says where there is none, as for man(1). */
function helpWidth(): number {
  const said = Number(process.env['COLUMNS']);
  return Math.min(WIDEST_HELP, process.stdout.columns ?? (said >= NARROWEST_HELP ? said : WIDEST_HELP));
}

/** Yargs makes the text of a command's help in any case, which takes a tenth of a second for that of `run`. */
function isHelpWanted(own: readonly string[]): boolean {
  return own.some((word) => /^(-h|--help|--get-yargs-completions)(=|$)/.test(word));
}

/** Says what went wrong in one line (a dead guest: its report) and returns the exit code. */
function report(error: unknown, debug: boolean): number {
  if (error instanceof VmError) {
    process.stderr.write(`pvm: ${error.report}\n`);
    return EXIT_GUEST;
  }
  const isExpected = error instanceof UsageError || error instanceof PvmError || (error instanceof Error && 'code' in error);
  const message = error instanceof PvmError ? asOption(error.message) : error instanceof Error ? error.message : String(error);
  process.stderr.write(`pvm: ${isExpected ? '' : 'internal error: '}${message}${isExpected || debug ? '' : ' (run again with --debug for the stack)'}\n`);
  if (debug && error instanceof Error) process.stderr.write(`${error.stack ?? ''}\n`);
  return isExpected ? EXIT_USAGE : EXIT_GUEST;
}
