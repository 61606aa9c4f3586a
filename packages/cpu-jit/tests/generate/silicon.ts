// Runs random instances of instruction forms on this machine's CPU, from whole states, and records the results:
//   node -C source tests/generate/silicon.ts [code mode, or all] [seed = 1] [folder]
// Needs gcc, Linux with FSGSBASE and modify_ldt, and a CPU with AVX2. Prints the forms that got no cases.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { forms } from '../../src/decoder/index.ts';
import type { Form } from '../../src/decoder/types.ts';
import { CODE_MODES, type CodeMode, codeBase, segmentBase } from '../code-modes.ts';
import { SLOT } from '../form-state.ts';
import { inputOf, narrowToLegacy } from '../inputs.ts';
import { type Instance, isInteger, randomInstance } from '../instance.ts';
import { Native, type NativeCase, type NativeResult, X87_BYTES } from '../native-run.ts';
import { Prng } from '../prng.ts';
import { CODE, DATA } from '../program.ts';
import { kindOf } from '../random-instruction.ts';
import { type Part, partsOf } from '../silicon-parts.ts';
import { PAGE_FAULT, packVectors, SEEDS_PER_ENCODING, type SiliconCase, vectorFile } from '../silicon-vectors.ts';
import { AREAS, START } from '../window.ts';

const wanted = process.argv[2] ?? 'all';
const folder = process.argv[4];
const GP = 13;
const OF = 4;
const TIMEOUT = 255;
const STATUS_AND_DIRECTION = 0xcd5n;

const harness = Native.create();
if (harness === undefined) throw new Error('gcc is needed to run instructions natively');
const native: Native = harness;

interface Planned {
  readonly instance: Instance;
  readonly inputs: readonly { seed: number; before: BigUint64Array }[];
}

const bytesOf = (words: BigUint64Array) => new Uint8Array(words.slice().buffer);

function toNative({ instance }: Planned, s: BigUint64Array): NativeCase {
  const x87 = new Uint8Array(X87_BYTES);
  const words = new DataView(x87.buffer);
  words.setBigUint64(0, s[SLOT.x87] ?? 0n, true);
  words.setBigUint64(8, s[SLOT.fip] ?? 0n, true);
  words.setBigUint64(16, s[SLOT.fdp] ?? 0n, true);
  for (let i = 0; i < 16; i++) words.setBigUint64(32 + i * 8, s[SLOT.st + i] ?? 0n, true);
  return {
    mode: instance.mode,
    gprs: [...s.subarray(0, 16)],
    flags: Number(s[SLOT.flags]),
    mxcsr: Number(s[SLOT.mxcsr]),
    xmm: bytesOf(s.subarray(SLOT.xmm, SLOT.xmm + 32)),
    high: bytesOf(s.subarray(SLOT.high, SLOT.high + 32)),
    x87,
    code: instance.code,
    codeAt: START - CODE,
    data: bytesOf(s.subarray(SLOT.memory)),
    dataAt: (AREAS[instance.area]?.at ?? 0) - DATA,
  };
}

function fromNative(r: NativeResult, mode: CodeMode, slots: number): BigUint64Array {
  const s = new BigUint64Array(slots);
  s.set(r.gprs);
  s[SLOT.flags] = BigInt(r.flags) & STATUS_AND_DIRECTION;
  s[SLOT.mxcsr] = BigInt(r.mxcsr);
  s.set(new BigUint64Array(r.xmm.buffer), SLOT.xmm);
  if (r.high !== undefined) s.set(new BigUint64Array(r.high.buffer), SLOT.high);
  const x87 = new DataView(r.x87.buffer);
  s[SLOT.x87] = x87.getBigUint64(0, true);
  s[SLOT.fip] = x87.getBigUint64(8, true);
  s[SLOT.fdp] = x87.getBigUint64(16, true);
  for (let i = 0; i < 16; i++) s[SLOT.st + i] = x87.getBigUint64(32 + i * 8, true);
  s[SLOT.selectors] = r.selectors.reduce((sum, v, i) => sum | (BigInt(v) << BigInt(16 * i)), 0n);
  s[SLOT.codeStack] = BigInt(r.cs) | (BigInt(r.ss) << 16n);
  s[SLOT.fsBase] = r.fsBase;
  s[SLOT.gsBase] = r.gsBase;
  s.set(new BigUint64Array(r.data.buffer), SLOT.memory);
  if (mode.codeSize !== 64) narrowToLegacy(s);
  return s;
}

