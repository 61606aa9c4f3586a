import { describe, expect, it } from 'vitest';
import { CpuCore } from '../cpu.ts';
import { EXIT_LIMIT, S_HOT_THRESHOLD } from '../layout.ts';

// Code that never branches backward or indirectly comes to no ordinary check point; where addresses wrap around, or pages have many addresses, it can go on for ever.

const LIMIT = 10_000n;
/** What is let go beyond the limit, with a region of compiled code on top. */
const AT_MOST = LIMIT + (1n << 20n) + 50_000n;
const PAGE = 4096;
const RAM = 8 << 20;
const NOP = 0x90;
const GDT = 0x9000;
const SELECTORS = { code64: 8, data: 16, code32: 24, code16: 32 } as const;
const DESCRIPTORS = [0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn, 0x00cf_9b00_0000_ffffn, 0x0000_9b00_0000_ffffn];

const le = (value: number, size: number) => Array.from({ length: size }, (_, i) => (value >>> (8 * i)) & 0xff);

class Machine {
  readonly core: CpuCore;
  private constructor(core: CpuCore, isHot: boolean) {
    this.core = core;
    if (isHot) core.u32[(core.cpuAddress(0) + S_HOT_THRESHOLD) >>> 2] = 1;
    DESCRIPTORS.forEach((descriptor, i) => {
      this.put64(GDT + 8 * i, descriptor);
    });
  }
  static async create(jit: 'off' | 'sync'): Promise<Machine> {
    return new Machine(await CpuCore.create({ ramBytes: RAM, jit }), jit === 'sync');
  }
  put64(at: number, value: bigint): void {
    this.core.view.setBigUint64(this.core.ramBase + at, value, true);
  }
  bytes(at: number, bytes: readonly number[]): void {
    this.core.u8.set(bytes, this.core.ramBase + at);
  }
  enter(mode: 'long' | 'protected', rip: number): void {
    this.core.enterFlat(0, mode, {
      rip: BigInt(rip),
      rsp: 0x6000n,
      cr3: 0x1000n,
      codeSelector: mode === 'long' ? SELECTORS.code64 : SELECTORS.code32,
      dataSelector: SELECTORS.data,
      gdt: { base: BigInt(GDT), limit: 8 * DESCRIPTORS.length - 1 },
    });
  }
  /** Every page of the lower half of the address space is one of NOPs. */
  enterPlain(): void {
    for (let i = 0; i < 512; i++) {
      if (i < 256) this.put64(0x1000 + 8 * i, 0x2007n);
      for (const table of [0x2000, 0x3000]) this.put64(table + 8 * i, BigInt(table + 0x1007));
      this.put64(0x4000 + 8 * i, 0x8003n);
    }
    this.bytes(0x8000, new Array<number>(PAGE).fill(NOP));
    this.enter('long', 0x10_0000);
  }
  /** Runs to the limit. @returns instructions retired */
  run(): bigint {
    const { core } = this;
    core.setLimit(0, LIMIT);
    expect(core.run(0)).toBe(EXIT_LIMIT);
    return core.stats().instructions;
  }
}

describe.each(['off', 'sync'] as const)('code without backward branches (JIT %s) ends at the limit', (jit) => {
  it('where one page of straight code fills the address space', async () => {
    const m = await Machine.create(jit);
    m.enterPlain();
    const count = m.run();
    expect(count).toBeGreaterThanOrEqual(LIMIT);
    expect(count).toBeLessThan(AT_MOST);
    await m.core.dispose();
  });

  it('where it is asked to end again and again, as by interrupts that it does not take', async () => {
    const m = await Machine.create(jit);
    m.enterPlain();
    const { core } = m;
    core.setLimit(0, LIMIT);
    for (let i = 0; i < 10; i++) core.setLimit(0, 0n);
    expect(core.run(0)).toBe(EXIT_LIMIT);
    expect(core.stats().instructions).toBeLessThan(AT_MOST);
    await core.dispose();
  });

  it('where 32-bit jumps go forward and around', async () => {
    const m = await Machine.create(jit);
    // 4 MiB pages, all of them the first 4 MiB.
    for (let i = 0; i < 1024; i++) m.bytes(0x1000 + 4 * i, le(0x83, 4));
    const jump = 0x8100;
    const start = [0xb8, ...le(0x1000, 4), 0x0f, 0x22, 0xd8, 0xb8, ...le(0x10, 4), 0x0f, 0x22, 0xe0, 0xb8, ...le(0x8000_0011, 4), 0x0f, 0x22, 0xc0];
    m.bytes(0x8000, [...start, 0xe9, ...le(jump - 0x8000 - start.length - 5, 4)]);
    m.bytes(jump, [0xe9, ...le(0x4000_0000 - 5, 4)]);
    m.enter('protected', 0x8000);
    expect(m.run()).toBeLessThan(AT_MOST);
    await m.core.dispose();
  });

  it('where 16-bit jumps go forward and around', async () => {
    const m = await Machine.create(jit);
    for (const at of [0, 0x4000, 0x8000, 0xc000]) m.bytes(at + 0x100, [0xe9, ...le(0x4000 - 3, 2)]);
    m.bytes(0x5000, [0xea, ...le(0x100, 4), ...le(SELECTORS.code16, 2)]);
    m.enter('protected', 0x5000);
    expect(m.run()).toBeLessThan(LIMIT + 10n);
    await m.core.dispose();
  });
});
