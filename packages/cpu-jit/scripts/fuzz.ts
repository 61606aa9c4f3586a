// Compares the interpreter with compiled code, and with this machine's CPU where gcc is there, on random programs for as long as wanted:
//   node -C source scripts/fuzz.ts [seconds = 60] [seed] [kinds = integer,sse,x87,mmx] [mnemonics to leave out]
// A difference is shrunk to the fewest instructions and printed; exit code 1.
import { decode, formatInsn } from '../src/decoder/index.ts';
import { Native } from '../tests/native-run.ts';
import { assemble, CODE, type Node, shrink } from '../tests/program.ts';
import type { Kind } from '../tests/random-instruction.ts';
import { differsBetweenProcessors, type Program, type ProgramOptions, randomProgram } from '../tests/random-program.ts';
import { describeEnd, x87ByNumber } from '../tests/recorded-programs.ts';
import { compareRuns, type RunOptions, Tier } from '../tests/tiers.ts';

const seconds = Number(process.argv[2] ?? 60);
const seed = BigInt(process.argv[3] ?? Date.now());
const kinds = (process.argv[4] ?? 'integer,sse,x87,mmx').split(',') as Kind[];
const skipped = new Set((process.argv[5] ?? '').split(','));

const interpreter = await Tier.create(false);
const compiler = await Tier.create(true);
const native = Native.create();

function listing(nodes: readonly Node[]): string {
  const code = assemble(nodes);
  const lines: string[] = [];
  for (let at = 0; at < code.length && lines.length < 80; ) {
    const insn = decode(code, at, code.length - at, 64);
    const length = typeof insn === 'string' ? 1 : insn.length;
    const bytes = Buffer.from(code.subarray(at, at + length)).toString('hex');
    lines.push(`${(CODE + at).toString(16)}  ${bytes.padEnd(24)}  ${typeof insn === 'string' ? insn : formatInsn(insn, BigInt(CODE + at))}`);
    if (code[at] === 0xf4 && code[at + 1] === 0xf4) break;
    at += length;
  }
  return lines.join('\n');
}

function differences(nodes: readonly Node[], program: Program, options: RunOptions): string[] {
  const code = assemble(nodes);
  interpreter.load(code, program.machine);
  compiler.load(code, program.machine);
  const a = interpreter.run(options);
  const b = compiler.run(options);
  const found = compareRuns(a, b);
  const end = a.at(-1);
  if (found.length > 0 || native === undefined || end === undefined) return found;
  const [result] = native.run([{ ...program.machine, code, codeAt: 0, dataAt: 0, mxcsr: 0x1f80 }]);
  if (result === undefined) return found;
  const [here, there] = [describeEnd(end.vector, end), describeEnd(result.trap, { ...result, x87: x87ByNumber(result.x87) })];
  return JSON.stringify(here) === JSON.stringify(there) ? [] : [`interpreted ${JSON.stringify(here)}`, `native      ${JSON.stringify(there)}`];
}

let programs = 0;
const start = Date.now();
for (let n = seed; Date.now() - start < seconds * 1000; n++) {
  const options: ProgramOptions = {
    kinds,
    size: 20 + Number(n % 180n),
    faults: n % 3n === 0n ? 40 : 0,
    selfModifying: n % 4n === 0n,
    avoid: (f) => skipped.has(f.row.name) || (native !== undefined && differsBetweenProcessors(f.row.name)),
  };
  const program = randomProgram(n, options);
  const run: RunOptions = { interval: n % 5n === 0n ? 1 + Number(n % 37n) : 0, warm: n % 7n < 4n, threshold: n % 7n === 6n ? 3 : 1 };
  let found: string[];
  try {
    found = differences(program.nodes, program, run);
  } catch (error) {
    found = [String(error), String((error as Error).stack)];
  }
  programs++;
  if (found.length === 0) continue;
  console.log(`seed ${n}: ${found.length} differences; shrinking`);
  const nodes = shrink(program.nodes, (candidate) => {
    try {
      return differences(candidate, program, run).length > 0;
    } catch {
      return true;
    }
  });
  console.log(listing(nodes));
  console.log(`differences, ${JSON.stringify(run)}:`);
  try {
    for (const line of differences(nodes, program, run)) console.log(`  ${line}`);
  } catch (error) {
    console.log(error);
  }
  process.exitCode = 1;
  break;
}
console.log(`${programs} programs from seed ${seed}`);
native?.dispose();
interpreter.core.dispose();
compiler.core.dispose();
