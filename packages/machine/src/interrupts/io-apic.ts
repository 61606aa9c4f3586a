import type { StateIo } from '@pvm/cpu-jit';
import type { MmioDevice } from '../board/mmio-bus.ts';
import { type ApicMessage, DELIVER_EXTINT } from './messages.ts';

// Intel 82093AA data sheet, section 3; the EOI register is that of version 0x20 (ICH).
export const IO_APIC_BASE = 0xfec0_0000;
export const IO_APIC_PINS = 24;
const SELECT = 0x00;
const WINDOW = 0x10;
const EOI = 0x40;
const REG_ID = 0;
const REG_VERSION = 1;
const REG_ARBITRATION = 2;
const REG_TABLE = 0x10;
const VERSION = 0x20;

const RTE_LOGICAL = 1 << 11;
const RTE_REMOTE_IRR = 1 << 14;
const RTE_LEVEL = 1 << 15;
const RTE_MASKED = 1 << 16;
/** Delivery status and remote IRR cannot be written. */
const RTE_WRITABLE = 0x1_afff;

/** The I/O APIC: 24 pins, each with a redirection entry. Lines are "asserted" or not; the polarity bit is only stored. */
export class IoApic implements MmioDevice {
  readonly name = 'ioapic';
  readonly base = IO_APIC_BASE;
  readonly size = 0x1000;
  private readonly send: (message: ApicMessage) => void;
  private readonly low = new Uint32Array(IO_APIC_PINS);
  private readonly high = new Uint32Array(IO_APIC_PINS);
  private asserted = 0;
  private select = 0;
  private id = 0;

  constructor(send: (message: ApicMessage) => void) {
    this.send = send;
    this.reset();
  }

  reset(): void {
    this.low.fill(RTE_MASKED);
    this.high.fill(0);
    this.select = 0;
    this.id = 0;
  }

  /** Level of an input pin. */
  setPin(pin: number, level: boolean): void {
    const bit = 1 << pin;
    const rising = level && (this.asserted & bit) === 0;
    if (level) this.asserted |= bit;
    else this.asserted &= ~bit;
    if (rising) this.service(pin);
  }

  /** A vector has been served: level entries that wait for it may fire again. */
  eoi(vector: number): void {
    for (let pin = 0; pin < IO_APIC_PINS; pin++) {
      const entry = this.low[pin] ?? 0;
      if ((entry & 0xff) !== vector || (entry & RTE_LEVEL) === 0 || (entry & RTE_REMOTE_IRR) === 0) continue;
      this.low[pin] = entry & ~RTE_REMOTE_IRR;
      if ((this.asserted & (1 << pin)) !== 0) this.service(pin);
    }
  }

  read(offset: number): number {
    if (offset === SELECT) return this.select;
    return offset === WINDOW ? this.readRegister(this.select) : 0;
  }

  write(offset: number, _size: number, value: number): undefined {
    if (offset === SELECT) this.select = value & 0xff;
    else if (offset === WINDOW) this.writeRegister(this.select, value);
    else if (offset === EOI) this.eoi(value & 0xff);
  }

  private readRegister(register: number): number {
    if (register === REG_ID || register === REG_ARBITRATION) return (this.id << 24) >>> 0;
    if (register === REG_VERSION) return VERSION | ((IO_APIC_PINS - 1) << 16);
    const pin = (register - REG_TABLE) >> 1;
    return ((register & 1) === 0 ? this.low[pin] : this.high[pin]) ?? 0;
  }

  private writeRegister(register: number, value: number): void {
    if (register === REG_ID) this.id = (value >>> 24) & 0xf;
    const pin = (register - REG_TABLE) >> 1;
    if (pin < 0 || pin >= IO_APIC_PINS) return;
    if ((register & 1) !== 0) {
      this.high[pin] = value;
      return;
    }
    let entry = (value & RTE_WRITABLE) | ((this.low[pin] ?? 0) & RTE_REMOTE_IRR);
    // An edge-triggered entry has no remote IRR: kernels rely on the switch to clear a stuck one.
    if ((entry & RTE_LEVEL) === 0) entry &= ~RTE_REMOTE_IRR;
    this.low[pin] = entry;
    if ((entry & RTE_LEVEL) !== 0 && (this.asserted & (1 << pin)) !== 0) this.service(pin);
  }

  private service(pin: number): void {
    const entry = this.low[pin] ?? 0;
    if ((entry & RTE_MASKED) !== 0) return;
    const level = (entry & RTE_LEVEL) !== 0;
    if (level && (entry & RTE_REMOTE_IRR) !== 0) return;
    const delivery = (entry >> 8) & 7;
    if (delivery === DELIVER_EXTINT) return;
    if (level) this.low[pin] = entry | RTE_REMOTE_IRR;
    this.send({
      destination: (this.high[pin] ?? 0) >>> 24,
      logical: (entry & RTE_LOGICAL) !== 0,
      wide: false,
      delivery,
      vector: entry & 0xff,
      level,
    });
  }

  state(s: StateIo): void {
    s.fields(this, ['low', 'high', 'asserted', 'select', 'id']);
  }
}
