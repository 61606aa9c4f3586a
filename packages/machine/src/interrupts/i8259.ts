import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { PortDevice, PortSize } from '../devices/port-device.ts';

// Intel 8259A data sheet (231468): initialisation and operation command words.
const ICW1_IC4 = 0x01;
const ICW1_SINGLE = 0x02;
const ICW1_LEVEL = 0x08;
const ICW1 = 0x10;
const ICW4_AUTO_EOI = 0x02;
const ICW4_FULLY_NESTED = 0x10;
const OCW3 = 0x08;

const MASTER = 0x20;
const SLAVE = 0xa0;
const ELCR = 0x4d0;
/** Lines whose trigger mode is fixed to edge: timer, keyboard, cascade; RTC and coprocessor. */
const ELCR_MASTER = 0xf8;
const ELCR_SLAVE = 0xde;
const CASCADE = 2;

/** One 8259A. */
class Chip implements Saveable {
  irr = 0;
  isr = 0;
  /** All masked, as firmware leaves it. */
  imr = 0xff;
  lines = 0;
  elcr = 0;
  private vectorBase = 0;
  private lowest = 7;
  private initStep = 0;
  private needsIcw4 = false;
  private single = false;
  private levelMode = false;
  private autoEoi = false;
  private rotateOnAutoEoi = false;
  private fullyNested = false;
  private specialMask = false;
  private readIsr = false;
  private poll = false;
  private readonly isMaster: boolean;

  constructor(isMaster: boolean) {
    this.isMaster = isMaster;
  }

  reset(): void {
    this.irr = 0;
    this.isr = 0;
    this.imr = 0;
    this.elcr = 0;
    this.vectorBase = 0;
    this.autoEoi = false;
    this.initialise(0);
    this.initStep = 0;
    this.imr = 0xff;
  }

  setLine(irq: number, level: boolean): void {
    const bit = 1 << irq;
    if (level) {
      const edge = (this.lines & bit) === 0;
      this.lines |= bit;
      if (edge || this.isLevel(bit)) this.irr |= bit;
    } else {
      this.lines &= ~bit;
      // The request must hold until acknowledged; one that goes away is spurious or never seen.
      this.irr &= ~bit;
    }
  }

  /** Line of the request that would interrupt now, -1: none. */
  pending(): number {
    const request = this.priorityOf(this.irr & ~this.imr);
    if (request < 0) return -1;
    let inService = this.isr;
    if (this.specialMask) inService &= ~this.imr;
    // In special fully nested mode further requests of the slave come through.
    if (this.fullyNested && this.isMaster) inService &= ~(1 << CASCADE);
    const serving = this.priorityOf(inService);
    return serving < 0 || this.rank(request) < this.rank(serving) ? request : -1;
  }

  acknowledge(irq: number): void {
    const bit = 1 << irq;
    if (!this.isLevel(bit)) this.irr &= ~bit;
    if (!this.autoEoi) this.isr |= bit;
    else if (this.rotateOnAutoEoi) this.lowest = irq;
  }

  vector(irq: number): number {
    return this.vectorBase | irq;
  }

  read(register: 0 | 1): number {
    if (this.poll) {
      this.poll = false;
      const irq = this.pending();
      if (irq < 0) return 0;
      this.acknowledge(irq);
      return 0x80 | irq;
    }
    if (register === 1) return this.imr;
    return this.readIsr ? this.isr : this.irr;
  }

  write(register: 0 | 1, value: number): void {
    if (register === 0) {
      if ((value & ICW1) !== 0) this.initialise(value);
      else if ((value & OCW3) !== 0) this.command3(value);
      else this.command2(value);
      return;
    }
    switch (this.initStep) {
      case 2:
        this.vectorBase = value & 0xf8;
        this.initStep = this.single ? (this.needsIcw4 ? 4 : 0) : 3;
        return;
      case 3:
        this.initStep = this.needsIcw4 ? 4 : 0;
        return;
      case 4:
        this.fullyNested = (value & ICW4_FULLY_NESTED) !== 0;
        this.autoEoi = (value & ICW4_AUTO_EOI) !== 0;
        this.initStep = 0;
        return;
      default:
        this.imr = value;
    }
  }

  private initialise(value: number): void {
    this.irr = this.isLevelSet();
    this.isr = 0;
    this.imr = 0;
    this.lowest = 7;
    this.specialMask = false;
    this.readIsr = false;
    this.poll = false;
    this.rotateOnAutoEoi = false;
    this.levelMode = (value & ICW1_LEVEL) !== 0;
    this.single = (value & ICW1_SINGLE) !== 0;
    this.needsIcw4 = (value & ICW1_IC4) !== 0;
    if (!this.needsIcw4) {
      this.autoEoi = false;
      this.fullyNested = false;
    }
    this.initStep = 2;
  }

  private isLevelSet(): number {
    return this.lines & this.elcr;
  }

