import type { StateIo } from '@pvm/cpu-jit';
import type { GuestRam } from '../ram.ts';
import type { HostFolder } from '../share/host-folder.ts';
import { MAX_MSIZE, P9Server } from '../share/p9-server.ts';
import { VirtioDevice } from './virtio-device.ts';
import { readSegments, totalLength, type Virtqueue, writeSegments } from './virtqueue.ts';

// Device ID 9 (VIRTIO 1.2, section 5); layout as Linux's net/9p/trans_virtio.c has it.
const DEVICE_ID = 9;
const F_MOUNT_TAG = 1n << 0n;

/** A shared folder, mounted in the guest by `mount -t 9p -o trans=virtio,version=9p2000.L TAG DIR`. */
export class Virtio9p extends VirtioDevice {
  private readonly server: P9Server;

  constructor(ram: GuestRam, folder: HostFolder, tag: string) {
    const name = new TextEncoder().encode(tag);
    super(ram, { name: 'virtio-9p', deviceId: DEVICE_ID, features: F_MOUNT_TAG, queues: 1, configSize: 2 + name.length });
    this.config.setUint16(0, name.length, true);
    name.forEach((byte, i) => {
      this.config.setUint8(2 + i, byte);
    });
    this.server = new P9Server(folder);
  }

  protected override onReset(): void {
    this.server.reset();
  }

  protected override process(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      const request = readSegments(this.ram, chain.readable, MAX_MSIZE);
      const answer = this.server.handle(request, totalLength(chain.writable));
      queue.push(chain, writeSegments(this.ram, chain.writable, answer));
    }
  }

  override state(s: StateIo): void {
    super.state(s);
    s.fields(this, ['server']);
  }
}
