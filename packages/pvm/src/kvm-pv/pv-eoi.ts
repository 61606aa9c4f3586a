import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { GuestRam, LocalApic } from '@pvm/machine';

const ENABLE = 1n;
const RESERVED = 2n;

/**
 * End of interrupt without an exit (MSR_KVM_PV_EOI_EN): while a bit in guest memory is set, clearing it is the EOI. It is offered when the EOI of the interrupt in service
 * does nothing but end it, and taken back at every exit.
 */
export class PvEoi implements Saveable {
  private readonly ram: GuestRam;
  private readonly apic: LocalApic;
  private msr = 0n;
  /** The bit's address, -1: the guest does not use it. */
  private gpa = -1;

  constructor(ram: GuestRam, apic: LocalApic) {
    this.ram = ram;
    this.apic = apic;
  }

  read(): bigint {
    return this.msr;
  }

  /** @returns false: #GP */
  write(value: bigint): boolean {
    if ((value & RESERVED) !== 0n) return false;
    const gpa = Number(value & ~3n);
    const isOn = (value & ENABLE) !== 0n;
    if (isOn && !this.ram.contains(gpa, 4)) return false;
    this.takeBack();
    this.msr = value;
    this.gpa = isOn ? gpa : -1;
    return true;
  }

  /** Before the guest runs. */
  offer(): void {
    if (this.gpa >= 0 && this.apic.deferEoi()) this.store(1);
  }

  /** After it has left, before anyone looks at the APIC: what the guest did in the meantime counts. */
  takeBack(): void {
    if (this.gpa < 0 || !this.apic.eoiDeferred) return;
    const isPending = ((this.ram.bytes[this.gpa] ?? 0) & 1) !== 0;
    if (isPending) this.store(0);
    this.apic.settleEoi(!isPending);
  }

  private store(bit: 0 | 1): void {
    this.ram.bytes[this.gpa] = bit;
    this.ram.written(this.gpa, 1);
  }

  state(s: StateIo): void {
    s.fields(this, ['msr', 'gpa']);
  }
}
