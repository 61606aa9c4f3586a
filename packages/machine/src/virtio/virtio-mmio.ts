import type { StateIo } from '@pvm/cpu-jit';
import type { MmioDevice, MmioSize } from '../board/mmio-bus.ts';
import type { VirtioDevice, VirtioTransport } from './virtio-device.ts';
import { setHalf } from './virtio-pci.ts';

// VIRTIO 1.2, section 4.2.2: MMIO device register layout, version 2.
const MAGIC = 0x7472_6976;
const VENDOR = 0x004d_5650;
const CONFIG = 0x100;
const INTERRUPT_QUEUE = 1;
const INTERRUPT_CONFIG = 2;
export const VIRTIO_MMIO_SIZE = 0x200;

/** Virtio over MMIO around a device. */
export class VirtioMmio implements MmioDevice, VirtioTransport {
  readonly name: string;
  readonly base: number;
  readonly size = VIRTIO_MMIO_SIZE;
  private readonly device: VirtioDevice;
  private readonly irq: (level: boolean) => void;
  private featureSelect = 0;
  private driverFeatureSelect = 0;
  private queueSelect = 0;
  private interrupts = 0;

  /** @param irq level-triggered interrupt line */
  constructor(device: VirtioDevice, base: number, irq: (level: boolean) => void) {
    this.name = device.name;
    this.device = device;
    this.base = base;
    this.irq = irq;
    device.attachTransport(this);
  }

  reset(): void {
    this.device.reset();
    this.featureSelect = 0;
    this.driverFeatureSelect = 0;
    this.queueSelect = 0;
    this.setInterrupts(0);
  }

  queueInterrupt(): void {
    this.setInterrupts(this.interrupts | INTERRUPT_QUEUE);
  }

  configInterrupt(): void {
    this.setInterrupts(this.interrupts | INTERRUPT_CONFIG);
  }

  read(offset: number, size: MmioSize): number {
    const { device } = this;
    if (offset >= CONFIG) return device.readConfig(offset - CONFIG, size);
    if (size !== 4) return 0;
    const queue = device.queues[this.queueSelect];
    switch (offset) {
      case 0x000:
        return MAGIC;
      case 0x004:
        return 2;
      case 0x008:
        return device.deviceId;
      case 0x00c:
        return VENDOR;
      case 0x010:
        return device.deviceFeatures(this.featureSelect);
      case 0x034:
        return queue?.maxSize ?? 0;
      case 0x044:
        return queue?.ready === true ? 1 : 0;
      case 0x060:
        return this.interrupts;
      case 0x070:
        return device.status;
      case 0x0b0: // shared memory length: none
      case 0x0b4:
        return 0xffff_ffff;
      case 0x0fc:
        return device.configGeneration;
      default:
        return 0;
    }
  }

  write(offset: number, size: MmioSize, value: number): undefined {
    const { device } = this;
    if (offset >= CONFIG) {
      device.writeConfig(offset - CONFIG, size, value);
      return;
    }
    if (size !== 4) return;
    const queue = device.queues[this.queueSelect];
    switch (offset) {
      case 0x014:
        this.featureSelect = value >>> 0;
        return;
      case 0x020:
        device.setDriverFeatures(this.driverFeatureSelect, value);
        return;
      case 0x024:
        this.driverFeatureSelect = value >>> 0;
        return;
      case 0x030:
        this.queueSelect = value >>> 0;
        return;
      case 0x038:
        if (queue !== undefined && !queue.ready) queue.size = value >>> 0;
        return;
      case 0x044:
        if ((value & 1) !== 0) device.enableQueue(this.queueSelect);
        else queue?.reset();
        return;
      case 0x050:
        device.notify(value & 0xffff);
        return;
      case 0x064:
        this.setInterrupts(this.interrupts & ~value);
        return;
      case 0x070:
        device.writeStatus(value & 0xff);
        if ((value & 0xff) === 0) this.setInterrupts(0);
        return;
      default: {
        if (queue === undefined || queue.ready) return;
        const field = offset === 0x080 || offset === 0x084 ? 'descriptors' : offset === 0x090 || offset === 0x094 ? 'driver' : 'device';
        if (field !== 'device' || offset === 0x0a0 || offset === 0x0a4) queue[field] = setHalf(queue[field], (offset & 4) !== 0, value);
      }
    }
  }

  private setInterrupts(bits: number): void {
    this.interrupts = bits & 3;
    this.irq(this.interrupts !== 0);
  }

  state(s: StateIo): void {
    s.fields(this, ['device', 'featureSelect', 'driverFeatureSelect', 'queueSelect', 'interrupts']);
  }
}
