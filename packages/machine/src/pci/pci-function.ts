import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { MmioDevice, MmioSize } from '../board/mmio-bus.ts';

// PCI Local Bus Specification 3.0, section 6.1: configuration header, type 0.
const VENDOR_ID = 0x00;
const DEVICE_ID = 0x02;
const COMMAND = 0x04;
const STATUS = 0x06;
const REVISION = 0x08;
const CLASS = 0x09;
const BAR0 = 0x10;
const BARS = 6;
const SUBSYSTEM_VENDOR = 0x2c;
const SUBSYSTEM_ID = 0x2e;
const CAPABILITIES = 0x34;
const INTERRUPT_LINE = 0x3c;
const INTERRUPT_PIN = 0x3d;
const FIRST_CAPABILITY = 0x40;
const COMMAND_MEMORY = 1 << 1;
const COMMAND_MASTER = 1 << 2;
const COMMAND_INTX_DISABLE = 1 << 10;
const COMMAND_WRITABLE = 0x0547;
const STATUS_INTERRUPT = 1 << 3;
const STATUS_CAPABILITIES = 1 << 4;

/** A memory BAR: 32 bits, not prefetchable. `size` is a power of two from 4 KiB. */
export interface PciBar {
  readonly size: number;
  read(offset: number, size: MmioSize): number;
  write(offset: number, size: MmioSize, value: number): Promise<void> | undefined;
}

export interface PciIdentity {
  readonly name: string;
  readonly vendor: number;
  readonly device: number;
  readonly revision: number;
  /** Base class, sub-class, programming interface: 24 bits. */
  readonly classCode: number;
  readonly subsystemVendor?: number;
  readonly subsystem?: number;
}

/** What a function needs from the bus it sits on. */
export interface PciSlot {
  /** Level of the slot's INTA. */
  setIntx(level: boolean): void;
  /** Message-signalled interrupt. */
  sendMsi(address: number, data: number): void;
}

/** A single-function PCI device: configuration space, memory BARs, capabilities, INTA. */
export class PciFunction implements Saveable {
  readonly name: string;
  readonly bars: readonly (PciBar | undefined)[];
  /** Where the function is plugged in; set by the bus. */
  protected slot: PciSlot | undefined;
  protected readonly config = new DataView(new ArrayBuffer(256));
  private readonly writable = new Uint8Array(256);
  private nextCapability = FIRST_CAPABILITY;
  private lastCapability = CAPABILITIES;
  private intx = false;

  constructor(identity: PciIdentity, bars: readonly (PciBar | undefined)[], usesInterrupt: boolean) {
    this.name = identity.name;
    this.bars = bars;
    const { config } = this;
    config.setUint16(VENDOR_ID, identity.vendor, true);
    config.setUint16(DEVICE_ID, identity.device, true);
    config.setUint8(REVISION, identity.revision);
    config.setUint8(CLASS, identity.classCode & 0xff);
    config.setUint8(CLASS + 1, (identity.classCode >> 8) & 0xff);
    config.setUint8(CLASS + 2, identity.classCode >> 16);
    config.setUint16(SUBSYSTEM_VENDOR, identity.subsystemVendor ?? 0, true);
    config.setUint16(SUBSYSTEM_ID, identity.subsystem ?? 0, true);
    config.setUint8(INTERRUPT_PIN, usesInterrupt ? 1 : 0);
    this.allowWrites(COMMAND, COMMAND_WRITABLE & 0xff, COMMAND_WRITABLE >> 8);
    this.allowWrites(0x0c, 0xff);
    this.allowWrites(INTERRUPT_LINE, 0xff);
    bars.forEach((bar, i) => {
      if (bar === undefined) return;
      const bits = -bar.size >>> 0;
      this.allowWrites(BAR0 + i * 4, bits & 0xf0, (bits >> 8) & 0xff, (bits >> 16) & 0xff, bits >>> 24);
    });
  }

  plugIn(slot: PciSlot): void {
    this.slot = slot;
  }

