// Runs instances of every AVX form on this machine's CPU and records the results:
//   node -C source tests/generate/avx.ts
// Needs gcc and a CPU with AVX2, FMA and F16C. Prints the forms that got no cases.
import { writeFileSync } from 'node:fs';
import { forms } from '../../src/decoder/index.ts';
import type { Form } from '../../src/decoder/types.ts';
import { MXCSR_DEFAULT } from '../../src/layout.ts';
import { type AvxState, type InputClass, initialState } from '../avx-case.ts';
import { AVX_MODES_VECTORS, AVX_VECTORS, type AvxEncoding, decodeCode, packAvxVectors } from '../avx-vectors.ts';
import { encode } from '../encoder.ts';
import { Native, type NativeResult } from '../native-run.ts';
import { Prng } from '../prng.ts';
import { CODE, DATA } from '../program.ts';
import { kindOf } from '../random-instruction.ts';
import { START, WINDOW } from '../window.ts';

/** Rounding down, up, to zero; FTZ; DAZ; both with rounding to zero; exceptions unmasked: all, and one by one. */
const MODES = [0x3f80, 0x5f80, 0x7f80, 0x9f80, 0x1fc0, 0xffc0, 0x0000, 0x0f80, 0x9780, 0x1b80, 0x1e80, 0x1d00];
const GP = 13;
const rng = new Prng(2);
const native = Native.create();
if (native === undefined) throw new Error('gcc is needed to run instructions natively');

function inputsOf({ row }: Form): InputClass {
  if (row.name === 'vcvtph2ps') return 'halves';
  if (/^vcvt(t?ps|t?ss|ps2ph)/.test(row.name)) return 'singles';
  if (/^vcvtt?[ps]d/.test(row.name)) return 'doubles';
  if (/^v(p|mov|cvt|ins|ext|br|mask|aes|z|ld|st|gather)/.test(row.name)) return 'integers';
  if (/p?s?[ps]s$/.test(row.name)) return 'singles';
  return /[ps]d$/.test(row.name) ? 'doubles' : 'integers';
}
/** Whether MXCSR decides about the result. */
const isFloat = ({ row }: Form) => /^v(add|sub|mul|div|sqrt|min|max|hadd|hsub|cmp|u?comis|round|dpp|cvt|f)/.test(row.name);

/** Immediates that are worth trying: every one of a comparison or small field, some of the others. */
function immediates(form: Form): readonly number[] {
  if (!form.row.operands.includes('Ib')) return [0];
  if (form.row.name.startsWith('vcmp')) return form.isMem ? [0x01, 0x0e, 0x13] : Array.from({ length: 32 }, (_, i) => i);
  if (form.row.name.startsWith('vround') || form.row.name === 'vcvtps2ph') return form.isMem ? [4] : [0, 1, 2, 3, 4, 8, 12];
  if (/^vp(sll|srl|sra)/.test(form.row.name)) return [0, 1, 7, 8, 15, 16, 31, 32, 63, 64, 255];
  return form.isMem ? [0x1b, 0xa7] : [0x00, 0x1b, 0xa7, 0xff, 0x4e, 0x39, 0x88, 0x12];
}

function instance(form: Form, imm: number): Uint8Array | undefined {
  for (let attempt = 0; attempt < 40; attempt++) {
    const isGather = form.operands.some((o) => o.field === 'vsib');
    const mem = {
      base: rng.pick([0, 1, 2, 3, 5, 6, 7, 8, 9, 13, 14]),
      index: isGather ? rng.below(16) : -1,
      scale: isGather ? rng.below(4) : 0,
      disp: rng.below(256) - 128,
    };
    const fields = {
      reg: rng.below(16),
      rm: rng.below(16),
      vvvv: rng.below(16),
      mem: form.isMem ? mem : null,
      imm: BigInt(form.row.operands.includes('Lx') ? rng.below(16) << 4 : imm),
    };
    const usesStack = form.operands.some((o) => o.kind === 'gpr' && (o.field === 'reg' ? fields.reg : fields.rm) === 4);
    if (usesStack) continue;
    const { bytes } = encode(form, fields);
    try {
      const insn = decodeCode(bytes);
      if (insn.rowIndex === form.rowIndex && insn.vl === form.vl && insn.opSize === form.opSize && insn.isMem === form.isMem) return bytes;
    } catch {
      // Not every choice of registers has an encoding (gathers).
    }
  }
  return undefined;
}

