import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { GuestRam, LocalApic } from '@pvm/machine';
import { KvmClock } from '../abi/kvm-clock.ts';
import { PvEoi } from './pv-eoi.ts';
import { StealTime } from './steal-time.ts';

// Linux Documentation/virt/kvm/x86/msr.rst; those of the clock are in abi/kvm-clock.ts.
const MSR_STEAL_TIME = 0x4b56_4d03;
const MSR_PV_EOI_EN = 0x4b56_4d04;
const MSR_POLL_CONTROL = 0x4b56_4d05;
const POLL_ENABLED = 1n;

/** What the interface of one vCPU is made of. */
export interface KvmPvParts {
  readonly ram: GuestRam;
  readonly apic: LocalApic;
  /** The vCPU's TSC, and nanoseconds since power-on when it shows a value. */
  tsc(): bigint;
  tscToNs(tsc: bigint): number;
  /** Nanoseconds since 1970 UTC. */
  wallClock(): bigint;
}

/** KVM's paravirtual interface of one vCPU: its MSRs, and what they set up in guest memory. */
export class KvmPv implements Saveable {
  readonly clock: KvmClock;
  readonly eoi: PvEoi;
  readonly steal: StealTime;
  /** Whether the guest lets its host poll before it sleeps; kept, for this host never polls. */
  private pollControl = POLL_ENABLED;
  /** KVM_HC_KICK_CPU came and no HLT has used it up. */
  private isKicked = false;

  constructor({ ram, apic, tsc, tscToNs, wallClock }: KvmPvParts) {
    this.clock = new KvmClock(ram, tsc, wallClock, (ticks) => BigInt(Math.floor(tscToNs(ticks))));
    this.eoi = new PvEoi(ram, apic);
    this.steal = new StealTime(ram);
  }

  /** @returns undefined: not one of KVM's MSRs */
  readMsr(msr: number): bigint | undefined {
    switch (msr) {
      case MSR_STEAL_TIME:
        return this.steal.read();
      case MSR_PV_EOI_EN:
        return this.eoi.read();
      case MSR_POLL_CONTROL:
        return this.pollControl;
      default:
        return this.clock.readMsr(msr);
    }
  }

  /** @returns false: #GP, or not one of KVM's MSRs */
  writeMsr(msr: number, value: bigint): boolean {
    switch (msr) {
      case MSR_STEAL_TIME:
        return this.steal.write(value);
      case MSR_PV_EOI_EN:
        return this.eoi.write(value);
      case MSR_POLL_CONTROL:
        if (value > POLL_ENABLED) return false;
        this.pollControl = value;
        return true;
      default:
        return this.clock.writeMsr(msr, value);
    }
  }

  /** After INIT or a reset of the machine: nothing is set up in guest memory. */
  reset(): void {
    this.clock.reset();
    this.eoi.write(0n);
    this.steal.write(0n);
    this.pollControl = POLL_ENABLED;
    this.isKicked = false;
  }

  /** The next HLT, or the one the vCPU is in, is over. */
  kick(): void {
    this.isKicked = true;
  }
  takeKick(): boolean {
    const was = this.isKicked;
    this.isKicked = false;
    return was;
  }

  state(s: StateIo): void {
    s.fields(this, ['clock', 'eoi', 'steal', 'pollControl', 'isKicked']);
  }
}
