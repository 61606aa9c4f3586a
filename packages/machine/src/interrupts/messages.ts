/** Delivery modes of APIC messages (SDM 3A, 11.6.1 and 11.11.2). */
export const DELIVER_FIXED = 0;
export const DELIVER_LOWEST = 1;
export const DELIVER_SMI = 2;
export const DELIVER_NMI = 4;
export const DELIVER_INIT = 5;
export const DELIVER_SIPI = 6;
export const DELIVER_EXTINT = 7;

/** An interrupt message on the system bus: from an ICR, an IOAPIC entry or an MSI. */
export interface ApicMessage {
  readonly destination: number;
  readonly logical: boolean;
  /** The destination has 32 bits (x2APIC ICR); otherwise 8. */
  readonly wide: boolean;
  /** `DELIVER_*`. */
  readonly delivery: number;
  readonly vector: number;
  readonly level: boolean;
}

/** Message-signalled interrupt (SDM 3A, 11.11): what a device writes as `data` to `address`. */
export function msiMessage(address: number, data: number): ApicMessage {
  return {
    destination: (address >>> 12) & 0xff,
    logical: (address & 4) !== 0,
    wide: false,
    delivery: (data >>> 8) & 7,
    vector: data & 0xff,
    level: (data & 0x8000) !== 0,
  };
}
