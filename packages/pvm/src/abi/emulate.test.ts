import { S_WATCH } from '@pvm/cpu-jit/layout';
import { describe, expect, it } from 'vitest';
import * as abi from '../abi-v2/constants.ts';
import { cpuid } from '../cpuid.ts';
import * as asm from '../testing/assemble.ts';
import { map, testGuest } from '../testing/guest.ts';

describe('a 64-bit boot entry', () => {
  it('starts in smod at privilege level 3 with IF set', async () => {
    const g = (await testGuest()).smod(asm.pushfq, asm.popRax, asm.movReg('rbx', 'rax'), [0x8c, 0xc8], asm.movReg('rdx', 'rax'), [0x8c, 0xd0], asm.hlt).run();
    expect(g.reg('rbx')).toBe(0x202n);
    expect(g.reg('rdx') & 0xffffn).toBe(0x33n);
    expect(g.reg('rax') & 0xffffn).toBe(0x2bn);
  });

  it('has a virtual IF of 0 until a PVCS is set', async () => {
    const g = (await testGuest()).smod(asm.sti, asm.hlt).run();
    expect(g.design.halted(0)).toBe('dead');
  });
});

describe('privileged instructions in smod are one #GP exit each', () => {
  it.each([
    ['CLI', 'CLI', asm.cli],
    ['STI', 'STI', asm.sti],
    ['WBINVD', 'WBINVD', [0x0f, 0x09]],
    ['INVD', 'INVD', [0x0f, 0x08]],
    ['CLTS', 'CLTS', [0x0f, 0x06]],
    ['INVLPG [rax]', 'INVLPG', [0x0f, 0x01, 0x38]],
    ['INVPCID', 'INVPCID', [0x66, 0x0f, 0x38, 0x82, 0x08]],
    ['LTR', 'LTR', [0x0f, 0x00, 0xd8]],
    ['LLDT', 'LLDT', [0x0f, 0x00, 0xd0]],
    ['LMSW', 'LMSW', [0x0f, 0x01, 0xf0]],
    ['MOV DR7, rax', 'MOV DR', [0x0f, 0x23, 0xf8]],
    ['MOV rax, DR6', 'MOV DR', [0x0f, 0x21, 0xf0]],
  ] as const)('%s', async (_what, sub, code) => {
    const g = (await testGuest()).attach().smod(code, asm.hlt);
    g.set('rax', map.umodData).set('rcx', 2).run();
    expect(g.haltedAt).toBe(map.smodCode + code.length);
    expect(g.exits()).toEqual({ [`#GP ${sub}`]: 1 });
  });

  it.each([
    ['SWAPGS', [0x0f, 0x01, 0xf8], 6],
    ['SYSRET', [0x48, 0x0f, 0x07], 6],
    ['STAC', [0x0f, 0x01, 0xcb], 6],
    ['CLAC', [0x0f, 0x01, 0xca], 6],
    ['SYSENTER', [0x0f, 0x34], 13],
  ] as const)('%s is an exception for the guest', async (_what, code, vector) => {
    const g = (await testGuest()).attach().smod(code, asm.hlt).run();
    expect(g.haltedAt).toBe(map.smodEvent);
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR) & 0xff).toBe(vector);
  });

  it.each([
    ['outb to DX', [0xee], [0x3f8, 1, 0x44]],
    ['outw to DX', [0x66, 0xef], [0x3f8, 2, 0x3344]],
    ['outl to DX', [0xef], [0x3f8, 4, 0x1122_3344]],
    ['outb to an immediate port', [0xe6, 0x80], [0x80, 1, 0x44]],
  ] as const)('%s reaches the board', async (_what, code, write) => {
    const g = (await testGuest()).attach().smod(code, asm.hlt);
    g.set('rax', 0x1122_3344).set('rdx', 0x3f8).run();
    expect(g.portWrites).toEqual([write]);
    expect(g.exits()).toEqual({ [`#GP OUT 0x${write[0].toString(16)}`]: 1 });
  });

  it.each([
    ['inb keeps the rest of RAX', [0xec], 0xffff_ffff_ffff_ff7fn],
    ['inw keeps the rest of RAX', [0x66, 0xed], 0xffff_ffff_ffff_5a7fn],
    ['inl clears the upper half', [0xed], 0x1122_5a7fn],
  ] as const)('%s', async (_what, code, value) => {
    const g = (await testGuest()).attach().smod(code, asm.hlt);
    g.portValue = 0x1122_5a7f;
    g.set('rax', 2n ** 64n - 1n).run();
    expect(g.reg('rax')).toBe(value);
  });

  it('a REP string form moves every element in one exit', async () => {
    const g = (await testGuest()).attach().smod([0xf3, 0x6e], asm.hlt).code(map.umodData, [1, 2, 3]);
    g.set('rcx', 3).set('rsi', map.umodData).set('rdx', 0x3f8).run();
    expect(g.portWrites).toEqual([
      [0x3f8, 1, 1],
      [0x3f8, 1, 2],
      [0x3f8, 1, 3],
    ]);
    expect([g.reg('rcx'), g.reg('rsi')]).toEqual([0n, BigInt(map.umodData + 3)]);
    expect(g.exits()).toEqual({ '#GP OUTS 0x3f8': 1 });
  });

  it('RDMSR and WRMSR work as on the machine', async () => {
    const g = (await testGuest())
      .attach()
      .smod(asm.mov('rcx', 0xc000_0102), asm.mov('rax', 0x8000_0001), asm.mov('rdx', 0x7fff), asm.wrmsr, asm.mov('rax', 0), asm.rdmsr, asm.hlt)
      .run();
    expect([g.reg('rax'), g.reg('rdx')]).toEqual([0x8000_0001n, 0x7fffn]);
    expect(g.exits()).toEqual({ '#GP WRMSR KERNEL_GS_BASE': 1, '#GP RDMSR KERNEL_GS_BASE': 1 });
  });

  it('RDMSR of an unknown register is #GP for the guest', async () => {
    const g = (await testGuest()).attach().smod(asm.mov('rcx', 0x1234), asm.rdmsr).run();
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR) & 0xff).toBe(13);
    expect(g.exits()).toEqual({ '#GP RDMSR 0x1234': 1 });
  });

  it('LGDT and LIDT are kept and have no effect', async () => {
    const g = (await testGuest()).attach();
    g.code(map.umodData, [0x7f, 0, 0, 0x10, 0, 0, 0, 0, 0, 0]);
    g.smod([0x0f, 0x01, 0x10], [0x0f, 0x01, 0x00], asm.hlt).set('rax', map.umodData).run();
    expect(g.haltedAt).toBe(map.smodCode + 6);
    expect(g.exits()).toEqual({ '#GP LGDT': 1 });
    expect([...g.ram.bytes.slice(map.umodData, map.umodData + 10)]).toEqual([0x7f, 0, 0, 0x10, 0, 0, 0, 0, 0, 0]);
  });

  it.each([
    ['LGDT with an operand that is not mapped', [0x0f, 0x01, 0x10]],
    ['LLDT with an operand that is not mapped', [0x0f, 0x00, 0x10]],
  ])('%s raises #PF', async (_what, code) => {
    const g = (await testGuest()).attach().smod(code).set('rax', 0x40_0000).run();
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR) & 0xff).toBe(14);
    expect(g.pvcs64(abi.PVCS_CR2)).toBe(0x40_0000n);
  });

  it('MOV to SS with a kernel selector works', async () => {
    const g = (await testGuest()).attach().smod([0x8e, 0xd0], asm.pushRax, asm.hlt).set('rax', 0x18).run();
    expect(g.haltedAt).toBe(map.smodCode + 3);
  });

  it('a far return with a kernel selector goes on at its RIP', async () => {
    const g = (await testGuest()).attach().smod([0x6a, 0x10], asm.pushRax, [0x48, 0xcb]).set('rax', map.lstar).run();
    expect(g.haltedAt).toBe(map.lstar);
    expect(g.reg('rsp')).toBe(BigInt(map.smodStack));
  });
});

