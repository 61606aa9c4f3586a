import { describe, expect, it } from 'vitest';
import * as rfc from '../abi-rfc-v1/constants.ts';
import * as abi from '../abi-v2/constants.ts';
import { TripleFault } from '../designs/design.ts';
import * as asm from '../testing/assemble.ts';
import { map, type TestGuest, type TestGuestOptions, testGuest } from '../testing/guest.ts';

const REVISIONS = ['v2', 'rfc-v1'] as const;
const setDr = (n: number, value: number | bigint) => [...asm.mov('rax', value), 0x0f, 0x23, 0xc0 | (n << 3)];
const nop = [0x90];
/** Breakpoint 0 on execution, global. */
const ON_EXECUTION = 2;
const [TF, RF] = [0x100, 0x1_0000];
const DR6_BS = 0x4000n;
/** push TF | 2; popfq */
const trace = [0x68, 2, 1, 0, 0, 0x9d];
const jump = (to: number) => [...asm.mov('rax', to), ...asm.jmpRax];

/** A guest of either revision, which halts at its first event; `again` lets it go on. */
async function guest(revision: (typeof REVISIONS)[number], options: TestGuestOptions = {}): Promise<TestGuest> {
  const g = await testGuest({ abi: revision, ...options });
  return revision === 'v2' ? g.attach() : g.attachRfcV1();
}
function again(g: TestGuest, at: number): TestGuest {
  g.vcpu.halted = false;
  g.vcpu.rip = BigInt(at);
  return g.run();
}
/** What the PVCS says of the last event of umod. */
function userEvent(g: TestGuest): { readonly vector: number; readonly rip: number; readonly flags: number } {
  const { name, pvcs } = g.vcpu.revision;
  const vector = g.pvcs16(name === 'v2' ? abi.PVCS_EVENT_VECTOR : rfc.PVCS_EVENT_VECTOR);
  return { vector: vector & 0xff, rip: Number(g.pvcs64(pvcs.rip)) - map.umodCode, flags: g.pvcs32(pvcs.eflags) & (TF | RF) };
}
const dr6 = (g: TestGuest) => g.vcpu.debug.read(6) & 0xe00fn;

describe.each(REVISIONS)('an instruction breakpoint (%s)', (revision) => {
  it.each([true, false])('of umod is #DB before the instruction; the return with RF passes it once (direct switch %s)', async (directSwitch) => {
    // The instruction runs twice: inc ebx; jmp back to it.
    const g = (await guest(revision, { directSwitch })).umod(nop, [0xff, 0xc3], [0xeb, 0x100 - 4]);
    g.smod(setDr(0, map.umodCode + 1), setDr(7, ON_EXECUTION), jump(map.retu));
    g.set('rbx', 0);
    g.vcpu.rip = BigInt(map.smodCode);
    for (const done of [0n, 1n, 2n]) {
      if (done === 0n) g.run();
      else again(g, map.retu);
      expect(userEvent(g)).toEqual({ vector: 1, rip: 1, flags: RF });
      expect([dr6(g), g.reg('rbx')]).toEqual([1n, done]);
    }
  });

  describe.each([false, true])('with injectDirect %s', (injectDirect) => {
    /** mov rax, [umodData], which the guest's tables do not have until `mapped` is called; then `after`. A breakpoint at `address`. */
    async function faulting(address: number, after: readonly number[]): Promise<{ readonly g: TestGuest; mapped(): void }> {
      const g = (await guest(revision, { injectDirect })).umod(asm.load(map.umodData), after);
      g.smod(setDr(0, address), setDr(7, ON_EXECUTION), jump(map.retu));
      const entry = (revision === 'v2' ? map.pageTable : 0x8000) + 8 * (map.umodData >> 12);
      const present = g.ram.view.getBigUint64(entry, true);
      g.ram.view.setBigUint64(entry, 0n, true);
      g.vcpu.rip = BigInt(map.smodCode);
      return { g, mapped: () => g.ram.view.setBigUint64(entry, present, true) };
    }

    it('is passed once by an instruction that faults and comes again, too', async () => {
      const { g, mapped } = await faulting(map.umodCode, asm.ud2);
      g.run();
      expect(userEvent(g).vector).toBe(1);
      again(g, map.retu);
      expect(userEvent(g)).toEqual({ vector: 14, rip: 0, flags: RF });
      expect(g.ledger.worldSwitches().directFaults).toBe(injectDirect ? 1 : 0);
      mapped();
      again(g, map.retu);
      expect(userEvent(g).vector).toBe(6);
    });

    it('in another page stops what comes after an instruction that faulted and came again', async () => {
      const other = map.umodCode + 0x2000;
      const { g, mapped } = await faulting(other, jump(other));
      g.code(other, asm.ud2).run();
      expect(userEvent(g)).toEqual({ vector: 14, rip: 0, flags: RF });
      mapped();
      again(g, map.retu);
      expect(userEvent(g)).toEqual({ vector: 1, rip: 0x2000, flags: RF });
    });
  });

  it('of smod is #DB before the instruction', async () => {
    const g = await guest(revision);
    const set = [...setDr(0, map.smodCode + 26), ...setDr(7, ON_EXECUTION)];
    g.smod(set, nop, asm.hlt).run();
    expect(set).toHaveLength(26);
    expect(g.haltedAt).toBe(revision === 'v2' ? map.smodEvent : map.smodException);
    expect([dr6(g), g.exits()['#DB']]).toEqual([1n, 1]);
  });
});

