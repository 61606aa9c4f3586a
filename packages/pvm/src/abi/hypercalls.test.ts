import { describe, expect, it } from 'vitest';
import * as abi from '../abi-v2/constants.ts';
import { TripleFault } from '../designs/design.ts';
import * as asm from '../testing/assemble.ts';
import { map, type TestGuest, testGuest } from '../testing/guest.ts';
import { DEFAULT_RANGE, packRange } from './address-range.ts';

/** One hypercall from smod; then the guest halts. */
async function call(
  number: number,
  args: { rbx?: bigint | number; r10?: bigint | number; rdx?: bigint | number } = {},
  prepare: (g: TestGuest) => void = () => undefined,
) {
  const g = (await testGuest({ abi: 'v2' })).attach().smod(asm.syscall, asm.hlt);
  prepare(g);
  g.set('rax', number)
    .set('rbx', args.rbx ?? 0)
    .set('r10', args.r10 ?? 0)
    .set('rdx', args.rdx ?? 0);
  return g.run();
}
const signed = (g: TestGuest) => BigInt.asIntN(64, g.reg('rax'));

describe('hypercalls', () => {
  it('clobber RCX and R11 as SYSCALL does, and nothing else', async () => {
    const g = await call(abi.HC_TLB_FLUSH, { rbx: 3, r10: 5, rdx: 7 });
    expect(g.reg('rcx')).toBe(BigInt(map.smodCode) + 2n);
    expect(g.reg('r11') & 0x202n).toBe(0x202n);
    expect([g.reg('rax'), g.reg('rbx'), g.reg('r10'), g.reg('rdx')]).toEqual([0n, 3n, 5n, 7n]);
  });

  it.each([
    [abi.HC_TLB_FLUSH, 'TLB_FLUSH', 0n],
    [abi.HC_TLB_FLUSH_CURRENT, 'TLB_FLUSH_CURRENT', 0n],
    [abi.HC_TLB_INVLPG, 'TLB_INVLPG', 0n],
    [abi.HC_IRQ_WIN, 'IRQ_WIN', 0n],
    [abi.KVM_HC_VAPIC_POLL_IRQ, 'KVM_VAPIC_POLL_IRQ', 0n],
    [abi.KVM_HC_KICK_CPU, 'KVM_KICK_CPU', -1000n],
    [abi.KVM_HC_SCHED_YIELD, 'KVM_SCHED_YIELD', -1000n],
    [abi.KVM_HC_SEND_IPI, 'KVM_SEND_IPI', -1000n],
    [0x1708_82ff, 'unknown', -1000n],
    [77, 'unknown', -1000n],
  ])('0x%s is one exit of %s', async (number, name, result) => {
    const g = await call(number);
    expect(signed(g)).toBe(result);
    expect(g.exits()).toEqual({ [`HYPERCALL ${name}`]: 1 });
  });

  it('LOAD_PGTBL makes other tables current, low bits ignored', async () => {
    const other = 0x5_0000;
    const g = await call(abi.HC_LOAD_PGTBL, { rbx: abi.LOAD_PGTBL_FLUSH, r10: other | 1 }, (guest) => {
      // The same table, but the upper-half window is gone and its next slot is there instead.
      guest.ram.view.setBigUint64(other, guest.ram.view.getBigUint64(map.pml4, true), true);
      guest.ram.view.setBigUint64(other + 8 * 417, guest.ram.view.getBigUint64(map.pml4, true), true);
      guest.code(map.smodCode + 2, asm.load(map.window + (1n << 39n) + BigInt(map.retu)), asm.load(map.window));
    });
    expect(g.pvcs64(abi.PVCS_CR2)).toBe(map.window);
    expect(g.reg('rax') & 0xffffn).toBe(0x050fn);
    expect(g.exits()).toEqual({ 'HYPERCALL LOAD_PGTBL': 1, '#PF guest': 1 });
  });

  it('LOAD_PGTBL back and forth finds the shadow tables it left', async () => {
    const g = (await testGuest()).attach();
    g.ram.bytes.copyWithin(0x5_0000, map.pml4, map.pml4 + 4096);
    const load = (cr3: number) => [...asm.mov('rax', abi.HC_LOAD_PGTBL), ...asm.mov('rbx', 0), ...asm.mov('r10', cr3), ...asm.syscall];
    const body = [...load(0x5_0000), ...asm.load(map.umodData), ...load(map.pml4), ...asm.load(map.umodData)];
    g.smod(body, asm.loopBack(body.length), asm.hlt).set('rbp', 10).run();
    expect(g.ledger.count('HYPERCALL', 'LOAD_PGTBL')).toBe(20);
    expect(g.ledger.count('#PF', 'shadow')).toBeLessThanOrEqual(6);
  });

  it('IRQ_WIN clears IP and lets the interrupt in', async () => {
    const g = (await testGuest()).attach();
    g.smod(asm.sti, asm.mov('rax', abi.HC_IRQ_WIN), asm.syscall, asm.hlt);
    g.pvcs32(abi.PVCS_EVENT_FLAGS, abi.EVENT_FLAG_IP);
    g.run();
    expect(g.pvcs32(abi.PVCS_EVENT_FLAGS)).toBe(abi.EVENT_FLAG_IF);
    expect(g.design.halted(0)).toBe('wakeable');
    g.design.injectInterrupt(0, 0x31);
    g.run();
    expect(g.haltedAt).toBe(map.smodEvent);
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR) & 0xff).toBe(0x31);
  });

  it('IRQ_HALT opens interrupts and waits', async () => {
    const g = (await testGuest()).attach().smod(asm.mov('rax', abi.HC_IRQ_HALT), asm.syscall, asm.ud2).run();
    expect(g.design.halted(0)).toBe('wakeable');
    g.design.injectInterrupt(0, 0x32);
    g.run();
    expect(g.pvcs16(abi.PVCS_EVENT_VECTOR) & 0xff).toBe(0x32);
    expect(g.exits()).toEqual({ 'HYPERCALL IRQ_HALT': 1 });
  });

  it('TLB_INVLPG after a change of a page table shows the new page', async () => {
    const g = (await testGuest()).attach();
    g.ram.view.setUint8(map.umodData, 0xaa);
    g.ram.view.setUint8(map.umodData + 0x1000, 0xbb);
    const pte = map.pageTable + 8 * (map.umodData >> 12);
    g.smod(
      asm.load8(map.umodData),
      asm.mov('rax', (map.umodData + 0x1000) | 7),
      asm.store(pte),
      asm.mov('rax', abi.HC_TLB_INVLPG),
      asm.mov('rbx', map.umodData),
      asm.syscall,
      asm.load8(map.umodData),
      asm.hlt,
    ).run();
    expect(g.reg('rax') & 0xffn).toBe(0xbbn);
    expect(g.exits()).toEqual({ '#PF table write': 1, 'HYPERCALL TLB_INVLPG': 1 });
  });

  // Base 0x12345678, limit 0xfffff pages, 32-bit data, DPL 3, present.
  const TLS = 0x12cf_f334_5678_ffffn;
  it('LOAD_TLS and LOAD_GS: a selector of entry 12 has the base of its descriptor', async () => {
    const g = (await testGuest()).attach();
    g.smod(asm.mov('rax', abi.HC_LOAD_TLS), asm.syscall, asm.mov('rax', abi.HC_LOAD_GS), asm.mov('rbx', 12 * 8 + 3), asm.syscall, asm.hlt);
    g.set('rbx', TLS).set('r10', 0).set('rdx', 0).run();
    expect(g.reg('rax')).toBe(0x1234_5678n);
    expect(g.vcpu.selector(5)).toBe(12 * 8 + 3);
    // The kernel keeps its own base.
    expect(g.vcpu.segmentBase(5)).toBe(0n);
  });

  it.each([
    ['an empty entry', 0n, 12 * 8 + 3],
    ['a code segment', TLS | (8n << 40n), 12 * 8 + 3],
    ['DPL 0', TLS & ~(0x60n << 40n), 12 * 8 + 3],
    ['a selector with RPL 0', TLS, 12 * 8],
    ['an entry out of reach', TLS, 15 * 8 + 3],
  ])('LOAD_GS of %s loads NULL', async (_what, descriptor, selector) => {
    const g = (await testGuest()).attach();
    g.smod(asm.mov('rax', abi.HC_LOAD_TLS), asm.syscall, asm.mov('rax', abi.HC_LOAD_GS), asm.mov('rbx', selector), asm.syscall, asm.hlt);
    g.set('rbx', descriptor).run();
    expect(g.reg('rax')).toBe(0n);
    expect(g.vcpu.selector(5)).toBe(0);
  });

  it('KVM_HC_CLOCK_PAIRING writes wall clock and TSC', async () => {
    const g = await call(abi.KVM_HC_CLOCK_PAIRING, { rbx: 0x6_0000 });
    expect(signed(g)).toBe(0n);
    expect(g.ram.view.getBigUint64(0x6_0000, true)).toBe(5n);
    expect(g.ram.view.getBigUint64(0x6_0008, true)).toBe(7n);
  });
});

