import type { MmioSize } from '../board/mmio-bus.ts';
import type { GuestRam } from '../ram.ts';
import { VirtioDevice } from './virtio-device.ts';
import { readSegments, totalLength, type Virtqueue } from './virtqueue.ts';

// VIRTIO 1.2, section 5.5: traditional memory balloon device.
const DEVICE_ID = 5;
const F_MUST_TELL_HOST = 1n << 0n;
const INFLATE = 0;
const PAGE = 4096;
const CONFIG_TARGET = 0;
const CONFIG_ACTUAL = 4;

/** Memory balloon. Pages the guest gives away are cleared, so that they cost nothing in a snapshot. */
export class VirtioBalloon extends VirtioDevice {
  constructor(ram: GuestRam) {
    super(ram, { name: 'virtio-balloon', deviceId: DEVICE_ID, features: F_MUST_TELL_HOST, queues: 2, configSize: 8 });
  }

  /** Ask the guest to give away memory until `bytes` are in the balloon. */
  setTarget(bytes: number): void {
    this.config.setUint32(CONFIG_TARGET, Math.floor(bytes / PAGE), true);
    this.configChanged();
  }

  /** Bytes in the balloon, as the guest says. */
  get actual(): number {
    return this.config.getUint32(CONFIG_ACTUAL, true) * PAGE;
  }

  /** A driver that starts anew has an empty balloon. */
  protected override onReset(): void {
    this.config.setUint32(CONFIG_ACTUAL, 0, true);
  }

  override writeConfig(offset: number, size: MmioSize, value: number): void {
    if (offset === CONFIG_ACTUAL && size === 4) this.config.setUint32(CONFIG_ACTUAL, value, true);
  }

  protected override process(queue: Virtqueue, index: number): void {
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      if (index === INFLATE) this.inflate(readSegments(this.ram, chain.readable, Math.min(totalLength(chain.readable), PAGE)));
      queue.push(chain, 0);
    }
  }

  /** Page frame numbers, 32 bits each. */
  private inflate(list: Uint8Array): void {
    const view = new DataView(list.buffer);
    for (let at = 0; at + 4 <= list.length; at += 4) {
      const gpa = view.getUint32(at, true) * PAGE;
      if (this.ram.contains(gpa, PAGE)) this.ram.clear(gpa, PAGE);
    }
  }
}