describe('control registers', () => {
  const dr = (n: number, value: number | bigint) => [...asm.mov('rax', value), 0x0f, 0x23, 0xc0 | (n << 3)];
  const getDr = (n: number) => [0x0f, 0x21, 0xc0 | (n << 3)];

  it('DR6 and DR7 read with their fixed bits, and take none above 31', async () => {
    const g = (await testGuest())
      .attach()
      .smod(dr(6, 0), dr(7, 0), getDr(6), asm.movReg('rbx', 'rax'), getDr(7), asm.movReg('rcx', 'rax'), dr(7, 1n << 32n), asm.hlt)
      .run();
    expect([g.reg('rbx'), g.pvcs64(abi.PVCS_RCX)]).toEqual([0xffff_0ff0n, 0x400n]);
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR) & 0xff).toBe(13);
  });

  it('a breakpoint on a store of umod is #DB after it, and DR6 says which', async () => {
    const store = [0xc6, 0x00, 1];
    const g = (await testGuest()).attach().umod(asm.mov('rax', map.umodData + 8), store, asm.ud2);
    // Breakpoint 1: one byte, on writes, local.
    g.smod(dr(1, map.umodData + 8), dr(7, (1 << 2) | (1 << 20)), asm.mov('rax', map.retu), asm.jmpRax);
    g.vcpu.rip = BigInt(map.smodCode);
    g.code(map.umodEvent, [...getDr(6), ...asm.hlt]).run();
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR)).toBe(1);
    expect(g.reg('rax') & 0xfn).toBe(2n);
  });

  it('a breakpoint outside the legal addresses is kept and not armed', async () => {
    const address = 0xffff_8000_0000_0000n;
    const g = (await testGuest()).attach().smod(dr(0, address), dr(7, 2), getDr(7), asm.movReg('rbx', 'rax'), getDr(0), asm.hlt).run();
    expect([g.reg('rax'), g.reg('rbx')]).toEqual([address, 0x402n]);
    expect(g.vcpu.get32(S_WATCH)).toBe(0);
  });

  it('CR0 reads its fixed bits whatever is written', async () => {
    const g = (await testGuest()).attach().smod(asm.mov('rax', 0x6000_000f), asm.setCr(0), asm.getCr(0), asm.hlt).run();
    expect(g.reg('rax')).toBe(0x8005_0033n);
  });

  it('CR4 keeps PAE and FSGSBASE, takes PCIDE', async () => {
    const g = (await testGuest()).attach().smod(asm.mov('rax', 0x2_0600), asm.setCr(4), asm.getCr(4), asm.hlt).run();
    expect(g.reg('rax')).toBe(0x3_0620n);
  });

  it.each([
    ['CR4.SMAP', 4, 1n << 21n],
    ['a reserved bit of CR4', 4, 1n << 15n],
    ['a CR8 above 15', 8, 16n],
    ['the upper half of CR0', 0, 1n << 32n],
  ])('%s is #GP', async (_what, cr, value) => {
    const g = (await testGuest()).attach().smod(asm.mov('rax', value), asm.setCr(cr)).run();
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR) & 0xff).toBe(13);
  });

  it('CR3 reads back with its low bits', async () => {
    const g = (await testGuest())
      .attach()
      .smod(asm.mov('rax', map.pml4 | 1), asm.setCr(3), asm.getCr(3), asm.hlt)
      .run();
    expect(g.reg('rax')).toBe(BigInt(map.pml4 | 1));
  });
});

