import type { GuestRam } from '../ram.ts';
import { VirtioDevice } from './virtio-device.ts';
import { readSegments, subSegments, totalLength, type Virtqueue, writeSegments } from './virtqueue.ts';

// VIRTIO 1.2, section 5.3: console device.
const DEVICE_ID = 3;
const F_SIZE = 1n << 0n;
const RECEIVE = 0;
const TRANSMIT = 1;
const MAX_CHUNK = 65536;
/** Bytes the host may queue for the guest. */
const MAX_INPUT = 1 << 20;

/** Virtio console with one port. */
export class VirtioConsole extends VirtioDevice {
  private readonly output: (data: Uint8Array) => void;
  private input: Uint8Array[] = [];
  private waiting = 0;

  /** @param output bytes of the guest, a copy */
  constructor(ram: GuestRam, output: (data: Uint8Array) => void) {
    super(ram, { name: 'virtio-console', deviceId: DEVICE_ID, features: F_SIZE, queues: 2, configSize: 12 });
    this.output = output;
    this.config.setUint16(0, 80, true);
    this.config.setUint16(2, 25, true);
    this.config.setUint32(4, 1, true); // max_nr_ports
  }

  /** Bytes typed at the console. @returns false: the guest does not read, they are lost */
  receive(data: Uint8Array): boolean {
    if (this.waiting + data.length > MAX_INPUT) return false;
    this.input.push(data.slice());
    this.waiting += data.length;
    this.notify(RECEIVE);
    return true;
  }

  /** The window has a new size. */
  resize(columns: number, rows: number): void {
    this.config.setUint16(0, columns, true);
    this.config.setUint16(2, rows, true);
    this.configChanged();
  }

  protected override process(queue: Virtqueue, index: number): void {
    if (index === TRANSMIT) this.transmit(queue);
    else this.fill(queue);
  }

  private transmit(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      const total = totalLength(chain.readable);
      for (let at = 0; at < total; at += MAX_CHUNK) this.output(readSegments(this.ram, subSegments(chain.readable, at, MAX_CHUNK), MAX_CHUNK));
      queue.push(chain, 0);
    }
  }

  private fill(queue: Virtqueue): void {
    while (this.waiting > 0) {
      const chain = queue.pop();
      if (chain === undefined) return;
      const room = totalLength(chain.writable);
      const data = this.take(room);
      queue.push(chain, writeSegments(this.ram, chain.writable, data));
    }
  }

  private take(max: number): Uint8Array {
    const bytes = new Uint8Array(Math.min(max, this.waiting));
    for (let at = 0; at < bytes.length; ) {
      const head = this.input[0];
      if (head === undefined) break;
      const n = Math.min(head.length, bytes.length - at);
      bytes.set(head.subarray(0, n), at);
      at += n;
      if (n === head.length) this.input.shift();
      else this.input[0] = head.subarray(n);
    }
    this.waiting -= bytes.length;
    return bytes;
  }
}
