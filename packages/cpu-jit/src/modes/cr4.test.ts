import { afterAll, describe, expect, test } from 'vitest';
import { S_CR4 } from '../layout.ts';
import { AT, END, EventMachine, VEC } from '../testing/event-machine.ts';

/** SDM vol. 3, 2.5: bits of CR4 whose features CPUID does not report are reserved, and setting one raises #GP(0). */
const RESERVED = { VME: 0, PVI: 1, VMXE: 13, SMXE: 14, 'bit 15': 15, 'bit 19': 19, CET: 23, PKS: 24, UINTR: 25, 'bit 31': 31 } as const;
const OFFERED = { TSD: 2, DE: 3, PGE: 7, PCE: 8, OSFXSR: 9, OSXMMEXCPT: 10, UMIP: 11, FSGSBASE: 16, OSXSAVE: 18, SMEP: 20, SMAP: 21, PKE: 22 } as const;
/** MOV CR4, RAX. */
const MOV_CR4 = [0x0f, 0x22, 0xe0];

for (const jit of ['off', 'sync'] as const) {
  describe(`MOV to CR4 (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());
    const run = (mode: 'long' | 'protected', bit: number) =>
      m.runCase(() => {
        m.reset(mode);
        m.bytes(AT.code, [...MOV_CR4, END]);
        m.core.setReg(0, 0, m.get64(S_CR4) | (1n << BigInt(bit)));
      });
    test.each(Object.entries(RESERVED))('%s is reserved', (_, bit) => {
      expect(run('long', bit)).toMatchObject({ vector: VEC.GP, error: 0, ip: AT.code });
      expect(run('protected', bit)).toMatchObject({ vector: VEC.GP, error: 0, ip: AT.code });
    });
    // The code lies in pages of user code.
    test.each(Object.entries(OFFERED).filter(([name]) => name !== 'SMAP' && name !== 'SMEP'))('%s can be set', (_, bit) => {
      expect(run('long', bit)).toMatchObject({ vector: VEC.BP });
    });
  });
}
