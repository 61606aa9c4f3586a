import type { Saveable, StateIo } from '@pvm/cpu-jit';
import { MachineError } from '../errors.ts';

/** Width of an I/O access in bytes. */
export type PortSize = 1 | 2 | 4;

/** A range of I/O ports, `first` to `last` inclusive. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** A device on the I/O bus. */
export interface PortDevice extends Saveable {
  /** Shown in messages and as the sub-reason of exits. */
  readonly name: string;
  readonly ports: readonly PortRange[];
  /** Value of `size` bytes read from `port`. */
  read(port: number, size: PortSize): number;
  /** Write; a returned promise suspends the vCPU until it settles. */
  write(port: number, size: PortSize, value: number): Promise<void> | undefined;
}

/** The I/O bus: finds the device of a port. Ports without one read as all ones and ignore writes. */
export class PortBus implements Saveable {
  private readonly byPort = new Map<number, PortDevice>();
  private readonly devices: PortDevice[] = [];

  /** @throws MachineError `port-conflict` */
  attach(device: PortDevice): void {
    for (const { first, last } of device.ports) {
      for (let port = first; port <= last; port++) {
        const other = this.byPort.get(port);
        if (other !== undefined) throw new MachineError('port-conflict', `${device.name} and ${other.name} both claim port 0x${port.toString(16)}`);
        this.byPort.set(port, device);
      }
    }
    this.devices.push(device);
  }

  read(port: number, size: PortSize): number {
    const device = this.byPort.get(port);
    if (device === undefined) return size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
    return device.read(port, size);
  }

  write(port: number, size: PortSize, value: number): Promise<void> | undefined {
    return this.byPort.get(port)?.write(port, size, value);
  }

  /** Of every device on the bus. */
  state(s: StateIo): void {
    for (const device of this.devices) s.part(device.name, device);
  }
}
