import { describe, expect, test } from 'vitest';
import { DATA, DATA_BYTES } from '../../tests/program.ts';
import { Tier } from '../../tests/tiers.ts';
import type { CpuLevel } from '../features.ts';
import { CR0_TS, CR4_OSXSAVE, EXIT_EXCEPTION, S_CR0, S_CR4, S_EXC, S_EXC_ADDR, S_XCR0, S_XMM, S_YMM_HIGH } from '../layout.ts';

const HLT = 0xf4;
const [UD, NM, PF] = [6, 7, 14];
const CODE = 0x10_0000;
const XCR0_ALL = 7n;
/** vpaddd ymm0, ymm1, ymm2 */
const VPADDD = [0xc5, 0xf5, 0xfe, 0xc2];
const bytes = (hex: string) => hex.split(' ').map((b) => Number.parseInt(b, 16));

/** A CPU in user mode with AVX enabled, about to run `code`. */
async function machine(code: readonly number[], compiled = false, level: CpuLevel = 'v3') {
  const tier = await Tier.create(compiled, false, level);
  const program = new Uint8Array(0x4000).fill(HLT);
  program.set(code);
  tier.load(program, { gprs: new Array<bigint>(16).fill(BigInt(DATA)), flags: 0, xmm: new Uint8Array(256), data: new Uint8Array(DATA_BYTES) });
  const { core } = tier;
  const cpu = core.cpuAddress(0);
  const { view } = core;
  view.setUint32(cpu + S_CR4, view.getUint32(cpu + S_CR4, true) | CR4_OSXSAVE, true);
  view.setBigUint64(cpu + S_XCR0, XCR0_ALL, true);
  return {
    core,
    view,
    cpu,
    low: (n: number) => cpu + S_XMM + n * 16,
    high: (n: number) => cpu + S_YMM_HIGH + n * 16,
    /** The exception vector that one instruction raises, undefined: none. */
    step: () => {
      const reason = core.step(0);
      const vector = view.getUint32(cpu + S_EXC, true) - 1;
      view.setUint32(cpu + S_EXC, 0, true);
      return reason === EXIT_EXCEPTION ? vector : undefined;
    },
  };
}

describe('AVX', () => {
  test('is undefined until CR4.OSXSAVE and both bits of XCR0 are set, and on a CPU of level v2; CR0.TS raises #NM', async () => {
    const m = await machine(VPADDD);
    const { view, cpu } = m;
    const run = () => {
      m.core.setRip(0, BigInt(CODE));
      return m.step();
    };
    expect(run()).toBeUndefined();
    view.setBigUint64(cpu + S_XCR0, 3n, true);
    expect(run()).toBe(UD);
    view.setBigUint64(cpu + S_XCR0, XCR0_ALL, true);
    view.setUint32(cpu + S_CR0, view.getUint32(cpu + S_CR0, true) | CR0_TS, true);
    expect(run()).toBe(NM);
    view.setUint32(cpu + S_CR4, view.getUint32(cpu + S_CR4, true) & ~CR4_OSXSAVE, true);
    expect(run()).toBe(UD);
    expect((await machine(VPADDD, false, 'v2')).step()).toBe(UD);
  });

  test('leaves upper halves alone in legacy SSE and clears them in VEX.128 and VZEROUPPER', async () => {
    // paddd xmm0, xmm2; vpaddd xmm1, xmm1, xmm2; vzeroupper
    const m = await machine([...bytes('66 0f fe c2'), ...bytes('c5 f1 fe ca'), ...bytes('c5 f8 77')]);
    for (let n = 0; n < 16; n++) m.view.setUint32(m.high(n), n + 1, true);
    const uppers = () => Array.from({ length: 4 }, (_, n) => m.view.getUint32(m.high(n), true));
    expect(m.step()).toBeUndefined();
    expect(uppers()).toEqual([1, 2, 3, 4]);
    expect(m.step()).toBeUndefined();
    expect(uppers()).toEqual([1, 0, 3, 4]);
    expect(m.step()).toBeUndefined();
    expect(uppers()).toEqual([0, 0, 0, 0]);
  });
});

describe.each([
  ['interpreted', false],
  ['compiled', true],
] as const)('%s', (_, compiled) => {
  test('a gather that faults has done the elements before the fault, and goes on after them', async () => {
    // vpgatherdd xmm0, [rax+xmm1*1], xmm2
    const m = await machine(bytes('c4 e2 69 90 04 08'), compiled);
    const { view, core } = m;
    const data = core.ramBase + DATA;
    const offsets = [0, 4, DATA_BYTES + 64, 8];
    for (const [i, offset] of offsets.entries()) {
      view.setUint32(m.low(1) + i * 4, offset, true);
      view.setInt32(m.low(2) + i * 4, -1, true);
      view.setUint32(m.low(0) + i * 4, 0xdead, true);
    }
    [11, 22, 33].forEach((v, i) => {
      view.setUint32(data + i * 4, v, true);
    });
    const lanes = (n: number) => Array.from({ length: 4 }, (_, i) => view.getInt32(m.low(n) + i * 4, true));
    const run = () => {
      const reason = core.run(0);
      const vector = view.getUint32(m.cpu + S_EXC, true) - 1;
      view.setUint32(m.cpu + S_EXC, 0, true);
      return reason === EXIT_EXCEPTION ? vector : -1;
    };
    expect(run()).toBe(PF);
    expect(view.getBigUint64(m.cpu + S_EXC_ADDR, true)).toBe(BigInt(DATA + DATA_BYTES + 64));
    expect([lanes(0), lanes(2)]).toEqual([
      [11, 22, 0xdead, 0xdead],
      [0, 0, -1, -1],
    ]);
    view.setUint32(m.low(1) + 8, 8, true);
    // The HLT after it raises #GP in user mode.
    expect(run()).toBe(13);
    expect([lanes(0), lanes(2)]).toEqual([
      [11, 22, 33, 33],
      [0, 0, 0, 0],
    ]);
  });

  test('masked moves do not touch what the mask leaves out, and a store that faults in its second page stores nothing', async () => {
    // vpmaskmovd xmm3, xmm1, [rax]; vmovdqu [rax], ymm0
    const m = await machine([...bytes('c4 e2 71 8c 18'), ...bytes('c5 fe 7f 00')], compiled);
    const { core, view } = m;
    const end = DATA + DATA_BYTES;
    core.setReg(0, 0, BigInt(end - 8));
    view.setUint32(core.ramBase + end - 8, 7, true);
    view.setInt32(m.low(1), -1, true);
    view.setUint32(m.low(0), 0xdead, true);
    view.setUint32(m.low(0) + 4, 0xbeef, true);
    const reason = core.run(0);
    expect([reason, view.getUint32(m.cpu + S_EXC, true) - 1]).toEqual([EXIT_EXCEPTION, PF]);
    expect(core.getRip(0)).toBe(BigInt(CODE + 5));
    expect([view.getUint32(m.low(3), true), view.getUint32(m.low(3) + 4, true)]).toEqual([7, 0]);
    expect(view.getUint32(core.ramBase + end - 4, true)).toBe(0);
    expect(view.getUint32(core.ramBase + end - 8, true)).toBe(7);
  });
});
