import { describe, expect, it } from 'vitest';
import { FailedEntry, TripleFault } from '../designs/design.ts';
import * as asm from '../testing/assemble.ts';
import { map, testGuest } from '../testing/guest.ts';
import * as abi from './constants.ts';

const USER_RIP = BigInt(map.umodCode);

describe('events from umod', () => {
  const cases: readonly [what: string, code: readonly number[], vector: number, error: number, rip: bigint, exit: string][] = [
    ['#UD', asm.ud2, 6, 0, USER_RIP, '#UD'],
    ['#DE', [0x31, 0xc9, 0xf7, 0xf1], 0, 0, USER_RIP + 2n, '#DE'],
    ['INT3 (a trap: RIP behind it)', asm.int3, 3, 0, USER_RIP + 1n, '#BP'],
    ['INT 0x80', asm.int(0x80), 0x80, 0, USER_RIP + 2n, 'INT80'],
    ['INT 0x21, which has no entry', asm.int(0x21), 13, 0x21 * 8 + 2, USER_RIP, '#GP INT n'],
    ['a privileged instruction', asm.cli, 13, 0, USER_RIP, '#GP'],
    ['IN', [0xec], 13, 0, USER_RIP, '#GP'],
    ['a read of a supervisor page', asm.load(map.pvcs), 14, 5, USER_RIP, '#PF guest'],
    ['a write to a supervisor page', asm.store(map.pvcs), 14, 7, USER_RIP, '#PF guest'],
    ['a read where nothing is mapped', asm.load(0x40_0000), 14, 4, USER_RIP, '#PF guest'],
  ];
  it.each(cases)('%s saves the user in the PVCS and enters EVENT_ENTRY', async (_what, code, vector, error, rip, exit) => {
    const g = (await testGuest()).attach().umod(code, asm.hlt);
    g.set('rbx', 7n).pvcs64(abi.PVCS_RCX, 0x11n);
    g.pvcs64(abi.PVCS_R11, 0x22n);
    g.pvcs64(abi.PVCS_USER_GSBASE, 0x7777n);
    g.run();
    expect(g.haltedAt).toBe(map.umodEvent);
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR)).toBe(vector);
    expect(g.pvcs16(abi.PVCS_EVENT_ERRCODE)).toBe(error);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(rip);
    if (vector !== 0) expect(g.pvcs64(abi.PVCS_RCX)).toBe(0x11n);
    expect(g.pvcs64(abi.PVCS_R11)).toBe(0x22n);
    expect(g.pvcs64(abi.PVCS_USER_GSBASE)).toBe(0x7777n);
    expect(g.pvcs32(abi.PVCS_USER_CS)).toBe(abi.USER_CS_SS);
    expect(g.pvcs32(abi.PVCS_EFLAGS) & 0x202).toBe(0x202);
    expect(g.reg('rcx')).toBe(BigInt(map.umodEvent));
    expect(g.reg('r11')).toBe(0x202n);
    expect(g.reg('rbx')).toBe(7n);
    expect(g.reg('rsp')).toBe(BigInt(map.umodStack));
    expect(g.vcpu.segmentBase(5)).toBe(map.kernelGs);
    expect(g.vcpu.smod).toBe(true);
    expect(g.exits()).toEqual({ [exit]: 1 });
  });

  it('#PF puts the address into PVCS.cr2', async () => {
    const g = (await testGuest()).attach().umod(asm.load(0x40_0123), asm.hlt).run();
    expect(g.pvcs64(abi.PVCS_CR2)).toBe(0x40_0123n);
  });

  it('a #PF on execution has the I bit', async () => {
    const g = (await testGuest()).attach().umod(asm.mov('rax', map.pvcs), asm.jmpRax).run();
    expect(g.pvcs16(abi.PVCS_EVENT_ERRCODE)).toBe(0x15);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(BigInt(map.pvcs));
  });

  it.each([true, false])('SYSCALL enters LSTAR with the next instruction saved (direct switch %s)', async (directSwitch) => {
    const g = (await testGuest({ directSwitch })).attach().umod(asm.syscall, asm.hlt);
    g.pvcs16(abi.PVCS_EVENT_VECTOR);
    g.pvcs32(abi.PVCS_EVENT_ERRCODE, 0x55_0066);
    g.run();
    expect(g.haltedAt).toBe(map.lstar);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(USER_RIP + 2n);
    expect(g.pvcs64(abi.PVCS_RCX)).toBe(USER_RIP + 2n);
    expect(g.pvcs64(abi.PVCS_R11)).toBe(0x202n);
    // Vector and error code belong to other events.
    expect(g.pvcs32(abi.PVCS_EVENT_ERRCODE)).toBe(0x55_0066);
    expect(g.reg('rcx')).toBe(BigInt(map.lstar));
    expect(g.reg('r11')).toBe(0x202n);
    expect(g.vcpu.segmentBase(5)).toBe(map.kernelGs);
    expect(g.exits()).toEqual(directSwitch ? {} : { ERETU: 1, SYSCALL: 1 });
    expect(g.ledger.worldSwitches()).toMatchObject(directSwitch ? { directSyscalls: 1, directReturns: 1 } : { directSyscalls: 0, directReturns: 0 });
  });

  it('an external interrupt is delivered before the next instruction', async () => {
    const g = (await testGuest()).attach().umod(asm.ud2);
    g.design.injectInterrupt(0, 0x40);
    g.run();
    // Virtual IF is 0 in smod, so the window is asked for and opens with the ERETU.
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR)).toBe(0x40);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(USER_RIP);
    expect(g.exits()).toEqual({ ERETU: 1 });
    expect(g.pvcs32(abi.PVCS_EVENT_FLAGS) & abi.EVENT_FLAG_IP).toBe(0);
  });
});

