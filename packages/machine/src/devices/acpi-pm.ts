import type { StateIo } from '@pvm/cpu-jit';
import type { TimerQueue } from '../time/timer-queue.ts';
import type { PortDevice, PortSize } from './port-device.ts';

/** I/O ports of the ACPI fixed hardware (ACPI 6.4, section 4.8.3), as the FADT announces them. */
export const PM1_EVENT_PORT = 0x600;
export const PM1_CONTROL_PORT = 0x604;
export const PM_TIMER_PORT = 0x608;
/** The interrupt of fixed events. */
export const SCI_IRQ = 9;
/** SLP_TYP of \_S5. */
export const SLEEP_TYPE_S5 = 5;
const PM_TIMER_HZ = 3_579_545;
const POWER_BUTTON = 1 << 8;
const TIMER_STATUS = 1 << 0;
/** Status bits that exist: timer, global, power button, wake. */
const STATUS_BITS = TIMER_STATUS | (1 << 5) | POWER_BUTTON | (1 << 15);
const SCI_ENABLE = 1;
const SLEEP_ENABLE = 1 << 13;

/** ACPI fixed hardware: power button, sleep control, power-management timer. Always in ACPI mode. */
export class AcpiPm implements PortDevice {
  readonly name = 'acpi-pm';
  readonly ports = [{ first: PM1_EVENT_PORT, last: PM_TIMER_PORT + 3 }];
  private readonly queue: TimerQueue;
  private readonly sci: (level: boolean) => void;
  private readonly powerOff: () => void;
  private readonly registers = new DataView(new ArrayBuffer(8));

  constructor(queue: TimerQueue, sci: (level: boolean) => void, powerOff: () => void) {
    this.queue = queue;
    this.sci = sci;
    this.powerOff = powerOff;
    this.reset();
  }

  reset(): void {
    this.registers.setUint32(0, 0, true);
    this.registers.setUint16(4, SCI_ENABLE, true);
    this.sci(false);
  }

  /** Somebody presses the power button. */
  pressPowerButton(): void {
    this.setStatus(this.status | POWER_BUTTON);
  }

  read(port: number, size: PortSize): number {
    if (port >= PM_TIMER_PORT) return ((this.timer() >>> (8 * (port - PM_TIMER_PORT))) & mask(size)) >>> 0;
    let value = 0;
    for (let i = 0; i < size; i++) {
      const at = port - PM1_EVENT_PORT + i;
      if (at < 8) value |= this.registers.getUint8(at) << (8 * i);
    }
    return value >>> 0;
  }

  write(port: number, size: PortSize, value: number): undefined {
    const at = port - PM1_EVENT_PORT;
    for (let i = 0; i < size; i++) {
      const byte = (value >>> (8 * i)) & 0xff;
      const register = at + i;
      // Status bits are cleared by writing ones.
      if (register < 2) this.setStatus(this.status & ~(byte << (8 * register)));
      else if (register < 6) this.registers.setUint8(register, byte);
    }
    this.registers.setUint16(4, this.registers.getUint16(4, true) | SCI_ENABLE, true);
    this.setStatus(this.status);
    const control = this.registers.getUint16(4, true);
    if (at <= 5 && at + size > 5 && (control & SLEEP_ENABLE) !== 0) {
      this.registers.setUint16(4, control & ~SLEEP_ENABLE, true);
      if (((control >> 10) & 7) === SLEEP_TYPE_S5) this.powerOff();
    }
  }

  private get status(): number {
    return this.registers.getUint16(0, true);
  }

  private setStatus(status: number): void {
    this.registers.setUint16(0, status & STATUS_BITS, true);
    this.sci((this.status & this.registers.getUint16(2, true)) !== 0);
  }

  /** 32 bits at 3.579545 MHz. */
  private timer(): number {
    return Math.floor((this.queue.now() * PM_TIMER_HZ) / 1e9) % 2 ** 32;
  }

  state(s: StateIo): void {
    s.fields(this, ['registers']);
  }
}

function mask(size: PortSize): number {
  return size === 4 ? -1 : (1 << (8 * size)) - 1;
}
