// Runs random programs on this machine's CPU and records where they end: node -C source tests/generate/programs.ts [count = 300]
// Needs gcc. Programs that the interpreter ends differently are reported; they are recorded all the same.
import { writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { Native, type NativeCase } from '../native-run.ts';
import { assemble } from '../program.ts';
import { type Program, randomProgram } from '../random-program.ts';
import { describeEnd, RECORDED_PROGRAMS, type RecordedProgram } from '../recorded-programs.ts';
import { Tier } from '../tiers.ts';

const count = Number(process.argv[2] ?? 300);
const native = Native.create();
if (native === undefined) throw new Error('gcc is needed to run programs natively');

/** RCP and RSQRT are estimates that differ between processors. */
const ESTIMATES = /^r(cp|sqrt)/;
const programs = Array.from(
  { length: count },
  (_, i): Program =>
    randomProgram(BigInt(i + 1), {
      kinds: i % 2 === 0 ? ['integer'] : ['integer', 'sse'],
      size: 20 + ((i * 37) % 181),
      faults: i % 3 === 0 ? 40 : 0,
      selfModifying: i % 4 === 0,
      avoid: (f) => ESTIMATES.test(f.row.name),
    }),
);
const cases = programs.map(({ nodes, machine }): NativeCase => ({ ...machine, code: assemble(nodes), codeAt: 0, dataAt: 0, mxcsr: 0x1f80 }));
const results = native.run(cases);
const again = native.run(cases);
native.dispose();

const tier = await Tier.create(false);
const HLT = 0xf4;
const recorded: RecordedProgram[] = [];
for (const [i, result] of results.entries()) {
  const [program, c] = [programs[i], cases[i]];
  if (program === undefined || c === undefined) continue;
  const end = describeEnd(result.trap, result);
  const second = again[i];
  if (second === undefined || JSON.stringify(describeEnd(second.trap, second)) !== JSON.stringify(end)) {
    console.log(`seed ${program.seed} does not always end the same natively: left out`);
    continue;
  }
  tier.load(c.code, program.machine);
  const last = tier.run().at(-1);
  if (last === undefined || JSON.stringify(describeEnd(last.vector, last)) !== JSON.stringify(end))
    console.log(`seed ${program.seed} ends differently in the interpreter`);
  const length = c.code.findLastIndex((b) => b !== HLT) + 1;
  recorded.push({ seed: program.seed.toString(), code: Buffer.from(c.code.subarray(0, length)).toString('hex'), ...end });
}
writeFileSync(RECORDED_PROGRAMS, gzipSync(JSON.stringify(recorded), { level: 9 }));
console.log(`${recorded.length} programs`);
