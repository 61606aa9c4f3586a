import { setFlagsFromString } from 'node:v8';
import { describe, expect, test } from 'vitest';
import { readVectors, type VectorForm, type VectorState } from '../../tests/sse-vectors.ts';
import { CpuCore } from '../cpu.ts';
import {
  EXIT_EXCEPTION,
  EXIT_HLT,
  MXCSR_DEFAULT,
  MXCSR_ROUNDING_MASKS,
  MXCSR_TRACKED,
  MXCSR_VISIBLE,
  S_CR0,
  S_CR4,
  S_EXC,
  S_HOT_THRESHOLD,
  S_MXCSR,
  S_X87,
  S_XMM,
} from '../layout.ts';

const CODE = 0x1_0000;
const STRIDE = 32;
const CR4_OSXMMEXCPT = 1n << 10n;
const CR0_EM = 1 << 2;
const CR0_TS = 1 << 3;
const DATA = 0x8000;
const [RAX, RCX, RDX, RDI] = [0, 1, 2, 7];
const MM = (n: number) => S_X87 + n * 16;

// Hot code is TurboFan's, which unlike Liftoff may swap operands.
setFlagsFromString('--no-liftoff');
const forms = readVectors(new URL('../../tests/vectors/sse.bin.gz', import.meta.url));
const HLT = 0xf4;

/** A CPU with every form at its own address, followed by HLT. */
async function createCore(jit: 'off' | 'sync'): Promise<CpuCore> {
  const core = await CpuCore.create({ ramBytes: 1 << 20, jit });
  core.u32[(core.cpuAddress(0) + S_HOT_THRESHOLD) >>> 2] = 1;
  for (const [i, form] of forms.entries()) core.u8.set([...form.code, HLT], core.ramBase + CODE + i * STRIDE);
  return core;
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).reverse().toString('hex');
const show = (s: VectorState) => ({
  xmm0: hex(s.xmm[0]),
  xmm1: hex(s.xmm[1]),
  xmm2: hex(s.xmm[2]),
  memory: hex(s.memory),
  rax: s.rax.toString(16),
  rcx: s.rcx.toString(16),
  rdx: s.rdx.toString(16),
  flags: s.flags.toString(16),
  mm1: s.mm1.toString(16),
  mxcsr: s.mxcsr.toString(16),
});

/** `tracked`: exceptions are noted under MXCSR's default controls too. */
function load(core: CpuCore, s: VectorState, form: VectorForm, tracked = false): void {
  const cpu = core.cpuAddress(0);
  for (const [i, bytes] of s.xmm.entries()) core.u8.set(bytes, cpu + S_XMM + i * 16);
  core.u8.set(s.memory, core.ramBase + DATA);
  core.view.setBigUint64(cpu + MM(1), s.mm1, true);
  core.view.setBigUint64(cpu + MM(2), s.mm2, true);
  core.setReg(0, RAX, s.rax);
  core.setReg(0, RCX, s.rcx);
  core.setReg(0, RDX, s.rdx);
  core.setReg(0, RDI, BigInt(DATA));
  core.setRflags(0, BigInt(s.flags | 2));
  core.view.setUint32(cpu + S_MXCSR, tracked || form.mxcsr !== MXCSR_DEFAULT ? form.mxcsr | MXCSR_TRACKED : form.mxcsr, true);
  core.view.setBigUint64(cpu + S_CR4, CR4_OSXMMEXCPT, true);
  core.setRip(0, BigInt(CODE + forms.indexOf(form) * STRIDE));
}
function save(core: CpuCore): VectorState {
  const cpu = core.cpuAddress(0);
  const bytes = (at: number) => core.u8.slice(at, at + 16);
  return {
    xmm: [bytes(cpu + S_XMM), bytes(cpu + S_XMM + 16), bytes(cpu + S_XMM + 32)],
    memory: bytes(core.ramBase + DATA),
    rax: core.getReg(0, RAX),
    rcx: core.getReg(0, RCX),
    rdx: core.getReg(0, RDX),
    flags: Number(core.getRflags(0)) & 0x8d5,
    mm1: core.view.getBigUint64(cpu + MM(1), true),
    mm2: core.view.getBigUint64(cpu + MM(2), true),
    mxcsr: core.view.getUint32(cpu + S_MXCSR, true) & MXCSR_VISIBLE,
  };
}

/** Runs the form at RIP; `ok`, or what happened instead. */
function execute(core: CpuCore): string {
  const reason = core.run(0);
  if (reason === EXIT_HLT) return 'ok';
  const at = core.cpuAddress(0) + S_EXC;
  const exception = core.view.getUint32(at, true) - 1;
  core.view.setUint32(at, 0, true);
  return reason === EXIT_EXCEPTION ? `exception ${exception}` : `exit ${reason}`;
}