const dropped = new Map<string, number>();
function toCase({ instance }: Planned, seed: number, before: BigUint64Array, r: NativeResult): SiliconCase | undefined {
  const { mode, insn } = instance;
  const rip = Number(BigInt.asIntN(64, r.rip - BigInt(START - segmentBase(mode, 1))));
  // At a HLT, or where nothing can be fetched: the instruction itself is done.
  const fetched = r.trap === PAGE_FAULT && r.address === r.rip + BigInt(codeBase(r.cs));
  const ended = rip !== 0 && (r.trap === GP || fetched);
  const isTrap = r.trap === OF && insn.row.name === 'into';
  if (r.trap === TIMEOUT || (!ended && !isTrap && rip !== 0) || rip !== (rip | 0)) {
    dropped.set(insn.row.name, (dropped.get(insn.row.name) ?? 0) + 1);
    return undefined;
  }
  const trap = ended ? -1 : r.trap;
  const state = fromNative(r, mode, before.length);
  return { seed, before, state, trap, error: trap < 0 ? 0 : r.error, address: trap === PAGE_FAULT ? r.address : 0n, rip };
}

/** Instances of the part's forms and inputs for them, numbered as in the file. */
function plan(rng: Prng, mode: CodeMode, part: Part): Planned[] {
  const planned: Planned[] = [];
  const missing: Form[] = [];
  for (const form of [...forms(mode.codeSize)].filter((f) => part.has(f))) {
    const { encodings, states } = part.amount(form);
    let got = 0;
    for (let i = 0; i < encodings * 3 && got < encodings; i++) {
      const instance = randomInstance(rng, mode, form);
      if (instance === undefined) continue;
      const first = planned.length * SEEDS_PER_ENCODING;
      const inputs: { seed: number; before: BigUint64Array }[] = [];
      for (let k = 0; k < states * 4 && inputs.length < states; k++) {
        const before = inputOf(instance, first + k);
        if (before !== undefined) inputs.push({ seed: first + k, before });
      }
      if (inputs.length === 0) continue;
      planned.push({ instance, inputs });
      got++;
    }
    if (got === 0) missing.push(form);
  }
  for (const f of missing) console.log(`no case of ${f.row.name} ${f.row.operands.join()} ${f.opSize} ${f.isMem ? 'memory' : 'register'} ${kindOf(f)}`);
  return planned;
}

function record(mode: CodeMode, part: Part): void {
  const rng = new Prng(Number(process.argv[3] ?? 1));
  const planned = plan(rng, mode, part);
  const results = native.run(planned.flatMap((p) => p.inputs.map(({ before }) => toNative(p, before))));
  let next = 0;
  const encodings = planned.map((p) => {
    const cases = p.inputs.map(({ seed, before }) => {
      const r = results[next++];
      return r === undefined ? undefined : toCase(p, seed, before, r);
    });
    return { instance: p.instance, cases: cases.filter((c) => c !== undefined) };
  });
  // All stay, those without cases too: seeds go by number.
  const packed = packVectors(encodings);
  writeFileSync(folder === undefined ? fileURLToPath(vectorFile(part.file)) : join(folder, `${part.file}.bin.br`), packed);
  const integer = encodings.filter((e) => isInteger(e.instance.insn)).length;
  const count = encodings.reduce((n, e) => n + e.cases.length, 0);
  console.log(`${part.file}: ${count} cases of ${encodings.length} encodings (${integer} integer), ${packed.length} bytes`);
}

for (const mode of CODE_MODES) {
  if (wanted !== 'all' && wanted !== mode.name) continue;
  for (const part of partsOf(mode)) record(mode, part);
}
for (const [name, n] of dropped) console.log(`dropped ${n} of ${name}: not inside the harness's memory`);
native.dispose();
