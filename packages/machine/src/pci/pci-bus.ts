import type { StateIo } from '@pvm/cpu-jit';
import type { MmioBus } from '../board/mmio-bus.ts';
import type { PortDevice, PortSize } from '../devices/port-device.ts';
import { MachineError } from '../errors.ts';
import { BarWindow, PciFunction } from './pci-function.ts';

// PCI Local Bus Specification 3.0, 3.2.2.3.2: configuration mechanism 1.
const CONFIG_ADDRESS = 0xcf8;
const RESET_CONTROL = 0xcf9;
const CONFIG_DATA = 0xcfc;
const ENABLE = 0x8000_0000;
const SLOTS = 32;
/** Window for memory BARs, GPA: above the largest RAM, below virtio MMIO and the I/O APIC. */
export const PCI_MEMORY_FIRST = 0xe000_0000;
export const PCI_MEMORY_LAST = 0xfeaf_ffff;
/** GSI of the first of the eight interrupt lines of the slots. */
export const PCI_FIRST_GSI = 16;
export const PCI_LINES = 8;

/** Interrupt line, 0 to 7, of a slot's pin (0 = INTA). */
export function pciLine(slot: number, pin: number): number {
  return (slot + pin) % PCI_LINES;
}

/** What the bus needs from the board. */
export interface PciBusWiring {
  /** Level of one of the `PCI_LINES` lines. */
  setLine(line: number, level: boolean): void;
  sendMsi(address: number, data: number): void;
  /** The reset control register at 0xcf9 asks for a reset. */
  reset(): void;
  /** ISA interrupt that a line is connected to for software without I/O APIC. */
  isaIrq(line: number): number;
}

/** Bus 0 with its host bridge: configuration mechanism 1, the reset control register, BAR assignment as firmware does it. */
export class PciBus implements PortDevice {
  readonly name = 'pci';
  readonly ports = [{ first: CONFIG_ADDRESS, last: CONFIG_DATA + 3 }];
  private readonly functions: PciFunction[] = [];
  private readonly mmio: MmioBus;
  private readonly wiring: PciBusWiring;
  /** Slots that assert a line, one bit each. */
  private readonly asserting = new Uint32Array(PCI_LINES);
  private address = 0;
  private resetControl = 0;

  constructor(mmio: MmioBus, wiring: PciBusWiring) {
    this.mmio = mmio;
    this.wiring = wiring;
    this.plugIn(new PciFunction({ name: 'host-bridge', vendor: 0x1b36, device: 0x0008, revision: 0, classCode: 0x06_0000 }, [], false));
  }

  /** Plug a device into the next free slot. @returns the slot @throws MachineError `no-room` */
  plugIn(device: PciFunction): number {
    const slot = this.functions.length;
    if (slot >= SLOTS) throw new MachineError('no-room', `PCI bus: all ${SLOTS} slots are taken, no place for ${device.name}`);
    this.functions.push(device);
    const line = pciLine(slot, 0);
    device.plugIn({
      setIntx: (level) => {
        const before = this.asserting[line] ?? 0;
        const after = level ? before | (1 << slot) : before & ~(1 << slot);
        this.asserting[line] = after;
        if ((before !== 0) !== (after !== 0)) this.wiring.setLine(line, after !== 0);
      },
      sendMsi: (address, data) => this.wiring.sendMsi(address, data),
    });
    device.bars.forEach((bar, index) => {
      if (bar !== undefined) this.mmio.attach(new BarWindow(device, index, bar));
    });
    this.assignAddresses();
    return slot;
  }

  reset(): void {
    this.address = 0;
    this.resetControl = 0;
    for (const device of this.functions) device.reset();
    this.assignAddresses();
  }

  read(port: number, size: PortSize): number {
    if (port === CONFIG_ADDRESS && size === 4) return this.address >>> 0;
    if (port === RESET_CONTROL && size === 1) return this.resetControl;
    if (port < CONFIG_DATA) return allOnes(size);
    const device = this.selected();
    if (device === undefined) return allOnes(size);
    return device.readConfig((this.address & 0xfc) + (port - CONFIG_DATA), size);
  }

  write(port: number, size: PortSize, value: number): undefined {
    if (port === CONFIG_ADDRESS && size === 4) this.address = value & 0x80ff_fffc;
    else if (port === RESET_CONTROL && size === 1) this.writeResetControl(value);
    else if (port >= CONFIG_DATA) this.selected()?.writeConfig((this.address & 0xfc) + (port - CONFIG_DATA), size, value);
  }

  private selected(): PciFunction | undefined {
    const busAndFunction = this.address & 0x00ff_0700;
    if ((this.address & ENABLE) === 0 || busAndFunction !== 0) return undefined;
    return this.functions[(this.address >> 11) & 31];
  }

  /** Bit 2 going from 0 to 1 resets (Intel PIIX3 data sheet, RC register). */
  private writeResetControl(value: number): void {
    const rising = (value & 4) !== 0 && (this.resetControl & 4) === 0;
    this.resetControl = value & 0x0e;
    if (rising) this.wiring.reset();
  }

  private assignAddresses(): void {
    let next = PCI_MEMORY_FIRST;
    this.functions.forEach((device, slot) => {
      device.bars.forEach((bar, index) => {
        if (bar === undefined) return;
        const at = Math.ceil(next / bar.size) * bar.size;
        if (at + bar.size - 1 > PCI_MEMORY_LAST) throw new MachineError('no-room', `PCI memory window: no place for ${device.name}`);
        device.assignBar(index, at);
        next = at + bar.size;
      });
      device.enable(this.wiring.isaIrq(pciLine(slot, 0)));
    });
  }

  state(s: StateIo): void {
    s.fields(this, ['functions', 'asserting', 'address', 'resetControl']);
  }
}

function allOnes(size: PortSize): number {
  return size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
}
