/**
 * Compare the decoder with GNU objdump on random instructions: validity, lengths and mnemonics, for 64-bit code the whole text.
 *
 *   node -C source scripts/decoder-vs-objdump.ts [instructions=300000] [seed=1] [codeSize=64] [samples.txt]
 *
 * With a file name, writes objdump's text of one instruction for each row and register/memory form: the tests' reference.
 * Prints how often each known difference of opinion (objdump/compare.ts) occurred and every other disagreement by kind and mnemonic
 * with a few examples; exit status 1 when there are any.
 */
import { writeFileSync } from 'node:fs';
import { type CodeSize, decode } from '../src/decoder/index.ts';
import { compare, REASONS, type Reason, textOf } from './objdump/compare.ts';
import { disassemble, type Listed, objdumpVersion, parseLine } from './objdump/listing.ts';
import { randomCode } from './objdump/stream.ts';

const [wanted = 300_000, seed = 1, size = 64] = process.argv.slice(2, 5).map(Number);
const samplesFile = process.argv[5];
const codeSize = size as CodeSize;
if (![16, 32, 64].includes(size) || !(wanted > 0)) throw new RangeError('usage: decoder-vs-objdump.ts [instructions] [seed] [16|32|64] [samples.txt]');
/** Beginnings of instructions in one run of objdump. */
const PIECES = 100_000;
/** What begins in the last bytes may have been cut. */
const TAIL = 16;

const counts = { compared: 0, agree: 0, bytes: 0 };
const reasons = new Map<Reason, number>();
const disagreements = new Map<string, { count: number; examples: string[] }>();
const samples = new Map<number, string>();

const hex = (bytes: Uint8Array, between = ''): string => [...bytes].map((b) => b.toString(16).padStart(2, '0')).join(between);

function sample(code: Uint8Array, { offset, length, text }: Listed): void {
  const insn = decode(code, offset, code.length - offset, codeSize);
  if (typeof insn === 'string' || insn.length !== length || textOf(code, offset, codeSize) !== text) return;
  const key = insn.rowIndex * 2 + (insn.isMem ? 1 : 0);
  if (!samples.has(key)) samples.set(key, `${offset.toString(16)} ${hex(code.subarray(offset, offset + length))} ${text}\n`);
}

function look(code: Uint8Array, listed: Listed): void {
  counts.compared++;
  if (samplesFile !== undefined) sample(code, listed);
  const verdict = compare(listed, code, codeSize);
  if (verdict === 'agree') counts.agree++;
  else if ('reason' in verdict) reasons.set(verdict.reason, (reasons.get(verdict.reason) ?? 0) + 1);
  else {
    const entry = disagreements.get(verdict.kind) ?? { count: 0, examples: [] };
    entry.count++;
    if (entry.examples.length < 3) entry.examples.push(`${hex(code.subarray(listed.offset, listed.offset + 15), ' ')} | ${verdict.detail}`);
    disagreements.set(verdict.kind, entry);
  }
}

for (let batch = 0; counts.compared < wanted; batch++) {
  const code = randomCode(seed * 10_000 + batch, PIECES, codeSize);
  counts.bytes += code.length;
  for (const line of disassemble(code, codeSize)) {
    const listed = parseLine(line);
    if (listed !== null && listed.text !== '' && listed.offset + TAIL <= code.length) look(code, listed);
  }
}

if (samplesFile !== undefined)
  writeFileSync(
    samplesFile,
    [...samples]
      .sort(([a], [b]) => a - b)
      .map(([, line]) => line)
      .join(''),
  );
console.log(`${objdumpVersion()}, ${codeSize}-bit code, seed ${seed}: ${counts.compared} instructions in ${counts.bytes} bytes, ${counts.agree} agree`);
for (const [reason, n] of [...reasons].sort((a, b) => b[1] - a[1])) console.log(`${n} x ${reason}: ${REASONS[reason]}`);
for (const [kind, { count, examples }] of [...disagreements].sort((a, b) => b[1].count - a[1].count)) {
  console.log(`${count} x ${kind}`);
  for (const example of examples) console.log(`      ${example}`);
}
const unexplained = [...disagreements.values()].reduce((sum, d) => sum + d.count, 0);
console.log(`${unexplained} disagreements without a reason`);
process.exitCode = unexplained === 0 ? 0 : 1;
