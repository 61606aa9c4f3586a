import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { CpuCore } from '../cpu.ts';
import { EXIT_EXCEPTION, EXIT_HLT, S_CR0, S_EXC, S_HOT_THRESHOLD, S_X87, S_X87_SW, S_X87_TAGS, S_X87_TOP } from '../layout.ts';

/** Bytes of `struct record` in tests/native/mmx-vectors.c. */
const RECORD_SIZE = 80;
const CODE = 0x1_0000;
const STRIDE = 16;
const DATA = 0x8000;
const [RAX, RSI, RDI] = [0, 6, 7];
const HLT = 0xf4;
const [UD, NM, MF] = [6, 7, 16];

interface Case {
  readonly code: Uint8Array;
  /** mm1, mm2, rax, memory. */
  readonly before: readonly bigint[];
  readonly after: readonly bigint[];
}
function readCases(): Case[] {
  const bytes = gunzipSync(readFileSync(new URL('../../tests/vectors/mmx.bin.gz', import.meta.url)));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / RECORD_SIZE }, (_, i) => {
    const at = i * RECORD_SIZE;
    const values = (from: number) => [0, 8, 16, 24].map((offset) => view.getBigUint64(at + from + offset, true));
    return { code: bytes.subarray(at + 1, at + 1 + view.getUint8(at)), before: values(16), after: values(48) };
  });
}

describe.each(['off', 'sync'] as const)('MMX instructions with the JIT %s', (jit) => {
  test('do what the recording CPU did, and leave the x87 stack full with TOP = 0', async () => {
    const core = await CpuCore.create({ ramBytes: 1 << 20, jit });
    const cpu = core.cpuAddress(0);
    const mm = (n: number) => cpu + S_X87 + n * 16;
    core.u32[(cpu + S_HOT_THRESHOLD) >>> 2] = 1;
    const places = new Map<string, number>();
    const wrong: string[] = [];
    for (const { code, before, after } of readCases()) {
      const text = Buffer.from(code).toString('hex');
      let rip = places.get(text);
      if (rip === undefined) {
        rip = CODE + places.size * STRIDE;
        places.set(text, rip);
        core.u8.set([...code, HLT], core.ramBase + rip);
      }
      const [mm1 = 0n, mm2 = 0n, rax = 0n, memory = 0n] = before;
      core.view.setBigUint64(mm(1), mm1, true);
      core.view.setBigUint64(mm(2), mm2, true);
      core.view.setUint32(cpu + S_X87_TOP, 5, true);
      core.view.setUint32(cpu + S_X87_TAGS, 0x80, true);
      core.view.setBigUint64(core.ramBase + DATA, memory, true);
      core.setReg(0, RAX, rax);
      core.setReg(0, RSI, BigInt(DATA));
      core.setReg(0, RDI, BigInt(DATA));
      core.setRip(0, BigInt(rip));
      const exit = core.run(0);
      const got = [mm(1), mm(2)].map((at) => core.view.getBigUint64(at, true));
      got.push(core.getReg(0, RAX), core.view.getBigUint64(core.ramBase + DATA, true));
      const state = [core.view.getUint32(cpu + S_X87_TOP, true), core.view.getUint32(cpu + S_X87_TAGS, true)];
      const show = (values: readonly bigint[]) => values.map((value) => value.toString(16)).join(' ');
      if (exit !== EXIT_HLT || got.some((value, i) => value !== after[i]) || state[0] !== 0 || state[1] !== 0xff) {
        wrong.push(`${text} exit ${exit} state ${state.join()} of ${show(before)}: ${show(got)}, recorded ${show(after)}`);
      }
    }
    expect(wrong.slice(0, 20)).toEqual([]);
    expect(core.stats(0).compiledEntries > places.size).toBe(jit === 'sync');
    core.dispose();
  });

  test('raise #UD under emulation, #NM after a task switch, #MF for a pending x87 exception; EMMS empties the stack', async () => {
    const core = await CpuCore.create({ ramBytes: 1 << 20, jit });
    const cpu = core.cpuAddress(0);
    core.u8.set([0x0f, 0x77, HLT], core.ramBase + CODE);
    const cr0 = core.view.getUint32(cpu + S_CR0, true);
    for (const [bits, sw, vector] of [
      [4, 0, UD],
      [12, 0x80, UD],
      [8, 0x80, NM],
      [0, 0x80, MF],
    ] as const) {
      core.view.setUint32(cpu + S_CR0, cr0 | bits, true);
      core.view.setUint32(cpu + S_X87_SW, sw, true);
      core.setRip(0, BigInt(CODE));
      expect(core.run(0)).toBe(EXIT_EXCEPTION);
      expect(core.view.getUint32(cpu + S_EXC, true)).toBe(vector + 1);
      core.view.setUint32(cpu + S_EXC, 0, true);
    }
    core.view.setUint32(cpu + S_CR0, cr0, true);
    core.view.setUint32(cpu + S_X87_SW, 0, true);
    core.view.setUint32(cpu + S_X87_TAGS, 0xff, true);
    core.setRip(0, BigInt(CODE));
    expect(core.run(0)).toBe(EXIT_HLT);
    expect(core.view.getUint32(cpu + S_X87_TAGS, true)).toBe(0);
    core.dispose();
  });
});
