import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { MmioSize } from '../board/mmio-bus.ts';
import type { GuestRam } from '../ram.ts';
import { Virtqueue, VirtqueueError } from './virtqueue.ts';

// VIRTIO 1.2, sections 2.1 and 6.
export const STATUS_DRIVER_OK = 4;
export const STATUS_FEATURES_OK = 8;
export const STATUS_NEEDS_RESET = 64;
const F_INDIRECT_DESC = 1n << 28n;
const F_EVENT_IDX = 1n << 29n;
const F_VERSION_1 = 1n << 32n;

/** What a transport (PCI or MMIO) does for its device. */
export interface VirtioTransport {
  queueInterrupt(queue: number): void;
  configInterrupt(): void;
}

/** A virtio 1.x device without its transport: status, features, queues, configuration space. */
export abstract class VirtioDevice implements Saveable {
  readonly name: string;
  /** Device ID (VIRTIO 1.2, section 5). */
  readonly deviceId: number;
  readonly queues: readonly Virtqueue[];
  /** Changes when the device changes its configuration. */
  configGeneration = 0;
  status = 0;
  protected readonly ram: GuestRam;
  /** Device-specific configuration; read by the driver as it is. */
  protected readonly config: DataView;
  private readonly offered: bigint;
  private accepted = 0n;
  private transport: VirtioTransport | undefined;
  private lastError: string | undefined;

  constructor(ram: GuestRam, options: { name: string; deviceId: number; features: bigint; queues: number; configSize: number; queueSize?: number }) {
    this.ram = ram;
    this.name = options.name;
    this.deviceId = options.deviceId;
    this.offered = options.features | F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX;
    this.queues = Array.from({ length: options.queues }, () => new Virtqueue(ram, options.queueSize));
    this.config = new DataView(new ArrayBuffer(options.configSize));
  }

  /** The driver is ready: DRIVER_OK has been set. */
  protected onStart(): void {
    // Most devices wait for a queue to be notified.
  }

  /** Serve a queue that the driver notified. @throws VirtqueueError */
  protected abstract process(queue: Virtqueue, index: number): void;

  /** The device's own part of a reset. */
  protected onReset(): void {
    // Most devices keep no state beside their queues.
  }

  attachTransport(transport: VirtioTransport): void {
    this.transport = transport;
  }

  /** Why the device stopped, undefined while it works. */
  get error(): string | undefined {
    return this.lastError;
  }

  reset(): void {
    this.status = 0;
    this.accepted = 0n;
    this.lastError = undefined;
    for (const queue of this.queues) queue.reset();
    this.onReset();
  }

  /** 32 bits of the offered features. */
  deviceFeatures(select: number): number {
    return select > 1 ? 0 : Number((this.offered >> BigInt(32 * select)) & 0xffff_ffffn);
  }

  driverFeatures(select: number): number {
    return select > 1 ? 0 : Number((this.accepted >> BigInt(32 * select)) & 0xffff_ffffn);
  }

  setDriverFeatures(select: number, value: number): void {
    if (select > 1 || (this.status & STATUS_FEATURES_OK) !== 0) return;
    const shift = BigInt(32 * select);
    this.accepted = (this.accepted & ~(0xffff_ffffn << shift)) | (BigInt(value >>> 0) << shift);
  }

  writeStatus(value: number): void {
    if (value === 0) {
      this.reset();
      return;
    }
    let next = value | (this.status & STATUS_NEEDS_RESET);
    // Features that were not offered, or a legacy driver: the bit stays off (3.1.1).
    const impossible = (this.accepted & ~this.offered) !== 0n || (this.accepted & F_VERSION_1) === 0n;
    if ((next & STATUS_FEATURES_OK) !== 0 && (this.status & STATUS_FEATURES_OK) === 0 && impossible) next &= ~STATUS_FEATURES_OK;
    const started = (next & ~this.status & STATUS_DRIVER_OK) !== 0;
    this.status = next;
    if (!started) return;
    for (const index of this.queues.keys()) this.notify(index);
    this.onStart();
  }

  enableQueue(index: number): void {
    const queue = this.queues[index];
    if (queue === undefined || queue.ready) return;
    this.guard(() => queue.enable((this.accepted & F_EVENT_IDX) !== 0n, (this.accepted & F_INDIRECT_DESC) !== 0n));
  }

  /** The driver made chains available. */
  notify(index: number): void {
    const queue = this.queues[index];
    if (queue === undefined || !queue.ready || (this.status & STATUS_DRIVER_OK) === 0 || (this.status & STATUS_NEEDS_RESET) !== 0) return;
    this.guard(() => this.process(queue, index));
    this.signal(index);
  }

  readConfig(offset: number, size: MmioSize): number {
    let value = 0;
    for (let i = 0; i < size; i++) if (offset + i < this.config.byteLength) value |= this.config.getUint8(offset + i) << (8 * i);
    return value >>> 0;
  }

  /** Most configuration is read-only. */
  writeConfig(_offset: number, _size: MmioSize, _value: number): void {
    return;
  }

  /** Whether the driver accepted a feature bit. */
  protected negotiated(bit: number): boolean {
    return ((this.accepted >> BigInt(bit)) & 1n) !== 0n;
  }

  /** Interrupt for chains given back outside `process`. */
  protected signal(index: number): void {
    if (this.queues[index]?.takeInterrupt() === true) this.transport?.queueInterrupt(index);
  }

  protected configChanged(): void {
    this.configGeneration = (this.configGeneration + 1) & 0xff;
    if ((this.status & STATUS_DRIVER_OK) !== 0) this.transport?.configInterrupt();
  }

  protected guard(work: () => void): void {
    try {
      work();
    } catch (e) {
      if (!(e instanceof VirtqueueError)) throw e;
      this.lastError = e.message;
      this.status |= STATUS_NEEDS_RESET;
      if ((this.status & STATUS_DRIVER_OK) !== 0) this.transport?.configInterrupt();
    }
  }

  state(s: StateIo): void {
    s.fields(this, ['queues', 'configGeneration', 'status', 'config', 'accepted', 'lastError']);
  }
}
