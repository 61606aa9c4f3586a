import type { StateIo } from '@pvm/cpu-jit';
import type { GuestRam } from '../ram.ts';
import type { PortDevice, PortSize } from './port-device.ts';

// QEMU, docs/specs/fw_cfg.rst.
const SELECTOR = 0x510;
const DATA = 0x511;
const DMA = 0x514;
const KEY_SIGNATURE = 0x00;
const KEY_ID = 0x01;
const KEY_RAM_SIZE = 0x03;
const KEY_CPUS = 0x05;
const KEY_MAX_CPUS = 0x0f;
const KEY_DIRECTORY = 0x19;
const KEY_FIRST_FILE = 0x20;
const ID_TRADITIONAL_AND_DMA = 3;
const DMA_SIGNATURE = 'QEMU CFG';
const DMA_ERROR = 0x01;
const DMA_READ = 0x02;
const DMA_SKIP = 0x04;
const DMA_SELECT = 0x08;
const DMA_WRITE = 0x10;
const NAME_SIZE = 56;

/** The firmware-configuration device: read-only items by key and a directory of named files. */
export class FwCfg implements PortDevice {
  readonly name = 'fw-cfg';
  readonly ports = [{ first: SELECTOR, last: DMA + 7 }];
  private readonly ram: GuestRam;
  private readonly items = new Map<number, Uint8Array>();
  private selected: Uint8Array = new Uint8Array(0);
  private offset = 0;
  private dmaHigh = 0;

  constructor(ram: GuestRam, vcpus: number, files: ReadonlyMap<string, Uint8Array>) {
    this.ram = ram;
    this.items.set(KEY_SIGNATURE, new TextEncoder().encode('QEMU'));
    this.items.set(KEY_ID, littleEndian(ID_TRADITIONAL_AND_DMA, 4));
    this.items.set(KEY_RAM_SIZE, littleEndian(ram.size, 8));
    this.items.set(KEY_CPUS, littleEndian(vcpus, 2));
    this.items.set(KEY_MAX_CPUS, littleEndian(vcpus, 2));
    const names = [...files.keys()].sort();
    const directory = new Uint8Array(4 + names.length * 64);
    const view = new DataView(directory.buffer);
    view.setUint32(0, names.length);
    names.forEach((name, i) => {
      const data = files.get(name) ?? new Uint8Array(0);
      view.setUint32(4 + i * 64, data.length);
      view.setUint16(8 + i * 64, KEY_FIRST_FILE + i);
      directory.set(new TextEncoder().encode(name).subarray(0, NAME_SIZE - 1), 12 + i * 64);
      this.items.set(KEY_FIRST_FILE + i, data);
    });
    this.items.set(KEY_DIRECTORY, directory);
  }

  reset(): void {
    this.selected = new Uint8Array(0);
    this.offset = 0;
  }

  read(port: number, size: PortSize): number {
    if (port >= DMA) {
      const text = DMA_SIGNATURE.slice(port - DMA, port - DMA + size);
      return [...text].reduce((value, c, i) => value | (c.charCodeAt(0) << (8 * i)), 0) >>> 0;
    }
    let value = 0;
    if (port === DATA) for (let i = 0; i < size; i++) value |= (this.selected[this.offset++] ?? 0) << (8 * i);
    return value >>> 0;
  }

  write(port: number, size: PortSize, value: number): undefined {
    if (port === SELECTOR) this.select(value & 0xffff);
    else if (port === DMA && size === 4) this.dmaHigh = byteSwap(value);
    else if (port === DMA + 4 && size === 4) this.dma(byteSwap(value));
  }

  private select(key: number): void {
    // Bits 14 and 15 ask for writing and for architecture-specific items, of which there are none.
    this.selected = this.items.get(key & 0x3fff) ?? new Uint8Array(0);
    this.offset = 0;
  }

  /** The guest wrote the address of a request: control, length, address, all big-endian. */
  private dma(request: number): void {
    const { ram } = this;
    if (this.dmaHigh !== 0 || !ram.contains(request, 16)) return;
    const control = ram.view.getUint32(request);
    const length = ram.view.getUint32(request + 4);
    const address = Number(ram.view.getBigUint64(request + 8));
    if ((control & DMA_SELECT) !== 0) this.select(control >>> 16);
    let result = 0;
    if ((control & DMA_READ) !== 0) {
      if (ram.contains(address, length)) {
        const available = this.selected.subarray(this.offset, this.offset + length);
        if (available.length > 0) ram.write(address, available);
        ram.clear(address + available.length, length - available.length);
      } else result = DMA_ERROR;
      this.offset += length;
    } else if ((control & DMA_WRITE) !== 0) result = DMA_ERROR;
    else if ((control & DMA_SKIP) !== 0) this.offset += length;
    ram.view.setUint32(request, result);
    ram.written(request, 4);
  }

  state(s: StateIo): void {
    s.fields(this, ['offset', 'dmaHigh']);
    this.selected = s.value('selected', this.selected);
  }
}

function littleEndian(value: number, size: 2 | 4 | 8): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes.subarray(0, size);
}

function byteSwap(value: number): number {
  return ((value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;
}
