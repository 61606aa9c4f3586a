import { afterAll, describe, expect, test } from 'vitest';
import { AT, END, EventMachine, FLAG, le, VEC } from '../testing/event-machine.ts';

/** #AC: SDM vol. 3, 7.15 (table 7-7), and what a processor does where that leaves it open; each row was tried on one. */

const CR0_AM = 1 << 18;
const D = AT.data + 0x100;
/** Instructions with a memory operand at (%rsi): the smallest offset from a multiple of 16 that raises #AC, and the largest multiple that does not help. */
const rules: readonly (readonly [what: string, code: readonly number[], checked: readonly number[], free: readonly number[]])[] = [
  ['a byte', [0x8a, 0x06], [], [1]],
  ['a word', [0x66, 0x8b, 0x06], [1], [2]],
  ['a doubleword', [0x8b, 0x06], [1, 2], [4]],
  ['a quadword', [0x48, 0x8b, 0x06], [1, 2, 4], [8]],
  ['a store', [0x48, 0x89, 0x06], [4], [8]],
  ['a locked instruction', [0xf0, 0x01, 0x06], [2], [4]],
  ['xchg', [0x66, 0x87, 0x06], [1], [2]],
  ['cmpxchg8b', [0x0f, 0xc7, 0x0e], [4], [8]],
  ['bt', [0x0f, 0xa3, 0x0e], [2], [4]],
  ['movs', [0x48, 0xa5], [4], [8]],
  ['lods', [0x66, 0xad], [1], [2]],
  ['movups', [0x0f, 0x10, 0x06], [], [1, 2, 4, 8]],
  ['a movdqu store', [0xf3, 0x0f, 0x7f, 0x06], [], [1, 8]],
  ['pcmpistri', [0x66, 0x0f, 0x3a, 0x63, 0x06, 0x00], [], [1, 8]],
  ['movlps', [0x0f, 0x12, 0x06], [4], [8]],
  ['movss', [0xf3, 0x0f, 0x10, 0x06], [2], [4]],
  ['pmovzxbw', [0x66, 0x0f, 0x38, 0x30, 0x06], [4], [8]],
  ['flds', [0xd9, 0x06], [2], [4]],
  ['fldl', [0xdd, 0x06], [4], [8]],
  ['fldt', [0xdb, 0x2e], [2, 4], [8]],
  ['fildll', [0xdf, 0x2e], [4], [8]],
  ['fbld', [0xdf, 0x26], [4], [8]],
  ['fnstenv', [0xd9, 0x36], [1, 2], [4]],
  ['fnsave', [0xdd, 0x36], [2], [4]],
  ['fnstcw', [0xd9, 0x3e], [1], [2]],
  ['stmxcsr', [0x0f, 0xae, 0x1e], [2], [4]],
  ['lea', [0x48, 0x8d, 0x46, 0x01], [], [1]],
  ['prefetch', [0x0f, 0x18, 0x0e], [], [1]],
];

for (const jit of ['off', 'sync'] as const) {
  describe(`alignment checks (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());

    const run = (code: readonly number[], address: bigint, prepare: () => void = () => m.toUser(FLAG.AC)) =>
      m.runCase(() => {
        m.reset('long');
        m.cr0(CR0_AM);
        m.cr4(0x600);
        m.bytes(AT.code, [...code, END]);
        prepare();
        m.core.setReg(0, 6, address);
        m.core.setReg(0, 7, BigInt(D + 0x200));
        m.core.setReg(0, 1, 0n);
      });

    test.each(rules)('%s', (_, code, checked, free) => {
      for (const offset of checked) expect([offset, run(code, BigInt(D + offset))]).toMatchObject([offset, { vector: VEC.AC, error: 0, ip: AT.code }]);
      for (const offset of free) expect([offset, run(code, BigInt(D + offset)).vector]).toEqual([offset, VEC.BP]);
    });

    test.each([
      [
        'without CR0.AM',
        () => {
          m.cr0(0, CR0_AM);
          m.toUser(FLAG.AC);
        },
      ],
      ['without RFLAGS.AC', () => m.toUser()],
      ['at privilege 0', () => m.core.setRflags(0, BigInt(FLAG.AC | 2))],
    ] as const)('nothing is checked %s', (_, prepare) => {
      expect(run([0x48, 0x8b, 0x06], BigInt(D + 1), prepare).vector).toBe(VEC.BP);
    });

    test('POPF switches it on and off, also in code that has found its pages before', () => {
      // mov (%rsi),%eax; pushf; orl $AC,(%rsp); popf; mov (%rsi),%eax
      const on = [0x8b, 0x06, 0x9c, 0x81, 0x0c, 0x24, ...le(FLAG.AC, 4), 0x9d, 0x8b, 0x06];
      expect(run(on, BigInt(D + 1), () => m.toUser())).toMatchObject({ vector: VEC.AC, ip: AT.code + 11 });
      const off = [0x9c, 0x81, 0x24, 0x24, ...le(~FLAG.AC, 4), 0x9d, 0x8b, 0x06];
      expect(run(off, BigInt(D + 1))).toMatchObject({ vector: VEC.BP });
    });
    test('a push to a stack that is not aligned', () => {
      const o = run([0x50], 0n, () => {
        m.toUser(FLAG.AC);
        m.core.setReg(0, 4, BigInt(AT.stack3 - 4));
      });
      expect(o).toMatchObject({ vector: VEC.AC, ip: AT.code });
    });
    test('a handler at privilege 0 is not checked, and IRET to user code is again', () => {
      // The handler reads a misaligned word and goes back; then the user does.
      const o = run([0xcd, 0x40, 0x8b, 0x06], BigInt(D + 1), () => {
        m.toUser(FLAG.AC);
        m.bytes(AT.handlers + 0x40 * 16, [0x8b, 0x06, 0x48, 0xcf]);
      });
      expect(o).toMatchObject({ vector: VEC.AC, ip: AT.code + 2 });
    });
    test('it comes before a page fault and after #GP for an address that is not canonical', () => {
      expect(run([0x48, 0x8b, 0x06], 0x1234_5001n).vector).toBe(VEC.AC);
      expect(run([0x48, 0x8b, 0x06], 0x1234_5008n).vector).toBe(VEC.PF);
      expect(run([0x48, 0x8b, 0x06], 0x8000_0000_0001n).vector).toBe(VEC.GP);
    });
    test('an aligned SSE operand raises #GP as ever', () => {
      expect(run([0x0f, 0x28, 0x06], BigInt(D + 8))).toMatchObject({ vector: VEC.GP, error: 0 });
    });
  });
}
