import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BoardOptions } from '../board/board.ts';
import type { MmioSize } from '../board/mmio-bus.ts';
import type { PortSize } from '../devices/port-device.ts';
import { PCI_MEMORY_FIRST } from '../pci/pci-bus.ts';
import { type TestBoard, testBoard, xorshift } from './test-board.ts';

const RAM = 4 << 20;
/** Registers of the board: what `Board` attaches, and a range that nothing answers. */
const PORTS: readonly (readonly [first: number, last: number])[] = [
  ...([0x20, 0xa0, 0x4d0, 0x70] as const).map((port) => [port, port + 1] as const),
  ...([0x40, 0x3f8, 0x600, 0x510, 0xcf8, 0xcfc, 0x80] as const).map((port) => [port, port + 11] as const),
  ...([0x60, 0x61, 0x64, 0x92, 0xf4, 0x1234] as const).map((port) => [port, port] as const),
];
const MSRS = [0x1b, 0x6e0, 0x80b, 0x830, 0x832, 0x838, 0x83e, 0x83f] as const;
const SIZES = [1, 2, 4] as const;
const SPECIAL = [0, 1, 2, 3, 4, 0xf, 0x10, 0x7f, 0x80, 0xff, 0xfff, 0x1000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] as const;
/** Devices: block, overlay, 9P, vsock, balloon, rng, console. */
const DEVICES = 7;
const BAR_SIZE = 0x4000;
const MMIO_FIRST = 0xfeb0_0000;
/** Where the rings of the queues may be, and what else descriptors point at. */
const RINGS = 0x10_0000;
const PLACES = [0, 0x1000, RINGS, RINGS + 0x1000, 0x20_0000, RAM - 4096, RAM - 1, RAM, 0xfee0_0000] as const;
const LENGTHS = [0, 1, 8, 16, 44, 512, 513, 4096, 65536, RAM, RAM + 1, 0x7fff_ffff, 0xffff_ffff] as const;

/** Fields of a virtio transport that a driver uses, by name. */
const FIELDS = {
  pci: { status: 0x14, featureSelect: 0x08, features: 0x0c, queueSelect: 0x16, size: 0x18, enable: 0x1c, rings: [0x20, 0x28, 0x30] },
  mmio: { status: 0x70, featureSelect: 0x24, features: 0x20, queueSelect: 0x30, size: 0x38, enable: 0x44, rings: [0x80, 0x90, 0xa0] },
} as const;

/** Treats a board as the worst guest would, in the same way for the same seed. An exception of the board is a bug. */
export class BoardFuzz {
  readonly machine: TestBoard;
  readonly virtio: 'pci' | 'mmio';
  private readonly random: () => number;
  private readonly folder: string;
  private outputBytes = 0;

  constructor(seed: number, virtio: 'pci' | 'mmio') {
    this.random = xorshift((Math.imul(seed, 0x9e37_79b1) ^ 0x5bd1_e995) | 1);
    for (let i = 0; i < 4; i++) this.random();
    this.virtio = virtio;
    this.folder = mkdtempSync(join(tmpdir(), 'pvm-fuzz-'));
    writeFileSync(join(this.folder, 'file'), 'contents');
    this.machine = testBoard(
      fuzzBoardOptions(this.folder, virtio, (data) => this.onOutput(data)),
      RAM,
    );
  }

  /** One thing that a guest, or somebody outside, does. */
  step(): void {
    const { board } = this.machine;
    switch (this.below(12)) {
      case 0:
      case 1:
        return this.port();
      case 2:
      case 3:
        return this.mmio();
      case 4:
        return this.interrupts();
      case 5:
        return this.machine.advance(this.below(3) === 0 ? this.below(2e9) : this.below(1000));
      case 6:
        return this.configSpace();
      case 7:
      case 8:
        return this.startQueues(this.below(DEVICES));
      case 9:
        board.serialInput(new Uint8Array(this.below(40)));
        board.console?.receive(new Uint8Array(this.below(4000)));
        return;
      case 10:
        board.vsock?.connect(this.below(3)).write(new Uint8Array(this.below(300)));
        return;
      default:
        return this.descriptors();
    }
  }

  close(): void {
    this.machine.board.dispose();
    rmSync(this.folder, { recursive: true });
  }

