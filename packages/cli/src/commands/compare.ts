import { constants } from 'node:fs';
import { access, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DESIGN_NAMES, type DesignName, fileProblem, loadCostProfile } from '@pvm/pvm';
import type { Argv, CommandModule } from 'yargs';
import { type Comparison, compare } from '../compare/comparison.ts';
import { comparisonPage } from '../compare/html.ts';
import { type DesignRun, runDesign } from '../compare/run-design.ts';
import { comparisonCsv, formatComparison } from '../compare/text.ts';
import { UsageError } from '../errors.ts';
import { OutputFile } from '../output-file.ts';
import { parseRunArguments, refuseNothing, runSettings } from './run-arguments.ts';
import { PROFILE_OPTION } from './table-options.ts';

interface CompareArgs {
  readonly designs: string;
  readonly json: boolean;
  readonly csv: boolean;
  readonly html: string | undefined;
  readonly ops: number | undefined;
  readonly profile: string | undefined;
  readonly input: string | undefined;
}

/** Options of `compare`, for yargs. */
export const COMPARE_OPTIONS = {
  designs: {
    type: 'string',
    default: DESIGN_NAMES.join(','),
    requiresArg: true,
    describe: 'Designs, separated by commas; the first is what others are held against',
  },
  json: { type: 'boolean', default: false, describe: 'Everything as JSON on stdout' },
  csv: { type: 'boolean', default: false, describe: 'The table as CSV on stdout' },
  html: { type: 'string', requiresArg: true, describe: 'Write a page with charts to this file; it needs nothing else' },
  ops: {
    type: 'number',
    requiresArg: true,
    describe: 'Operations in an interval that the guest marks: its figures are divided by it. Default: what the guest says',
  },
  profile: PROFILE_OPTION,
  input: { type: 'string', requiresArg: true, describe: 'File that is the input of each run; default: none' },
} as const;

/** Designs from a list with commas. @throws UsageError with all names: they are short and few, the nearest one may be far */
export function parseDesigns(list: string): DesignName[] {
  const names = list.split(',').filter((name) => name !== '');
  for (const name of names) {
    if (!(DESIGN_NAMES as readonly string[]).includes(name))
      throw new UsageError(`--designs: no design "${name}"; expected some of ${DESIGN_NAMES.join(', ')}`);
  }
  if (names.length === 0) throw new UsageError(`--designs: name some of ${DESIGN_NAMES.join(', ')}`);
  return [...new Set(names as DesignName[])];
}

/** Options of `run` that `compare` decides by itself. */
const OWN_OPTIONS = /^--(design|clock|stat-out|stat|json|trace|profile)(=|$)/;

async function check(words: readonly string[]): Promise<void> {
  const { args, program } = await parseRunArguments(words);
  refuseNothing('compare', args, program);
  const own = words.slice(0, words.length - program.length).find((word) => OWN_OPTIONS.test(word));
  if (own !== undefined)
    throw new UsageError(
      `compare: ${own} cannot be given after --: designs come from --designs, the profile from --profile before it, the clock is icount, figures are what compare prints`,
    );
  runSettings(args, program);
}

async function checkInput(path: string): Promise<void> {
  try {
    if ((await stat(path)).isFile()) return await access(path, constants.R_OK);
  } catch (error) {
    throw new UsageError(`--input ${path}: ${fileProblem(error)}`);
  }
  throw new UsageError(`--input ${path}: is not a regular file, and every design reads it from its beginning`);
}

async function runAll(a: CompareArgs, designs: readonly DesignName[], words: readonly string[]): Promise<Map<DesignName, DesignRun>> {
  const abort = new AbortController();
  const onSignal = () => abort.abort();
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  const folder = await mkdtemp(join(tmpdir(), 'pvm-compare-'));
  try {
    const runs = new Map<DesignName, DesignRun>();
    for (const design of designs) {
      const start = performance.now();
      const run = await runDesign(design, words, folder, a.input, abort.signal);
      runs.set(design, run);
      process.stderr.write(`${design}: ${run.report.stopReason}, ${((performance.now() - start) / 1000).toFixed(1)} s\n`);
    }
    return runs;
  } catch (error) {
    if (abort.signal.aborted) throw new UsageError('compare: interrupted');
    throw error;
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
    await rm(folder, { recursive: true, force: true });
  }
}

async function print(a: CompareArgs, result: Comparison, page: OutputFile | undefined): Promise<void> {
  if (page !== undefined) {
    await page.write(await comparisonPage(result));
    await page.commit();
  }
  if (a.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  else process.stdout.write(a.csv ? comparisonCsv(result) : `${formatComparison(result)}\n`);
}

/** `pvm compare`; `words` is what follows `--`. */
export function compareCommand(words: readonly string[]): CommandModule<object, CompareArgs> {
  return {
    command: 'compare',
    describe: 'Run the same under several designs and put the figures side by side: pvm compare [options] -- RUN-ARGUMENTS',
    builder: (y) =>
      y
        .usage(
          `pvm compare [options] -- RUN-ARGUMENTS

Runs pvm run RUN-ARGUMENTS under each design, in turn and each in a process of its own, with the clock that counts instructions, and prints one table: exits, world switches, page-table work, TLB and time. Says where exit codes or console output differ (as those of guests that print times do).`,
        )
        .options(COMPARE_OPTIONS)
        .example('pvm compare -- ./busybox seq 1000', 'A program under all designs')
        .example('pvm compare --designs bare,pvm --html report.html -- ./hello', 'The same with charts') as unknown as Argv<CompareArgs>,
    handler: async (a) => {
      if (a.json && a.csv) throw new UsageError('compare: give --json or --csv, not both');
      if (a.ops !== undefined && !(a.ops > 0)) throw new UsageError(`--ops ${a.ops}: expected a number above 0`);
      const designs = parseDesigns(a.designs);
      await check(words);
      const profile = a.profile === undefined ? undefined : await loadCostProfile(a.profile);
      if (a.input !== undefined) await checkInput(a.input);
      const page = a.html === undefined ? undefined : await OutputFile.open(a.html, '--html');
      try {
        await print(a, compare(words, await runAll(a, designs, words), a.ops, profile), page);
      } finally {
        await page?.discard();
      }
    },
  };
}
