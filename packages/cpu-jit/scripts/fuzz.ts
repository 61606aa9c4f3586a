// Compares the interpreter with compiled code, and with this machine's CPU where gcc is there, on random programs for as long as wanted:
//   npm run fuzz -- [--seconds 60] [--seed N] [--kinds integer,sse,x87,mmx] [--without mnemonic,...]    (in packages/cpu-jit)
//   npm run fuzz -- --replay N      only the program of seed N, as it was printed
// A difference is shrunk to the fewest instructions and printed with its seed; exit code 1.
import { parseArgs } from 'node:util';
import { fuzz } from '../tests/fuzzer.ts';
import { Native } from '../tests/native-run.ts';
import type { Kind } from '../tests/random-instruction.ts';
import { Tier } from '../tests/tiers.ts';

const KINDS: readonly Kind[] = ['integer', 'sse', 'x87', 'mmx'];

interface Arguments {
  readonly seconds: number;
  readonly seed: bigint;
  /** One program only. */
  readonly single: boolean;
  readonly kinds: readonly Kind[];
  readonly skipped: ReadonlySet<string>;
}

/** Throws `TypeError` with what would be right. */
function readArguments(): Arguments {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({ options: { seconds: text, seed: text, replay: text, kinds: text, without: text } });
  const number = (name: 'seconds' | 'seed' | 'replay'): number | undefined => {
    const value = values[name];
    if (value !== undefined && !/^\d+$/.test(value)) throw new TypeError(`--${name} is a number, not ${JSON.stringify(value)}`);
    return value === undefined ? undefined : Number(value);
  };
  const names = values.kinds?.split(',') ?? KINDS;
  const kinds = KINDS.filter((k) => names.includes(k));
  if (kinds.length !== names.length) throw new TypeError(`--kinds are some of ${KINDS.join()}, not ${JSON.stringify(values.kinds)}`);
  const replay = number('replay');
  const seed = BigInt(replay ?? number('seed') ?? Date.now());
  return { seconds: number('seconds') ?? 60, seed, single: replay !== undefined, kinds, skipped: new Set(values.without?.split(',')) };
}

async function main({ seconds, seed, single, kinds, skipped }: Arguments): Promise<void> {
  const interpreter = await Tier.create(false);
  const compiler = await Tier.create(true);
  const native = Native.create();
  if (native === undefined) console.log('without gcc: not compared with this CPU');
  const start = Date.now();
  const goOn = (programs: number) => (single ? programs < 1 : Date.now() - start < seconds * 1000);
  const { programs, failure } = fuzz({ interpreter, compiler, native, seed, kinds, skipped, goOn }, (failed, differences) => {
    console.log(`seed ${failed}: ${differences.length} differences; shrinking (again: npm run fuzz -- --replay ${failed} with the same --kinds and --without)`);
  });
  if (failure !== undefined) {
    for (const line of failure.listing) console.log(line);
    console.log(`differences, ${JSON.stringify(failure.run)}:`);
    for (const line of failure.differences) console.log(`  ${line}`);
    process.exitCode = 1;
  }
  console.log(`${programs} programs from seed ${seed}`);
  native?.dispose();
  await interpreter.core.dispose();
  await compiler.core.dispose();
}

try {
  await main(readArguments());
} catch (error) {
  console.error(`fuzz: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 2;
}
