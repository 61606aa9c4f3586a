import { Board, GuestRam, type LocalApic } from '@pvm/machine';
import { beforeEach, describe, expect, it } from 'vitest';
import { KvmPv } from './kvm-pv.ts';

const RAM = 4 << 20;
const WALL_CLOCK = [0x11, 0x4b56_4d00];
const SYSTEM_TIME = [0x12, 0x4b56_4d01];
const ASYNC_PF_EN = 0x4b56_4d02;
const STEAL_TIME = 0x4b56_4d03;
const PV_EOI_EN = 0x4b56_4d04;
const POLL_CONTROL = 0x4b56_4d05;
const EPOCH = 1_700_000_000n * 1_000_000_000n;

let now = 0;
let kicks = 0;
let ram: GuestRam;
let apic: LocalApic;
let pv: KvmPv;

beforeEach(() => {
  now = 5_000_000_123;
  kicks = 0;
  ram = new GuestRam(new ArrayBuffer(RAM), 0, RAM);
  const board = new Board({ ram, now: () => now, wallClock: () => EPOCH, kick: () => kicks++ });
  const [first] = board.apics.apics;
  if (first === undefined) throw new Error('a board has an APIC');
  apic = first;
  pv = new KvmPv({ ram, apic, tsc: () => BigInt(now) + 77n, tscToNs: (tsc) => Number(tsc - 77n), wallClock: () => EPOCH + BigInt(now) });
});

/** An edge-triggered interrupt, which the vCPU takes. */
function interrupt(vector: number, level = false): void {
  apic.accept({ destination: 0, logical: false, wide: true, delivery: 0, vector, level });
}
function enableApic(): void {
  apic.writeMmio(0xf0, 0x1ff);
}

describe("KVM's MSRs", () => {
  it.each([
    ['steal time, reserved bits', STEAL_TIME, 0x1003n, false],
    ['steal time outside RAM', STEAL_TIME, BigInt(RAM) | 1n, false],
    ['steal time off, whatever the address', STEAL_TIME, BigInt(RAM), true],
    ['steal time', STEAL_TIME, 0x1041n, true],
    ['end of interrupt, reserved bit', PV_EOI_EN, 0x1003n, false],
    ['end of interrupt outside RAM', PV_EOI_EN, (1n << 40n) | 1n, false],
    ['end of interrupt', PV_EOI_EN, 0x1005n, true],
    ['poll control, reserved bits', POLL_CONTROL, 2n, false],
    ['poll control', POLL_CONTROL, 0n, true],
    ['asynchronous page faults, which are not offered', ASYNC_PF_EN, 0n, false],
    ['no MSR of KVM', 0x4b56_4dff, 0n, false],
  ])('%s', (_, msr, value, isTaken) => {
    expect(pv.writeMsr(msr, value)).toBe(isTaken);
    if (isTaken) expect(pv.readMsr(msr)).toBe(value);
  });

  it('are at their power-on values first, and after INIT', () => {
    const all = [...WALL_CLOCK, ...SYSTEM_TIME, STEAL_TIME, PV_EOI_EN, POLL_CONTROL];
    const values = () => all.map((msr) => pv.readMsr(msr));
    const first = values();
    expect(first).toEqual([0n, 0n, 0n, 0n, 0n, 0n, 1n]);
    for (const msr of all) expect(pv.writeMsr(msr, msr === POLL_CONTROL ? 0n : 0x1001n & ~0x3en)).toBe(true);
    pv.reset();
    expect(values()).toEqual(first);
    expect(pv.readMsr(ASYNC_PF_EN)).toBeUndefined();
  });
});