it('ERETS passes the breakpoint that smod has hit, since its frame has RF', async () => {
  const g = (await guest('rfc-v1')).smod(setDr(0, map.smodCode + 26), setDr(7, ON_EXECUTION), nop, asm.hlt);
  g.code(map.smodException, jump(map.rets)).run();
  expect([g.haltedAt, g.exits()['#DB']]).toEqual([map.smodCode + 27, 1]);
});

describe.each(REVISIONS)('single-step (%s)', (revision) => {
  const at = (n: number) => map.smodCode + n;
  /** Where smod was when the event came. */
  const smodRip = (g: TestGuest) => (revision === 'v2' ? g.pvcs64(abi.PVCS_RIP) : g.ram.view.getBigUint64(Number(g.reg('rsp')) + rfc.FRAME_RIP, true));

  it('of umod does not stop at SYSCALL, which saves TF; the return goes on with it', async () => {
    const g = (await guest(revision)).umod(asm.syscall, nop, asm.ud2);
    g.pvcs32(g.vcpu.revision.pvcs.eflags, 0x202 | TF);
    g.run();
    expect([g.haltedAt, userEvent(g).flags, dr6(g)]).toEqual([map.lstar, TF, 0n]);
    again(g, map.retu);
    expect(userEvent(g)).toEqual({ vector: 1, rip: 3, flags: TF });
    expect(dr6(g)).toBe(DR6_BS);
  });

  it('of umod and the data breakpoint that the same instruction hits are one #DB', async () => {
    // push rax; of 8 bytes, on writing.
    const g = (await guest(revision)).umod([0x50], nop, asm.ud2);
    g.smod(setDr(0, map.umodStack - 8), setDr(7, ON_EXECUTION | (1 << 16) | (2 << 18)), jump(map.retu));
    g.pvcs32(g.vcpu.revision.pvcs.eflags, 0x202 | TF);
    g.vcpu.rip = BigInt(map.smodCode);
    g.run();
    expect([userEvent(g), dr6(g)]).toEqual([{ vector: 1, rip: 1, flags: TF }, DR6_BS | 1n]);
    again(g, map.retu);
    expect([userEvent(g), g.exits()['#DB']]).toEqual([{ vector: 1, rip: 2, flags: TF }, 2]);
  });

  it.each([
    ['an instruction of its own', nop, 1],
    ['CLI, which the hypervisor does', asm.cli, 1],
    ['HLT, which is over with it', asm.hlt, 1],
    ['a hypercall and the instruction after it', [...asm.syscall, ...nop], 3],
  ])('of smod stops after %s', async (_what, code, length) => {
    const g = (await guest(revision)).set('rax', abi.HC_TLB_FLUSH).smod(trace, code, nop, asm.hlt).run();
    expect([g.exits()['#DB'] ?? 0, smodRip(g), dr6(g)]).toEqual([code === nop || length === 3 ? 1 : 0, BigInt(at(trace.length + length)), DR6_BS]);
  });

  it('of smod ends with ERETU', async () => {
    const g = (await guest(revision)).umod(nop, asm.ud2);
    g.code(map.retu - trace.length, trace);
    g.set('rsp', map.smodStack);
    g.vcpu.rip = BigInt(map.retu - trace.length);
    g.run();
    expect([userEvent(g), dr6(g)]).toEqual([{ vector: 6, rip: 1, flags: 0 }, 0n]);
  });
});

describe('#DB that cannot be delivered is a triple fault', () => {
  it('while an event is live in the PVCS (v2)', async () => {
    const g = (await guest('v2')).smod(trace, nop, asm.hlt);
    g.ram.view.setUint16(map.pvcs + abi.PVCS_EVENT_VECTOR, abi.EVENT_VECTOR_STD | 14, true);
    expect(() => g.run()).toThrow(TripleFault);
  });

  it('on a stack that cannot be written (rfc-v1)', async () => {
    const g = (await guest('rfc-v1')).smod(trace, asm.mov('rsp', 0x40_0000), asm.hlt);
    expect(() => g.run()).toThrow(TripleFault);
  });
});
