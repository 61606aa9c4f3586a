import type { StateIo } from '@pvm/cpu-jit';
import type { MmioSize } from '../board/mmio-bus.ts';
import { MSIX_CAPABILITY_ID, MSIX_PBA_OFFSET, MsixTable } from '../pci/msix.ts';
import { type PciBar, PciFunction } from '../pci/pci-function.ts';
import type { VirtioDevice, VirtioTransport } from './virtio-device.ts';

// VIRTIO 1.2, section 4.1: virtio over PCI bus.
const VENDOR = 0x1af4;
const FIRST_DEVICE = 0x1040;
const CAP_VENDOR = 0x09;
const CFG_COMMON = 1;
const CFG_NOTIFY = 2;
const CFG_ISR = 3;
const CFG_DEVICE = 4;
const CFG_PCI = 5;
/** Places in BAR 0. */
const COMMON = 0x0000;
const COMMON_SIZE = 0x40;
const ISR = 0x1000;
const DEVICE = 0x2000;
const NOTIFY = 0x3000;
const NOTIFY_MULTIPLIER = 4;
const NO_VECTOR = 0xffff;
const ISR_QUEUE = 1;
const ISR_CONFIG = 2;
const DEVICE_BAR = 0;
const MSIX_BAR = 1;

/** Class codes by device ID, as drivers and `lspci` expect them. */
const CLASS_CODES: Readonly<Record<number, number>> = { 1: 0x02_0000, 2: 0x01_0000, 3: 0x07_8000 };
const CLASS_OTHER = 0xff_0000;

/** Modern virtio PCI function around a device. */
export class VirtioPci extends PciFunction implements VirtioTransport {
  private readonly virtio: VirtioDevice;
  private readonly msix: MsixTable;
  private readonly msixCapability: number;
  private readonly pciCapability: number;
  private readonly queueVectors: Uint16Array;
  private configVector = NO_VECTOR;
  private featureSelect = 0;
  private driverFeatureSelect = 0;
  private queueSelect = 0;
  private isr = 0;

  constructor(device: VirtioDevice) {
    const msix = new MsixTable(device.queues.length + 1, (address, data) => this.slot?.sendMsi(address, data));
    const bar: PciBar = {
      size: 0x4000,
      read: (offset, size) => this.readBar(offset, size),
      write: (offset, size, value) => this.writeBar(offset, size, value),
    };
    super(
      {
        name: device.name,
        vendor: VENDOR,
        device: FIRST_DEVICE + device.deviceId,
        revision: 1,
        classCode: CLASS_CODES[device.deviceId] ?? CLASS_OTHER,
        subsystemVendor: VENDOR,
        subsystem: FIRST_DEVICE + device.deviceId,
      },
      [bar, msix],
      true,
    );
    this.virtio = device;
    this.msix = msix;
    this.queueVectors = new Uint16Array(device.queues.length).fill(NO_VECTOR);
    const entries = msix.vectors - 1;
    this.msixCapability = this.addCapability([MSIX_CAPABILITY_ID, 0, entries & 0xff, entries >> 8, ...dword(MSIX_BAR), ...dword(MSIX_PBA_OFFSET | MSIX_BAR)]);
    this.allowWrites(this.msixCapability + 3, 0xc0);
    this.addCapability(location(CFG_COMMON, COMMON, COMMON_SIZE));
    this.addCapability([...location(CFG_NOTIFY, NOTIFY, device.queues.length * NOTIFY_MULTIPLIER, 20), ...dword(NOTIFY_MULTIPLIER)]);
    this.addCapability(location(CFG_ISR, ISR, 1));
    this.addCapability(location(CFG_DEVICE, DEVICE, 0x1000));
    this.pciCapability = this.addCapability([...location(CFG_PCI, 0, 0, 20), 0, 0, 0, 0]);
    this.allowWrites(this.pciCapability + 4, 0xff);
    this.allowWrites(this.pciCapability + 8, 0xff, 0xff, 0xff, 0xff, 0x07);
    device.attachTransport(this);
  }

  override reset(): void {
    super.reset();
    this.virtio.reset();
    this.msix.reset();
    this.config.setUint8(this.msixCapability + 3, 0);
    this.resetTransport();
  }

  override readConfig(offset: number, size: MmioSize): number {
    const data = this.pciCapability + 16;
    if (offset === data) {
      const [at, length] = this.pciWindow();
      if (length !== 0) this.config.setUint32(data, this.readBar(at, length), true);
    }
    return super.readConfig(offset, size);
  }

  override writeConfig(offset: number, size: MmioSize, value: number): void {
    super.writeConfig(offset, size, value);
    if (offset <= this.msixCapability + 3 && offset + size > this.msixCapability + 2)
      this.msix.setControl(this.config.getUint16(this.msixCapability + 2, true));
    if (offset === this.pciCapability + 16) {
      const [at, length] = this.pciWindow();
      if (length !== 0) this.writeBar(at, length, value);
    }
  }

  // ------------------------------------------------------------ VirtioTransport
  queueInterrupt(queue: number): void {
    this.interrupt(this.queueVectors[queue] ?? NO_VECTOR, ISR_QUEUE);
  }

  configInterrupt(): void {
    this.interrupt(this.configVector, ISR_CONFIG);
  }

  private interrupt(vector: number, isr: number): void {
    if (this.msix.enabled) {
      if (vector !== NO_VECTOR) this.msix.notify(vector);
      return;
    }
    this.isr |= isr;
    this.setIntx(true);
  }

