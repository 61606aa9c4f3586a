import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { differences, type Extended, type Outcome, RECORD_SIZE, readVector, type Vector } from '../../tests/x87-replay.ts';
import { CpuCore } from '../cpu.ts';
import { EXIT_EXCEPTION, EXIT_HLT, S_CR0, S_EXC, S_HOT_THRESHOLD, S_X87, S_X87_CW, S_X87_FIP, S_X87_SW, S_X87_TAGS, S_X87_TOP } from '../layout.ts';

const CODE = 0x1_0000;
const DATA = 0x8000;
const RAX = 0;
const RSI = 6;
const HLT = 0xf4;
const STATUS = 0xd5;
const NM = 7;
const PF = 14;
const MF = 16;

/** Every instruction that two bytes can name has its place. */
const codeOf = (v: Vector): number => CODE + (((v.escape & 7) << 8) | v.modrm) * 8;

async function createCore(jit: 'off' | 'sync', mmio: () => 1 | 2 = () => 2): Promise<CpuCore> {
  const core = await CpuCore.create({ ramBytes: 1 << 20, jit, hooks: { mmio } });
  core.u32[(core.cpuAddress(0) + S_HOT_THRESHOLD) >>> 2] = 1;
  for (let n = 0; n < 0x800; n++) core.u8.set([0xd8 + (n >> 8), n & 0xff, HLT], core.ramBase + CODE + n * 8);
  return core;
}

const extended = (view: DataView, at: number): Extended => ({ m: view.getBigUint64(at, true), s: view.getUint16(at + 8, true) });
const put = (view: DataView, at: number, value: Extended): void => {
  view.setBigUint64(at, value.m, true);
  view.setUint16(at + 8, value.s, true);
};

function load(core: CpuCore, v: Vector): void {
  const { view } = core;
  const cpu = core.cpuAddress(0);
  view.setUint32(cpu + S_X87_CW, v.cw, true);
  view.setUint32(cpu + S_X87_SW, 0, true);
  view.setUint32(cpu + S_X87_TOP, v.top, true);
  view.setUint32(cpu + S_X87_TAGS, v.tags, true);
  for (let i = 0; i < 8; i++) {
    const value = i === 0 ? v.st0 : i === 1 ? v.st1 : { m: 0x8000000000000000n | (BigInt(i) << 40n), s: 0x4000 + i };
    put(view, cpu + S_X87 + ((v.top + i) & 7) * 16, value);
  }
  put(view, core.ramBase + DATA, v.mem);
  core.setReg(0, RSI, BigInt(DATA));
  core.setRflags(0, BigInt((v.flags & STATUS) | 2));
  core.setRip(0, BigInt(codeOf(v)));
}
function save(core: CpuCore): Outcome {
  const { view } = core;
  const cpu = core.cpuAddress(0);
  const top = view.getUint32(cpu + S_X87_TOP, true);
  const st = (i: number) => extended(view, cpu + S_X87 + ((top + i) & 7) * 16);
  return {
    sw: view.getUint32(cpu + S_X87_SW, true) | (top << 11),
    tags: view.getUint32(cpu + S_X87_TAGS, true),
    flags: (Number(core.getRflags(0)) & STATUS) | 2,
    st0: st(0),
    st1: st(1),
    mem: extended(view, core.ramBase + DATA),
  };
}

function vectors(): Vector[] {
  const bytes = gunzipSync(readFileSync(new URL('../../tests/vectors/x87-basic.bin.gz', import.meta.url)));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / RECORD_SIZE }, (_, i) => readVector(view, i * RECORD_SIZE));
}

