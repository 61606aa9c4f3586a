import { expect, test } from 'vitest';
import { EXIT_EXCEPTION, EXIT_HLT, S_CR4, S_EXC_ERROR, V_EXC_BITMAP } from './layout.ts';
import { CODE, HLT, KernelMachine } from './testing/kernel-machine.ts';

const CR4_SMAP = 1 << 21;
const USER = 0x20_0000;
const TURNS = 200;
const STAC = [0x0f, 0x01, 0xcb];
const CLAC = [0x0f, 0x01, 0xca];
/** INC BYTE [USER]. */
const INC = [0xfe, 0x04, 0x25, 0, 0, 0x20, 0];

/** A kernel whose second 2 MiB belong to user code. */
async function kernel(code: readonly number[], jit: 'off' | 'sync'): Promise<KernelMachine> {
  const m = await KernelMachine.create(code, jit);
  m.put(0x3000, 0x83n);
  m.put(0x3008, BigInt(USER | 0x87));
  m.field(V_EXC_BITMAP, -1);
  m.core.writeControl(0, S_CR4, BigInt(m.field(S_CR4) | CR4_SMAP));
  return m;
}

test.each(['off', 'sync'] as const)(
  'a kernel copies to user memory between STAC and CLAC without missing the TLB, and faults outside (JIT %s)',
  async (jit) => {
    const body = [...STAC, ...INC, ...CLAC];
    const loop = [0xb9, TURNS, 0, 0, 0, ...body, 0xff, 0xc9, 0x75, 0x100 - 4 - body.length];
    const m = await kernel([...loop, HLT, ...INC], jit);
    expect(m.core.run(0)).toBe(EXIT_HLT);
    expect(m.core.u8[m.core.ramBase + USER]).toBe(TURNS);
    expect(m.core.stats(0).tlbMisses).toBeLessThan(10);
    m.core.setRip(0, BigInt(CODE + loop.length + 1));
    expect(m.core.run(0)).toBe(EXIT_EXCEPTION);
    expect(m.field(S_EXC_ERROR)).toBe(3);
    expect(m.core.stats(0).compiledEntries > 0).toBe(jit === 'sync');
    await m.core.dispose();
  },
);

test.each(['off', 'sync'] as const)('accesses on both sides of a CLAC in one block are told apart (JIT %s)', async (jit) => {
  const m = await kernel([...STAC, ...INC, ...INC, ...CLAC, ...INC], jit);
  expect(m.core.run(0)).toBe(EXIT_EXCEPTION);
  expect(m.core.getRip(0)).toBe(BigInt(CODE + 3 + 7 + 7 + 3));
  expect(m.core.u8[m.core.ramBase + USER]).toBe(2);
  await m.core.dispose();
});

test.each(['off', 'sync'] as const)('an access that begins in a closed page and ends in the next faults as others do (JIT %s)', async (jit) => {
  /** MOV EAX, [USER + 0xFFE]. */
  const across = [0x8b, 0x04, 0x25, 0xfe, 0x0f, 0x20, 0];
  const m = await kernel([...STAC, ...INC, ...CLAC, ...across, HLT], jit);
  expect(m.core.run(0)).toBe(EXIT_EXCEPTION);
  expect(m.core.getRip(0)).toBe(BigInt(CODE + 3 + 7 + 3));
  await m.core.dispose();
});
