import { P_SUPERVISOR_RSP, P_SWITCH_CR3, S_CR3 } from '@pvm/cpu-jit/layout';
import { describe, expect, it } from 'vitest';
import { FailedEntry, TripleFault } from '../designs/design.ts';
import * as asm from '../testing/assemble.ts';
import { map, type TestGuest, type TestGuestOptions, testGuest } from '../testing/guest.ts';
import * as abi from './constants.ts';

const USER_RIP = BigInt(map.umodCode);
const RED_ZONE = 128;
/** Where the frame of an exception in smod lies when RSP was `map.smodStack`. */
const FRAME = map.smodStack - RED_ZONE - abi.FRAME_SIZE;

const guest = async (options: TestGuestOptions = {}) => (await testGuest({ abi: 'rfc-v1', ...options })).attachRfcV1();
const frame64 = (g: TestGuest, offset: number) => g.ram.view.getBigUint64(FRAME + offset, true);

describe('events from umod', () => {
  const cases: readonly [what: string, code: readonly number[], vector: number, error: number, rip: bigint, exit: string][] = [
    ['#UD', asm.ud2, 6, 0, USER_RIP, '#UD'],
    ['#DE', [0x31, 0xff, 0xf7, 0xf7], 0, 0, USER_RIP + 2n, '#DE'],
    ['INT3 (a trap: RIP behind it)', asm.int3, 3, 0, USER_RIP + 1n, '#BP'],
    ['INT 0x80', asm.int(0x80), 0x80, 0, USER_RIP + 2n, 'INT80'],
    ['INT 0x21, which has no entry', asm.int(0x21), 13, 0x21 * 8 + 2, USER_RIP, '#GP INT n'],
    ['a privileged instruction', asm.cli, 13, 0, USER_RIP, '#GP'],
    ["a read of a page that only the kernel's table has", asm.load(map.pvcs), 14, 4, USER_RIP, '#PF guest'],
    ['a write where nothing is mapped', asm.store(0x40_0000), 14, 6, USER_RIP, '#PF guest'],
  ];
  it.each(cases)('%s saves the user in the PVCS, exchanges RSP and CR3 and enters EVENT_ENTRY', async (_what, code, vector, error, rip, exit) => {
    const g = (await guest()).umod(code, asm.hlt);
    g.pvcs64(abi.PVCS_RCX, 0x11n);
    g.pvcs64(abi.PVCS_R11, 0x22n);
    g.pvcs64(abi.PVCS_USER_GSBASE, 0x7777n);
    g.run();
    expect(g.haltedAt).toBe(map.umodEvent);
    expect(g.pvcs32(abi.PVCS_EVENT_VECTOR)).toBe(vector);
    expect(g.pvcs32(abi.PVCS_EVENT_ERRCODE)).toBe(error);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(rip);
    expect(g.pvcs64(abi.PVCS_RSP)).toBe(BigInt(map.umodStack));
    expect(g.pvcs64(abi.PVCS_RCX)).toBe(0x11n);
    expect(g.pvcs64(abi.PVCS_R11)).toBe(0x22n);
    expect(g.pvcs64(abi.PVCS_USER_GSBASE)).toBe(0x7777n);
    expect(g.pvcs32(abi.PVCS_USER_CS)).toBe(abi.USER_CS_SS);
    expect(g.pvcs32(abi.PVCS_EFLAGS) & 0x202).toBe(0x202);
    expect(g.reg('rsp')).toBe(BigInt(map.smodStack));
    expect(g.reg('rcx')).toBe(BigInt(map.umodEvent));
    expect(g.reg('r11')).toBe(0x202n);
    expect(g.vcpu.get64(S_CR3)).toBe(BigInt(map.pml4));
    expect(g.vcpu.get64(P_SWITCH_CR3)).toBe(BigInt(map.userPml4));
    expect(g.vcpu.segmentBase(5)).toBe(map.kernelGs);
    expect(g.exits()).toEqual({ [exit]: 1 });
  });

  it('#PF puts the address into PVCS.cr2', async () => {
    const g = (await guest()).umod(asm.load(0x40_0123)).run();
    expect(g.pvcs64(abi.PVCS_CR2)).toBe(0x40_0123n);
  });

  it.each([true, false])('SYSCALL enters LSTAR with the next instruction and RSP saved (direct switch %s)', async (directSwitch) => {
    const g = (await guest({ directSwitch })).umod(asm.syscall, asm.hlt);
    g.pvcs64(8, 0x55_0000_0066n);
    g.run();
    expect(g.haltedAt).toBe(map.lstar);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(USER_RIP + 2n);
    expect(g.pvcs64(abi.PVCS_RSP)).toBe(BigInt(map.umodStack));
    expect(g.pvcs64(abi.PVCS_RCX)).toBe(USER_RIP + 2n);
    expect(g.pvcs64(abi.PVCS_R11)).toBe(0x202n);
    expect(g.pvcs32(abi.PVCS_EFLAGS)).toBe(0x202);
    // Vector and error code belong to other events.
    expect(g.pvcs64(8)).toBe(0x55_0000_0066n);
    expect(g.reg('rsp')).toBe(BigInt(map.smodStack));
    expect(g.reg('rcx')).toBe(BigInt(map.lstar));
    expect(g.vcpu.get64(S_CR3)).toBe(BigInt(map.pml4));
    expect(g.exits()).toEqual(directSwitch ? {} : { ERETU: 1, SYSCALL: 1 });
    expect(g.ledger.worldSwitches()).toMatchObject(directSwitch ? { directSyscalls: 1, directReturns: 1 } : { directSyscalls: 0, directReturns: 0 });
  });

  it('an external interrupt has its vector in the PVCS', async () => {
    const g = (await guest()).umod(asm.ud2);
    g.design.injectInterrupt(0, 0x40);
    g.run();
    expect(g.pvcs32(abi.PVCS_EVENT_VECTOR)).toBe(0x40);
    expect(g.haltedAt).toBe(map.umodEvent);
    expect(g.exits()).toEqual({ ERETU: 1 });
  });
});

