import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { GuestRam } from '@pvm/machine';

// Linux Documentation/virt/kvm/x86/msr.rst.
const MSR_KVM_WALL_CLOCK_NEW = 0x4b56_4d00;
const MSR_KVM_SYSTEM_TIME_NEW = 0x4b56_4d01;
const MSR_KVM_WALL_CLOCK = 0x11;
const MSR_KVM_SYSTEM_TIME = 0x12;
/** struct pvclock_vcpu_time_info: version u32, pad u32, tsc_timestamp u64, system_time u64, tsc_to_system_mul u32, tsc_shift s8, flags u8. */
const TIME_INFO_SIZE = 32;
const TSC_STABLE_BIT = 1;
/** struct pvclock_wall_clock: version u32, sec u32, nsec u32. */
const WALL_CLOCK_SIZE = 12;
const BILLION = 1_000_000_000n;

/** Features of CPUID leaf 0x40000001 EAX that this file implements: CLOCKSOURCE, CLOCKSOURCE2, CLOCKSOURCE_STABLE_BIT. */
export const KVM_CLOCK_FEATURES = (1 << 0) | (1 << 3) | (1 << 24);

/** KVM's paravirtual clock. The TSC ticks once a nanosecond, so both structures are written once and stay right. */
export class KvmClock implements Saveable {
  private readonly ram: GuestRam;
  /** Current TSC of the vCPU. */
  readonly tsc: () => bigint;
  /** Nanoseconds since 1970 UTC. */
  readonly wallClock: () => bigint;
  /** Nanoseconds since power-on when the vCPU's TSC shows a value: one sample, or the clocks of vCPUs would differ by what lies between two. */
  private readonly uptime: (tsc: bigint) => bigint;
  private systemTime = 0n;
  private wallClockGpa = 0n;

  /** @param uptime default: the TSC counts it */
  constructor(ram: GuestRam, tsc: () => bigint, wallClock: () => bigint, uptime = (ticks: bigint) => ticks) {
    this.ram = ram;
    this.tsc = tsc;
    this.wallClock = wallClock;
    this.uptime = uptime;
  }

  reset(): void {
    this.systemTime = 0n;
    this.wallClockGpa = 0n;
  }

  readMsr(index: number): bigint | undefined {
    if (index === MSR_KVM_SYSTEM_TIME || index === MSR_KVM_SYSTEM_TIME_NEW) return this.systemTime;
    if (index === MSR_KVM_WALL_CLOCK || index === MSR_KVM_WALL_CLOCK_NEW) return this.wallClockGpa;
    return undefined;
  }

  /** @returns false when `index` is not one of the clock's */
  writeMsr(index: number, value: bigint): boolean {
    if (index === MSR_KVM_SYSTEM_TIME || index === MSR_KVM_SYSTEM_TIME_NEW) {
      this.systemTime = value;
      const gpa = Number(value & ~1n);
      if ((value & 1n) !== 0n && this.ram.contains(gpa, TIME_INFO_SIZE)) this.writeTimeInfo(gpa);
      return true;
    }
    if (index === MSR_KVM_WALL_CLOCK || index === MSR_KVM_WALL_CLOCK_NEW) {
      this.wallClockGpa = value;
      const gpa = Number(value);
      if (this.ram.contains(gpa, WALL_CLOCK_SIZE)) this.writeWallClock(gpa);
      return true;
    }
    return false;
  }

  /** KVM_HC_CLOCK_PAIRING: struct kvm_clock_pairing at `gpa`. @returns false when it is not RAM */
  writePairing(gpa: number): boolean {
    if (!this.ram.contains(gpa, 64)) return false;
    const now = this.wallClock();
    this.ram.clear(gpa, 64);
    this.ram.view.setBigInt64(gpa, now / BILLION, true);
    this.ram.view.setBigInt64(gpa + 8, now % BILLION, true);
    this.ram.view.setBigUint64(gpa + 16, this.tsc(), true);
    return true;
  }

  private writeTimeInfo(gpa: number): void {
    const { view } = this.ram;
    const version = this.beginUpdate(gpa);
    view.setUint32(gpa + 4, 0, true);
    const tsc = this.tsc();
    view.setBigUint64(gpa + 8, tsc, true);
    view.setBigUint64(gpa + 16, this.uptime(tsc), true);
    // ns = ((ticks << 1) * 2^31) >> 32.
    view.setUint32(gpa + 24, 0x8000_0000, true);
    view.setInt8(gpa + 28, 1);
    view.setUint8(gpa + 29, TSC_STABLE_BIT);
    view.setUint16(gpa + 30, 0, true);
    view.setUint32(gpa, version, true);
    this.ram.written(gpa, TIME_INFO_SIZE);
  }

  /** The version is odd while the structure changes. @returns the one to write when it is done */
  private beginUpdate(gpa: number): number {
    const { view } = this.ram;
    const odd = (view.getUint32(gpa, true) | 1) >>> 0;
    view.setUint32(gpa, odd, true);
    return (odd + 1) >>> 0;
  }

  private writeWallClock(gpa: number): void {
    const { view } = this.ram;
    const version = this.beginUpdate(gpa);
    const boot = this.wallClock() - this.uptime(this.tsc());
    view.setUint32(gpa + 4, Number((boot / BILLION) & 0xffff_ffffn), true);
    view.setUint32(gpa + 8, Number(boot % BILLION), true);
    view.setUint32(gpa, version, true);
    this.ram.written(gpa, WALL_CLOCK_SIZE);
  }

  state(s: StateIo): void {
    s.fields(this, ['systemTime', 'wallClockGpa']);
  }
}
