import { describe, expect, it } from 'vitest';
import { ABI_REVISIONS, type AbiRevision } from '../../abi/revision.ts';
import * as asm from '../../testing/assemble.ts';
import { map, type TestGuest, type TestGuestOptions, testGuest } from '../../testing/guest.ts';

const guest = async (abi: AbiRevision, options: TestGuestOptions = {}) => {
  const g = await testGuest({ abi, ...options });
  return abi === 'v2' ? g.attach() : g.attachRfcV1();
};
/** Sets the last-level entry of a page of umod, in the tables of both revisions. */
const setEntry = (g: TestGuest, page: number, entry: bigint) => {
  for (const table of [map.pageTable, map.userPml4 + 0x3000]) g.ram.view.setBigUint64(table + 8 * (page >> 12), entry, true);
};
const NX = 1n << 63n;

describe('inject-direct', () => {
  const page = map.umodData;
  const cases: readonly [what: string, code: readonly number[], prepare?: (g: TestGuest) => void][] = [
    ['a read where nothing is mapped', asm.load(0x40_0123)],
    ['a write where nothing is mapped', asm.store(0x40_0008)],
    ['a read of an entry that is not present', asm.load(page), (g) => setEntry(g, page, 0n)],
    ['a write to a read-only page', asm.store(page), (g) => setEntry(g, page, BigInt(page) | 5n)],
    ['a read of a supervisor page', asm.load(page), (g) => setEntry(g, page, BigInt(page) | 3n)],
    ['code in a page without execution', [...asm.mov('rax', page), ...asm.jmpRax], (g) => setEntry(g, page, BigInt(page) | 7n | NX)],
    ['an entry with reserved bits, which the hypervisor judges', asm.load(page), (g) => setEntry(g, page, BigInt(page) | 7n | (1n << 50n))],
    ['an address of the window', asm.load(map.window + BigInt(map.pvcs))],
    ['an address of the upper half outside it', asm.load(0xffff_8000_0000_0000n)],
  ];
  /** What the kernel sees of the fault. */
  const seen = (g: TestGuest) => ({
    at: g.haltedAt,
    pvcs: [...g.ram.bytes.subarray(map.pvcs, map.pvcs + 128)],
    registers: Array.from({ length: 16 }, (_, n) => g.vcpu.reg(n)),
    rflags: g.vcpu.rflags,
    smod: g.vcpu.smod,
  });
  describe.each(ABI_REVISIONS)('with %s', (abi) => {
    it.each(cases)('%s looks the same to the kernel', async (_what, code, prepare) => {
      const views = [];
      for (const injectDirect of [false, true]) {
        const g = await guest(abi, { injectDirect });
        prepare?.(g);
        g.umod(code, asm.hlt).set('rbx', 0x1234n).run();
        views.push(seen(g));
      }
      expect(views[1]).toEqual(views[0]);
    });

    it('takes data faults to the kernel without an exit, one world switch each', async () => {
      const g = (await guest(abi, { injectDirect: true })).umod(asm.load(0x40_0000), asm.hlt).run();
      expect(g.exits()).toEqual({});
      expect(g.ledger.worldSwitches()).toMatchObject({ directFaults: 1, directReturns: 1 });
    });
  });

  it('leaves faults that only the shadow has to the hypervisor', async () => {
    const g = (await guest('v2', { injectDirect: true })).umod(asm.load(page), asm.syscall).run();
    expect(g.haltedAt).toBe(map.lstar);
    expect(g.ledger.worldSwitches().directFaults).toBe(0);
    expect(g.ledger.count('#PF', 'shadow')).toBeGreaterThan(0);
  });

  it('with prefault, the return from the handler is an exit that fills the shadow', async () => {
    for (const prefault of [true, false]) {
      const g = (await guest('v2', { injectDirect: true, prefault })).umod(asm.load(page), asm.syscall);
      setEntry(g, page, 0n);
      // The handler maps the page and returns.
      g.code(map.umodEvent, asm.mov('rax', page | 7), asm.store(map.pageTable + 8 * (page >> 12)), asm.mov('rax', map.retu), asm.jmpRax);
      const before = g.ledger.count('#PF', 'shadow');
      g.run();
      expect(g.haltedAt).toBe(map.lstar);
      expect(g.exits()).toEqual(prefault ? { '#PF table write': 1, ERETU: 1 } : { '#PF table write': 1 });
      expect(before).toBe(0);
    }
  });

  it('is not done while an interrupt waits or for single-step', async () => {
    const g = (await guest('v2', { injectDirect: true })).umod(asm.load(0x40_0000));
    g.pvcs32(g.vcpu.revision.pvcs.eflags, 0x302);
    g.run();
    expect(g.exits()).toEqual({ ERETU: 1, '#PF guest': 1 });
  });
});

describe('pcid-map', () => {
  const CALLS = 50;
  it.each(ABI_REVISIONS)('keeps translations across system calls, which without it are flushed twice a call (%s)', async (abi) => {
    const flushes = [];
    for (const pcidMap of [true, false]) {
      const g = (await guest(abi, { pcidMap })).umod(asm.syscall, asm.loopBack(asm.syscall.length), asm.ud2);
      g.code(map.lstar, asm.mov('rax', map.retu), asm.jmpRax).set('rbp', CALLS);
      const before = g.core.stats(0).tlbFlushes;
      g.run();
      expect(g.haltedAt).toBe(map.umodEvent);
      flushes.push(Number(g.core.stats(0).tlbFlushes - before));
    }
    expect((flushes[1] ?? 0) - (flushes[0] ?? 0)).toBeGreaterThanOrEqual(2 * CALLS);
    expect(flushes[0]).toBeLessThan(10);
  });

  it('has the same exits either way', async () => {
    const exits = [];
    for (const pcidMap of [true, false]) {
      const g = (await guest('v2', { pcidMap, directSwitch: false })).umod(asm.syscall, asm.load(0x40_0000));
      g.code(map.lstar, asm.mov('rax', map.retu), asm.jmpRax).run();
      exits.push(g.exits());
    }
    expect(exits[1]).toEqual(exits[0]);
  });
});
