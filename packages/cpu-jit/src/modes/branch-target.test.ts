import { afterAll, describe, expect, test } from 'vitest';
import { CS } from '../layout.ts';
import { AT, END, EventMachine, le, SEL, VEC } from '../testing/event-machine.ts';

/** Branches to where no code can be fault themselves, with everything as before them (SDM vol. 2, JMP, CALL, RET). */

const BAD = [1n << 47n, 0x8000_0000_0001n, -(1n << 47n) - 1n, 0x1234_5678_9abc_def0n];
const GOOD = 0x7fff_ffff_f000n;
const CR4_LA57 = 1 << 12;

for (const jit of ['off', 'sync'] as const) {
  describe(`branch targets (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());

    const run = (code: readonly number[], target: bigint) =>
      m.runCase(() => {
        m.reset('long');
        m.bytes(AT.code, [...code, END]);
        m.core.setReg(0, 0, target);
        m.core.setReg(0, 6, BigInt(AT.data));
        m.u64(AT.data, target);
        m.u64(AT.stack0, target);
        m.core.setRflags(0, 0x8d7n);
      });
    const branches: readonly (readonly [string, readonly number[]])[] = [
      ['jmp *%rax', [0xff, 0xe0]],
      ['jmp *(%rsi)', [0xff, 0x26]],
      ['call *%rax', [0xff, 0xd0]],
      ['call *(%rsi)', [0xff, 0x16]],
      ['ret', [0xc3]],
      ['ret $16', [0xc2, 0x10, 0x00]],
    ];
    test.each(branches)('%s to an address that is not canonical raises #GP at the branch', (_, code) => {
      for (const target of BAD) {
        const o = run([0x90, ...code], target);
        expect(o).toMatchObject({ vector: VEC.GP, error: 0, ip: AT.code + 1 });
        // The stack pointer that the handler finds saved is the one before the branch.
        expect(o.sp).toBe(AT.stack0);
        expect(o.flags & 0x8d5).toBe(0x8d5);
      }
    });
    test.each(branches)('%s to a canonical address without a page faults there', (_, code) => {
      const o = run([0x90, ...code], GOOD);
      expect(o).toMatchObject({ vector: VEC.PF, ip: Number(GOOD & 0xffff_ffffn) });
      expect(m.cr2).toBe(GOOD);
    });
    test('a hot RET that once goes wrong faults there', () => {
      // mov $3000,%ecx; l: call f; loop l; push %rax; f: ret
      const o = run([0xb9, ...le(3000, 4), 0xe8, ...le(3, 4), 0xe2, 0xf9, 0x50, 0xc3], 1n << 47n);
      expect(o).toMatchObject({ vector: VEC.GP, ip: AT.code + 13, sp: AT.stack0 - 8 });
    });
    test('with five levels more addresses are canonical', () => {
      const wide = (target: bigint) =>
        m.runCase(() => {
          m.reset('long');
          // Another level on top of the tables.
          m.u64(AT.tables + 0x3000, BigInt(AT.tables + 7));
          m.set64(0x230, BigInt(AT.tables + 0x3000));
          m.core.view.setUint32(m.core.cpuAddress(0) + 0x818, 5, true);
          m.cr4(CR4_LA57);
          m.bytes(AT.code, [0xff, 0xe0]);
          m.core.setReg(0, 0, target);
        });
      expect(wide(1n << 47n)).toMatchObject({ vector: VEC.PF });
      expect(m.cr2).toBe(1n << 47n);
      expect(wide(1n << 56n)).toMatchObject({ vector: VEC.GP, ip: AT.code });
    });

    describe('of relative branches over the border of the canonical addresses', () => {
      const TOP = 0x7fff_ffff_ff00n;
      const BOTTOM = -(1n << 47n) + 0x40n;
      /** Physical addresses of the two. */
      const TOP_AT = 0x1f_ff00;
      const BOTTOM_AT = 0x10_0040;
      const relative = (code: readonly number[], rip: bigint, flags = 2n) =>
        m.runCase(() => {
          m.reset('long');
          // 2 MiB below the border, and 2 MiB above it, from 1 MiB on.
          m.u64(AT.tables + 255 * 8, BigInt(AT.tables + 0x4007));
          m.u64(AT.tables + 0x4000 + 511 * 8, BigInt(AT.tables + 0x5007));
          m.u64(AT.tables + 0x5000 + 511 * 8, 0x87n);
          m.u64(AT.tables + 256 * 8, BigInt(AT.tables + 0x6007));
          m.u64(AT.tables + 0x6000, BigInt(AT.tables + 0x7007));
          m.u64(AT.tables + 0x7000, BigInt(AT.tables + 0x3007));
          m.u64(AT.tables + 0x3000, 0x10_0007n);
          m.bytes(rip === TOP ? TOP_AT : BOTTOM_AT, [...code, END].slice(0, 0x100));
          m.core.setRip(0, rip);
          m.core.setReg(0, 1, 5n);
          m.core.setRflags(0, flags);
        });
      const low = (rip: bigint) => Number(BigInt.asUintN(32, rip));
      const ZF = 0x42n;
      test.each([
        ['jmp', [0xe9, ...le(0x1000, 4)], 2n],
        ['call', [0xe8, ...le(0x1000, 4)], 2n],
        ['jz', [0x0f, 0x84, ...le(0x1000, 4)], ZF],
        ['loop', [...new Array<number>(0x90).fill(0x90), 0xe2, 0x7f], 2n],
      ] as const)('%s raises #GP at the branch, with nothing done', (_, code, flags) => {
        const o = relative(code, TOP, flags);
        const nops = code.findIndex((b) => b !== 0x90);
        expect(o).toMatchObject({ vector: VEC.GP, error: 0, ip: low(TOP + BigInt(nops)), sp: AT.stack0 });
        expect(m.reg(1)).toBe(5);
      });
      test('backward as well', () => {
        expect(relative([0x90, 0xeb, 0x80], BOTTOM)).toMatchObject({ vector: VEC.GP, error: 0, ip: low(BOTTOM + 1n) });
      });
      test('one that is not taken goes on, and so does one that stays on its side', () => {
        expect(relative([0x0f, 0x84, ...le(0x1000, 4)], TOP)).toMatchObject({ vector: VEC.BP, ip: low(TOP + 7n) });
        expect(relative([0xeb, 0x10, ...new Array<number>(0x10).fill(0x90)], TOP)).toMatchObject({ vector: VEC.BP, ip: low(TOP + 19n) });
      });
      test('running over the border faults there', () => {
        const o = relative(new Array<number>(0x100).fill(0x90), TOP);
        expect(o).toMatchObject({ vector: VEC.GP, error: 0, ip: 0 });
      });
    });

    describe('beyond the limit of CS', () => {
      const LIMIT = AT.code + 0xff;
      const limited = (code: readonly number[], eax = 0x2_0000) =>
        m.runCase(() => {
          m.reset('protected');
          m.core.setSegment(0, CS, { selector: SEL.code16, base: 0n, limit: LIMIT, attr: 0x409b });
          m.core.modeChanged(0);
          m.bytes(AT.code, [...code, END]);
          m.core.setReg(0, 0, BigInt(eax));
          m.core.setReg(0, 1, 5n);
          m.u32(AT.stack0, eax);
        });
      test.each([
        ['jmp', [0xe9, ...le(0x1000, 4)]],
        ['call', [0xe8, ...le(0x1000, 4)]],
        ['jz (taken)', [0x0f, 0x84, ...le(0x1000, 4)]],
        ['jmp *%eax', [0xff, 0xe0]],
        ['call *%eax', [0xff, 0xd0]],
        ['ret', [0xc3]],
      ] as const)('%s raises #GP at the branch', (_, code) => {
        // xor %edx, %edx: ZF
        const o = limited([0x31, 0xd2, ...code]);
        expect(o).toMatchObject({ vector: VEC.GP, error: 0, ip: AT.code + 2 });
        expect(m.reg(4)).toBe(AT.stack0 - 16);
      });
      test('LOOP leaves ECX alone', () => {
        const o = m.runCase(() => {
          m.reset('protected');
          m.core.setSegment(0, CS, { selector: SEL.code16, base: 0n, limit: AT.code + 0x10, attr: 0x409b });
          m.core.modeChanged(0);
          m.core.setReg(0, 1, 5n);
          m.bytes(AT.code, [0xe2, 0x7f]);
        });
        expect(o).toMatchObject({ vector: VEC.GP, ip: AT.code });
        expect(m.reg(1)).toBe(5);
      });
      test('running over the end raises #GP at the instruction that does', () => {
        const o = m.runCase(() => {
          m.reset('protected');
          m.core.setSegment(0, CS, { selector: SEL.code16, base: 0n, limit: AT.code + 3, attr: 0x409b });
          m.core.modeChanged(0);
          m.bytes(AT.code, [0x90, 0x90, 0xb8, ...le(5, 4)]);
        });
        expect(o).toMatchObject({ vector: VEC.GP, error: 0, ip: AT.code + 2 });
      });
      test('in real mode IP beyond 64 KiB raises #GP', () => {
        const o = m.runCase(() => {
          m.reset('real');
          // jmpl .+0x10000 with a 32-bit operand
          m.bytes(AT.code, [0x66, 0xe9, ...le(0x1_0000, 4)]);
        });
        expect(o).toMatchObject({ vector: VEC.GP, ip: AT.code });
      });
    });
  });
}
