import { afterAll, describe, expect, test } from 'vitest';
import { CS, S_CODE_SIZE, S_EFER, S_LSTAR, S_STAR, S_SYSENTER_CS, S_SYSENTER_EIP, S_SYSENTER_ESP } from '../layout.ts';
import { AT, END, EventMachine, FLAG, SEL, VEC } from '../testing/event-machine.ts';

/** SYSRET, IRET, SYSENTER and SYSEXIT: where they go, and where and at which privilege what is wrong faults (SDM vol. 2, by mnemonic). */

const [RCX, RDX, RSP, R11] = [1, 2, 4, 11];
const BAD = [1n << 47n, 0x8000_0000_0000_0001n, 0x1234_5678_9abc_def0n];
const SYSRETQ = [0x48, 0x0f, 0x07];
const SYSEXITQ = [0x48, 0x0f, 0x35];
const SYSEXIT = [0x0f, 0x35];
const SYSENTER = [0x0f, 0x34];
const IRETQ = [0x48, 0xcf];
const POP = 0x58;
const USER = AT.data;

for (const jit of ['off', 'sync'] as const) {
  describe(`fast system calls and returns (JIT ${jit})`, async () => {
    const m = await EventMachine.create(jit);
    afterAll(() => m.dispose());
    /** SYSENTER_CS such that the four descriptors after it are code0, data0, code3, data3. */
    const run = (code: readonly number[], prepare: () => void) =>
      m.runCase(() => {
        m.reset('long');
        m.bytes(AT.code, [...code, END]);
        m.bytes(USER, [END]);
        m.set64(S_STAR, (BigInt(SEL.code0) << 32n) | (BigInt(SEL.data0) << 48n));
        m.set64(S_LSTAR, BigInt(AT.code));
        m.set64(S_SYSENTER_CS, BigInt(SEL.code0));
        m.core.setReg(0, RCX, BigInt(USER));
        m.core.setReg(0, RDX, BigInt(AT.stack3));
        m.core.setReg(0, R11, 2n);
        prepare();
      });
    const AT_FAULT = { vector: VEC.GP, error: 0, ip: AT.code, cs: SEL.code0 };

    test('SYSRET to an address that is not canonical faults at privilege 0, at the SYSRET, with the kernel’s stack', () => {
      for (const target of BAD) {
        const o = run(SYSRETQ, () => m.core.setReg(0, RCX, target));
        expect(o).toMatchObject({ ...AT_FAULT, sp: AT.stack0, ss: SEL.data0 });
      }
    });
    test('SYSRET is undefined without EFER.SCE and in compatibility code, and faults at privilege 3', () => {
      expect(run(SYSRETQ, () => m.set64(S_EFER, m.get64(S_EFER) & ~1n))).toMatchObject({ vector: VEC.UD, ip: AT.code });
      expect(run(SYSRETQ, () => m.toUser())).toMatchObject({ vector: VEC.GP, error: 0, ip: AT.code });
    });
    const frame = (ip: bigint, cs: number, sp: bigint, ss: number) => {
      for (const [i, v] of [ip, BigInt(cs), 2n, sp, BigInt(ss)].entries()) m.u64(AT.stack0 - 0x100 + i * 8, v);
      m.core.setReg(0, RSP, BigInt(AT.stack0 - 0x100));
    };
    test('IRET to an address that is not canonical faults at the IRET, with everything as before it', () => {
      for (const target of BAD) {
        for (const [cs, ss] of [
          [SEL.code0, SEL.data0],
          [SEL.code3, SEL.data3],
        ] as const) {
          expect(run(IRETQ, () => frame(target, cs, BigInt(AT.stack3), ss))).toMatchObject({ ...AT_FAULT, sp: AT.stack0 - 0x100 });
        }
      }
    });
    test('IRET takes a stack pointer that is not canonical; the first access through it raises #SS(0) at privilege 3', () => {
      for (const stack of BAD) {
        const o = run(IRETQ, () => {
          m.bytes(USER, [POP, END]);
          frame(BigInt(USER), SEL.code3, stack, SEL.data3);
        });
        expect(o).toMatchObject({ vector: VEC.SS, error: 0, ip: USER, cs: SEL.code3, ss: SEL.data3 });
      }
    });

    test('SYSENTER goes to privilege 0 from compatibility and 64-bit code, and needs a selector', () => {
      for (const isCompatible of [false, true]) {
        const o = run(SYSENTER, () => {
          m.set64(S_SYSENTER_EIP, BigInt(USER));
          m.set64(S_SYSENTER_ESP, BigInt(AT.stack0 - 0x40));
          m.toUser(FLAG.IF | FLAG.CF);
          if (isCompatible) {
            m.core.setSegment(0, CS, { selector: SEL.compat3, base: 0n, limit: 0xffff_ffff, attr: 0xc0fb });
            m.core.modeChanged(0);
          }
        });
        expect(o).toMatchObject({ vector: VEC.BP, ip: USER + 1, cs: SEL.code0, sp: AT.stack0 - 0x40, ss: SEL.data0 });
        expect([m.cpl, m.get(S_CODE_SIZE), o.flags & FLAG.IF, o.flags & FLAG.CF]).toEqual([0, 64, 0, FLAG.CF]);
      }
      for (const selector of [0n, 1n, 3n]) {
        const o = run(SYSENTER, () => {
          m.set64(S_SYSENTER_CS, selector);
          m.toUser();
        });
        expect(o).toMatchObject({ vector: VEC.GP, error: 0, ip: AT.code, cs: SEL.code3 });
      }
    });
    /** SYSEXIT takes its target from RDX and the stack from RCX. */
    const toUserCode = () => {
      m.core.setReg(0, RDX, BigInt(USER));
      m.core.setReg(0, RCX, BigInt(AT.stack3));
    };
    test('SYSEXIT goes to 64-bit or compatibility code at privilege 3, by its operand size', () => {
      // Relative to SYSENTER_CS: 32-bit code and stack at +16 and +24, 64-bit ones at +32 and +40.
      const at = (offset: number) => SEL.code0 + offset + 3;
      expect(run(SYSEXITQ, toUserCode)).toMatchObject({ vector: VEC.BP, ip: USER + 1, cs: at(32), sp: AT.stack3, ss: at(40) });
      expect(run(SYSEXIT, toUserCode)).toMatchObject({ vector: VEC.BP, ip: USER + 1, cs: at(16), sp: AT.stack3, ss: at(24) });
    });
    test('SYSEXIT faults at privilege 3, without a selector, and to what is not canonical', () => {
      expect(run(SYSEXITQ, () => m.toUser())).toMatchObject({ vector: VEC.GP, error: 0, ip: AT.code });
      expect(run(SYSEXITQ, () => m.set64(S_SYSENTER_CS, 0n))).toMatchObject(AT_FAULT);
      for (const target of BAD) {
        expect(run(SYSEXITQ, () => m.core.setReg(0, RCX, target))).toMatchObject(AT_FAULT);
        expect(run(SYSEXITQ, () => m.core.setReg(0, RDX, target))).toMatchObject(AT_FAULT);
      }
    });
  });
}
