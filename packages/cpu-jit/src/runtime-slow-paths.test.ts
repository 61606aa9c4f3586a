import { beforeEach, describe, expect, it } from 'vitest';
import { ACCESS_WRITE, CODE_BITS, EXC_RESTART, S_EXC, S_EXIT_ACCESS, S_EXIT_BLOCK, S_EXIT_GPA, S_EXIT_SIZE, S_EXIT_VALUE, S_STEP } from './layout.ts';
import { CPU, RAM_BASE, RAM_BYTES, RuntimeMachine } from './testing/runtime-machine.ts';

/** Bits of a page-table entry (SDM vol. 3, 5.5.4). */
const P = 1n,
  W = 2n;
const m = await RuntimeMachine.create();
beforeEach(() => m.startAnew());

/** HPA of a guest-physical address. */
const hpa = (gpa: number) => RAM_BASE + gpa;

describe('slow paths', () => {
  it('splits accesses that cross a page and writes nothing when the second page faults', () => {
    m.map(0x10_0000n, 0x8_0000n, P | W);
    m.map(0x10_1000n, 0x9_0000n, P | W);
    m.rt.store64(CPU, 0x10_0ffdn, 0x1122_3344_5566_7788n);
    expect(m.rt.load64(CPU, 0x10_0ffdn)).toBe(0x1122_3344_5566_7788n);
    expect(m.u8[hpa(0x8_0ffd)]).toBe(0x88);
    expect(m.u8[hpa(0x9_0004)]).toBe(0x11);
    m.map(0x10_1000n, 0x9_0000n, P);
    m.rt.tlbInvlpg(CPU, 0, 0x10_1000n);
    m.rt.store32(CPU, 0x10_0ffen, 0);
    expect(m.takeException()).toEqual({ vector: 14, error: 3, address: 0x10_1000n });
    expect(m.u8[hpa(0x8_0ffe)]).toBe(0x77);
    m.rt.loadw32(CPU, 0x10_0ffen);
    expect(m.takeException()).toEqual({ vector: 14, error: 3, address: 0x10_1000n });
    expect(m.rt.load32(CPU, 0x10_0ffen)).toBe(0x4455_6677);
  });

  it('passes MMIO to the hook, both halves of a crossing access too', () => {
    m.map(0x10_0000n, BigInt(RAM_BYTES), P | W);
    m.map(0x10_1000n, 0x8_0000n, P | W);
    const log: string[] = [];
    m.hooks.mmio = () => {
      const write = m.get(S_EXIT_ACCESS) === ACCESS_WRITE;
      log.push(
        `${write ? 'w' : 'r'} ${(Number(m.get64(S_EXIT_GPA)) - RAM_BYTES).toString(16)} ${m.get(S_EXIT_SIZE)} ${write ? m.get(S_EXIT_VALUE).toString(16) : ''}`,
      );
      if (!write) m.set(S_EXIT_VALUE, 0xcafe_f00d);
      return 2;
    };
    expect(m.rt.load32(CPU, 0x10_0008n) >>> 0).toBe(0xcafe_f00d);
    m.rt.store16(CPU, 0x10_000cn, 0xbeef);
    m.rt.store32(CPU, 0x10_0ffen, 0x1234_5678);
    expect(m.view.getUint16(hpa(0x8_0000), true)).toBe(0x1234);
    expect(log).toEqual(['r 8 4 ', 'w c 2 beef', 'w ffe 2 5678']);
  });

  it('lets stores beside decoded code through, restarts those over it, and asks to invalidate when stepping', () => {
    m.map(0x10_0000n, 0x8_0000n, P | W);
    m.rt.store8(CPU, 0x10_0000n, 1);
    m.view.setBigUint64(CODE_BITS + (hpa(0x8_0000) >>> 12) * 8, 2n, true);
    m.rt.protectFrame(CPU, hpa(0x8_0000));
    m.rt.store32(CPU, 0x10_003cn, 7);
    expect(m.get(S_EXC)).toBe(0);
    m.rt.store32(CPU, 0x10_003en, 9);
    expect(m.get(S_EXC)).toBe(EXC_RESTART);
    expect(m.rt.load32(CPU, 0x10_003cn)).toBe(7);
    m.set(S_EXC, 0);
    m.set(S_STEP, 1);
    const seen: number[] = [];
    m.hooks.smc = () => seen.push(m.get(S_EXIT_BLOCK), m.get(S_EXIT_SIZE)) - 2;
    m.rt.store32(CPU, 0x10_003en, 9);
    expect(seen).toEqual([hpa(0x8_003e), 4]);
    expect(m.rt.load32(CPU, 0x10_003en)).toBe(9);
    m.view.setBigUint64(CODE_BITS + (hpa(0x8_0000) >>> 12) * 8, 0n, true);
  });

  it('reads descriptor tables at privilege 0 without leaving a trace in the user TLB', () => {
    m.map(0x10_0000n, 0x8_0000n, P | W);
    m.setPhys64(0x8_0ffc, 0x1111_2222_3333_4444n);
    m.map(0x10_1000n, 0x8_1000n, P | W);
    m.setCpl(3);
    expect(m.rt.loadSys64(CPU, 0x10_0ffcn)).toBe(0x1111_2222_3333_4444n);
    m.rt.load8(CPU, 0x10_0ffcn);
    expect(m.takeException()?.error).toBe(5);
  });
});