describe('the clock', () => {
  it.each(SYSTEM_TIME)('tells by MSR %i what time it is at which TSC', (msr) => {
    ram.view.setUint32(0x2000, 7, true);
    expect(pv.writeMsr(msr, 0x2001n)).toBe(true);
    const { view } = ram;
    expect(view.getUint32(0x2000, true)).toBe(8);
    expect(view.getBigUint64(0x2008, true)).toBe(BigInt(now) + 77n);
    expect(view.getBigUint64(0x2010, true)).toBe(BigInt(now));
    // One nanosecond a tick: ((ticks << shift) * mul) >> 32.
    expect(((1000n << BigInt(view.getInt8(0x201c))) * BigInt(view.getUint32(0x2018, true))) >> 32n).toBe(1000n);
    // PVCLOCK_TSC_STABLE_BIT.
    expect(view.getUint8(0x201d)).toBe(1);
  });

  it.each(WALL_CLOCK)('tells by MSR %i when the machine was turned on', (msr) => {
    expect(pv.writeMsr(msr, 0x3000n)).toBe(true);
    expect([0, 4, 8].map((at) => ram.view.getUint32(0x3000 + at, true))).toEqual([2, 1_700_000_000, 0]);
  });

  it('writes nothing when it is off or outside RAM', () => {
    pv.writeMsr(0x12, 0x2000n);
    pv.writeMsr(0x12, BigInt(RAM - 16) | 1n);
    expect(ram.bytes.every((b) => b === 0)).toBe(true);
  });
});

describe('steal time', () => {
  const at = 0x4000;
  const field = () => ({
    steal: ram.view.getBigUint64(at, true),
    version: ram.view.getUint32(at + 8, true),
    preempted: ram.view.getUint8(at + 16),
  });

  it('adds up what the vCPU waited for its turns, under an even version', () => {
    pv.writeMsr(STEAL_TIME, BigInt(at) | 1n);
    expect(field()).toEqual({ steal: 0n, version: 2, preempted: 0 });
    pv.steal.end();
    expect(field().preempted).toBe(1);
    expect(pv.steal.begin(1500.7)).toBe(false);
    pv.steal.end();
    pv.steal.begin(500);
    expect(field()).toEqual({ steal: 2000n, version: 6, preempted: 0 });
  });

  it('asks for a TLB flush that another vCPU left behind', () => {
    pv.writeMsr(STEAL_TIME, BigInt(at) | 1n);
    pv.steal.end();
    ram.view.setUint8(at + 16, field().preempted | 2);
    expect(pv.steal.begin(0)).toBe(true);
    expect(field().preempted).toBe(0);
  });

  it('is not told to a guest that does not want it', () => {
    expect(pv.steal.begin(1)).toBe(false);
    pv.steal.end();
    expect(ram.bytes.every((b) => b === 0)).toBe(true);
  });
});

describe('end of interrupt', () => {
  const bit = 0x5000;
  beforeEach(() => {
    enableApic();
    pv.writeMsr(PV_EOI_EN, BigInt(bit) | 1n);
  });

  it('is the clearing of a bit while an interrupt is in service and nothing else waits', () => {
    interrupt(0x40);
    apic.acknowledge();
    pv.eoi.offer();
    expect(ram.bytes[bit]).toBe(1);
    ram.bytes[bit] = 0;
    pv.eoi.takeBack();
    interrupt(0x31);
    expect(apic.pendingVector()).toBe(0x31);
  });

  it('is taken back at an exit when the guest has not ended the interrupt', () => {
    interrupt(0x40);
    apic.acknowledge();
    pv.eoi.offer();
    pv.eoi.takeBack();
    expect(ram.bytes[bit]).toBe(0);
    interrupt(0x31);
    expect(apic.pendingVector()).toBe(-1);
  });

  it.each([
    ['nothing is in service', () => undefined],
    [
      'the interrupt was level triggered, and the I/O APIC waits for its end',
      () => {
        interrupt(0x40, true);
        apic.acknowledge();
      },
    ],
    [
      'another interrupt waits for it',
      () => {
        interrupt(0x40);
        apic.acknowledge();
        interrupt(0x31);
      },
    ],
  ])('is not offered when %s', (_, prepare) => {
    prepare();
    pv.eoi.offer();
    expect(ram.bytes[bit]).toBe(0);
  });

  it('makes every new interrupt end the run of the guest, for it may be deliverable', () => {
    interrupt(0x40);
    apic.acknowledge();
    pv.eoi.offer();
    const before = kicks;
    interrupt(0x31);
    expect(kicks).toBe(before + 1);
  });
});