describe('an external interrupt while umod runs', () => {
  it('is one exit of reason INTERRUPT, and goes to EVENT_ENTRY', async () => {
    const g = (await testGuest()).attach().umod([0xeb, 0xfe]);
    expect(g.runSlice()).toBe('yield');
    g.design.injectInterrupt(0, 0x41);
    g.run();
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR)).toBe(0x41);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(USER_RIP);
    expect(g.exits()).toEqual({ INTERRUPT: 1 });
  });
});

describe('events from smod', () => {
  it('#UD saves RFLAGS with the virtual IF, RIP, RCX and R11, and enters EVENT_ENTRY + 512', async () => {
    const g = (await testGuest()).attach().smod(asm.sti, [0xf9], asm.ud2);
    g.set('rcx', 0x33).set('r11', 0x44).run();
    expect(g.haltedAt).toBe(map.smodEvent);
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR)).toBe(6 | abi.EVENT_VECTOR_STD);
    expect(g.pvcs32(abi.PVCS_EFLAGS)).toBe(0x203);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(BigInt(map.smodCode) + 2n);
    expect(g.pvcs64(abi.PVCS_RCX)).toBe(0x33n);
    expect(g.pvcs64(abi.PVCS_R11)).toBe(0x44n);
    expect(g.pvcs32(abi.PVCS_EVENT_FLAGS) & abi.EVENT_FLAG_IF).toBe(0);
    expect(g.reg('rcx')).toBe(BigInt(map.smodEvent));
    expect(g.reg('r11')).toBe(0x202n);
    expect(g.reg('rsp')).toBe(BigInt(map.smodStack));
    expect(g.exits()).toEqual({ '#GP STI': 1, '#UD': 1 });
  });

  it('saves a clear IF bit when the virtual IF is 0', async () => {
    const g = (await testGuest()).attach().smod(asm.ud2).run();
    expect(g.pvcs32(abi.PVCS_EFLAGS)).toBe(0x2);
  });

  it('a #PF has the U bit clear', async () => {
    const g = (await testGuest()).attach().smod(asm.store(0x40_0000)).run();
    expect(g.pvcs16(abi.PVCS_EVENT_ERRCODE)).toBe(2);
    expect(g.pvcs64(abi.PVCS_CR2)).toBe(0x40_0000n);
  });

  it('may not execute user pages while NX is on', async () => {
    const g = (await testGuest()).attach().smod(asm.mov('rax', map.umodCode), asm.jmpRax).run();
    expect(g.pvcs16(abi.PVCS_EVENT_ERRCODE)).toBe(0x11);
  });

  it('INT3 is delivered as a trap', async () => {
    const g = (await testGuest()).attach().smod(asm.int3).run();
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR)).toBe(3 | abi.EVENT_VECTOR_STD);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(BigInt(map.smodCode) + 1n);
  });

  it('a second event while the first is live is a triple fault', async () => {
    const g = (await testGuest()).attach().smod(asm.ud2).code(map.smodEvent, asm.ud2);
    expect(() => g.run()).toThrow(TripleFault);
  });

  it('an NMI while an event is live only sets its bit', async () => {
    const g = (await testGuest()).attach().smod(asm.ud2).run();
    g.design.injectNmi(0);
    g.code(map.smodEvent + 1, asm.hlt).run();
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR)).toBe(6 | abi.EVENT_VECTOR_STD | abi.EVENT_VECTOR_NMI);
    expect(g.haltedAt).toBe(map.smodEvent + 1);
  });

  it('without a PVCS any event is a triple fault', async () => {
    const g = (await testGuest()).smod(asm.ud2);
    expect(() => g.run()).toThrow(/#UD before the guest set a PVCS/);
  });

  it('an interrupt waits for the virtual IF, with IP set meanwhile, and comes with IRQ_WIN', async () => {
    const g = (await testGuest()).attach().smod(asm.hlt, asm.sti, asm.hlt);
    g.design.injectInterrupt(0, 0x50);
    g.vcpu.halted = false;
    g.smod([0x90], asm.mov('rax', map.pvcs), [0x48, 0x83, 0x08, 0x00], asm.load(map.pvcs), asm.movReg('rbx', 'rax'), asm.sti, asm.ud2);
    g.run();
    expect(g.reg('rbx') & BigInt(abi.EVENT_FLAG_IP)).toBe(BigInt(abi.EVENT_FLAG_IP));
    expect(g.haltedAt).toBe(map.smodEvent);
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR)).toBe(0x50 | abi.EVENT_VECTOR_STD);
    expect(g.pvcs32(abi.PVCS_EFLAGS) & 0x200).toBe(0x200);
  });
});

