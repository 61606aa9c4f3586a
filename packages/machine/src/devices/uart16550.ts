import type { StateIo } from '@pvm/cpu-jit';
import type { PortDevice, PortSize } from './port-device.ts';

// National Semiconductor PC16550D data sheet, table II.
const RBR_THR = 0;
const IER = 1;
const IIR_FCR = 2;
const LCR = 3;
const MCR = 4;
const LSR = 5;
const MSR = 6;
const SCR = 7;
const IER_DATA = 0x01;
const IER_THR_EMPTY = 0x02;
const IER_LINE_STATUS = 0x04;
const IER_MODEM = 0x08;
const IIR_NONE = 0x01;
const IIR_THR_EMPTY = 0x02;
const IIR_DATA = 0x04;
const IIR_LINE_STATUS = 0x06;
const IIR_TIMEOUT = 0x0c;
const IIR_FIFO = 0xc0;
const FCR_ENABLE = 0x01;
const FCR_CLEAR_RECEIVER = 0x02;
const LCR_DLAB = 0x80;
const MCR_OUT2 = 0x08;
const MCR_LOOPBACK = 0x10;
const LSR_DATA_READY = 0x01;
const LSR_OVERRUN = 0x02;
/** Transmitter holding register and transmitter empty: the host takes every byte at once. */
const LSR_IDLE = 0x60;
/** CTS, DSR, DCD: a terminal is connected. */
const MSR_CONNECTED = 0xb0;
const TRIGGER_LEVELS = [1, 4, 8, 14] as const;
/** Bytes the host may queue for the guest; the rest is lost, as on a real line. */
const MAX_INPUT = 1 << 20;
/** Line status reads one after the other that mean that the guest waits for input without interrupts; drivers that only write or probe make fewer. */
const POLLS_OF_A_READER = 16;

/**
 * 16550A UART with FIFOs and interrupts. Transmission takes no time; the line never has errors.
 *
 * Input stays on the line until the guest listens: it has the receive interrupt on, or polls for data. Drivers read and clear the receiver
 * while they probe and open the port, which would swallow what was typed before.
 */
export class Uart16550 implements PortDevice {
  readonly name: string;
  readonly ports: readonly [{ first: number; last: number }];
  private readonly base: number;
  private readonly output: (byte: number) => void;
  private readonly irq: (level: boolean) => void;
  private input = new Uint8Array(64);
  private head = 0;
  private tail = 0;
  private ier = 0;
  private fcr = 0;
  private lcr = 0;
  private mcr = 0;
  private scratch = 0;
  private modemDelta = 0;
  private overrun = false;
  /** The holding register became empty and the guest has not been told. */
  private thrEmpty = false;
  private divisor = 1;
  /** Reads of the line status without another access in between. */
  private polls = 0;
  private polling = false;
  /** The guest took bytes of the input; set by who refills it. */
  onTaken: (() => void) | undefined;

  /**
   * @param output called with each byte the guest transmits
   * @param irq level of the interrupt line
   */
  constructor(output: (byte: number) => void, base = 0x3f8, irq: (level: boolean) => void = () => undefined) {
    this.name = `uart@0x${base.toString(16)}`;
    this.base = base;
    this.ports = [{ first: base, last: base + 7 }];
    this.output = output;
    this.irq = irq;
  }

  reset(): void {
    this.ier = 0;
    this.fcr = 0;
    this.lcr = 0;
    this.mcr = 0;
    this.thrEmpty = false;
    this.divisor = 1;
    this.stopPolling();
    this.update();
  }

  /** Bytes that arrive on the line. At most 1 MiB waits for the guest; more is lost. */
  receive(bytes: Iterable<number>): void {
    for (const byte of bytes) this.push(byte);
    this.update();
  }