describe('interrupt flag', () => {
  it('POPF does not touch the virtual IF and does not exit', async () => {
    const g = (await testGuest())
      .attach()
      .smod(asm.mov('rax', 0x202), asm.pushRax, asm.popfq, asm.mov('rax', 2), asm.pushRax, asm.popfq, asm.pushfq, asm.popRax, asm.hlt)
      .run();
    expect(g.reg('rax')).toBe(0x202n);
    expect(g.pvcs32(abi.PVCS_EVENT_FLAGS)).toBe(0);
    expect(g.exits()).toEqual({});
  });

  it('STI and CLI change it in the PVCS', async () => {
    const g = (await testGuest()).attach().smod(asm.sti, asm.load(map.pvcs), asm.movReg('rbx', 'rax'), asm.cli, asm.load(map.pvcs), asm.hlt).run();
    expect([g.reg('rbx'), g.reg('rax')]).toEqual([0x200n, 0n]);
  });

  it('the guest may write it directly, without an exit', async () => {
    const g = (await testGuest()).attach().smod(asm.mov('rax', 0x200), asm.store(map.pvcs), asm.hlt).run();
    expect(g.design.halted(0)).toBe('wakeable');
    expect(g.exits()).toEqual({});
  });
});

describe('CPUID', () => {
  it('the synthetic form is one exit and answers the hypervisor leaves', async () => {
    const g = (await testGuest()).attach().smod(asm.mov('rax', 0x4000_0000), asm.syntheticCpuid, asm.hlt).run();
    const text = [g.reg('rbx'), g.reg('rcx'), g.reg('rdx')].flatMap((r) => [0n, 8n, 16n, 24n].map((s) => Number((r >> s) & 0xffn)));
    expect(String.fromCharCode(...text)).toBe('KVMKVMKVM\0\0\0');
    expect(g.reg('rax')).toBeGreaterThanOrEqual(0x4000_0002n);
    expect(g.exits()).toEqual({ '#GP CPUID': 1 });
    expect(g.haltedAt).toBe(map.smodCode + 20);
  });

  it('leaf 0x40000002 says PVM, bare and synthetic alike, and the bare one does not exit', async () => {
    const g = (await testGuest()).attach().smod(asm.mov('rax', 0x4000_0002), asm.cpuid, asm.hlt).run();
    expect([g.reg('rbx'), g.reg('rcx'), g.reg('rdx')]).toEqual([0x4d_5650n, 0n, 0n]);
    expect(g.exits()).toEqual({});
    expect(cpuid(g.vcpu, 0x4000_0002, 0)[1]).toBe(0x4d_5650);
  });

  it('leaf 1 reports a hypervisor, leaf 7 no SMAP', async () => {
    const g = await testGuest();
    expect((cpuid(g.vcpu, 1, 0)[2] >>> 31) & 1).toBe(1);
    expect((cpuid(g.vcpu, 7, 0)[1] >>> 20) & 1).toBe(0);
  });

  it('another INVLPG address is an INVLPG', async () => {
    const g = (await testGuest()).attach().smod([0x0f, 0x01, 0x3c, 0x25, 0, 0, 0x10, 0], asm.hlt).run();
    expect(g.exits()).toEqual({ '#GP INVLPG': 1 });
  });
});