describe('ERETU', () => {
  it('restores the user without an exit', async () => {
    const g = (await testGuest()).attach().umod(asm.pushfq, asm.rdgsbase, asm.syscall);
    g.pvcs32(abi.PVCS_EFLAGS, 0x3_7cd7);
    g.pvcs64(abi.PVCS_USER_GSBASE, 0xffff_8000_0000_1000n);
    g.pvcs64(abi.PVCS_RCX, 1n);
    g.run();
    // DF and the status flags are taken, IOPL (bits 12 and 13) and VM (17) are not; IF is always on.
    const pushed = g.ram.view.getBigUint64(map.umodStack - 8, true);
    expect(pushed & 0x2_3000n).toBe(0n);
    expect(pushed & 0xed7n).toBe(0xed7n);
    expect(g.reg('rax')).toBe(0xffff_8000_0000_1000n);
    expect(g.exits()).toEqual({});
  });

  it.each([true, false])('canonicalises the GS base (direct switch %s)', async (directSwitch) => {
    const g = (await testGuest({ directSwitch })).attach().umod(asm.rdgsbase, asm.syscall);
    g.pvcs64(abi.PVCS_USER_GSBASE, 0x0123_8000_0000_1000n);
    g.run();
    expect(g.reg('rax')).toBe(0xffff_8000_0000_1000n);
  });

  it('leaves to the hypervisor when an interrupt waits, which is injected', async () => {
    const g = (await testGuest()).attach().umod(asm.ud2);
    g.pvcs32(abi.PVCS_EVENT_FLAGS, abi.EVENT_FLAG_IP);
    g.run();
    expect(g.exits()).toEqual({ ERETU: 1, '#UD': 1 });
    expect(g.pvcs32(abi.PVCS_EVENT_FLAGS) & abi.EVENT_FLAG_IP).toBe(0);
  });

  it('leaves to the hypervisor to single-step, and the step raises #DB', async () => {
    const g = (await testGuest()).attach().umod([0x90], asm.ud2);
    g.pvcs32(abi.PVCS_EFLAGS, 0x302);
    g.run();
    expect(g.exits()).toMatchObject({ ERETU: 1 });
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR)).toBe(1);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(USER_RIP + 1n);
  });

  it.each([
    ['POPF', [0x68, 0x02, 0x03, 0x00, 0x00, 0x9d], 7],
    // push $ds; push %rsp; pushf; orl $TF,(%rsp); push $cs; call 1f; 1: addq $6,(%rsp); iretq
    ['IRET', [0x6a, 0x2b, 0x54, 0x9c, 0x81, 0x0c, 0x24, 0x00, 0x01, 0x00, 0x00, 0x6a, 0x33, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0x04, 0x24, 0x07, 0x48, 0xcf], 26],
  ])('single-steps after a %s that sets TF', async (_what, code, rip) => {
    const g = (await testGuest()).attach().umod(code, [0x90], asm.ud2);
    g.run();
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR)).toBe(1);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(USER_RIP + BigInt(rip));
  });

  it.each([
    ['user_cs 0x10', 0x002b_0010],
    ['user_ss 0', 0x0000_0033],
  ])('to %s is a failed VM entry', async (_what, segments) => {
    const g = (await testGuest()).attach().umod(asm.ud2);
    g.pvcs32(abi.PVCS_USER_CS, segments);
    expect(() => g.run()).toThrow(FailedEntry);
  });
});

