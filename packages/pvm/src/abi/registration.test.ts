import { S_STAR } from '@pvm/cpu-jit/layout';
import { describe, expect, it } from 'vitest';
import { TripleFault } from '../designs/design.ts';
import * as asm from '../testing/assemble.ts';
import { map, type TestGuest, testGuest } from '../testing/guest.ts';
import * as abi from './constants.ts';
import { ABI_REVISIONS, type AbiRevision } from './revision.ts';

// How kernels written by others may register themselves, beside the way of the embedded one.

const RAM = 4 << 20;
const guest = async (revision: AbiRevision) => {
  const g = await testGuest({ abi: revision });
  return revision === 'v2' ? g.attach() : g.attachRfcV1();
};
const wrmsr = (index: number, value: bigint | number) => [...asm.mov('rax', abi.HC_WRMSR), ...asm.mov('rbx', index), ...asm.mov('r10', value), ...asm.syscall];
/** WRMSR of the value in smod before anything else, then on to umod, which runs UD2. */
const thenUser = async (revision: AbiRevision, ...writes: (readonly number[])[]) => {
  const g = (await guest(revision)).umod(asm.ud2);
  g.vcpu.rip = BigInt(map.smodCode);
  return g.smod(...writes, asm.mov('rax', map.retu), asm.jmpRax);
};
const pvcsAt = (g: TestGuest, gpa: number, offset: number) => g.ram.view.getBigUint64(gpa + offset, true);

describe.each(ABI_REVISIONS)('registration with %s', (revision) => {
  it.each([
    ['in the last page of RAM', RAM - 4096],
    ['in the page behind the page tables', 0x9000],
    ['in a page of umod', map.umodData],
  ])('a PVCS %s', async (_what, gpa) => {
    const g = await thenUser(revision, wrmsr(abi.MSR_PVM_VCPU_STRUCT, gpa));
    // The guest fills the new one as it had filled the old.
    g.ram.bytes.copyWithin(gpa, map.pvcs, map.pvcs + abi.PVCS_SIZE);
    g.run();
    expect(g.haltedAt).toBe(map.umodEvent);
    expect(pvcsAt(g, gpa, g.vcpu.revision.pvcs.rip)).toBe(BigInt(map.umodCode));
  });

  it('a PVCS that moves while the guest runs: the old page is left alone', async () => {
    const g = await thenUser(revision, wrmsr(abi.MSR_PVM_VCPU_STRUCT, 0x5_0000));
    g.ram.bytes.copyWithin(0x5_0000, map.pvcs, map.pvcs + abi.PVCS_SIZE);
    const { rip } = g.vcpu.revision.pvcs;
    g.pvcs64(rip, 0x1234n);
    g.ram.view.setBigUint64(0x5_0000 + rip, BigInt(map.umodCode), true);
    g.run();
    expect(g.pvcs64(rip)).toBe(0x1234n);
    expect(g.haltedAt).toBe(map.umodEvent);
  });

  it.each([
    ['in the upper half', map.window + BigInt(map.umodEvent)],
    ['at an odd address', BigInt(map.umodEvent) + 0x801n],
    ['so that its entries lie in two pages', BigInt(map.umodEvent) + 0xe00n],
  ])('an EVENT_ENTRY %s', async (_what, entry) => {
    const g = await thenUser(revision, wrmsr(abi.MSR_PVM_EVENT_ENTRY, entry));
    const physical = Number(entry & 0xff_ffffn);
    for (const offset of abi.EVENT_ENTRIES) g.code(physical + offset, asm.ud2);
    g.code(physical, asm.ud2);
    // The event of umod is followed by one of smod.
    const smodEntry = physical + (revision === 'v2' ? 512 : 256);
    g.code(smodEntry, asm.hlt).run();
    expect(g.haltedAt).toBe(Number(entry) - physical + smodEntry);
  });

  it.each([
    ['in the upper half', map.window + BigInt(map.retu)],
    ['at the end of a page, its second byte in the next', BigInt(map.retu) + 0xfffn],
    ["in umod's page", BigInt(map.umodData)],
  ])('a RETU_RIP %s', async (what, rip) => {
    const g = await guest(revision);
    g.umod(asm.ud2).vcpu.rip = BigInt(map.smodCode);
    g.code(Number(rip & 0xff_ffffn), asm.syscall);
    g.smod(wrmsr(abi.MSR_PVM_RETU_RIP, rip), asm.mov('rax', rip), asm.jmpRax).run();
    // v2 has SMEP: the kernel cannot execute there.
    const isRefused = revision === 'v2' && what === "in umod's page";
    expect(g.haltedAt).toBe(isRefused ? map.smodEvent : map.umodEvent);
  });

  it('the same address for LSTAR and EVENT_ENTRY', async () => {
    const g = await thenUser(revision, wrmsr(0xc000_0082, map.umodEvent));
    g.code(map.umodCode, asm.syscall).run();
    expect(g.haltedAt).toBe(map.umodEvent);
  });

  it('a SYSCALL at RETU_RIP before there is a PVCS ends the machine', async () => {
    const g = await testGuest({ abi: revision });
    g.smod(wrmsr(abi.MSR_PVM_RETU_RIP, map.retu), asm.mov('rax', map.retu), asm.jmpRax);
    expect(() => g.run()).toThrow(TripleFault);
  });

  it.each([
    ['part of the default', 0xffff_ffff_ffd0_ffb0n, true],
    ['one slot', 0xffff_ffff_ffa1_ffa0n, true],
    ['empty', 0xffff_ffff_ffff_ffffn, false],
    ['more than the default', 0xffff_ffff_ffe1_ffa0n, undefined],
    ['turned round', 0xffff_ffff_ffa0_ffb0n, undefined],
    ['up to the last slot', 0xffff_ffff_ffff_ffa0n, undefined],
    ['a PML5 slot, which the default has none of', 0xff11_ff10_ffe0_ffa0n, undefined],
  ])('an address range that is %s', async (_what, range, isPresent) => {
    const g = (await guest(revision)).smod(wrmsr(abi.MSR_PVM_LINEAR_ADDRESS_RANGE, range), asm.hlt).run();
    expect(BigInt.asIntN(64, g.reg('rax'))).toBe(isPresent === undefined ? -5n : 0n);
    const { start4, end4 } = g.vcpu.range;
    expect([start4, end4]).toEqual(isPresent === undefined ? [0x1a0, 0x1e0] : [Number(range & 0x1ffn), Number((range >> 16n) & 0x1ffn)]);
  });

  it('a STAR of another kernel CS is kept, of another user CS is #GP', async () => {
    const g = (await guest(revision)).smod(
      wrmsr(0xc000_0081, 0x23_0008_0000_0000n),
      asm.movReg('r12', 'rax'),
      wrmsr(0xc000_0081, 0x1b_0008_0000_0000n),
      asm.hlt,
    );
    g.run();
    expect(g.reg('r12')).toBe(0n);
    expect(BigInt.asIntN(64, g.reg('rax'))).toBe(-5n);
    expect(g.vcpu.get64(S_STAR)).toBe(0x23_0008_0000_0000n);
  });
});
