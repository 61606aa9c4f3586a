/** Random programs until two tiers, or a tier and this machine's CPU, end differently; and the smallest program that still does. */
import { decode, formatInsn } from '../src/decoder/index.ts';
import type { Native } from './native-run.ts';
import { assemble, CODE, type Node, shrink } from './program.ts';
import type { Kind } from './random-instruction.ts';
import { differsBetweenProcessors, type Program, type ProgramOptions, randomProgram } from './random-program.ts';
import { describeEnd, x87ByNumber } from './recorded-programs.ts';
import { compareRuns, type RunOptions, type Tier } from './tiers.ts';

export interface FuzzOptions {
  readonly interpreter: Tier;
  readonly compiler: Tier;
  /** This machine's CPU; absent: the tiers are compared with each other only. */
  readonly native?: Native | undefined;
  /** Of the first program; those after it count up. */
  readonly seed: bigint;
  readonly kinds: readonly Kind[];
  /** Mnemonics that programs do without. */
  readonly skipped: ReadonlySet<string>;
  /** Whether to try one more after so many. */
  readonly goOn: (programs: number) => boolean;
}
export interface Failure {
  /** With the same kinds and mnemonics it makes the program that failed. */
  readonly seed: bigint;
  readonly run: RunOptions;
  /** The smallest program found that fails too. */
  readonly nodes: readonly Node[];
  readonly listing: readonly string[];
  readonly differences: readonly string[];
}
export interface FuzzResult {
  readonly programs: number;
  readonly failure?: Failure;
}

const HLT = 0xf4;
const MOST_LINES = 80;

/** The instructions of a program up to the HLT that ends it. */
export function listing(nodes: readonly Node[]): string[] {
  const code = assemble(nodes);
  const lines: string[] = [];
  for (let at = 0; at < code.length && lines.length < MOST_LINES; ) {
    if (code[at] === HLT && code[at + 1] === HLT) break;
    const insn = decode(code, at, code.length - at, 64);
    const length = typeof insn === 'string' ? 1 : insn.length;
    const bytes = Buffer.from(code.subarray(at, at + length)).toString('hex');
    lines.push(`${(CODE + at).toString(16)}  ${bytes.padEnd(24)}  ${typeof insn === 'string' ? insn : formatInsn(insn, BigInt(CODE + at))}`);
    at += length;
  }
  return lines;
}

/** What differs when a program runs in both tiers and, if they agree, natively. A tier that throws differs. */
export function fuzzDifferences({ interpreter, compiler, native }: FuzzOptions, nodes: readonly Node[], program: Program, run: RunOptions): string[] {
  const code = assemble(nodes);
  try {
    interpreter.load(code, program.machine);
    compiler.load(code, program.machine);
    const expected = interpreter.run(run);
    const found = compareRuns(expected, compiler.run(run));
    const end = expected.at(-1);
    if (found.length > 0 || native === undefined || end === undefined) return found;
    const [result] = native.run([{ ...program.machine, code, codeAt: 0, dataAt: 0, mxcsr: 0x1f80 }]);
    if (result === undefined) return found;
    const [here, there] = [describeEnd(end.vector, end), describeEnd(result.trap, { ...result, x87: x87ByNumber(result.x87) })];
    return JSON.stringify(here) === JSON.stringify(there) ? [] : [`interpreted ${JSON.stringify(here)}`, `native      ${JSON.stringify(there)}`];
  } catch (error) {
    return [error instanceof Error ? (error.stack ?? error.message) : String(error)];
  }
}

/** The program of a seed and how it is run. */
function planned(seed: bigint, { kinds, skipped, native }: FuzzOptions): { program: Program; run: RunOptions } {
  const options: ProgramOptions = {
    kinds,
    size: 20 + Number(seed % 180n),
    faults: seed % 3n === 0n ? 40 : 0,
    selfModifying: seed % 4n === 0n,
    avoid: (f) => skipped.has(f.row.name) || (native !== undefined && differsBetweenProcessors(f.row.name)),
  };
  const run: RunOptions = { interval: seed % 5n === 0n ? 1 + Number(seed % 37n) : 0, warm: seed % 7n < 4n, threshold: seed % 7n === 6n ? 3 : 1 };
  return { program: randomProgram(seed, options), run };
}

/** Tries programs until one fails or `goOn` says that it is enough; `found` hears of a failure before it is shrunk. */
export function fuzz(options: FuzzOptions, found: (seed: bigint, differences: readonly string[]) => void): FuzzResult {
  let programs = 0;
  for (let seed = options.seed; options.goOn(programs); seed++) {
    const { program, run } = planned(seed, options);
    const differences = fuzzDifferences(options, program.nodes, program, run);
    programs++;
    if (differences.length === 0) continue;
    found(seed, differences);
    const nodes = shrink(program.nodes, (candidate) => fuzzDifferences(options, candidate, program, run).length > 0);
    return { programs, failure: { seed, run, nodes, listing: listing(nodes), differences: fuzzDifferences(options, nodes, program, run) } };
  }
  return { programs };
}
