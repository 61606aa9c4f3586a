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
const LCR_DLAB = 0x80;
const LSR_DATA_READY = 0x01;
/** Transmitter holding register and transmitter empty: the host takes every byte at once. */
const LSR_IDLE = 0x60;
const IIR_NONE = 0x01;
const IIR_FIFO = 0xc0;
/** CTS, DSR, DCD: a terminal is connected. */
const MSR_CONNECTED = 0xb0;

/** 16550 UART without interrupts (IIR always reads "none pending"): enough for polled console I/O. */
export class Uart16550 implements PortDevice {
  readonly name: string;
  readonly ports: readonly [{ first: number; last: number }];
  private readonly base: number;
  private readonly output: (byte: number) => void;
  private readonly input: number[] = [];
  private readonly registers = new Uint8Array(8);
  private divisor = 1;

  /** @param output called with each byte the guest transmits */
  constructor(output: (byte: number) => void, base = 0x3f8) {
    this.name = `uart@0x${base.toString(16)}`;
    this.base = base;
    this.ports = [{ first: base, last: base + 7 }];
    this.output = output;
  }

  /** Bytes that arrive on the line. */
  receive(bytes: Iterable<number>): void {
    for (const byte of bytes) this.input.push(byte);
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
    return ((this.registers[LCR] ?? 0) & LCR_DLAB) !== 0;
  }

  private readRegister(register: number): number {
    switch (register) {
      case RBR_THR:
        return this.divisorLatch ? this.divisor & 0xff : (this.input.shift() ?? 0);
      case IER:
        return this.divisorLatch ? this.divisor >> 8 : (this.registers[IER] ?? 0);
      case IIR_FCR:
        return IIR_NONE | (((this.registers[IIR_FCR] ?? 0) & 1) !== 0 ? IIR_FIFO : 0);
      case LSR:
        return LSR_IDLE | (this.input.length > 0 ? LSR_DATA_READY : 0);
      case MSR:
        return MSR_CONNECTED;
      default:
        return this.registers[register] ?? 0xff;
    }
  }

  private writeRegister(register: number, value: number): void {
    if (register === RBR_THR) {
      if (this.divisorLatch) this.divisor = (this.divisor & 0xff00) | value;
      else this.output(value);
    } else if (register === IER && this.divisorLatch) {
      this.divisor = (this.divisor & 0xff) | (value << 8);
    } else if (register === IER) {
      this.registers[IER] = value & 0x0f;
    } else if (register === IIR_FCR || register === LCR || register === MCR || register === SCR) {
      this.registers[register] = value;
    }
  }
}
