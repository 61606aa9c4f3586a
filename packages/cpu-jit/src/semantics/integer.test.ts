import { expect, test } from 'vitest';
import { type IntegerForm, type IntegerState, MEMORY, readIntegerVectors } from '../../tests/integer-vectors.ts';
import { CpuCore } from '../cpu.ts';
import { EXIT_EXCEPTION, NEXT, NEXT_CHECK, S_EXC } from '../layout.ts';

const CODE = 0x1000;
/** Longest form, in executed instructions: a REP counts once a chunk, the loops run three times. */
const MAX_STEPS = 32;
const STATUS_FLAGS = 0x8d5;
const NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8'];

const forms = readIntegerVectors(new URL('../../tests/vectors/integer.bin.gz', import.meta.url));
const core = await CpuCore.create({ ramBytes: 1 << 20, jit: 'off' });
const cpu = core.cpuAddress(0);

function load(s: IntegerState): void {
  for (const [i, word] of s.memory.entries()) core.view.setBigUint64(core.ramBase + MEMORY + i * 8, word, true);
  for (const [n, value] of s.registers.entries()) core.setReg(0, n, value);
  core.setRflags(0, BigInt(s.flags | 2));
  core.setRip(0, BigInt(CODE));
}
function save(): IntegerState {
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

/** Runs the code to its end, one instruction at a time. */
function run(end: number): IntegerState | number {
  for (let i = 0; i < MAX_STEPS && core.getRip(0) !== BigInt(end); i++) {
    const reason = core.step(0);
    if (reason === EXIT_EXCEPTION) {
      const vector = core.view.getUint32(cpu + S_EXC, true) - 1;
      core.view.setUint32(cpu + S_EXC, 0, true);
      return vector;
    }
    if (reason !== NEXT && reason !== NEXT_CHECK) throw new Error(`left with reason ${reason}`);
  }
  return save();
}

/** Runs a form on every recorded input; the differences, as text. */
function differences(form: IntegerForm): string[] {
  core.u8.set(form.code, core.ramBase + CODE);
  core.dirtyCode(core.ramBase + CODE, 16);
  return form.cases.flatMap(({ before, after }) => {
    load(before);
    const got = show(run(CODE + form.code.length));
    const want = show(after);
    const from = show(before);
    return Object.keys({ ...got, ...want })
      .filter((key) => got[key] !== want[key])
      .map((key) => `${form.text}: ${key} is ${got[key]}, recorded ${want[key]}; rax ${from['rax']} rcx ${from['rcx']} rdx ${from['rdx']} rbx ${from['rbx']} flags ${from['flags']} memory ${from['memory']}`);
  });
}

test('every integer form gives the results recorded on a processor, flags that the manual leaves open included', () => {
  const found = forms.flatMap(differences);
  if (process.env['INTEGER_LOG'] !== undefined) for (const line of found) console.log(line);
  expect(found.slice(0, 20)).toEqual([]);
});
