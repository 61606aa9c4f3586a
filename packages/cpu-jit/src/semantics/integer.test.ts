import { expect, test } from 'vitest';
import { type IntegerForm, type IntegerState, MEMORY, readIntegerVectors } from '../../tests/integer-vectors.ts';
import { CpuCore } from '../cpu.ts';
import { EXIT_EXCEPTION, EXIT_HLT, S_EXC, S_HOT_THRESHOLD, S_ICOUNT } from '../layout.ts';

const CODE = 0x20000;
const STRIDE = 64;
const HLT = 0xf4;
const STATUS_FLAGS = 0x8d5;
const NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8'];
const forms = readIntegerVectors(new URL('../../tests/vectors/integer.bin.gz', import.meta.url));

/** A CPU with every form at its own address, followed by HLT. */
async function createCore(jit: 'off' | 'sync'): Promise<CpuCore> {
  const core = await CpuCore.create({ ramBytes: 1 << 20, jit });
  if (jit === 'sync') core.u32[(core.cpuAddress(0) + S_HOT_THRESHOLD) >>> 2] = 1;
  for (const [i, form] of forms.entries()) core.u8.set([...form.code, HLT], core.ramBase + CODE + i * STRIDE);
  return core;
}

function load(core: CpuCore, s: IntegerState, rip: number): void {
  for (const [i, word] of s.memory.entries()) core.view.setBigUint64(core.ramBase + MEMORY + i * 8, word, true);
  for (const [n, value] of s.registers.entries()) core.setReg(0, n, value);
  core.setRflags(0, BigInt(s.flags | 2));
  core.setRip(0, BigInt(rip));
}
function save(core: CpuCore): IntegerState {
  return {
    registers: NAMES.map((_, n) => core.getReg(0, n)),
    flags: Number(core.getRflags(0)) & STATUS_FLAGS,
    memory: Array.from({ length: 8 }, (_, i) => core.view.getBigUint64(core.ramBase + MEMORY + i * 8, true)),
  };
}
function show(s: IntegerState | number): Record<string, string> {
  if (typeof s === 'number') return { exception: String(s) };
  return {
    ...Object.fromEntries(NAMES.map((name, n) => [name, (s.registers[n] ?? 0n).toString(16)])),
    flags: s.flags.toString(16),
    memory: s.memory.map((word) => word.toString(16)).join(' '),
  };
}

/** Runs the form to its HLT, or to an exception, whose vector it returns. */
function run(core: CpuCore): IntegerState | number {
  const reason = core.run(0);
  if (reason === EXIT_HLT) return save(core);
  if (reason !== EXIT_EXCEPTION) throw new Error(`left with reason ${reason}`);
  const exception = core.cpuAddress(0) + S_EXC;
  const vector = core.view.getUint32(exception, true) - 1;
  core.view.setUint32(exception, 0, true);
  return vector;
}

/** Runs a form on every recorded input; the differences, as text. */
function differences(core: CpuCore, form: IntegerForm, index: number): string[] {
  return form.cases.flatMap(({ before, after }) => {
    load(core, before, CODE + index * STRIDE);
    const got = show(run(core));
    const want = show(after);
    const from = show(before);
    const input = Object.entries(from)
      .map(([key, value]) => `${key} ${value}`)
      .join(' ');
    return Object.keys({ ...got, ...want })
      .filter((key) => got[key] !== want[key])
      .map((key) => `${form.text}: ${key} is ${got[key]}, recorded ${want[key]}; from ${input}`);
  });
}

const retired: bigint[] = [];
for (const [name, jit] of [
  ['interpreter', 'off'],
  ['compiled code', 'sync'],
] as const) {
  test(`every integer form gives in ${name} what a processor gave, flags that the manual leaves open included`, { timeout: 120_000 }, async () => {
    const core = await createCore(jit);
    const found = forms.flatMap((form, i) => differences(core, form, i));
    if (process.env['INTEGER_LOG'] !== undefined) for (const line of found) console.log(line);
    expect(found.slice(0, 20)).toEqual([]);
    retired.push(core.view.getBigUint64(core.cpuAddress(0) + S_ICOUNT, true));
    await core.dispose();
  });
}
test('both tiers retire the same number of instructions', () => {
  expect(retired).toHaveLength(2);
  expect(retired[1]).toBe(retired[0]);
});
