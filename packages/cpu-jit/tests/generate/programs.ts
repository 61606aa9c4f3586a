// Runs random programs on this machine's CPU and records where they end: node -C source tests/generate/programs.ts [count = 400]
// Needs gcc. Programs that the interpreter ends differently are reported and left out: see README.md, Known gaps.
import { writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { Native, type NativeCase } from '../native-run.ts';
import { assemble } from '../program.ts';
import type { Kind } from '../random-instruction.ts';
import { differsBetweenProcessors, type Program, randomProgram } from '../random-program.ts';
import { describeEnd, RECORDED_PROGRAMS, type RecordedProgram, x87ByNumber } from '../recorded-programs.ts';
import { Tier } from '../tiers.ts';

const count = Number(process.argv[2] ?? 400);
const native = Native.create();
if (native === undefined) throw new Error('gcc is needed to run programs natively');

const KINDS: readonly (readonly Kind[])[] = [['integer'], ['integer', 'sse'], ['integer', 'sse', 'x87'], ['integer', 'x87', 'mmx']];
const programs = Array.from(
  { length: count },
  (_, i): Program =>
    randomProgram(BigInt(i + 1), {
      kinds: KINDS[i % KINDS.length] ?? ['integer'],
      size: 20 + ((i * 37) % 181),
      faults: i % 3 === 0 ? 40 : 0,
      selfModifying: i % 4 === 0,
      avoid: (f) => differsBetweenProcessors(f.row.name),
    }),
);
const cases = programs.map(({ nodes, machine }): NativeCase => ({ ...machine, code: assemble(nodes), codeAt: 0, dataAt: 0, mxcsr: 0x1f80 }));
const results = native.run(cases);
const again = native.run(cases);
native.dispose();

const tier = await Tier.create(false);
const HLT = 0xf4;
const TIMEOUT = 255;
const recorded: RecordedProgram[] = [];
for (const [i, result] of results.entries()) {
  const [program, c] = [programs[i], cases[i]];
  if (program === undefined || c === undefined) continue;
  if (result.trap === TIMEOUT) {
    console.log(`seed ${program.seed} does not end natively: left out`);
    continue;
  }
  const end = describeEnd(result.trap, { ...result, x87: x87ByNumber(result.x87) });
  const second = again[i];
  if (second === undefined || JSON.stringify(describeEnd(second.trap, { ...second, x87: x87ByNumber(second.x87) })) !== JSON.stringify(end)) {
    console.log(`seed ${program.seed} does not always end the same natively: left out`);
    continue;
  }
  tier.load(c.code, program.machine);
  const last = tier.run().at(-1);
  if (last === undefined || JSON.stringify(describeEnd(last.vector, last)) !== JSON.stringify(end)) {
    console.log(`seed ${program.seed} ends differently in the interpreter: left out`);
    continue;
  }
  const length = c.code.findLastIndex((b) => b !== HLT) + 1;
  recorded.push({ seed: program.seed.toString(), code: Buffer.from(c.code.subarray(0, length)).toString('hex'), ...end });
}
writeFileSync(RECORDED_PROGRAMS, gzipSync(JSON.stringify(recorded), { level: 9 }));
console.log(`${recorded.length} programs`);