describe('exceptions from smod', () => {
  const cases: readonly [what: string, code: readonly number[], vector: number, error: number, length: number, exits: object][] = [
    ['#UD', asm.ud2, 6, 0, 0, { '#UD': 1 }],
    ['INT3', asm.int3, 3, 0, 1, { '#BP': 1 }],
    ['#PF, its U bit clear', asm.store(0x40_0000), 14, 2, 0, { '#PF guest': 1 }],
    ['INT 0x30, which has no entry', asm.int(0x30), 13, 0x30 * 8 + 2, 0, { '#GP INT n': 1 }],
    ['SWAPGS', [0x0f, 0x01, 0xf8], 6, 0, 0, { '#GP SWAPGS': 1 }],
  ];
  it.each(cases)('%s pushes a frame below the red zone and enters EVENT_ENTRY + 256', async (_what, code, vector, error, length, exits) => {
    const g = (await guest()).smod([0xf9], code).set('rcx', 0x33).set('r11', 0x44).run();
    expect(g.haltedAt).toBe(map.smodException);
    expect(g.reg('rsp')).toBe(BigInt(FRAME));
    expect(frame64(g, abi.FRAME_ERRCODE_VECTOR)).toBe((BigInt(vector) << 32n) | BigInt(error));
    expect(frame64(g, abi.FRAME_RIP)).toBe(BigInt(map.smodCode + 1 + length));
    expect(frame64(g, abi.FRAME_CS)).toBe(BigInt(abi.USER_CS));
    expect(frame64(g, abi.FRAME_RFLAGS)).toBe(0x3n);
    expect(frame64(g, abi.FRAME_RSP)).toBe(BigInt(map.smodStack));
    expect(frame64(g, abi.FRAME_SS)).toBe(BigInt(abi.USER_DS));
    expect(frame64(g, abi.FRAME_RCX)).toBe(0x33n);
    expect(frame64(g, abi.FRAME_R11)).toBe(0x44n);
    expect(g.reg('rcx')).toBe(BigInt(map.smodException));
    expect(g.reg('r11')).toBe(0x202n);
    expect(g.exits()).toEqual(exits);
  });

  it('a #PF puts the address into PVCS.cr2', async () => {
    const g = (await guest()).smod(asm.load(0x40_0008)).run();
    expect(g.pvcs64(abi.PVCS_CR2)).toBe(0x40_0008n);
  });

  it('an odd RSP is aligned, and the virtual IF is saved and cleared', async () => {
    const g = (await guest()).smod(asm.sti, asm.ud2);
    g.set('rsp', map.smodStack - 3).run();
    const rsp = ((map.smodStack - 3 - RED_ZONE) & ~15) - abi.FRAME_SIZE;
    expect(g.reg('rsp')).toBe(BigInt(rsp));
    expect(g.ram.view.getBigUint64(rsp + abi.FRAME_RFLAGS, true)).toBe(0x202n);
    expect(g.pvcs32(abi.PVCS_EVENT_FLAGS) & abi.EVENT_FLAG_IF).toBe(0);
  });

  it('may execute user pages: there is no SMEP', async () => {
    const g = (await guest()).smod(asm.mov('rax', map.umodData), asm.jmpRax).code(map.umodData, asm.hlt).run();
    expect(g.haltedAt).toBe(map.umodData);
  });

  it('one after the other nests, as far as the stack goes', async () => {
    const g = (await guest()).smod(asm.ud2).code(map.smodException, asm.ud2, asm.hlt);
    g.set('rsp', 0x9_0000);
    // The stack grows down into the page tables' neighbours; the first page that is not mapped ends it.
    g.ram.view.setBigUint64(map.pageTable + 8 * 0x8f, 0n, true);
    expect(() => g.run()).toThrow(TripleFault);
    expect(() => g.run()).toThrow(/the stack at 0x8[0-9a-f]+ cannot be written/);
  });

  it('without a PVCS are triple faults', async () => {
    const g = (await testGuest({ abi: 'rfc-v1' })).smod(asm.ud2);
    expect(() => g.run()).toThrow(/#UD before the guest set a PVCS/);
  });
});

describe('interrupts and NMIs from smod', () => {
  it('an interrupt saves what it interrupted in the PVCS and enters EVENT_ENTRY + 512 below the red zone', async () => {
    const g = (await guest())
      .smod(asm.sti, asm.mov('rbx', 5), asm.hlt)
      .set('rcx', 0x33)
      .set('r11', 0x44)
      .set('rsp', map.smodStack - 5);
    g.run();
    g.design.injectInterrupt(0, 0x41);
    g.run();
    expect(g.haltedAt).toBe(map.smodEvent);
    expect(g.pvcs32(abi.PVCS_EVENT_VECTOR)).toBe(0x41);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(BigInt(map.smodCode + 12));
    expect(g.pvcs64(abi.PVCS_RSP)).toBe(BigInt(map.smodStack - 5));
    expect(g.pvcs32(abi.PVCS_EFLAGS)).toBe(0x202);
    expect(g.pvcs64(abi.PVCS_RCX)).toBe(0x33n);
    expect(g.pvcs64(abi.PVCS_R11)).toBe(0x44n);
    expect(g.reg('rsp')).toBe(BigInt((map.smodStack - 5 - RED_ZONE) & ~15));
    expect(g.pvcs32(abi.PVCS_EVENT_FLAGS) & abi.EVENT_FLAG_IF).toBe(0);
  });

  it('an interrupt waits for the virtual IF, with IP set meanwhile', async () => {
    const g = (await guest()).smod([0x90], asm.load(map.pvcs), asm.movReg('rbx', 'rax'), asm.sti, asm.ud2);
    g.design.injectInterrupt(0, 0x50);
    g.run();
    expect(g.reg('rbx') & BigInt(abi.EVENT_FLAG_IP)).toBe(BigInt(abi.EVENT_FLAG_IP));
    expect(g.haltedAt).toBe(map.smodEvent);
  });

  it('a second NMI waits until the first was returned from', async () => {
    const g = (await guest()).smod([0x90], asm.hlt).code(map.smodException, asm.hlt, asm.mov('rax', map.rets), asm.jmpRax);
    g.design.injectNmi(0);
    g.run();
    expect(g.haltedAt).toBe(map.smodException);
    expect(frame64(g, abi.FRAME_ERRCODE_VECTOR)).toBe(2n << 32n);
    g.design.injectNmi(0);
    g.vcpu.halted = false;
    // ERETS goes back to the first instruction, where the second NMI comes, and halts again in the handler.
    g.run();
    expect(g.haltedAt).toBe(map.smodException);
    expect(g.exits()).toEqual({ ERETS: 1 });
  });
});

describe('ERETU', () => {
  it.each([true, false])('restores RSP as well, and keeps the own one in SUPERVISOR_RSP (direct switch %s)', async (directSwitch) => {
    const g = (await guest({ directSwitch })).umod(asm.movReg('rbx', 'rsp'), asm.syscall);
    g.set('rsp', 0x4_8000).run();
    expect(g.reg('rbx')).toBe(BigInt(map.umodStack));
    expect(g.reg('rsp')).toBe(0x4_8000n);
    expect(g.vcpu.get64(P_SUPERVISOR_RSP)).toBe(0x4_8000n);
    expect(g.exits()).toEqual(directSwitch ? {} : { ERETU: 1, SYSCALL: 1 });
  });

  it('exits when both modes have the same CR3, and does not when low bits tell them apart', async () => {
    for (const [mark, exits] of [
      [0n, { ERETU: 1, SYSCALL: 1 }],
      [1n, {}],
    ] as const) {
      const g = (await guest()).umod(asm.syscall);
      g.vcpu.revision.writeMsr(g.vcpu, abi.MSR_PVM_SWITCH_CR3, BigInt(map.pml4) | mark);
      g.run();
      expect(g.haltedAt).toBe(map.lstar);
      expect(g.exits()).toEqual(exits);
    }
  });

  it.each([
    ['user_cs 0x10', 0x002b_0010],
    ['user_ss 0', 0x0000_0033],
  ])('to %s is a failed VM entry', async (_what, segments) => {
    const g = (await guest()).umod(asm.ud2);
    g.pvcs32(abi.PVCS_USER_CS, segments);
    expect(() => g.run()).toThrow(FailedEntry);
  });
});

describe('ERETS', () => {
  /** A frame at 0x48000, and RSP there. */
  const withFrame = async (rflags: bigint) => {
    const g = await guest();
    const words = [0n, BigInt(map.smodCode), 0n, rflags, 0x4_9990n, 0n, 0xccn, 0x11n];
    words.forEach((word, i) => {
      g.ram.view.setBigUint64(0x4_8000 + 8 * i, word, true);
    });
    g.vcpu.rip = BigInt(map.rets);
    return g.set('rsp', 0x4_8000).smod(asm.pushfq, asm.hlt);
  };
  it.each([
    ['with the virtual IF on', 0x3_7ed7n, abi.EVENT_FLAG_IF],
    ['with the virtual IF off', 0x3_7cd7n, 0],
  ])('restores RIP, RSP, RCX, R11 and RFLAGS %s; CS and SS are ignored', async (_what, rflags, flag) => {
    const g = (await withFrame(rflags)).run();
    expect(g.haltedAt).toBe(map.smodCode + 1);
    expect(g.reg('rsp')).toBe(0x4_9988n);
    expect([g.reg('rcx'), g.reg('r11')]).toEqual([0xccn, 0x11n]);
    // IOPL and VM are not taken; the underlying IF is always on.
    expect(g.ram.view.getBigUint64(0x4_9988, true) & 0x2_3ed7n).toBe(0xed7n & 0x2_3ed7n);
    expect(g.pvcs32(abi.PVCS_EVENT_FLAGS)).toBe(flag);
    expect(g.exits()).toEqual({ ERETS: 1 });
  });

  it('from a stack that is not mapped is a triple fault, for the #PF has no stack either', async () => {
    const g = await withFrame(2n);
    g.set('rsp', 0x40_0000);
    expect(() => g.run()).toThrow(TripleFault);
  });
});
