/** When MXCSR's exception flags are noted (assembly/mxcsr.ts), by programs that look at them. What is noted is compared with silicon elsewhere. */
import { afterEach, describe, expect, test } from 'vitest';
import { Cpu } from '../api/index.ts';

const CODE = 0x1_0000;
const IMAGE = 0x2_0000;
const OTHER_IMAGE = 0x2_1000;
const VALUE = 0x2_2000;
const HLT = 0xf4;
const DEFAULT = 0x1f80;
const [DE, ZE, PE] = [2, 4, 0x20];
const [DAZ, FTZ] = [0x40, 0x8000];
const MXCSR_AT = 24;

const le32 = (n: number) => [n & 255, (n >> 8) & 255, (n >> 16) & 255, (n >>> 24) & 255];
const absolute = (digit: number) => (at: number) => [0x0f, 0xae, (digit << 3) | 4, 0x25, ...le32(at)];
const [fxsave, fxrstor, ldmxcsr, stmxcsr, xsave, xrstor] = [0, 1, 2, 3, 4, 5].map(absolute) as [ToCode, ToCode, ToCode, ToCode, ToCode, ToCode];
type ToCode = (at: number) => number[];
/** xmm2 = xmm0 / xmm1; */
const DIVIDE = [0x0f, 0x28, 0xd0, 0xf2, 0x0f, 0x5e, 0xd1];
/** 1000 turns of `code`. */
const loop = (code: readonly number[]) => [0xb9, ...le32(1000), ...code, 0xff, 0xc9, 0x75, 0x100 - 4 - code.length];
/** MOV EAX, 7; XOR EDX, EDX: all components of the state. */
const ALL_COMPONENTS = [0xb8, ...le32(7), 0x31, 0xd2];

const made: Cpu[] = [];
afterEach(async () => {
  await Promise.all(made.splice(0).map((cpu) => cpu.dispose()));
});

class Program {
  readonly cpu: Cpu;
  private at = CODE;
  private constructor(cpu: Cpu) {
    this.cpu = cpu;
  }
  static async create(tier: 'interp' | 'sync'): Promise<Program> {
    const cpu = await Cpu.create({ memory: 4 << 20, tier, cpu: 'v3' });
    made.push(cpu);
    cpu.map(CODE, 4096, 'rx');
    cpu.map(IMAGE, 3 * 4096, 'rw');
    return new Program(cpu);
  }
  /** Runs new code. */
  run(...code: readonly (readonly number[])[]): void {
    const start = this.at;
    const bytes = [...code.flat(), HLT];
    this.cpu.write(start, Uint8Array.from(bytes));
    this.at += (bytes.length + 15) & ~15;
    this.again(start);
  }
  /** Runs code once more that lies at `start`. */
  again(start: number): void {
    this.cpu.set('rip', start);
    expect(this.cpu.run()).toEqual({ kind: 'hlt' });
  }
  divide(a: number, b: number): void {
    this.operands(a, b);
    this.run(DIVIDE);
  }
  operands(a: number, b: number): void {
    const bits = new DataView(new ArrayBuffer(16));
    bits.setFloat64(0, a, true);
    bits.setFloat64(8, b, true);
    this.cpu.set('xmm0', bits.getBigUint64(0, true));
    this.cpu.set('xmm1', bits.getBigUint64(8, true));
  }
  setMxcsr(value: number): void {
    this.cpu.write(VALUE, Uint8Array.from(le32(value)));
    this.run(ldmxcsr(VALUE));
  }
  mxcsr(): number {
    this.run(stmxcsr(VALUE));
    return this.word(VALUE);
  }
  word(at: number): number {
    const b = this.cpu.read(at, 4);
    return new DataView(b.buffer, b.byteOffset).getUint32(0, true);
  }
}

