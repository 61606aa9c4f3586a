import type { GuestRam } from '../ram.ts';
import type { VirtioDevice } from '../virtio/virtio-device.ts';

/** One buffer of a chain. */
export interface Buffer {
  readonly gpa: number;
  readonly length: number;
  readonly write: boolean;
}

/** The driver's side of one virtqueue of `size`, with its rings at `base`. */
export class TestDriver {
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
  readonly size: number;
  private readonly ram: GuestRam;
  private readonly device: VirtioDevice;
  private readonly queue: number;
  private nextDescriptor = 0;
  private seen = 0;

  constructor(ram: GuestRam, device: VirtioDevice, queue: number, base: number, size = 8) {
    this.ram = ram;
    this.device = device;
    this.queue = queue;
    this.size = size;
    this.descriptors = base;
    this.available = base + 0x1000;
    this.used = base + 0x2000;
    const q = device.queues[queue];
    if (q === undefined) throw new Error('no such queue');
    q.size = size;
    q.descriptors = BigInt(this.descriptors);
    q.driver = BigInt(this.available);
    q.device = BigInt(this.used);
  }

  /** Take the features the device offers (all, or none but VERSION_1) and start it. */
  static start(device: VirtioDevice, drivers: readonly number[], all = false): void {
    device.writeStatus(3);
    device.setDriverFeatures(0, all ? device.deviceFeatures(0) : 0);
    device.setDriverFeatures(1, 1);
    device.writeStatus(11);
    for (const queue of drivers) device.enableQueue(queue);
    device.writeStatus(15);
  }

  /** Write a descriptor at `index` as it is. */
  describe(index: number, gpa: bigint, length: number, flags: number, next = 0, table = this.descriptors): void {
    const at = table + index * 16;
    this.ram.view.setBigUint64(at, gpa, true);
    this.ram.view.setUint32(at + 8, length, true);
    this.ram.view.setUint16(at + 12, flags, true);
    this.ram.view.setUint16(at + 14, next, true);
  }

  /** Make a chain available without telling the device. @returns its head */
  add(buffers: readonly Buffer[]): number {
    const head = this.nextDescriptor;
    buffers.forEach((b, i) => {
      const last = i === buffers.length - 1;
      const index = this.nextDescriptor % this.size;
      this.nextDescriptor = (this.nextDescriptor + 1) % this.size;
      this.describe(index, BigInt(b.gpa), b.length, (last ? 0 : 1) | (b.write ? 2 : 0), this.nextDescriptor);
    });
    this.offer(head);
    return head;
  }

  /** Put a head into the available ring. */
  offer(head: number): void {
    const index = this.ram.view.getUint16(this.available + 2, true);
    this.ram.view.setUint16(this.available + 4 + 2 * (index % this.size), head, true);
    this.ram.view.setUint16(this.available + 2, index + 1, true);
  }

  kick(): void {
    this.device.notify(this.queue);
  }

  /** Lengths of the chains given back since the last call. */
  completed(): number[] {
    const lengths: number[] = [];
    for (const index = this.ram.view.getUint16(this.used + 2, true); this.seen !== index; this.seen = (this.seen + 1) & 0xffff) {
      lengths.push(this.ram.view.getUint32(this.used + 4 + 8 * (this.seen % this.size) + 4, true));
    }
    return lengths;
  }
}