  read(port: number, size: PortSize): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.readRegister(port - this.base + i) << (8 * i);
    return value >>> 0;
  }

  write(port: number, size: PortSize, value: number): undefined {
    for (let i = 0; i < size; i++) this.writeRegister(port - this.base + i, (value >>> (8 * i)) & 0xff);
  }

  private get divisorLatch(): boolean {
    return (this.lcr & LCR_DLAB) !== 0;
  }

  private get loopback(): boolean {
    return (this.mcr & MCR_LOOPBACK) !== 0;
  }

  /** Bytes of the host that the guest has not read yet. */
  get waiting(): number {
    return this.tail - this.head;
  }

  /** Bytes that the guest can see. */
  private get arrived(): number {
    return (this.ier & IER_DATA) !== 0 || this.polling || this.loopback ? this.waiting : 0;
  }

  private stopPolling(): void {
    this.polls = 0;
    this.polling = false;
  }

  private push(byte: number): void {
    if (this.waiting >= MAX_INPUT) {
      this.overrun = true;
      return;
    }
    if (this.tail === this.input.length) {
      const size = this.waiting * 2 > this.input.length ? this.input.length * 2 : this.input.length;
      const next = new Uint8Array(size);
      next.set(this.input.subarray(this.head, this.tail));
      this.tail -= this.head;
      this.head = 0;
      this.input = next;
    }
    this.input[this.tail++] = byte;
  }

  private shift(): number {
    if (this.arrived === 0) return 0;
    const byte = this.input[this.head++] ?? 0;
    if (this.head === this.tail) {
      this.head = 0;
      this.tail = 0;
    }
    this.onTaken?.();
    return byte;
  }

  /** Cause of the interrupt with the highest priority (table IV). */
  private cause(): number {
    if ((this.ier & IER_LINE_STATUS) !== 0 && this.overrun) return IIR_LINE_STATUS;
    if ((this.ier & IER_DATA) !== 0 && this.arrived > 0) {
      const trigger = (this.fcr & FCR_ENABLE) !== 0 ? (TRIGGER_LEVELS[this.fcr >> 6] ?? 1) : 1;
      // Fewer bytes than the trigger level are announced by the time-out, here at once.
      return this.waiting >= trigger ? IIR_DATA : IIR_TIMEOUT;
    }
    if ((this.ier & IER_THR_EMPTY) !== 0 && this.thrEmpty) return IIR_THR_EMPTY;
    if ((this.ier & IER_MODEM) !== 0 && this.modemDelta !== 0) return 0;
    return IIR_NONE;
  }

  private update(): void {
    // OUT2 gates the interrupt on a PC's adapter; in loopback mode the pin is disconnected but the gate stays open.
    this.irq(this.cause() !== IIR_NONE && ((this.mcr & MCR_OUT2) !== 0 || this.loopback));
  }

  private readRegister(register: number): number {
    if (register !== LSR) this.polls = 0;
    else if (++this.polls >= POLLS_OF_A_READER) this.polling = true;
    switch (register) {
      case RBR_THR: {
        if (this.divisorLatch) return this.divisor & 0xff;
        const byte = this.shift();
        this.update();
        return byte;
      }
      case IER:
        return this.divisorLatch ? this.divisor >> 8 : this.ier;
      case IIR_FCR: {
        const cause = this.cause();
        if (cause === IIR_THR_EMPTY) {
          this.thrEmpty = false;
          this.update();
        }
        return cause | ((this.fcr & FCR_ENABLE) !== 0 ? IIR_FIFO : 0);
      }
      case LCR:
        return this.lcr;
      case MCR:
        return this.mcr;
      case LSR: {
        const value = LSR_IDLE | (this.arrived > 0 ? LSR_DATA_READY : 0) | (this.overrun ? LSR_OVERRUN : 0);
        this.overrun = false;
        this.update();
        return value;
      }
      case MSR: {
        const value = this.modemLines() | this.modemDelta;
        this.modemDelta = 0;
        this.update();
        return value;
      }
      case SCR:
        return this.scratch;
      default:
        return 0xff;
    }
  }

  private writeRegister(register: number, value: number): void {
    if (register === RBR_THR) this.polls = 0;
    else this.stopPolling();
    switch (register) {
      case RBR_THR:
        if (this.divisorLatch) this.divisor = (this.divisor & 0xff00) | value;
        else this.transmit(value);
        return;
      case IER:
        if (this.divisorLatch) {
          this.divisor = (this.divisor & 0xff) | (value << 8);
          return;
        }
        // Enabling the interrupt of an empty holding register raises it at once.
        if ((value & IER_THR_EMPTY) !== 0 && (this.ier & IER_THR_EMPTY) === 0) this.thrEmpty = true;
        this.ier = value & 0x0f;
        break;
      case IIR_FCR:
        if ((value & FCR_CLEAR_RECEIVER) !== 0 || ((value ^ this.fcr) & FCR_ENABLE) !== 0) this.clearReceiver();
        this.fcr = value & 0xc9;
        break;
      case LCR:
        this.lcr = value;
        return;
      case MCR: {
        const before = this.modemLines();
        this.mcr = value & 0x1f;
        this.modemChanged(before);
        break;
      }
      case SCR:
        this.scratch = value;
        return;
      default:
        return;
    }
    this.update();
  }

  private transmit(byte: number): void {
    this.thrEmpty = false;
    this.update();
    if (this.loopback) this.push(byte);
    else this.output(byte);
    this.thrEmpty = true;
    this.update();
  }

  /** What the host has queued beyond the FIFO has not "arrived" yet and stays. */
  private clearReceiver(): void {
    const fifo = Math.min(this.waiting, 16);
    if (this.loopback) this.head += fifo;
  }

  private modemLines(): number {
    if (!this.loopback) return MSR_CONNECTED;
    // Loopback: DTR -> DSR, RTS -> CTS, OUT1 -> RI, OUT2 -> DCD.
    const { mcr } = this;
    return ((mcr & 1) << 5) | ((mcr & 2) << 3) | ((mcr & 4) << 4) | ((mcr & 8) << 4);
  }

  private modemChanged(before: number): void {
    const now = this.modemLines();
    const changed = before ^ now;
    this.modemDelta |= (changed >> 4) & 0x0b;
    if ((before & 0x40) !== 0 && (now & 0x40) === 0) this.modemDelta |= 0x04;
  }

  state(s: StateIo): void {
    s.fields(this, ['ier', 'fcr', 'lcr', 'mcr', 'scratch', 'modemDelta', 'overrun', 'thrEmpty', 'divisor', 'polls', 'polling']);
    const waiting = s.value('input', this.input.slice(this.head, this.tail));
    if (!s.restoring) return;
    this.input = new Uint8Array(Math.max(64, waiting.length));
    this.input.set(waiting);
    this.head = 0;
    this.tail = waiting.length;
  }
}