type Planned = Omit<AvxEncoding, 'cases'> & { readonly count: number };

let seed = 1;
/** Encodings of the form, one for each immediate, with `count` cases each. */
function plan(form: Form, mxcsr: number, count: number): Planned[] {
  return immediates(form).flatMap((imm): Planned[] => {
    const code = instance(form, imm);
    if (code === undefined) return [];
    const firstSeed = seed;
    seed = (seed + count) % 0xff00;
    return [{ code, insn: decodeCode(code), inputs: inputsOf(form), mxcsr, firstSeed, count }];
  });
}

function record(planned: readonly Planned[]): AvxEncoding[] {
  const states = planned.map((e) => Array.from({ length: e.count }, (_, i) => initialState(e.insn, e.inputs, e.mxcsr, e.firstSeed + i)));
  const results = native?.run(
    planned.flatMap((e, i) =>
      (states[i] ?? []).map((s) => ({
        gprs: s.gprs,
        flags: s.flags,
        mxcsr: s.mxcsr,
        xmm: s.ymm.subarray(0, 256),
        high: s.ymm.subarray(256),
        code: e.code,
        codeAt: START - CODE,
        data: s.memory,
        dataAt: WINDOW - DATA,
      })),
    ),
  );
  let next = 0;
  return planned.map((e, i) => ({ ...e, cases: (states[i] ?? []).map((before) => toCase(before, e.code, results?.[next++])) }));
}
function toCase(before: AvxState, code: Uint8Array, r: NativeResult | undefined): AvxEncoding['cases'][number] {
  if (r === undefined) throw new Error('the harness gave too few results');
  const rip = Number(r.rip) - START;
  const ended = r.trap === GP && rip === code.length;
  if (!ended && rip !== 0) throw new Error(`${Buffer.from(code).toString('hex')} ended at ${rip} with trap ${r.trap}`);
  const ymm = new Uint8Array(512);
  ymm.set(r.xmm);
  ymm.set(r.high ?? new Uint8Array(256), 256);
  return { before, after: { gprs: [...r.gprs], ymm, flags: r.flags & 0x8d5, mxcsr: r.mxcsr, memory: r.data.slice() }, trap: ended ? -1 : r.trap };
}

/** Cases of one encoding: more where results depend on single bits of the input. */
function casesOf(form: Form): number {
  const hasImmediate = form.row.operands.includes('Ib');
  if (form.row.name.startsWith('vf')) return 24;
  if (isFloat(form)) return hasImmediate ? 8 : 24;
  return hasImmediate ? 4 : 12;
}

const list = [...forms(64)].filter((f) => kindOf(f) === 'avx');
const plain: Planned[] = [];
const modes: Planned[] = [];
for (const form of list) {
  const got = plan(form, MXCSR_DEFAULT, casesOf(form));
  if (got.length === 0) console.log(`no case of ${form.row.name} ${form.row.operands.join()} ${form.vl}`);
  plain.push(...got);
  if (isFloat(form) && !form.isMem) for (const mxcsr of MODES) modes.push(...plan(form, mxcsr, 8).slice(0, 3));
}
for (const [url, planned] of [
  [AVX_VECTORS, plain],
  [AVX_MODES_VECTORS, modes],
] as const) {
  const encodings = record(planned);
  const packed = packAvxVectors(encodings);
  writeFileSync(url, packed);
  console.log(
    `${url.pathname}: ${encodings.reduce((n, e) => n + e.cases.length, 0)} cases of ${encodings.length} encodings of ${list.length} forms, ${packed.length} bytes`,
  );
}
native.dispose();
