import { nearest } from '@pvm/pvm';
import { ALL_RUN_OPTIONS, RUN_VALUE_OPTIONS } from './commands/run-options.ts';
import { readConfig } from './config.ts';
import { UsageError } from './errors.ts';

/** Names of long options that QEMU spells with one dash: `-kernel`, `-no-reboot`. */
const LONG_NAMES = Object.entries(ALL_RUN_OPTIONS).flatMap(([name, { type }]) => (type === 'boolean' ? [name, `no-${name}`] : [name]));

/** `-kernel` means `--kernel`; one dash and one letter, and `-m512M`, stay. @throws UsageError */
function longSpelling(word: string): string {
  const name = /^-([a-z][^=]+)(?:=|$)/i.exec(word)?.[1];
  if (name === undefined || /^m\d/.test(name)) return word;
  if (!LONG_NAMES.includes(name)) throw new UsageError(`unknown option -${name}; did you mean --${nearest(name, LONG_NAMES)}?`);
  return `-${word}`;
}

/** Options of one value. */
const SINGLE = new Set(Object.entries(ALL_RUN_OPTIONS).flatMap(([name, { array, type }]) => (array === true || type === 'boolean' ? [] : [name])));
const NUMBERS = new Set(Object.entries(ALL_RUN_OPTIONS).flatMap(([name, { type }]) => (type === 'number' ? [name] : [])));

/** Values that cannot be meant. @throws UsageError */
function checkValues(own: readonly string[]): void {
  const seen = new Map<string, string>();
  for (const word of own) {
    const [, name = '', value = ''] = /^--([^=]+)=(.*)$/s.exec(word) ?? [];
    if (NUMBERS.has(name) && !/^\s*[+-]?(\d|\.\d)/.test(value)) throw new UsageError(`--${name} ${value}: expected a number`);
    if (!SINGLE.has(name)) continue;
    const before = seen.get(name);
    if (before !== undefined) throw new UsageError(`--${name} is given twice, ${before} and ${value}; give it once`);
    seen.set(name, value);
  }
}

/** With the words of the configuration that --config names before those of the command line. @throws UsageError */
function configured(own: readonly string[], program: readonly string[]): { own: string[]; program: string[] } {
  checkValues(own);
  const file = own.findLast((word) => word.startsWith('--config='))?.slice('--config='.length);
  if (file === undefined) return { own: [...own], program: [...program] };
  const [command = 'run', ...given] = own;
  const config = readConfig(file, given);
  return { own: [command, ...config.own, ...given], program: program.length > 0 ? [...program] : config.program };
}

/**
 * Splits `run [options] program args...` before the program: what follows it belongs to it, even `--help`.
 * A `--` ends pvm's options. After other commands only a `--` begins the words that belong to something else.
 *
 * @throws UsageError
 */
export function splitProgram(argv: readonly string[]): { own: string[]; program: string[] } {
  if (argv[0] !== 'run') {
    const end = argv.indexOf('--');
    return end < 0 ? { own: [...argv], program: [] } : { own: argv.slice(0, end), program: argv.slice(end + 1) };
  }
  const own = ['run'];
  for (let i = 1; i < argv.length; i++) {
    const given = argv[i] ?? '';
    if (given === '--') return configured(own, argv.slice(i + 1));
    if (!given.startsWith('-') || given === '-') return configured(own, argv.slice(i));
    const word = longSpelling(given);
    if (!RUN_VALUE_OPTIONS.has(word)) {
      own.push(word);
      continue;
    }
    i++;
    const value = argv[i];
    if (value === undefined) throw new UsageError(`option ${given} needs a value`);
    // With "=", a value may begin with a dash.
    own.push(...(word.startsWith('--') ? [`${word}=${value}`] : [word, value]));
  }
  return configured(own, []);
}
