import { P_SWITCH_CR3, S_CR3 } from '@pvm/cpu-jit/layout';
import { describe, expect, it } from 'vitest';
import * as asm from '../testing/assemble.ts';
import { map, type TestGuest, testGuest } from '../testing/guest.ts';
import * as abi from './constants.ts';

const signed = (g: TestGuest) => BigInt.asIntN(64, g.reg('rax'));
const wrmsr = (index: number, value: bigint | number) => [...asm.mov('rax', abi.HC_WRMSR), ...asm.mov('rbx', index), ...asm.mov('r10', value), ...asm.syscall];
const rdmsr = (index: number) => [...asm.mov('rax', abi.HC_RDMSR), ...asm.mov('rbx', index), ...asm.syscall];

describe('MSRs of rfc-v1', () => {
  const msrs: readonly [name: string, index: number, value: bigint][] = [
    ['SUPERVISOR_RSP', abi.MSR_PVM_SUPERVISOR_RSP, 0xffff_d000_0000_1000n],
    ['SUPERVISOR_REDZONE', abi.MSR_PVM_SUPERVISOR_REDZONE, 256n],
    ['RETS_RIP', abi.MSR_PVM_RETS_RIP, 0xffff_d000_0000_2000n],
    ['SWITCH_CR3', abi.MSR_PVM_SWITCH_CR3, 0x5001n],
  ];
  it.each(msrs)('%s reads what was written, by hypercall and by instruction', async (name, index, value) => {
    const g = (await testGuest({ abi: 'rfc-v1' })).attach();
    g.smod(wrmsr(index, value), asm.movReg('r12', 'rax'), rdmsr(index), asm.movReg('r13', 'rax'), asm.mov('rcx', index), asm.rdmsr, asm.hlt).run();
    expect(g.reg('r12')).toBe(0n);
    expect(g.reg('r13')).toBe(value);
    expect((g.reg('rdx') << 32n) | g.reg('rax')).toBe(value);
    expect(g.exits()).toEqual({ 'HYPERCALL WRMSR': 1, 'HYPERCALL RDMSR': 1, [`#GP RDMSR PVM_${name}`]: 1 });
  });

  it.each(msrs)('%s does not exist in v2: -EIO, 0 and #GP', async (_name, index, value) => {
    const g = (await testGuest({ abi: 'v2' })).attach();
    g.smod(wrmsr(index, value), asm.movReg('r12', 'rax'), rdmsr(index), asm.movReg('r13', 'rax'), asm.mov('rcx', index), asm.rdmsr, asm.hlt).run();
    expect(BigInt.asIntN(64, g.reg('r12'))).toBe(-5n);
    expect(g.reg('r13')).toBe(0n);
    expect(g.haltedAt).toBe(map.smodEvent);
  });
});

describe('hypercalls that differ', () => {
  it('LOAD_PGTBL loads the tables of both modes, low bits ignored', async () => {
    const g = (await testGuest({ abi: 'rfc-v1' })).attachRfcV1();
    g.ram.bytes.copyWithin(0x5_0000, map.pml4, map.pml4 + 4096);
    g.umod(asm.ud2);
    g.vcpu.rip = BigInt(map.smodCode);
    const load = [...asm.mov('rax', abi.HC_LOAD_PGTBL), ...asm.mov('rbx', abi.LOAD_PGTBL_FLUSH), ...asm.mov('r10', 0x5_0001)];
    // The guest's tables are taken at their word: umod has nothing but a PML4 without entries.
    g.smod(load, asm.mov('rdx', 0x6_0000), asm.syscall, asm.mov('rax', map.retu), asm.jmpRax).run();
    expect(g.vcpu.get64(S_CR3)).toBe(0x5_0001n);
    expect(g.vcpu.get64(P_SWITCH_CR3)).toBe(0x6_0000n);
    expect(g.haltedAt).toBe(map.umodEvent);
    expect(g.pvcs64(abi.PVCS_CR2)).toBe(BigInt(map.umodCode));
    expect(g.exits()).toMatchObject({ 'HYPERCALL LOAD_PGTBL': 1, '#PF guest': 1 });
  });

  it('LOAD_TLS returns the index of its first entry', async () => {
    const g = (await testGuest({ abi: 'rfc-v1' })).attachRfcV1();
    g.smod(asm.mov('rax', abi.HC_LOAD_TLS), asm.syscall, asm.hlt).run();
    expect(g.reg('rax')).toBe(BigInt(abi.GDT_TLS_FIRST));
  });

  it('TLB_FLUSH_CURRENT forgets translations of both modes', async () => {
    const g = (await testGuest({ abi: 'rfc-v1' })).attachRfcV1();
    g.smod(asm.mov('rax', abi.HC_TLB_FLUSH_CURRENT), asm.syscall, asm.hlt).run();
    expect(signed(g)).toBe(0n);
    expect(g.exits()).toEqual({ 'HYPERCALL TLB_FLUSH_CURRENT': 1 });
  });
});

describe('abi auto', () => {
  it.each([
    ['SWITCH_CR3', abi.MSR_PVM_SWITCH_CR3],
    ['SUPERVISOR_RSP', abi.MSR_PVM_SUPERVISOR_RSP],
    ['RETS_RIP', abi.MSR_PVM_RETS_RIP],
  ])('a write of %s before the first event makes the guest one of rfc-v1', async (_name, index) => {
    const g = (await testGuest()).attach();
    expect(g.vcpu.revision.name).toBe('v2');
    g.smod(wrmsr(index, 0x5000), asm.movReg('r12', 'rax'), rdmsr(index), asm.ud2).run();
    expect(g.vcpu.revision.name).toBe('rfc-v1');
    expect([g.reg('r12'), g.reg('rax')]).toEqual([0n, 0x5000n]);
    expect(g.haltedAt).toBe(map.smodException);
  });

  it('after an event it is too late: the MSR does not exist', async () => {
    const g = (await testGuest()).attach().smod(asm.ud2).code(map.smodEvent, wrmsr(abi.MSR_PVM_SWITCH_CR3, 0x5000), asm.hlt).run();
    expect(g.vcpu.revision.name).toBe('v2');
    expect(signed(g)).toBe(-5n);
  });

  it.each([true, false])('after a return to umod as well (direct switch %s)', async (directSwitch) => {
    const g = (await testGuest({ directSwitch })).attach().umod(asm.syscall);
    g.code(map.lstar, wrmsr(abi.MSR_PVM_RETS_RIP, 0x5000), asm.hlt).run();
    expect(g.vcpu.revision.name).toBe('v2');
    expect(signed(g)).toBe(-5n);
  });

  it('a red zone alone decides nothing and cannot be read back, but holds once the guest has shown what it is', async () => {
    const g = (await testGuest()).attach();
    const zone = wrmsr(abi.MSR_PVM_SUPERVISOR_REDZONE, 64);
    g.smod(zone, asm.movReg('r12', 'rax'), rdmsr(abi.MSR_PVM_SUPERVISOR_REDZONE), asm.movReg('r13', 'rax'), wrmsr(abi.MSR_PVM_RETS_RIP, 1), asm.ud2).run();
    expect([g.reg('r12'), g.reg('r13')]).toEqual([0n, 0n]);
    expect(g.reg('rsp')).toBe(BigInt(map.smodStack - 64 - abi.FRAME_SIZE));
  });
});
