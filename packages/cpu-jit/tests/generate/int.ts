// Runs random instances of every integer form on this machine's CPU and records the results:
//   node -C source tests/generate/int.ts [cases = 100000] [seed = 1] [file]
// Needs gcc. Prints the forms that got no cases.
import { writeFileSync } from 'node:fs';
import { forms } from '../../src/decoder/index.ts';
import type { Form } from '../../src/decoder/types.ts';
import { type Instance, isReplayable, makePool, randomInstance, randomState } from '../int-case.ts';
import { INT_VECTORS, type IntCase, type IntEncoding, type IntState, PAGE_FAULT, packIntVectors, START, WINDOW, WINDOW_BYTES } from '../int-vectors.ts';
import { Native, type NativeCase, type NativeResult } from '../native-run.ts';
import { Prng } from '../prng.ts';
import { CODE, DATA } from '../program.ts';
import { kindOf } from '../random-instruction.ts';

const wanted = Number(process.argv[2] ?? 100_000);
const rng = new Prng(Number(process.argv[3] ?? 1));
/** States per encoding: instructions with many bytes are rare, inputs at the edges are not. */
const STATES = 10;
const GP = 13;

const native = Native.create();
if (native === undefined) throw new Error('gcc is needed to run instructions natively');
const list = [...forms(64)].filter((f) => kindOf(f) === 'integer');
const perForm = Math.max(1, Math.ceil(wanted / list.length / STATES));
const pool = makePool(rng);

const instances: { instance: Instance; states: IntState[] }[] = [];
const missing: Form[] = [];
for (const form of list) {
  let got = 0;
  for (let i = 0; i < perForm; i++) {
    const instance = randomInstance(rng, form);
    if (instance === undefined) continue;
    const states: IntState[] = [];
    for (let k = 0; k < STATES * 3 && states.length < STATES; k++) {
      const s = randomState(rng, instance, pool);
      if (isReplayable(instance, s)) states.push(s);
    }
    got += states.length;
    if (states.length > 0) instances.push({ instance, states });
  }
  if (got === 0) missing.push(form);
}

const bytesOf = (words: readonly bigint[]) => new Uint8Array(BigUint64Array.from(words).buffer);
const cases = instances.flatMap(({ instance, states }) =>
  states.map(
    ({ gprs, flags, memory }): NativeCase => ({
      gprs,
      flags,
      mxcsr: 0x1f80,
      xmm: new Uint8Array(256),
      code: instance.code,
      codeAt: START - CODE,
      data: bytesOf(memory),
      dataAt: WINDOW - DATA,
    }),
  ),
);
const results = native.run(cases);
native.dispose();

let next = 0;
const dropped = new Map<string, number>();
const toCase = (name: string, before: IntState, r: NativeResult): IntCase | undefined => {
  const rip = Number(r.rip - BigInt(START));
  const ended = r.trap === GP && rip !== 0;
  const memory = [...new BigUint64Array(r.data.buffer, 0, WINDOW_BYTES / 8)];
  const outside = r.trap === 255 || Math.abs(rip) > 0x2000 || (!ended && rip !== 0);
  if (outside) {
    dropped.set(name, (dropped.get(name) ?? 0) + 1);
    return undefined;
  }
  return {
    before,
    after: { gprs: r.gprs, flags: r.flags, memory },
    trap: ended ? -1 : r.trap,
    error: r.trap === PAGE_FAULT ? r.error : 0,
    address: r.address,
    rip,
  };
};
const encodings = instances.map(({ instance, states }): IntEncoding => {
  const made = states.map((s) => {
    const r = results[next++];
    return r === undefined ? undefined : toCase(instance.form.row.name, s, r);
  });
  return { code: instance.code, cases: made.filter((c) => c !== undefined) };
});
const kept = encodings.filter((e) => e.cases.length > 0);
const packed = packIntVectors(pool, kept);
writeFileSync(process.argv[4] ?? INT_VECTORS, packed);
const count = kept.reduce((n, e) => n + e.cases.length, 0);
console.log(`${count} cases of ${kept.length} encodings of ${list.length} forms, ${packed.length} bytes`);
for (const [name, n] of dropped) console.log(`dropped ${n} of ${name}: not inside the harness's memory`);
for (const f of missing) console.log(`no case of ${f.row.name} ${f.row.operands.join()} ${f.opSize} ${f.isMem ? 'memory' : 'register'}`);