  private command2(value: number): void {
    const irq = value & 7;
    const highest = this.priorityOf(this.isr);
    switch (value >> 5) {
      case 0:
      case 4:
        this.rotateOnAutoEoi = value >> 5 === 4;
        return;
      case 1:
      case 5:
        if (highest < 0) return;
        this.isr &= ~(1 << highest);
        if (value >> 5 === 5) this.lowest = highest;
        return;
      case 3:
      case 7:
        this.isr &= ~(1 << irq);
        if (value >> 5 === 7) this.lowest = irq;
        return;
      case 6:
        this.lowest = irq;
        return;
      default:
        return;
    }
  }

  private command3(value: number): void {
    if ((value & 0x04) !== 0) this.poll = true;
    if ((value & 0x02) !== 0) this.readIsr = (value & 0x01) !== 0;
    if ((value & 0x40) !== 0) this.specialMask = (value & 0x20) !== 0;
  }

  private isLevel(bit: number): boolean {
    return this.levelMode || (this.elcr & bit) !== 0;
  }

  /** 0 is the highest priority. */
  private rank(irq: number): number {
    return (irq - this.lowest - 1) & 7;
  }

  private priorityOf(set: number): number {
    if (set === 0) return -1;
    for (let i = 1; i <= 8; i++) {
      const irq = (this.lowest + i) & 7;
      if ((set & (1 << irq)) !== 0) return irq;
    }
    return -1;
  }

  state(s: StateIo): void {
    s.fields(this, [
      'irr',
      'isr',
      'imr',
      'lines',
      'elcr',
      'vectorBase',
      'lowest',
      'initStep',
      'needsIcw4',
      'single',
      'levelMode',
      'autoEoi',
      'rotateOnAutoEoi',
      'fullyNested',
      'specialMask',
      'readIsr',
      'poll',
    ]);
  }
}

/** The pair of 8259A interrupt controllers of a PC, with the edge/level control registers of PCI chipsets. */
export class I8259Pair implements PortDevice {
  readonly name = 'i8259';
  readonly ports = [
    { first: MASTER, last: MASTER + 1 },
    { first: SLAVE, last: SLAVE + 1 },
    { first: ELCR, last: ELCR + 1 },
  ];
  private readonly master = new Chip(true);
  private readonly slave = new Chip(false);
  private readonly onOutput: (level: boolean) => void;
  private level = false;

  /** @param onOutput the master's INT output changed */
  constructor(onOutput: (level: boolean) => void) {
    this.onOutput = onOutput;
  }

  reset(): void {
    this.master.reset();
    this.slave.reset();
    this.update();
  }

  /** Whether an interrupt waits for acknowledgement. */
  get output(): boolean {
    return this.level;
  }

  /** Level of IRQ 0 to 15. */
  setIrq(irq: number, level: boolean): void {
    if (irq < 8) this.master.setLine(irq, level);
    else this.slave.setLine(irq - 8, level);
    this.update();
  }

  /** The vector that `acknowledge` would return. */
  peek(): number {
    const irq = this.master.pending();
    if (irq < 0) return this.master.vector(7);
    if (irq !== CASCADE) return this.master.vector(irq);
    const second = this.slave.pending();
    return this.slave.vector(second < 0 ? 7 : second);
  }

  /** Interrupt acknowledge cycle: the vector, IRQ 7's (or 15's) when the request has gone. */
  acknowledge(): number {
    const irq = this.master.pending();
    if (irq < 0) return this.master.vector(7);
    this.master.acknowledge(irq);
    if (irq !== CASCADE) {
      this.update();
      return this.master.vector(irq);
    }
    const second = this.slave.pending();
    if (second >= 0) this.slave.acknowledge(second);
    this.update();
    return this.slave.vector(second < 0 ? 7 : second);
  }

  read(port: number, size: PortSize): number {
    const value = this.readByte(port);
    return size === 1 ? value : value | (this.readByte(port + 1) << 8);
  }

  write(port: number, size: PortSize, value: number): undefined {
    this.writeByte(port, value & 0xff);
    if (size > 1) this.writeByte(port + 1, (value >>> 8) & 0xff);
    this.update();
  }

  private readByte(port: number): number {
    if (port === ELCR) return this.master.elcr;
    if (port === ELCR + 1) return this.slave.elcr;
    const chip = this.chip(port);
    if (chip === undefined) return 0xff;
    const value = chip.read((port & 1) as 0 | 1);
    this.update();
    return value;
  }

  private writeByte(port: number, value: number): void {
    if (port === ELCR) this.master.elcr = value & ELCR_MASTER;
    else if (port === ELCR + 1) this.slave.elcr = value & ELCR_SLAVE;
    else this.chip(port)?.write((port & 1) as 0 | 1, value);
  }

  private chip(port: number): Chip | undefined {
    return (port & ~1) === MASTER ? this.master : (port & ~1) === SLAVE ? this.slave : undefined;
  }

  private update(): void {
    this.master.setLine(CASCADE, this.slave.pending() >= 0);
    const level = this.master.pending() >= 0;
    if (level === this.level) return;
    this.level = level;
    this.onOutput(level);
  }

  state(s: StateIo): void {
    s.fields(this, ['master', 'slave', 'level']);
  }
}
