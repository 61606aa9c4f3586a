import { createVm, formatLedger, ledgerJson, PvmError, type Vm } from '@pvm/pvm';
import type { Argv, CommandModule, Options } from 'yargs';
import { UsageError } from '../errors.ts';
import { Keyboard } from '../keyboard.ts';
import { writeTo } from '../output.ts';
import { formatSummary, summaryJson } from '../summary.ts';
import { MACHINE_OPTIONS, type MachineArgs, machineSettings } from './machine-options.ts';

interface RunArgs extends MachineArgs {
  readonly clock: 'host' | 'icount';
  readonly env: readonly string[];
  readonly file: readonly string[];
  readonly stat: boolean;
  readonly json: boolean;
  readonly sort: 'samples' | 'time';
  readonly kernel: string | undefined;
  readonly initrd: string | undefined;
  readonly drive: readonly string[];
  readonly append: string;
  readonly maxInstructions: number | undefined;
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
  sort: { choices: ['samples', 'time'], default: 'samples', requiresArg: true, describe: 'Order of the exits' },
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
      const [path, ...args] = program;
      if (path === undefined && a.kernel === undefined) throw new UsageError('run: name a program; for example: pvm run ./hello');
      const abort = new AbortController();
      const onSignal = () => abort.abort();
      process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
      const keyboard = path === undefined ? new Keyboard(process.stdin, onSignal) : undefined;
      let vm: Vm | undefined;
      try {
        vm = await createVm({
          ...machineSettings(a),
          ...(path === undefined ? {} : { program: path, args }),
          clock: a.clock,
          sampleTiers: a.stat || a.json,
          ...(a.env.length > 0 ? { env: Object.fromEntries(a.env.map(parseEnv)) } : {}),
          ...(a.file.length > 0 ? { files: Object.fromEntries(a.file.map(parseFile)) } : {}),
          stdin: keyboard?.input() ?? process.stdin,
          terminals: (process.stdin.isTTY ? 1 : 0) | (process.stdout.isTTY ? 2 : 0) | (process.stderr.isTTY ? 4 : 0),
          onConsole: writeTo(process.stdout),
          onStderr: writeTo(process.stderr),
          ...(path === undefined ? { onSerial: writeTo(process.stdout) } : a.debugConsole ? { onSerial: writeTo(process.stderr) } : {}),
          ...(a.initrd === undefined ? {} : { initrd: a.initrd }),
          ...(a.drive.length > 0 ? { drives: a.drive.map(parseDrive) } : {}),
          ...(a.kernel === undefined ? {} : { kernel: a.kernel }),
          commandLine: a.append,
          ...(a.maxInstructions === undefined ? {} : { maxInstructions: a.maxInstructions }),
          signal: abort.signal,
        });
        const result = await vm.run();
        if (result.stopReason === 'instruction-limit')
          throw new PvmError('bad-option', `stopped after ${result.summary.instructions} instructions (--max-instructions)`);
        if (a.json) process.stderr.write(`${JSON.stringify({ exitCode: result.exitCode, ...summaryJson(result.summary), ledger: ledgerJson(vm.ledger) })}\n`);
        else if (a.stat) process.stderr.write(`\n${formatLedger(vm.ledger, { sort: a.sort })}\n\n${formatSummary(result.summary)}\n`);
        process.exitCode = result.exitCode;
      } finally {
        process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
        keyboard?.restore();
        await vm?.dispose();
        process.stdin.destroy();
      }
    },
  };
}