describe.each(['interp', 'sync'] as const)('tier %s', (tier) => {
  test('exceptions are noted from the first LDMXCSR on', async () => {
    const p = await Program.create(tier);
    p.divide(1, 0);
    expect(p.mxcsr()).toBe(DEFAULT);
    p.setMxcsr(DEFAULT);
    expect(p.mxcsr()).toBe(DEFAULT);
    p.divide(1, 0);
    expect(p.mxcsr()).toBe(DEFAULT | ZE);
    p.divide(1, 3);
    expect(p.mxcsr()).toBe(DEFAULT | ZE | PE);
    expect(p.cpu.get('mxcsr')).toBe(BigInt(DEFAULT | ZE | PE));
    p.setMxcsr(DEFAULT);
    p.divide(2 ** -1074, 1);
    expect(p.mxcsr()).toBe(DEFAULT | DE);
  });

  test('reserved bits of MXCSR raise #GP, the one that says it was loaded too', async () => {
    const p = await Program.create(tier);
    p.cpu.write(VALUE, Uint8Array.from(le32(0x1_1f80)));
    p.cpu.load(0x8000, ldmxcsr(VALUE));
    p.cpu.set('rip', 0x8000);
    expect(p.cpu.run()).toMatchObject({ kind: 'exception', vector: 13 });
  });

  test('a hot loop notes exceptions when it is run again after LDMXCSR', async () => {
    const p = await Program.create(tier);
    p.operands(1, 3);
    p.run(loop(DIVIDE));
    const regions = p.cpu.core.stats(0).jit?.regions ?? 0;
    expect(p.mxcsr()).toBe(DEFAULT);
    p.setMxcsr(DEFAULT);
    const interpreted = p.cpu.core.stats(0).interpreterBlocks;
    p.again(CODE);
    expect(p.mxcsr()).toBe(DEFAULT | PE);
    p.operands(1, 0);
    p.again(CODE);
    expect(p.mxcsr()).toBe(DEFAULT | PE | ZE);
    // Not left to the interpreter.
    if (tier === 'sync') {
      expect(p.cpu.core.stats(0).jit?.regions).toBe(regions + 1);
      expect(p.cpu.core.stats(0).interpreterBlocks - interpreted).toBeLessThan(20);
    }
  });

  test('FTZ and DAZ hold in hot loops', async () => {
    const p = await Program.create(tier);
    p.setMxcsr(DEFAULT | FTZ | DAZ | PE);
    p.operands(2 ** -1000, 2 ** 60);
    p.run(loop(DIVIDE));
    expect(p.cpu.get('xmm2')).toBe(0n);
    p.operands(2 ** -1060, 2 ** -1060);
    p.again(CODE + 16);
    // 0 / 0 is the default NaN.
    expect(p.cpu.get('xmm2')).toBe(0xfff8_0000_0000_0000n);
    p.setMxcsr(DEFAULT);
    p.again(CODE + 16);
    expect(p.cpu.get('xmm2')).toBe(0x3ff0_0000_0000_0000n);
    expect((p.cpu.core.stats(0).jit?.regions ?? 0) > 0).toBe(tier === 'sync');
  });

  test.each([
    ['FXSAVE', [], fxsave, fxrstor],
    ['XSAVE', ALL_COMPONENTS, xsave, xrstor],
  ] as const)('%s images carry it, and show the guest nothing', async (_, before, save, restore) => {
    const p = await Program.create(tier);
    // A program that never loaded MXCSR,
    p.run(before, save(IMAGE));
    // and one that has cleared the flags.
    p.setMxcsr(DEFAULT);
    p.run(before, save(OTHER_IMAGE));
    expect([IMAGE, OTHER_IMAGE].map((at) => p.word(at + MXCSR_AT))).toEqual([DEFAULT, DEFAULT]);
    for (let turn = 0; turn < 2; turn++) {
      p.run(before, restore(IMAGE));
      p.divide(1, 0);
      expect(p.mxcsr()).toBe(DEFAULT);
      p.run(before, restore(OTHER_IMAGE));
      p.divide(1, 0);
      expect(p.mxcsr()).toBe(DEFAULT | ZE);
    }
    // An image with a flag set is one of a program that wants them.
    p.run(before, save(OTHER_IMAGE), restore(IMAGE), restore(OTHER_IMAGE));
    p.divide(1, 3);
    expect(p.mxcsr()).toBe(DEFAULT | ZE | PE);
    // The place is used by another program later.
    p.run(before, restore(IMAGE), save(OTHER_IMAGE), restore(OTHER_IMAGE));
    p.divide(1, 3);
    expect(p.mxcsr()).toBe(DEFAULT);
  });
});