  /** Power-on state; the bus assigns addresses afterwards. */
  reset(): void {
    this.config.setUint16(COMMAND, 0, true);
    for (let i = 0; i < BARS; i++) this.config.setUint32(BAR0 + i * 4, 0, true);
    this.setIntx(false);
  }

  /** As firmware does: give a BAR its address. */
  assignBar(index: number, address: number): void {
    this.config.setUint32(BAR0 + index * 4, address, true);
  }

  /** As firmware does: decode memory, allow bus mastering, note the legacy interrupt. */
  enable(interruptLine: number): void {
    this.config.setUint16(COMMAND, COMMAND_MEMORY | COMMAND_MASTER, true);
    this.config.setUint8(INTERRUPT_LINE, interruptLine);
  }

  /** Guest-physical address of a memory BAR, undefined while it is not decoded. */
  barAddress(index: number): number | undefined {
    if ((this.config.getUint16(COMMAND, true) & COMMAND_MEMORY) === 0) return undefined;
    return (this.config.getUint32(BAR0 + index * 4, true) & ~0xf) >>> 0;
  }

  readConfig(offset: number, size: MmioSize): number {
    let value = 0;
    for (let i = 0; i < size && offset + i < 256; i++) value |= this.config.getUint8(offset + i) << (8 * i);
    return value >>> 0;
  }

  writeConfig(offset: number, size: MmioSize, value: number): void {
    for (let i = 0; i < size && offset + i < 256; i++) {
      const mask = this.writable[offset + i] ?? 0;
      this.config.setUint8(offset + i, (this.config.getUint8(offset + i) & ~mask) | ((value >>> (8 * i)) & mask));
    }
    this.driveIntx();
  }

  /**
   * Append a capability; the list link is filled in.
   *
   * @param body bytes from the capability ID on; byte 1 is the link
   * @returns its offset in configuration space
   */
  protected addCapability(body: readonly number[]): number {
    const at = this.nextCapability;
    if (at + body.length > 256) throw new RangeError('PCI configuration space is full');
    body.forEach((byte, i) => {
      this.config.setUint8(at + i, byte);
    });
    this.config.setUint8(at + 1, 0);
    this.config.setUint8(this.lastCapability, at);
    this.config.setUint16(STATUS, this.config.getUint16(STATUS, true) | STATUS_CAPABILITIES, true);
    this.lastCapability = at + 1;
    this.nextCapability = (at + body.length + 3) & ~3;
    return at;
  }

  /** Bits the guest may write from `offset` on, one mask per byte. */
  protected allowWrites(offset: number, ...masks: readonly number[]): void {
    this.writable.set(masks, offset);
  }

  /** Drive INTA. */
  protected setIntx(level: boolean): void {
    this.intx = level;
    const status = this.config.getUint16(STATUS, true);
    this.config.setUint16(STATUS, level ? status | STATUS_INTERRUPT : status & ~STATUS_INTERRUPT, true);
    this.driveIntx();
  }

  private driveIntx(): void {
    this.slot?.setIntx(this.intx && (this.config.getUint16(COMMAND, true) & COMMAND_INTX_DISABLE) === 0);
  }

  state(s: StateIo): void {
    s.fields(this, ['config', 'intx']);
  }
}

/** A memory BAR on the MMIO bus: its place is what configuration space says now. */
export class BarWindow implements MmioDevice {
  readonly name: string;
  private readonly owner: PciFunction;
  private readonly index: number;
  private readonly bar: PciBar;

  constructor(owner: PciFunction, index: number, bar: PciBar) {
    this.name = `${owner.name} BAR ${index}`;
    this.owner = owner;
    this.index = index;
    this.bar = bar;
  }

  get base(): number {
    return this.owner.barAddress(this.index) ?? 0;
  }

  get size(): number {
    return this.owner.barAddress(this.index) === undefined ? 0 : this.bar.size;
  }

  read(offset: number, size: MmioSize): number {
    return this.bar.read(offset, size);
  }

  write(offset: number, size: MmioSize, value: number): Promise<void> | undefined {
    return this.bar.write(offset, size, value);
  }

  /** Its place and its registers are the function's. */
  state(): void {}
}