describe('32-bit compat user mode', () => {
  it('is entered by ERETU and left by INT 0x80', async () => {
    // mov eax, [moffs32]: five bytes here, nine in 64-bit mode.
    const load32 = [0xa1, ...[0, 8, 16, 24].map((shift) => (map.umodData >> shift) & 0xff)];
    const g = (await testGuest()).attach().umod(load32, asm.int(0x80));
    g.code(map.umodData, [0x78, 0x56, 0x34, 0x12]);
    g.pvcs32(abi.PVCS_USER_CS, (abi.USER_DS << 16) | abi.USER32_CS);
    g.run();
    expect(g.reg('rax')).toBe(0x1234_5678n);
    expect(g.pvcs32(abi.PVCS_USER_CS)).toBe((abi.USER_DS << 16) | abi.USER32_CS);
    expect(g.pvcs64(abi.PVCS_RIP)).toBe(USER_RIP + 7n);
    expect(g.exits()).toEqual({ ERETU: 1, INT80: 1 });
  });

  it('has no SYSCALL: CSTAR is stored and ignored', async () => {
    const g = (await testGuest()).attach().umod(asm.syscall);
    g.pvcs32(abi.PVCS_USER_CS, (abi.USER_DS << 16) | abi.USER32_CS);
    g.run();
    expect(g.exits()).toEqual({ ERETU: 1, '#UD': 1 });
  });
});

describe('the getpid loop', () => {
  const CALLS = 100;
  it.each([
    [true, {}, 2],
    [false, { SYSCALL: CALLS, ERETU: CALLS + 1 }, 4],
  ] as const)('with direct switch %s', async (directSwitch, exits, switchesPerCall) => {
    const body = asm.syscall;
    const g = (await testGuest({ directSwitch })).attach().umod(body, asm.loopBack(body.length), asm.ud2);
    // The kernel returns at once: jump to the ERETU.
    g.code(map.lstar, asm.mov('rax', map.retu), asm.jmpRax).set('rbp', CALLS);
    g.run();
    expect(g.exits()).toEqual({ ...exits, '#UD': 1 });
    const { total } = g.ledger.worldSwitches();
    const rest = 2 * g.ledger.count('#PF', 'shadow') + 2 * g.ledger.count('#GP', 'HLT') + 2 + switchesPerCall / 2;
    expect(total - rest).toBe(CALLS * switchesPerCall);
  });
});
