import { readFileSync } from 'node:fs';
import { fileProblem, nearest } from '@pvm/pvm';
import type { Options } from 'yargs';
import { ALL_RUN_OPTIONS } from './commands/run-options.ts';
import { UsageError } from './errors.ts';

/** Keys of a configuration that are no options. */
const PROGRAM = 'program';
const SCHEMA = '$schema';
/** Options that say how to read a configuration: they are not in one. */
const NOT_CONFIGURED = new Set(['config', 'print-config']);

/** What a configuration may say, by key. */
function configurable(): [string, Options][] {
  return Object.entries(ALL_RUN_OPTIONS).filter(([name]) => !NOT_CONFIGURED.has(name));
}

const isStrings = (value: unknown): value is string[] => Array.isArray(value) && value.every((v) => typeof v === 'string');

/** The words of a command line that say the same; undefined: the value is not of the option's type. */
function words(name: string, option: Options, value: unknown): string[] | undefined {
  if (option.type === 'boolean') return typeof value === 'boolean' ? [value ? `--${name}` : `--no-${name}`] : undefined;
  if (option.array === true) return isStrings(value) ? value.map((v) => `--${name}=${v}`) : undefined;
  if (option.type === 'number' && typeof value !== 'number') return undefined;
  return typeof value === 'string' || typeof value === 'number' ? [`--${name}=${value}`] : undefined;
}

const EXPECTED = (option: Options): string =>
  option.type === 'boolean' ? 'true or false' : option.array === true ? 'an array of strings' : option.type === 'number' ? 'a number' : 'a string';

/** Name of the option that a word of the command line sets. */
function nameOf(word: string): string {
  const name = word.replace(/^--?/, '').replace(/=.*$/s, '');
  const plain = ALL_RUN_OPTIONS[name] === undefined ? name.replace(/^no-/, '') : name;
  return configurable().find(([, { alias }]) => alias === plain)?.[0] ?? plain;
}

/**
 * Reads a configuration: a JSON object of long option names, and `program`, an array of the program and its arguments.
 *
 * @param given words of the command line, which win
 * @returns words that come before them, and the program where the configuration has one
 * @throws UsageError
 */
export function readConfig(file: string, given: readonly string[]): { own: string[]; program: string[] } {
  const fail = (what: string): never => {
    throw new UsageError(`--config ${file}: ${what}`);
  };
  let config: unknown;
  try {
    config = JSON.parse(readFileSync(file, 'utf8'));
  } catch (e) {
    return fail(e instanceof SyntaxError ? `not JSON: ${e.message}` : fileProblem(e));
  }
  if (typeof config !== 'object' || config === null || Array.isArray(config)) return fail('expected a JSON object');
  const own: string[] = [];
  let program: string[] = [];
  const names = new Set(given.filter((word) => word.startsWith('-')).map(nameOf));
  for (const [key, value] of Object.entries(config)) {
    if (key === SCHEMA) continue;
    if (key === PROGRAM) {
      program = isStrings(value) ? value : fail('program: expected an array of strings: the program and its arguments');
      continue;
    }
    const option = NOT_CONFIGURED.has(key) ? undefined : ALL_RUN_OPTIONS[key];
    if (option === undefined) return fail(`unknown key "${key}"; did you mean "${nearest(key, [PROGRAM, ...configurable().map(([name]) => name)])}"?`);
    const said = words(key, option, value) ?? fail(`${key}: expected ${EXPECTED(option)}, got ${JSON.stringify(value)}`);
    if (!names.has(key)) own.push(...said);
  }
  return { own, program };
}

/** Everything that counts for a run, as a configuration that says the same. */
export function effectiveConfig(args: object, program: readonly string[]): Record<string, unknown> {
  const values = args as Readonly<Record<string, unknown>>;
  const known = configurable().map(([name]) => [name, values[name]] as const);
  const said = known.filter(([, value]) => value !== undefined && value !== '' && !(Array.isArray(value) && value.length === 0));
  return { ...Object.fromEntries(said), ...(program.length > 0 ? { [PROGRAM]: program } : {}) };
}

/** JSON schema (2020-12) of a configuration. */
export function configSchema(): object {
  const strings = { type: 'array', items: { type: 'string' } };
  const property = (option: Options): object => ({
    ...(option.type === 'boolean' || option.type === 'number' ? { type: option.type } : option.array === true ? strings : { type: ['string', 'number'] }),
    ...(option.choices === undefined ? {} : { enum: option.choices }),
    ...(option.describe === undefined ? {} : { description: option.describe }),
  });
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Configuration of pvm run',
    type: 'object',
    additionalProperties: false,
    properties: {
      [SCHEMA]: { type: 'string' },
      [PROGRAM]: { ...strings, description: 'The program and its arguments' },
      ...Object.fromEntries(configurable().map(([name, option]) => [name, property(option)])),
    },
  };
}