describe.each(['off', 'sync'] as const)('x87 instructions with the JIT %s', (jit) => {
  test('do what the recording CPU did', async () => {
    const core = await createCore(jit);
    const wrong: string[] = [];
    for (const v of vectors()) {
      load(core, v);
      const exit = core.run(0);
      const list = differences(save(core), v.after);
      if (exit !== EXIT_HLT) list.push(`exit ${exit}`);
      if (list.length !== 0) wrong.push(`${v.escape.toString(16)} ${v.modrm.toString(16)} cw ${v.cw.toString(16)}: ${list.join('; ')}`);
    }
    expect(wrong.slice(0, 20)).toEqual([]);
    expect(core.stats(0).compiledEntries > 1000).toBe(jit === 'sync');
    core.dispose();
  });

  test.each([
    ['fcmovbe, taken', [0xda, 0xd1], 0xff, 1],
    ['fcmovnbe, not taken', [0xdb, 0xd1], 0xff, 1],
    ['fcmovbe of an empty register', [0xda, 0xd1], 0x01, 0],
    ['fucomi', [0xdb, 0xe9], 0xff, 1],
    ['fcomip', [0xdf, 0xf1], 0xff, 1],
    ['fucomip of a NaN', [0xdf, 0xef], 0xff, 1],
    ['fcomi of an empty register', [0xdb, 0xf1], 0x01, 0],
    ['fcom', [0xd8, 0xd1], 0xff, 0],
    ['ffree', [0xdd, 0xc1], 0xff, 0],
    ['ffreep', [0xdf, 0xc1], 0xff, 0],
    ['fstp st(1) as d9 d9', [0xd9, 0xd9], 0xff, 0],
    ['fstp st(1)', [0xdd, 0xd9], 0xff, 0],
    ['fxch', [0xd9, 0xc9], 0xff, 0],
    ['fincstp', [0xd9, 0xf7], 0xff, 0],
    ['fnop', [0xd9, 0xd0], 0xff, 1],
  ] as const)('C1 that was set, after %s, is as on silicon', async (_, [opcode, modrm], tags, c1) => {
    const core = await createCore(jit);
    const { view } = core;
    const cpu = core.cpuAddress(0);
    for (let turn = 0; turn < 2; turn++) {
      for (let i = 0; i < 8; i++) put(view, cpu + S_X87 + i * 16, i === 7 ? { m: 0xc000_0000_0000_0001n, s: 0x7fff } : { m: 1n << 63n, s: 0x3fff + i });
      view.setUint32(cpu + S_X87_CW, 0x37f, true);
      view.setUint32(cpu + S_X87_SW, 0x200, true);
      view.setUint32(cpu + S_X87_TOP, 0, true);
      view.setUint32(cpu + S_X87_TAGS, tags, true);
      core.setRflags(0, 0x43n);
      core.setRip(0, BigInt(CODE + (((opcode & 7) << 8) | modrm) * 8));
      expect(core.run(0)).toBe(EXIT_HLT);
      expect((view.getUint32(cpu + S_X87_SW, true) >> 9) & 1).toBe(c1);
    }
    await core.dispose();
  });

  test('give a compiled long double program the result it has natively', async () => {
    const core = await CpuCore.create({ ramBytes: 1 << 20, jit });
    core.u8.set(gunzipSync(readFileSync(new URL('../../tests/vectors/x87-program.bin.gz', import.meta.url))), core.ramBase + CODE);
    core.setRip(0, BigInt(CODE));
    expect(core.run(0)).toBe(EXIT_HLT);
    expect(core.getReg(0, RAX)).toBe(0x9c59ca96ff15bf72n);
    expect(core.stats(0).compiledEntries > 100).toBe(jit === 'sync');
    core.dispose();
  });

  test('raise #MF at the next waiting instruction after an unmasked exception, with the address of the culprit kept', async () => {
    const core = await createCore(jit);
    const cpu = core.cpuAddress(0);
    // fldz; fld1; fdiv st0, st1 (divide by zero); fnstsw ax; fld1
    const at = core.ramBase + 0x4000;
    core.u8.set([0xd9, 0xee, 0xd9, 0xe8, 0xd8, 0xf1, 0xdf, 0xe0, 0xd9, 0xe8, HLT], at);
    for (let round = 0; round < 3; round++) {
      core.view.setUint32(cpu + S_X87_CW, 0x37b, true);
      core.view.setUint32(cpu + S_X87_SW, 0, true);
      core.view.setUint32(cpu + S_X87_TOP, 0, true);
      core.view.setUint32(cpu + S_X87_TAGS, 0, true);
      core.setRip(0, 0x4000n);
      expect(core.run(0)).toBe(EXIT_EXCEPTION);
      expect(core.view.getUint32(cpu + S_EXC, true)).toBe(MF + 1);
      core.view.setUint32(cpu + S_EXC, 0, true);
      expect(core.getRip(0)).toBe(0x4008n);
      expect(core.getReg(0, RAX) & 0xffffn).toBe(0xb084n);
      expect(core.view.getBigUint64(cpu + S_X87_FIP, true)).toBe(0x4004n);
    }
    core.dispose();
  });

  test('raise #NM while CR0.TS or CR0.EM is set, even those that do not wait', async () => {
    const core = await createCore(jit);
    const cpu = core.cpuAddress(0);
    core.u8.set([0xd9, 0xe8, HLT], core.ramBase + 0x4000);
    core.u8.set([0xdb, 0xe3, HLT], core.ramBase + 0x4010);
    const cr0 = core.view.getUint32(cpu + S_CR0, true);
    for (const bit of [4, 8]) {
      for (const rip of [0x4000n, 0x4010n]) {
        core.view.setUint32(cpu + S_CR0, cr0 | bit, true);
        core.setRip(0, rip);
        expect(core.run(0)).toBe(EXIT_EXCEPTION);
        expect(core.view.getUint32(cpu + S_EXC, true)).toBe(NM + 1);
        expect(core.getRip(0)).toBe(rip);
        core.view.setUint32(cpu + S_EXC, 0, true);
      }
    }
    core.dispose();
  });

  test('leave flags, stack and TOP alone when their memory operand faults', async () => {
    const core = await createCore(jit, () => {
      core.view.setUint32(core.cpuAddress(0) + S_EXC, PF + 1, true);
      return 1;
    });
    const cpu = core.cpuAddress(0);
    // fst, fstp m32; fistp m64; fstp m80; fbstp; fld m80; fadd m64; fcomp m32; fisttp m16; fnsave; frstor; fnstenv, all at [rsi].
    const forms = [0xd916, 0xd91e, 0xdf3e, 0xdb3e, 0xdf36, 0xdb2e, 0xdc06, 0xd81e, 0xdf0e, 0xdd36, 0xdd26, 0xd936];
    for (const form of forms) {
      core.view.setUint32(cpu + S_X87_CW, 0x37f, true);
      core.view.setUint32(cpu + S_X87_SW, 0, true);
      core.view.setUint32(cpu + S_X87_TOP, 6, true);
      core.view.setUint32(cpu + S_X87_TAGS, 0xc0, true);
      core.view.setBigUint64(cpu + S_X87_FIP, 0n, true);
      put(core.view, cpu + S_X87 + 6 * 16, { m: 0xc90fdaa22168c235n, s: 0x4000 });
      const before = core.u8.slice(cpu + S_X87, cpu + S_X87 + 0xa0);
      core.setReg(0, RSI, 0x7fff_f000n);
      const rip = BigInt(CODE + ((((form >> 8) & 7) << 8) | (form & 0xff)) * 8);
      core.setRip(0, rip);
      expect(core.run(0), form.toString(16)).toBe(EXIT_EXCEPTION);
      core.view.setUint32(cpu + S_EXC, 0, true);
      expect(core.getRip(0), form.toString(16)).toBe(rip);
      expect(core.u8.slice(cpu + S_X87, cpu + S_X87 + 0xa0), form.toString(16)).toEqual(before);
    }
    core.dispose();
  });

  test('keep the whole unit through FNSAVE and FRSTOR, in both image sizes', async () => {
    const core = await createCore(jit);
    const cpu = core.cpuAddress(0);
    for (const prefix of [[], [0x66]]) {
      const size = prefix.length === 0 ? 28 : 14;
      // fnsave [rsi]; hlt; frstor [rsi]; hlt
      core.u8.set([...prefix, 0xdd, 0x36, HLT], core.ramBase + 0x4000 + size * 16);
      core.u8.set([...prefix, 0xdd, 0x26, HLT], core.ramBase + 0x4010 + size * 16);
      const state = { m: 0xc90fdaa22168c235n, s: 0xc000 };
      core.view.setUint32(cpu + S_X87_CW, 0x27f, true);
      core.view.setUint32(cpu + S_X87_SW, 0x4123, true);
      core.view.setUint32(cpu + S_X87_TOP, 5, true);
      core.view.setUint32(cpu + S_X87_TAGS, 0xe0, true);
      for (let i = 0; i < 8; i++) put(core.view, cpu + S_X87 + i * 16, { m: state.m + BigInt(i), s: state.s });
      const unit = core.u8.slice(cpu + S_X87, cpu + S_X87 + 0x90);
      core.setReg(0, RSI, BigInt(DATA));
      core.setRip(0, BigInt(0x4000 + size * 16));
      expect(core.run(0)).toBe(EXIT_HLT);
      expect(core.view.getUint32(cpu + S_X87_CW, true)).toBe(0x37f);
      expect(core.view.getUint32(cpu + S_X87_TAGS, true)).toBe(0);
      const field = (i: number) => core.view.getUint16(core.ramBase + DATA + (i * size) / 7, true);
      expect([field(0), field(1), field(2)]).toEqual([0x27f, 0x4123 | (5 << 11), 0x03ff]);
      expect(extended(core.view, core.ramBase + DATA + size + 10).m).toBe(state.m + 6n);
      core.setRip(0, BigInt(0x4010 + size * 16));
      expect(core.run(0)).toBe(EXIT_HLT);
      expect(core.u8.slice(cpu + S_X87, cpu + S_X87 + 0x90)).toEqual(unit);
    }
    core.dispose();
  });
});