describe('MSRs by hypercall', () => {
  const readBack: readonly [name: string, index: number, value: bigint][] = [
    ['VCPU_STRUCT', abi.MSR_PVM_VCPU_STRUCT, 0x7_0000n],
    ['EVENT_ENTRY', abi.MSR_PVM_EVENT_ENTRY, 0xffff_d000_0000_1000n],
    ['RETU_RIP', abi.MSR_PVM_RETU_RIP, 0xffff_d000_0000_2000n],
    ['LINEAR_ADDRESS_RANGE', abi.MSR_PVM_LINEAR_ADDRESS_RANGE, 0xffff_ffff_ffb0_ffa0n],
    ['LSTAR', 0xc000_0082, 0xffff_d000_0000_3000n],
    ['CSTAR', 0xc000_0083, 0x1000n],
    ['SYSCALL_MASK', 0xc000_0084, 0x700n],
    ['SYSENTER_EIP', 0x176, 0x1000n],
    ['STAR', 0xc000_0081, 0x23_0010_0000_0000n],
    ['FS_BASE', 0xc000_0100, 0x7fff_0000_0000n],
    ['GS_BASE', 0xc000_0101, 0xffff_d000_0000_4000n],
    ['KERNEL_GS_BASE', 0xc000_0102, 0xffff_d000_0000_5000n],
    ['TSC_AUX', 0xc000_0103, 5n],
  ];
  it.each(readBack)('%s reads what was written', async (_name, index, value) => {
    const g = (await testGuest()).attach();
    g.smod(asm.mov('rax', abi.HC_WRMSR), asm.syscall, asm.movReg('r12', 'rax'), asm.mov('rax', abi.HC_RDMSR), asm.syscall, asm.hlt);
    g.set('rbx', index).set('r10', value).run();
    expect(g.reg('r12')).toBe(0n);
    expect(g.reg('rax')).toBe(value);
    expect(g.exits()).toEqual({ 'HYPERCALL WRMSR': 1, 'HYPERCALL RDMSR': 1 });
  });

  it.each([
    ['an unaligned VCPU_STRUCT', abi.MSR_PVM_VCPU_STRUCT, 0x7_0008n],
    ['a VCPU_STRUCT outside RAM', abi.MSR_PVM_VCPU_STRUCT, 1n << 40n],
    ['a range with a fixed bit clear', abi.MSR_PVM_LINEAR_ADDRESS_RANGE, 1n],
    ['a STAR with another user CS', 0xc000_0081, 0x10_0010_0000_0000n],
    ['an LSTAR that is not canonical', 0xc000_0082, 1n << 60n],
    ['a GS base that is not canonical', 0xc000_0101, 1n << 60n],
    ['EFER without LME', 0xc000_0080, 1n],
    ['an MSR of rfc-v1', 0x4b56_4df2, 0n],
    ['an unknown MSR', 0x1234, 0n],
  ])('%s is -EIO', async (_what, index, value) => {
    expect(signed(await call(abi.HC_WRMSR, { rbx: index, r10: value }))).toBe(-5n);
  });

  it('an unknown MSR reads 0', async () => {
    expect(signed(await call(abi.HC_RDMSR, { rbx: 0x1234 }))).toBe(0n);
  });

  it('a range of 0 restores the default', async () => {
    const g = await call(abi.HC_WRMSR, { rbx: abi.MSR_PVM_LINEAR_ADDRESS_RANGE, r10: 0 });
    expect(signed(g)).toBe(0n);
    expect(g.vcpu.range).toEqual(DEFAULT_RANGE);
    expect(packRange(DEFAULT_RANGE)).toBe(0xffff_ffff_ffe0_ffa0n);
  });

  it('VCPU_STRUCT 0 detaches', async () => {
    const g = await call(abi.HC_WRMSR, { rbx: abi.MSR_PVM_VCPU_STRUCT, r10: 0 });
    expect(g.vcpu.pvcs).toBe(0);
  });

  it.each([0n, 256n, 512n])('an EVENT_ENTRY not canonical at +%s is a triple fault', async (offset) => {
    await expect(call(abi.HC_WRMSR, { rbx: abi.MSR_PVM_EVENT_ENTRY, r10: 0x8000_0000_0000n - offset })).rejects.toThrow(TripleFault);
  });

  it('kvmclock says one tick is one nanosecond', async () => {
    const g = await call(abi.HC_WRMSR, { rbx: 0x4b56_4d01, r10: 0x6_0001n });
    expect(g.ram.view.getBigUint64(0x6_0008, true)).toBe(g.ram.view.getBigUint64(0x6_0010, true));
    expect(g.ram.view.getUint32(0x6_0018, true)).toBe(0x8000_0000);
    expect(g.ram.view.getUint8(0x6_001c)).toBe(1);
  });
});

describe('legal addresses', () => {
  it.each([
    ['the window', map.window, true],
    ['the upper half outside the window', 0xffff_8000_0000_0000n, false],
  ])('a walk in %s: found %s', async (_what, base, found) => {
    const g = (await testGuest())
      .attach()
      .smod(asm.load(base + BigInt(map.retu)), asm.hlt)
      .run();
    expect(g.haltedAt === map.smodEvent).toBe(!found);
    // Nothing there: the P bit of the error code is clear although the guest's table maps it.
    if (!found) expect(g.pvcs16(abi.PVCS_EVENT_ERRCODE)).toBe(0);
  });

  it('shrinking the range takes effect at once', async () => {
    const g = (await testGuest()).attach();
    g.smod(
      asm.load(map.window),
      asm.mov('rax', abi.HC_WRMSR),
      asm.mov('rbx', abi.MSR_PVM_LINEAR_ADDRESS_RANGE),
      asm.mov('r10', 0xffff_ffff_ffe0_ffb0n),
      asm.syscall,
      asm.load(map.window),
    );
    g.run();
    expect(g.pvcs64(abi.PVCS_CR2)).toBe(map.window);
  });
});