  // ------------------------------------------------------------ BAR 0
  private readBar(offset: number, size: MmioSize): number {
    if (offset < COMMON_SIZE) return this.readCommon(offset, size);
    if (offset === ISR) {
      const value = this.isr;
      this.isr = 0;
      this.setIntx(false);
      return value;
    }
    if (offset >= DEVICE && offset < NOTIFY) return this.virtio.readConfig(offset - DEVICE, size);
    return 0;
  }

  private writeBar(offset: number, size: MmioSize, value: number): undefined {
    if (offset < COMMON_SIZE) this.writeCommon(offset, size, value);
    else if (offset >= NOTIFY) this.virtio.notify((offset - NOTIFY) / NOTIFY_MULTIPLIER);
    else if (offset >= DEVICE) this.virtio.writeConfig(offset - DEVICE, size, value);
  }

  /** The common configuration structure (4.1.4.3) as bytes, so that accesses of any width see it consistently. */
  private readCommon(offset: number, size: MmioSize): number {
    const { virtio } = this;
    const queue = virtio.queues[this.queueSelect];
    const view = new DataView(new ArrayBuffer(COMMON_SIZE + 4));
    view.setUint32(0x00, this.featureSelect, true);
    view.setUint32(0x04, virtio.deviceFeatures(this.featureSelect), true);
    view.setUint32(0x08, this.driverFeatureSelect, true);
    view.setUint32(0x0c, virtio.driverFeatures(this.driverFeatureSelect), true);
    view.setUint16(0x10, this.configVector, true);
    view.setUint16(0x12, virtio.queues.length, true);
    view.setUint8(0x14, virtio.status);
    view.setUint8(0x15, virtio.configGeneration);
    view.setUint16(0x16, this.queueSelect, true);
    if (queue !== undefined) {
      view.setUint16(0x18, queue.size, true);
      view.setUint16(0x1a, this.queueVectors[this.queueSelect] ?? NO_VECTOR, true);
      view.setUint16(0x1c, queue.ready ? 1 : 0, true);
      view.setUint16(0x1e, this.queueSelect, true);
      view.setBigUint64(0x20, queue.descriptors, true);
      view.setBigUint64(0x28, queue.driver, true);
      view.setBigUint64(0x30, queue.device, true);
    }
    return size === 1 ? view.getUint8(offset) : size === 2 ? view.getUint16(offset, true) : view.getUint32(offset, true);
  }

  private writeCommon(offset: number, size: MmioSize, value: number): void {
    const { virtio } = this;
    const queue = virtio.queues[this.queueSelect];
    switch (offset) {
      case 0x00:
        this.featureSelect = value >>> 0;
        return;
      case 0x08:
        this.driverFeatureSelect = value >>> 0;
        return;
      case 0x0c:
        virtio.setDriverFeatures(this.driverFeatureSelect, value);
        return;
      case 0x10:
        this.configVector = this.checkVector(value);
        return;
      case 0x14:
        virtio.writeStatus(value & 0xff);
        if ((value & 0xff) === 0) this.resetTransport();
        return;
      case 0x16:
        this.queueSelect = value & 0xffff;
        return;
      case 0x1a:
        if (this.queueSelect < this.queueVectors.length) this.queueVectors[this.queueSelect] = this.checkVector(value);
        return;
      case 0x1c:
        if ((value & 0xffff) === 1) virtio.enableQueue(this.queueSelect);
        return;
      default:
        if (queue === undefined || queue.ready) return;
        if (offset === 0x18) queue.size = value & 0xffff;
        else if (size === 4 && offset >= 0x20 && offset < 0x38 && (offset & 3) === 0) {
          const field = offset < 0x28 ? 'descriptors' : offset < 0x30 ? 'driver' : 'device';
          queue[field] = setHalf(queue[field], (offset & 4) !== 0, value);
        }
    }
  }

  /** A vector beyond the table reads back as "none" (4.1.5.1.2). */
  private checkVector(value: number): number {
    return (value & 0xffff) < this.msix.vectors ? value & 0xffff : NO_VECTOR;
  }

  private resetTransport(): void {
    this.configVector = NO_VECTOR;
    this.queueVectors.fill(NO_VECTOR);
    this.featureSelect = 0;
    this.driverFeatureSelect = 0;
    this.queueSelect = 0;
    this.isr = 0;
    this.setIntx(false);
  }

  /** Offset and width of the window in configuration space (4.1.4.9); width 0: not usable. */
  private pciWindow(): [offset: number, size: MmioSize | 0] {
    const offset = this.config.getUint32(this.pciCapability + 8, true);
    const length = this.config.getUint32(this.pciCapability + 12, true);
    const ok = this.config.getUint8(this.pciCapability + 4) === DEVICE_BAR && offset < 0x4000 && offset % Math.max(1, length) === 0;
    return [offset, ok && (length === 1 || length === 2 || length === 4) ? length : 0];
  }

  override state(s: StateIo): void {
    super.state(s);
    s.fields(this, ['virtio', 'msix', 'queueVectors', 'configVector', 'featureSelect', 'driverFeatureSelect', 'queueSelect', 'isr']);
  }
}

/** Replace one half of a 64-bit address. */
export function setHalf(value: bigint, high: boolean, half: number): bigint {
  const bits = BigInt(half >>> 0);
  return high ? (value & 0xffff_ffffn) | (bits << 32n) : (value & ~0xffff_ffffn) | bits;
}

/** struct virtio_pci_cap (4.1.4). */
function location(type: number, offset: number, length: number, size = 16): number[] {
  return [CAP_VENDOR, 0, size, type, DEVICE_BAR, 0, 0, 0, ...dword(offset), ...dword(length)];
}

function dword(value: number): number[] {
  return [value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, value >>> 24];
}
