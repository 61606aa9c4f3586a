import { afterAll, describe, expect, test } from 'vitest';
import { AT, END, EventMachine, VEC } from '../testing/event-machine.ts';

/** IA32_PAT and the MTRRs: what may be written, and that it is read back (SDM vol. 3, 12.11, 12.12.2). */

const [RAX, RCX, RDX] = [0, 1, 2];
const RDMSR = [0x0f, 0x32];
const WRMSR = [0x0f, 0x30];
const PAT = 0x277;
const MTRR_CAP = 0xfe;
const MTRR_DEF_TYPE = 0x2ff;
const VARIABLE = Array.from({ length: 8 }, (_, n) => 0x200 + 2 * n);
const FIXED = [0x250, 0x258, 0x259, ...Array.from({ length: 8 }, (_, n) => 0x268 + n)];
/** Physical addresses have 46 bits (CPUID leaf 80000008H). */
const FIRST_RESERVED = 46n;
const EVERY_BYTE = Array.from({ length: 256 }, (_, n) => n);
const bytes = (n: number) => BigInt(n) * 0x0101_0101_0101_0101n;

/** Which memory types there are, from the manual's tables 12-8 and 12-10. */
const isMtrrType = (type: number) => ['UC', 'WC', '', '', 'WT', 'WP', 'WB'].at(type) !== '' && type < 7;
const isPatType = (type: number) => isMtrrType(type) || type === 7;

for (const jit of ['off', 'sync'] as const) {
  describe(`memory types (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());
    m.reset('long');
    const exec = (code: readonly number[], msr: number, value = 0n) => {
      m.bytes(AT.code, [...code, END]);
      m.core.setRip(0, BigInt(AT.code));
      m.core.setReg(0, 4, BigInt(AT.stack0));
      m.core.setReg(0, RCX, BigInt(msr));
      m.core.setReg(0, RAX, value & 0xffff_ffffn);
      m.core.setReg(0, RDX, value >> 32n);
      m.core.setLimit(0, m.core.stats(0).instructions + 1000n);
      return m.run();
    };
    const read = (msr: number) => {
      expect(exec(RDMSR, msr).vector).toBe(VEC.BP);
      return (m.core.getReg(0, RDX) << 32n) | m.core.getReg(0, RAX);
    };
    /** Writes, and expects either #GP(0) and the old value, or the new one. */
    const write = (msr: number, value: bigint, isAllowed: boolean) => {
      const before = read(msr);
      const o = exec(WRMSR, msr, value);
      const what = `WRMSR ${msr.toString(16)} ${value.toString(16)}`;
      expect([what, o.vector, o.error]).toEqual([what, ...(isAllowed ? [VEC.BP, undefined] : [VEC.GP, 0])]);
      expect([what, read(msr)]).toEqual([what, isAllowed ? value : before]);
    };

    test('IA32_PAT takes the memory types there are, in every entry, and #GP all others', () => {
      for (const type of EVERY_BYTE)
        for (const entry of [0n, 3n, 7n]) write(PAT, 0x0606_0606_0606_0606n ^ ((6n ^ BigInt(type)) << (8n * entry)), isPatType(type));
    });
    test('IA32_MTRRCAP says eight variable ranges, fixed ranges and write-combining, and cannot be written', () => {
      expect(read(MTRR_CAP)).toBe(0x508n);
      expect(exec(WRMSR, MTRR_CAP, 0x508n)).toMatchObject({ vector: VEC.GP, error: 0 });
    });
    test('fixed ranges take memory types only', () => {
      for (const msr of FIXED) for (const type of [0, 1, 2, 3, 4, 5, 6, 7, 0x80]) write(msr, bytes(type), isMtrrType(type));
      for (const type of EVERY_BYTE) write(0x250, BigInt(type) << 40n, isMtrrType(type));
    });
    test('variable ranges take a type and an address, and #GP reserved bits', () => {
      for (const msr of VARIABLE) {
        for (const type of [0, 1, 2, 3, 4, 5, 6, 7, 0xff]) write(msr, 0x1234_5000n | BigInt(type), isMtrrType(type));
        write(msr + 1, 0x3f_ffff_f800n, true);
      }
      for (let bit = 0n; bit < 64n; bit++) {
        write(0x200, 1n << bit, bit < 8n ? isMtrrType(1 << Number(bit)) : bit >= 12n && bit < FIRST_RESERVED);
        write(0x201, 1n << bit, bit >= 11n && bit < FIRST_RESERVED);
      }
    });
    test('the default type has two enable bits, and reserved ones', () => {
      for (const type of EVERY_BYTE) write(MTRR_DEF_TYPE, 0xc00n | BigInt(type), isMtrrType(type));
      for (let bit = 8n; bit < 64n; bit++) write(MTRR_DEF_TYPE, 6n | (1n << bit), bit === 10n || bit === 11n);
    });
  });
}
