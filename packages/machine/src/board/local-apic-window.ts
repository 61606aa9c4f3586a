import type { LocalApic } from '../interrupts/local-apic.ts';
import type { MmioSize } from './mmio-bus.ts';

const PAGE = 4096;

/** The register page of the local APICs: at one address, but each vCPU sees its own. */
export class LocalApicWindow {
  private readonly apics: readonly LocalApic[];

  constructor(apics: readonly LocalApic[]) {
    this.apics = apics;
  }

  contains(vcpu: number, gpa: number): boolean {
    const base = this.apics[vcpu]?.mmioBase ?? -1;
    return base >= 0 && gpa >= base && gpa < base + PAGE;
  }

  read(vcpu: number, gpa: number, size: MmioSize): number {
    const value = this.apics[vcpu]?.readMmio(gpa % PAGE) ?? 0;
    return size === 4 ? value : value & ((1 << (8 * size)) - 1);
  }

  /** Stores must be whole registers (SDM 3A, 11.4.1); narrower ones are taken as if the rest were zero. */
  write(vcpu: number, gpa: number, value: number): void {
    this.apics[vcpu]?.writeMmio(gpa % PAGE, value);
  }
}
