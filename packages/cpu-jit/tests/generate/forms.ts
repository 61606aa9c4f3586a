// Runs random instances of the forms that int.ts leaves out on this machine's CPU, from whole states, and records the results:
//   node -C source tests/generate/forms.ts [encodings per form = 2] [states per encoding = 8] [seed = 1] [file]
// Needs gcc. Prints the forms that got no cases.
import { writeFileSync } from 'node:fs';
import { forms } from '../../src/decoder/index.ts';
import type { Form } from '../../src/decoder/types.ts';
import { type FormInstance, formInstance, formState } from '../form-case.ts';
import { SLOT } from '../form-state.ts';
import { AREAS, FORM_VECTORS, type FormCase, type FormEncoding, PAGE_FAULT, packFormVectors } from '../form-vectors.ts';
import { START } from '../int-vectors.ts';
import { Native, type NativeCase, type NativeResult, X87_BYTES } from '../native-run.ts';
import { Prng } from '../prng.ts';
import { CODE, DATA } from '../program.ts';
import { kindOf } from '../random-instruction.ts';
import { WITHOUT_VECTORS } from '../without-vectors.ts';

const encodingsPerForm = Number(process.argv[2] ?? 2);
const statesPerEncoding = Number(process.argv[3] ?? 8);
const rng = new Prng(Number(process.argv[4] ?? 1));
const GP = 13;
const STATUS_AND_DIRECTION = 0xcd5n;

/** Results that differ between processors in the last bit; they have tests of their own (sse.test.ts, x87.test.ts). */
const ESTIMATES = /^(r(cp|sqrt)[ps]s|f2xm1|fyl2x|fyl2xp1|fptan|fpatan|fsincos|fsin|fcos)$/;

const native = Native.create();
if (native === undefined) throw new Error('gcc is needed to run instructions natively');

/** Integer forms are here only for segment overrides: one encoding each. */
const list = [...forms(64)].filter(
  (f) => !(f.row.name in WITHOUT_VECTORS) && !ESTIMATES.test(f.row.name) && (kindOf(f) !== 'integer' || f.isMem || (f.row.asz === true && f.row.end !== true)),
);

interface Planned {
  readonly made: FormInstance;
  readonly states: readonly { base: number; before: BigUint64Array }[];
}
const planned: Planned[] = [];
const missing: Form[] = [];
for (const form of list) {
  const isInteger = kindOf(form) === 'integer';
  const [encodings, states] = isInteger ? [1, 2] : [encodingsPerForm, statesPerEncoding];
  let got = 0;
  for (let i = 0; i < encodings * 3 && got < encodings; i++) {
    const made = formInstance(rng, form);
    if (made === undefined) continue;
    const chosen: { base: number; before: BigUint64Array }[] = [];
    for (let k = 0; k < states * 4 && chosen.length < states; k++) {
      const state = formState(rng, made);
      if (state !== undefined) chosen.push(state);
    }
    if (chosen.length === 0) continue;
    planned.push({ made, states: chosen });
    got++;
  }
  if (got === 0) missing.push(form);
}

const bytesOf = (words: BigUint64Array) => new Uint8Array(words.slice().buffer);
const cases = planned.flatMap(({ made, states }) => states.map(({ before }) => toNative(made, before)));
const results = native.run(cases);
native.dispose();

function toNative({ instance, area }: FormInstance, s: BigUint64Array): NativeCase {
  const x87 = new Uint8Array(X87_BYTES);
  const words = new DataView(x87.buffer);
  words.setBigUint64(0, s[SLOT.x87] ?? 0n, true);
  words.setBigUint64(8, s[SLOT.fip] ?? 0n, true);
  words.setBigUint64(16, s[SLOT.fdp] ?? 0n, true);
  for (let i = 0; i < 16; i++) words.setBigUint64(32 + i * 8, s[SLOT.st + i] ?? 0n, true);
  return {
    gprs: [...s.subarray(0, 16)],
    flags: Number(s[SLOT.flags]),
    mxcsr: Number(s[SLOT.mxcsr]),
    xmm: bytesOf(s.subarray(SLOT.xmm, SLOT.xmm + 32)),
    x87,
    code: instance.code,
    codeAt: START - CODE,
    data: bytesOf(s.subarray(SLOT.memory)),
    dataAt: (AREAS[area]?.at ?? 0) - DATA,
  };
}

function fromNative(r: NativeResult, slots: number): BigUint64Array {
  const s = new BigUint64Array(slots);
  s.set(r.gprs);
  s[SLOT.flags] = BigInt(r.flags) & STATUS_AND_DIRECTION;
  s[SLOT.mxcsr] = BigInt(r.mxcsr);
  s.set(new BigUint64Array(r.xmm.buffer), SLOT.xmm);
  const x87 = new DataView(r.x87.buffer);
  s[SLOT.x87] = x87.getBigUint64(0, true);
  s[SLOT.fip] = x87.getBigUint64(8, true);
  s[SLOT.fdp] = x87.getBigUint64(16, true);
  for (let i = 0; i < 16; i++) s[SLOT.st + i] = x87.getBigUint64(32 + i * 8, true);
  s[SLOT.selectors] = r.selectors.reduce((sum, v, i) => sum | (BigInt(v) << BigInt(16 * i)), 0n);
  s[SLOT.fsBase] = r.fsBase;
  s[SLOT.gsBase] = r.gsBase;
  s.set(new BigUint64Array(r.data.buffer), SLOT.memory);
  return s;
}

let next = 0;
const dropped = new Map<string, number>();
function toCase(name: string, base: number, before: BigUint64Array, r: NativeResult): FormCase | undefined {
  const rip = Number(r.rip - BigInt(START));
  // At a HLT, or where nothing can be fetched: the instruction itself is done.
  const ended = rip !== 0 && (r.trap === GP || (r.trap === PAGE_FAULT && r.address === r.rip));
  if (r.trap === 255 || (!ended && rip !== 0)) {
    dropped.set(name, (dropped.get(name) ?? 0) + 1);
    return undefined;
  }
  const trap = ended ? -1 : r.trap;
  return { base, before, state: fromNative(r, before.length), trap, error: trap < 0 ? 0 : r.error, address: trap === PAGE_FAULT ? r.address : 0n, rip };
}
const kept = planned
  .map(({ made, states }): FormEncoding => {
    const done = states.map(({ base, before }) => {
      const r = results[next++];
      return r === undefined ? undefined : toCase(made.instance.form.row.name, base, before, r);
    });
    return { code: made.instance.code, area: made.area, cases: done.filter((c) => c !== undefined) };
  })
  .filter((e) => e.cases.length > 0);
const packed = packFormVectors(kept);
writeFileSync(process.argv[5] ?? FORM_VECTORS, packed);
console.log(`${kept.reduce((n, e) => n + e.cases.length, 0)} cases of ${kept.length} encodings of ${list.length} forms, ${packed.length} bytes`);
for (const [name, n] of dropped) console.log(`dropped ${n} of ${name}: not inside the harness's memory`);
for (const f of missing) console.log(`no case of ${f.row.name} ${f.row.operands.join()} ${f.opSize} ${f.isMem ? 'memory' : 'register'}`);
