import { cpus } from 'node:os';
import { formatTable, PRIMITIVES, type Primitive, parseCostProfile } from '@pvm/pvm';
import type { Argv, CommandModule } from 'yargs';
import { calibrate } from '../bench/calibrate.ts';
import { UsageError } from '../errors.ts';
import { OutputFile } from '../output-file.ts';

interface CalibrateArgs {
  readonly out: string | undefined;
  readonly name: string;
  readonly scale: number;
}

/** Above this error of any loop the prices are not worth much. */
const POOR_FIT_PERCENT = 50;

/** Options of `calibrate`, for yargs. */
export const CALIBRATE_OPTIONS = {
  out: { type: 'string', requiresArg: true, describe: 'Write the profile to this file; default: standard output, and the table to standard error' },
  name: { type: 'string', default: 'this-host', requiresArg: true, describe: 'Name of the profile' },
  scale: { type: 'number', default: 1, requiresArg: true, describe: 'Multiplies the number of operations' },
} as const;

async function run(a: CalibrateArgs): Promise<void> {
  if (!(a.scale > 0)) throw new UsageError(`--scale ${a.scale}: expected a number above 0`);
  if (a.name === '') throw new UsageError('--name: expected a name');
  const file = a.out === undefined ? undefined : await OutputFile.open(a.out, '--out');
  try {
    const host = `${cpus()[0]?.model ?? 'an unknown processor'}, Node ${process.version}`;
    const { profile, residuals } = await calibrate(a.name, host, a.scale, (loop) => void process.stderr.write(`${loop}\n`));
    const text = `${JSON.stringify(profile, undefined, 2)}\n`;
    const worst = Math.max(...residuals.map((r) => Math.abs(r.errorPercent)));
    if (worst > POOR_FIT_PERCENT)
      process.stderr.write(`The prices explain one loop only within ${worst.toFixed(0)} %: was this machine busy? Calibrate again when it is quiet.\n`);
    // What is written must be what --profile takes.
    parseCostProfile(text, a.out ?? 'the profile');
    const prices = (Object.entries(profile.primitives) as [Primitive, { ns: number }][]).map(([p, { ns }]) => [p, ns.toFixed(1), PRIMITIVES[p]]);
    const loops = residuals.map((r) => [r.name, r.hostNs.toFixed(1), `${r.errorPercent.toFixed(1)}%`]);
    const tables = [
      ...formatTable([['PRIMITIVE', 'ns', ''], ...prices], [0, 2]),
      '',
      ...formatTable([['loop', 'measured, ns', 'error of the fit'], ...loops]),
    ].join('\n');
    if (file === undefined) {
      process.stderr.write(`\n${tables}\n`);
      process.stdout.write(text);
      return;
    }
    await file.write(text);
    await file.commit();
    process.stdout.write(`${tables}\n`);
  } finally {
    await file?.discard();
  }
}

/** `pvm calibrate`. */
export const calibrateCommand: CommandModule<object, CalibrateArgs> = {
  command: 'calibrate',
  describe: 'Fit a cost profile to this host, from exits and world switches of our own',
  builder: (y) =>
    y.options(CALIBRATE_OPTIONS).example('pvm calibrate --out host.json', 'Then: pvm compare --profile host.json -- ./hello') as unknown as Argv<CalibrateArgs>,
  handler: run,
};
