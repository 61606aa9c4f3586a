import type { Saveable, StateIo } from '@pvm/cpu-jit';
import { MachineError } from '../errors.ts';

/** Width of a memory-mapped access that a device sees; wider ones arrive in pieces. */
export type MmioSize = 1 | 2 | 4;

/** A device with registers in guest-physical address space, outside RAM. */
export interface MmioDevice extends Saveable {
  readonly name: string;
  /** First byte, GPA. May change (PCI BARs); the bus reads it on each lookup. */
  readonly base: number;
  /** Bytes; 0: not mapped now. */
  readonly size: number;
  /** Value of `size` bytes at `offset`. */
  read(offset: number, size: MmioSize): number;
  write(offset: number, size: MmioSize, value: number): Promise<void> | undefined;
}

/** Memory-mapped devices by address. Addresses without a device read as all ones and ignore writes. */
export class MmioBus implements Saveable {
  private readonly devices: MmioDevice[] = [];

  /** @throws MachineError `mmio-conflict` when both have fixed places that overlap */
  attach(device: MmioDevice): void {
    const other = this.devices.find((d) => d.size > 0 && device.size > 0 && d.base < device.base + device.size && device.base < d.base + d.size);
    if (other !== undefined)
      throw new MachineError('mmio-conflict', `${device.name} and ${other.name} both claim guest-physical 0x${device.base.toString(16)}`);
    this.devices.push(device);
  }

  /** The device at `gpa`, undefined: nothing answers. */
  find(gpa: number): MmioDevice | undefined {
    for (const device of this.devices) {
      if (gpa >= device.base && gpa < device.base + device.size) return device;
    }
    return undefined;
  }

  read(gpa: number, size: MmioSize): number {
    const device = this.find(gpa);
    if (device === undefined) return size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
    return device.read(gpa - device.base, size);
  }

  write(gpa: number, size: MmioSize, value: number): Promise<void> | undefined {
    const device = this.find(gpa);
    return device?.write(gpa - device.base, size, value);
  }

  /** Of every device on the bus. */
  state(s: StateIo): void {
    this.devices.forEach((device, i) => {
      s.part(`${i} ${device.name}`, device);
    });
  }
}
