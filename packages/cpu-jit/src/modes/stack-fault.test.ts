import { afterAll, describe, expect, test } from 'vitest';
import { AT, END, EventMachine, VEC } from '../testing/event-machine.ts';

/** An address that is not canonical raises #SS(0) when the access is to the stack segment, else #GP(0): SDM vol. 1, 3.3.7.1 and 3.7.4. */

const BAD = 0x1234_5678_9abc_def0n;
const [RAX, RCX, RBX, RSP, RBP, RSI, R12, R13] = [0, 1, 3, 4, 5, 6, 12, 13];

const cases: readonly (readonly [what: string, code: readonly number[], bad: readonly number[], vector: number])[] = [
  ['push %rax', [0x50], [RSP], VEC.SS],
  ['push $1', [0x6a, 1], [RSP], VEC.SS],
  ['push (%rbx), the stack', [0xff, 0x33], [RSP], VEC.SS],
  ['push (%rbx), the operand', [0xff, 0x33], [RBX], VEC.GP],
  ['push (%rbp)', [0xff, 0x75, 0], [RBP], VEC.SS],
  ['pushf', [0x9c], [RSP], VEC.SS],
  ['pop %rax', [0x58], [RSP], VEC.SS],
  ['pop (%rbx), the stack', [0x8f, 0x03], [RSP], VEC.SS],
  ['pop (%rbx), the operand', [0x8f, 0x03], [RBX], VEC.GP],
  ['popf', [0x9d], [RSP], VEC.SS],
  ['call', [0xe8, 0, 0, 0, 0], [RSP], VEC.SS],
  ['call *%rbx', [0xff, 0xd3], [RSP], VEC.SS],
  ['call *(%rsi), the stack', [0xff, 0x16], [RSP], VEC.SS],
  ['call *(%rsi), the operand', [0xff, 0x16], [RSI], VEC.GP],
  ['jmp *(%rsi)', [0xff, 0x26], [RSI], VEC.GP],
  ['jmp *(%rsp)', [0xff, 0x24, 0x24], [RSP], VEC.SS],
  ['ret', [0xc3], [RSP], VEC.SS],
  ['lretq', [0x48, 0xcb], [RSP], VEC.SS],
  ['iretq', [0x48, 0xcf], [RSP], VEC.SS],
  ['enter', [0xc8, 8, 0, 0], [RSP], VEC.SS],
  ['enter with frames', [0xc8, 8, 0, 2], [RBP], VEC.SS],
  ['leave', [0xc9], [RBP], VEC.SS],
  ['mov 8(%rsp),%eax', [0x8b, 0x44, 0x24, 8], [RSP], VEC.SS],
  ['mov %eax,-8(%rbp)', [0x89, 0x45, 0xf8], [RBP], VEC.SS],
  ['mov (%rbp,%rcx),%eax', [0x8b, 0x44, 0x0d, 0], [RCX], VEC.SS],
  ['mov (%rcx,%rbp),%eax', [0x8b, 0x04, 0x29], [RBP], VEC.GP],
  ['mov (%r12),%eax', [0x41, 0x8b, 0x04, 0x24], [R12], VEC.GP],
  ['mov (%r13),%eax', [0x41, 0x8b, 0x45, 0], [R13], VEC.GP],
  ['mov %fs:(%rbp),%eax', [0x64, 0x8b, 0x45, 0], [RBP], VEC.GP],
  ['mov %ds:(%rbp),%eax, an override that counts for nothing', [0x3e, 0x8b, 0x45, 0], [RBP], VEC.SS],
  ['lock add %eax,(%rbp)', [0xf0, 0x01, 0x45, 0], [RBP], VEC.SS],
  ['xchg %eax,(%rsp)', [0x87, 0x04, 0x24], [RSP], VEC.SS],
  ['bt %rax,(%rbp)', [0x48, 0x0f, 0xa3, 0x45, 0], [RBP], VEC.SS],
  ['movups (%rsp),%xmm0', [0x0f, 0x10, 0x04, 0x24], [RSP], VEC.SS],
  ['movups %xmm0,(%rbx)', [0x0f, 0x11, 0x03], [RBX], VEC.GP],
  ['fldt (%rbp)', [0xdb, 0x6d, 0], [RBP], VEC.SS],
  ['fnstenv (%rbp)', [0xd9, 0x75, 0], [RBP], VEC.SS],
  ['fxsave (%rsp)', [0x0f, 0xae, 0x04, 0x24], [RSP], VEC.SS],
  ['lods', [0xac], [RSI], VEC.GP],
  ['stmxcsr (%rsp)', [0x0f, 0xae, 0x1c, 0x24], [RSP], VEC.SS],
];

for (const jit of ['off', 'sync'] as const) {
  describe(`addresses that are not canonical (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());

    test.each(cases)('%s', (_, code, bad, vector) => {
      const o = m.runCase(() => {
        m.reset('long');
        m.cr4(0x600);
        m.bytes(AT.code, [0x90, ...code, END]);
        m.toUser();
        for (const n of [RAX, RCX, RBX, RBP, RSI, R12, R13]) m.core.setReg(0, n, BigInt(AT.data));
        if (bad.includes(RCX)) m.core.setReg(0, RBP, 0n);
        if (bad.includes(RBP) && code.includes(0x29)) m.core.setReg(0, RCX, 0n);
        for (const n of bad) m.core.setReg(0, n, BAD);
      });
      expect(o).toMatchObject({ vector, error: 0, ip: AT.code + 1 });
      const sp = bad.includes(RSP) ? BAD : BigInt(AT.stack3);
      expect(BigInt(o.sp ?? 0)).toBe(BigInt.asUintN(32, sp));
    });

    test('a hot loop over the stack that runs out of the canonical addresses', () => {
      // mov $3000,%ecx; l: push %rax; mov %rbx,%rsp every turn but the last
      const o = m.runCase(() => {
        m.reset('long');
        // l: push %rax; pop %rdx; dec %ecx; cmovz %rbp,%rsp; jmp l
        m.bytes(AT.code, [0x50, 0x5a, 0xff, 0xc9, 0x48, 0x0f, 0x44, 0xe5, 0xeb, 0xf6]);
        m.toUser();
        m.core.setReg(0, RCX, 3000n);
        m.core.setReg(0, RBP, BAD);
      });
      expect(o).toMatchObject({ vector: VEC.SS, error: 0, ip: AT.code });
    });
  });
}
