import { RUN_VALUE_OPTIONS } from './commands/run-options.ts';
import { UsageError } from './errors.ts';

/**
 * Splits `run [options] program args...` before the program: what follows it belongs to it, even `--help`.
 * A `--` ends pvm's options. After other commands only a `--` begins the words that belong to something else.
 */
export function splitProgram(argv: readonly string[]): { own: string[]; program: string[] } {
  if (argv[0] !== 'run') {
    const end = argv.indexOf('--');
    return end < 0 ? { own: [...argv], program: [] } : { own: argv.slice(0, end), program: argv.slice(end + 1) };
  }
  for (let i = 1; i < argv.length; i++) {
    const word = argv[i] ?? '';
    if (word === '--') return { own: argv.slice(0, i), program: argv.slice(i + 1) };
    if (!word.startsWith('-') || word === '-') return { own: argv.slice(0, i), program: argv.slice(i) };
    const takesValue = RUN_VALUE_OPTIONS.has(word);
    if (takesValue && i + 1 >= argv.length) throw new UsageError(`option ${word} needs a value`);
    if (takesValue) i++;
  }
  return { own: [...argv], program: [] };
}
