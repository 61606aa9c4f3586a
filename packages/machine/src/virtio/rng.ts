import type { GuestRam } from '../ram.ts';
import { VirtioDevice } from './virtio-device.ts';
import { totalLength, type Virtqueue, writeSegments } from './virtqueue.ts';

// VIRTIO 1.2, section 5.4: entropy device.
const DEVICE_ID = 4;
/** Most bytes given for one buffer; drivers ask again. */
const MAX_BYTES = 65536;

/** Virtio entropy source. */
export class VirtioRng extends VirtioDevice {
  private readonly random: (buffer: Uint8Array) => void;

  /** @param random fills a buffer */
  constructor(ram: GuestRam, random: (buffer: Uint8Array) => void) {
    super(ram, { name: 'virtio-rng', deviceId: DEVICE_ID, features: 0n, queues: 1, configSize: 0 });
    this.random = random;
  }

  protected override process(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      const bytes = new Uint8Array(Math.min(totalLength(chain.writable), MAX_BYTES));
      this.random(bytes);
      queue.push(chain, writeSegments(this.ram, chain.writable, bytes));
    }
  }
}