/** Runs a form on every recorded input; the differences, as text. */
function differences(core: CpuCore, form: VectorForm, tracked = false): string[] {
  const found: string[] = [];
  for (const { before, after, traps } of form.cases) {
    load(core, before, form, tracked);
    const outcome = execute(core);
    if (outcome !== (traps ? 'exception 19' : 'ok')) {
      found.push(`${form.text} [mxcsr ${form.mxcsr.toString(16)}]: ${outcome}; xmm1 ${hex(before.xmm[1])} xmm2 ${hex(before.xmm[2])}`);
      continue;
    }
    const got = show(save(core));
    const want = show(tracked || form.mxcsr !== MXCSR_DEFAULT ? after : { ...after, mxcsr: form.mxcsr });
    const from = show(before);
    for (const key of Object.keys(want) as (keyof typeof want)[]) {
      if (got[key] !== want[key])
        found.push(`${form.text} [mxcsr ${form.mxcsr.toString(16)}] ${key}: got ${got[key]}, recorded ${want[key]}; xmm1 ${from.xmm1} xmm2 ${from.xmm2}`);
    }
  }
  return found;
}

/** Estimates of 12 bits, which differ from one processor to the next: ours are exact (see sse-fp.ts). */
const isEstimate = (form: VectorForm) => /^r(cp|sqrt)[sp]s /.test(form.text);

test('reciprocal estimates are within 1.5 * 2^-11 of what silicon gave, and equal where that is special', async () => {
  const core = await createCore('off');
  const lanes = (bytes: Uint8Array) => new Float32Array(bytes.slice().buffer);
  for (const form of forms.filter(isEstimate)) {
    for (const { before, after } of form.cases) {
      load(core, before, form);
      expect(execute(core), form.text).toBe('ok');
      const got = lanes(save(core).xmm[1]);
      for (const [i, want] of lanes(after.xmm[1]).entries()) {
        const value = got[i] ?? 0;
        const near = Math.abs(value - want) <= Math.abs(want) * 1.5 * 2 ** -11;
        if (!Object.is(value, want) && !near) expect.fail(`${form.text}: ${value} instead of about ${want}`);
      }
    }
  }
});

describe.each([
  ['interpreted', 'off'],
  ['compiled', 'sync'],
] as const)('%s', (_, jit) => {
  test('every SSE form gives the recorded results', async () => {
    const core = await createCore(jit);
    // Under other controls compiled code hands over to the interpreter: a sample shows that it does.
    const chosen = forms.filter((form, i) => !isEstimate(form) && (jit === 'off' || form.mxcsr === MXCSR_DEFAULT || i % 16 === 0));
    const found = chosen.flatMap((form) => differences(core, form));
    expect(found.slice(0, 20)).toEqual([]);
    expect(core.stats(0).compiledEntries > chosen.length).toBe(jit === 'sync');
  });

  test('every form that notes exceptions in MXCSR notes the recorded ones', async () => {
    const core = await createCore(jit);
    const chosen = forms.filter((form) => !isEstimate(form) && (form.mxcsr & MXCSR_ROUNDING_MASKS) === MXCSR_DEFAULT);
    const noting = chosen.filter((form) => form.cases.some(({ after }) => after.mxcsr !== form.mxcsr));
    expect(noting.length).toBeGreaterThan(200);
    expect(noting.flatMap((form) => differences(core, form, true)).slice(0, 20)).toEqual([]);
    expect(core.stats(0).compiledEntries > noting.length).toBe(jit === 'sync');
  });

  test('a misaligned memory operand raises #GP(0) exactly where it does on silicon', async () => {
    const core = await createCore(jit);
    for (const [i, form] of forms.entries()) {
      if (jit === 'sync' && i % 4 !== 0) continue;
      const first = form.cases[0];
      if (form.misaligned === 'none' || first === undefined) continue;
      load(core, first.before, form);
      core.setReg(0, RDI, BigInt(DATA + 1));
      expect(execute(core), form.text).toBe(form.misaligned === 'works' ? 'ok' : 'exception 13');
    }
  });

  test('CR0.TS raises #NM and CR0.EM #UD, also in code compiled before', async () => {
    const core = await createCore(jit);
    const form = forms.find((f) => f.text === 'paddb %xmm2,%xmm1');
    const first = form?.cases[0];
    if (form === undefined || first === undefined) throw new Error('the vectors have no paddb');
    const outcomes = [0, 0, CR0_TS, CR0_EM, 0].map((cr0) => {
      load(core, first.before, form);
      core.view.setUint32(core.cpuAddress(0) + S_CR0, cr0, true);
      return execute(core);
    });
    expect(outcomes).toEqual(['ok', 'ok', 'exception 7', 'exception 6', 'ok']);
  });
});
