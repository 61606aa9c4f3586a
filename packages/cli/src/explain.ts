import { nearest } from '@pvm/pvm';
import { BENCH_OPTIONS } from './commands/bench.ts';
import { BENCH_TABLE_OPTIONS } from './commands/bench-tables.ts';
import { CALIBRATE_OPTIONS } from './commands/calibrate.ts';
import { COMPARE_OPTIONS } from './commands/compare.ts';
import { IMAGE_OPTIONS } from './commands/image.ts';
import { JIT_OPTIONS } from './commands/jit.ts';
import { MACHINE_OPTIONS } from './commands/machine-options.ts';
import { RUN_OPTIONS } from './commands/run-options.ts';
import { LIVE_OPTIONS } from './commands/stat.ts';

export const COMMANDS = ['run', 'compare', 'stat', 'bench', 'calibrate', 'jit', 'snapshot', 'image', 'doctor', 'completion', 'demo'];

/** Options of each command, by name. */
const OPTIONS_OF: Readonly<Record<string, object> & { run: object }> = {
  run: { ...MACHINE_OPTIONS, ...RUN_OPTIONS },
  compare: COMPARE_OPTIONS,
  stat: LIVE_OPTIONS,
  bench: { ...MACHINE_OPTIONS, ...BENCH_OPTIONS, ...BENCH_TABLE_OPTIONS },
  calibrate: CALIBRATE_OPTIONS,
  jit: JIT_OPTIONS,
  image: IMAGE_OPTIONS,
  demo: MACHINE_OPTIONS,
};

/** Commands that start machines by arguments of `pvm run`, which follow `--`. */
const TAKES_RUN_ARGUMENTS: ReadonlySet<string> = new Set(['compare', 'stat']);

/** Options of the library that the command line calls otherwise. */
const OPTION_NAMES: Readonly<Record<string, string>> = {
  vcpus: 'smp',
  commandLine: 'append',
  files: 'file',
  drives: 'drive',
  shares: 'share',
  optimisations: 'opt',
  consolePorts: 'channel',
};

/** yargs' messages on one line that says what to do; an unknown word comes with the nearest known one. */
export function explain(message: string, argv: readonly string[]): string {
  const [command = ''] = argv;
  const unknown = /^Unknown (?:argument|command)s?: ([^\s,]+)/.exec(message)?.[1];
  if (unknown !== undefined) return unknownWord(unknown, argv);
  const command2 = /^Did you mean (\S+)\?$/.exec(message)?.[1];
  if (command2 !== undefined) return unknownWord(argv.find((word) => !COMMANDS.includes(word)) ?? command, argv, command2);
  const choice = /Argument: ([^,]+), Given: (.*), Choices: (.*)$/s.exec(message.trim());
  if (choice !== null) return `${spelling(choice[1] ?? '', argv)} ${choice[2]?.replaceAll('"', '')}: expected one of ${choice[3]?.replaceAll('"', '')}`;
  const missing = /^Missing required arguments?: (.*)$/.exec(message)?.[1];
  if (missing !== undefined) return `${command}: ${spelling(missing, argv)} is missing (pvm ${command} --help)`;
  return message.replace(/\s*\n\s*/g, ' ');
}

/** What an option or a positional word is called. */
function spelling(name: string, [command = '']: readonly string[]): string {
  return OPTIONS_OF[command] !== undefined && name in OPTIONS_OF[command] ? `--${name}` : name;
}

function unknownWord(word: string, [command = '', ...rest]: readonly string[], suggested?: string): string {
  const isOption = rest.some((given) => given === `-${word}` || given.startsWith(`--${word}`));
  if (!isOption && command === 'compare' && word !== command) return `compare: what to run comes after --: pvm compare [options] -- ${word}`;
  if (!isOption) return `unknown command ${word}; did you mean ${suggested ?? nearest(word, COMMANDS)}? (pvm --help lists commands)`;
  const known = Object.keys(OPTIONS_OF[command] ?? {});
  if (TAKES_RUN_ARGUMENTS.has(command) && word in OPTIONS_OF['run'])
    return `${command}: --${word} is an option of run; options of run come after -- (pvm ${command} --help)`;
  const guess = known.length === 0 ? '' : `; did you mean --${nearest(word, known)}?`;
  return `${command}: unknown option --${word}${guess} (pvm ${command} --help lists options)`;
}

/** The library's "option memory: ..." as the command line calls it. */
export function asOption(message: string): string {
  return message.replace(/^option (\w+)\b/, (_, name: string) => `--${OPTION_NAMES[name] ?? name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`);
}
