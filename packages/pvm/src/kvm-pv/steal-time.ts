import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { GuestRam } from '@pvm/machine';

const ENABLE = 1n;
/** The structure is aligned to 64 bytes. */
const RESERVED = 0x3en;
/** struct kvm_steal_time: steal u64, version u32, flags u32, preempted u8, padding up to 64 bytes. */
const SIZE = 64;
const STEAL = 0;
const VERSION = 8;
const PREEMPTED = 16;
/** The vCPU does not run; the guest set the second bit: flush its TLB before it runs again. */
const VCPU_PREEMPTED = 1;
const VCPU_FLUSH_TLB = 2;

/** Tells the guest how long a vCPU waited for its turn, and whether it runs now (MSR_KVM_STEAL_TIME). */
export class StealTime implements Saveable {
  private readonly ram: GuestRam;
  private msr = 0n;
  private gpa = -1;
  /** Nanoseconds, since the machine began. */
  private stolen = 0;

  constructor(ram: GuestRam) {
    this.ram = ram;
  }

  read(): bigint {
    return this.msr;
  }

  /** @returns false: #GP */
  write(value: bigint): boolean {
    if ((value & RESERVED) !== 0n) return false;
    const gpa = Number(value & ~0x3fn);
    const isOn = (value & ENABLE) !== 0n;
    if (isOn && !this.ram.contains(gpa, SIZE)) return false;
    this.msr = value;
    this.gpa = isOn ? gpa : -1;
    if (isOn) this.report();
    return true;
  }

  /** The vCPU runs from now on, after it waited `ns` for its turn. @returns whether the guest wants its TLB flushed first */
  begin(ns: number): boolean {
    this.stolen += Math.max(0, Math.floor(ns));
    return this.gpa >= 0 && this.report();
  }

  /** The vCPU does not run any more. */
  end(): void {
    if (this.gpa < 0) return;
    this.ram.view.setUint8(this.gpa + PREEMPTED, VCPU_PREEMPTED);
    this.ram.written(this.gpa + PREEMPTED, 1);
  }

  /** The version is odd while the rest changes. */
  private report(): boolean {
    const { view } = this.ram;
    const isFlushWanted = (view.getUint8(this.gpa + PREEMPTED) & VCPU_FLUSH_TLB) !== 0;
    const version = (view.getUint32(this.gpa + VERSION, true) | 1) >>> 0;
    view.setUint32(this.gpa + VERSION, version, true);
    view.setUint8(this.gpa + PREEMPTED, 0);
    view.setBigUint64(this.gpa + STEAL, BigInt(this.stolen), true);
    view.setUint32(this.gpa + VERSION, version + 1, true);
    this.ram.written(this.gpa, SIZE);
    return isFlushWanted;
  }

  state(s: StateIo): void {
    s.fields(this, ['msr', 'gpa', 'stolen']);
  }
}