  private onOutput(data: Uint8Array): void {
    this.outputBytes += data.length;
  }
  private below(limit: number): number {
    return this.random() % limit;
  }
  private pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }
  private value(): number {
    return this.below(2) === 0 ? this.pick(SPECIAL) : this.random();
  }

  private port(): void {
    const [first, last] = this.pick(PORTS);
    const size: PortSize = this.pick(SIZES);
    const port = first + this.below(last - first + 1);
    if (this.below(3) === 0) this.machine.board.readPort(port, size);
    else void this.machine.board.writePort(port, size, size === 4 ? this.value() : this.value() % 2 ** (8 * size));
  }

  private mmio(): void {
    const size: MmioSize = this.pick(SIZES);
    const base = this.pick([0xfec0_0000, 0xfee0_0000, this.deviceBase(this.below(DEVICES)), PCI_MEMORY_FIRST + this.below(0x10_0000)]);
    const gpa = base + (this.below(2) === 0 ? this.below(0x100) : this.below(0x1000)) - (this.below(4) === 0 ? 0 : base % size);
    if (this.below(3) === 0) this.machine.board.readMmio(0, gpa, size);
    else void this.machine.board.writeMmio(0, gpa, size, size === 4 ? this.value() : this.value() % 2 ** (8 * size));
  }

  private interrupts(): void {
    const { board } = this.machine;
    const sink = board.interrupts[0];
    const msr = this.below(2) === 0 ? this.pick(MSRS) : 0x800 + this.below(0x100);
    if (this.below(3) === 0) board.readMsr(0, msr);
    else board.writeMsr(0, msr, this.below(2) === 0 ? BigInt(this.value()) : BigInt(this.value()) << BigInt(this.below(33)));
    if (sink !== undefined && sink.pendingVector() >= 0) sink.acknowledge();
    sink?.takeNmi();
    sink?.takeInit();
    sink?.takeSipi();
  }

  private configSpace(): void {
    const { board } = this.machine;
    void board.writePort(0xcf8, 4, (0x8000_0000 | (this.below(12) << 11) | (this.below(64) << 2)) >>> 0);
    const size: PortSize = this.pick(SIZES);
    const port = 0xcfc + (this.below(4) & ~(size - 1));
    if (this.below(2) === 0) board.readPort(port, size);
    // Mostly not the BARs, which would move the devices out of sight.
    else if (this.below(4) === 0 || (this.random() & 0x30) !== 0x10) void board.writePort(port, size, this.value() % 2 ** (8 * size));
  }

  private deviceBase(index: number): number {
    return this.virtio === 'mmio' ? MMIO_FIRST + index * 0x1000 : this.barOf(index);
  }

  /** BAR 0 of the device, where configuration space says that it is. */
  private barOf(index: number): number {
    const { board } = this.machine;
    void board.writePort(0xcf8, 4, (0x8000_0000 | ((index + 1) << 11) | 0x10) >>> 0);
    return (board.readPort(0xcfc, 4) & ~0xf) >>> 0 || PCI_MEMORY_FIRST + index * 2 * BAR_SIZE;
  }

  private write(base: number, offset: number, value: number, size: MmioSize = 4): void {
    void this.machine.board.writeMmio(0, base + offset, size, value >>> 0);
  }

  /** As a driver begins, with rings that are in RAM more often than not, and notifications. */
  private startQueues(index: number): void {
    const base = this.deviceBase(index);
    const fields = FIELDS[this.virtio];
    const size: MmioSize = this.virtio === 'pci' ? 2 : 4;
    const status = (value: number) => this.write(base, fields.status, value, this.virtio === 'pci' ? 1 : 4);
    if (this.below(3) !== 0) status(0);
    status(3);
    for (const word of [0, 1]) {
      this.write(base, fields.featureSelect, word);
      this.write(base, fields.features, word === 1 ? 1 : this.below(3) === 0 ? 0xffff_ffff : this.pick([0, 0x3000_0000, 0x1000_0000, 0x2000_0002]));
    }
    status(11);
    for (let queue = 0; queue < 4; queue++) {
      this.write(base, fields.queueSelect, queue, size);
      this.write(base, fields.size, this.below(8) === 0 ? this.value() & 0xffff : 16 << this.below(5), size);
      fields.rings.forEach((at, i) => {
        this.write(base, at, this.below(16) === 0 ? this.value() : RINGS + queue * 0x4000 + i * 0x1000);
        this.write(base, at + 4, this.below(20) === 0 ? this.value() : 0);
      });
      this.write(base, fields.enable, 1, size);
    }
    for (let queue = 0; queue < 4; queue++) for (const at of [0x1000, 0x2000]) this.machine.ram.view.setUint32(RINGS + queue * 0x4000 + at, 0, true);
    status(15);
    for (let i = 0; i < 12; i++) {
      const queue = this.below(4);
      this.descriptors(queue);
      this.notify(base, this.below(20) === 0 ? this.below(8) : queue);
    }
  }

  private notify(base: number, queue: number): void {
    if (this.virtio === 'pci') this.write(base, 0x3000 + queue * 4, queue, 2);
    else this.write(base, 0x50, queue);
  }

  /** Makes a chain available that is nearly right, or anything at all. */
  private descriptors(queue = this.below(4)): void {
    const ring = RINGS + queue * 0x4000;
    if (this.below(12) === 0) this.anyDescriptors(ring);
    else this.chain(ring);
  }

  /** A request and its buffers, which overlap what they like; some of the fields are wrong. */
  private chain(ring: number): void {
    const { view } = this.machine.ram;
    const place = this.pick([0x1000, 0x20_0000, 0x30_0010]);
    const header = this.request(place);
    const wrong = (right: number, limit: number) => (this.below(30) === 0 ? this.value() % limit : right);
    const buffers: [gpa: number, length: number, write: number][] = [[place, header, 0]];
    for (let i = this.below(3); i > 0; i--) buffers.push([this.pick([0x1000, ring, 0x30_0000]), this.pick([1, 512, 1024, 4096, 65536, RAM >> 2]), 0]);
    for (let i = this.below(4); i > 0; i--) buffers.push([this.pick([0x1000, RINGS, 0x30_0000]), this.pick([1, 20, 44, 512, 4096, 65536, RAM >> 2]), 2]);
    const first = this.below(16);
    buffers.forEach(([gpa, length, write], i) => {
      const at = ring + 16 * ((first + i) & 15);
      view.setBigUint64(at, BigInt(wrong(gpa, 2 ** 32)), true);
      view.setUint32(at + 8, wrong(length, 2 ** 32), true);
      view.setUint16(at + 12, wrong((i === buffers.length - 1 ? 0 : 1) | write, 8), true);
      view.setUint16(at + 14, wrong((first + i + 1) & 15, 2 ** 16), true);
    });
    const next = view.getUint16(ring + 0x1002, true);
    // The queue may have any size: the head is where it will be looked for, whichever that is.
    for (let size = 1; size <= 256; size *= 2) view.setUint16(ring + 0x1004 + 2 * (next % size), first, true);
    view.setUint16(ring + 0x1002, wrong(next + 1, 2 ** 16) & 0xffff, true);
  }

  /** Looping, overlapping, enormous and misplaced descriptors. */
  private anyDescriptors(ring: number): void {
    const { view } = this.machine.ram;
    for (let i = this.below(16); i >= 0; i--) {
      const at = ring + 16 * this.below(16);
      view.setBigUint64(at, BigInt(this.pick(PLACES)) + BigInt(this.below(3) === 0 ? this.below(64) : 0), true);
      view.setUint32(at + 8, this.below(3) === 0 ? this.below(100) : this.pick(LENGTHS), true);
      view.setUint16(at + 12, this.below(10) === 0 ? this.random() & 0xffff : this.pick([0, 1, 2, 3, 4]), true);
      view.setUint16(at + 14, this.below(5) === 0 ? this.random() & 0xffff : this.below(16), true);
    }
    for (const place of [0, 0x1000, 0x20_0000]) this.request(place);
    const ahead = this.below(5) === 0 ? this.random() & 0xffff : (view.getUint16(ring + 0x1002, true) + this.below(4)) & 0xffff;
    view.setUint16(ring + 0x1002, ahead, true);
    for (let i = 0; i < 8; i++) view.setUint16(ring + 0x1004 + 2 * i, this.below(10) === 0 ? this.random() & 0xffff : this.below(16), true);
  }

  /** Bytes that devices take for a request: block, 9P, vsock. @returns how many there are */
  private request(at: number): number {
    const { view, bytes } = this.machine.ram;
    for (let i = 0; i < 64; i += 4) view.setUint32(at + i, this.below(2) === 0 ? this.below(4) : this.value(), true);
    switch (this.below(3)) {
      case 0:
        view.setUint32(at, this.pick([0, 1, 4, 8, 11, 13, 99]), true);
        view.setBigUint64(at + 8, BigInt(this.pick(SPECIAL)), true);
        return 16;
      case 1: {
        const length = 7 + this.below(80);
        view.setUint32(at, this.below(5) === 0 ? this.value() : length, true);
        bytes[at + 4] = this.pick([8, 12, 14, 16, 20, 22, 24, 26, 40, 50, 52, 54, 70, 72, 74, 76, 100, 104, 108, 110, 116, 118, 120, 122, 77]);
        view.setUint32(at + 7, this.below(3), true);
        view.setUint32(at + 11, this.below(3), true);
        return length;
      }
      default:
        view.setBigUint64(at, 3n, true);
        view.setBigUint64(at + 8, 2n, true);
        view.setUint32(at + 24, this.pick(LENGTHS), true);
        view.setUint16(at + 28, 1, true);
        view.setUint16(at + 30, this.below(9), true);
        return 44;
    }
  }
}

/** Every device that a board can have; the folder has a `file`. */
export function fuzzBoardOptions(folder: string, virtio: 'pci' | 'mmio', output: (data: Uint8Array) => void): Partial<BoardOptions> {
  return {
    virtio,
    drives: [{ file: new Uint8Array(1 << 16) }, { file: new Uint8Array(1 << 18), snapshot: true }],
    shares: [{ folder, tag: 'share' }],
    vsockCid: 3,
    balloon: true,
    random: (buffer) => buffer.fill(0x5a),
    consolePorts: [{ output }, { name: 'channel', output }],
  };
}
