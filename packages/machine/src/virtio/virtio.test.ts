import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { GuestRam } from '../ram.ts';
import type { BlockBackend } from '../storage/block-backend.ts';
import { openDrive } from '../storage/drive.ts';
import { xorshift } from '../testing/test-board.ts';
import { TestDriver } from '../testing/virtio-driver.ts';
import { VirtioBlock } from './block.ts';
import { VirtioConsole } from './console.ts';
import { VirtioRng } from './rng.ts';
import { STATUS_NEEDS_RESET } from './virtio-device.ts';

const RINGS = 0x1_0000;
const HEADER = 0x2_0000;
const DATA = 0x2_1000;
const STATUS = 0x2_f000;

function newRam(): GuestRam {
  // Shared, as in a machine: file system calls must accept it.
  return new GuestRam(new SharedArrayBuffer(4 << 20), 0, 4 << 20);
}

function disk(backend: BlockBackend, all = false) {
  const ram = newRam();
  const device = new VirtioBlock(ram, backend, 'serial-1');
  let interrupts = 0;
  device.attachTransport({ queueInterrupt: () => interrupts++, configInterrupt: () => undefined });
  const driver = new TestDriver(ram, device, 0, RINGS);
  TestDriver.start(device, [0], all);
  const request = (type: number, sector: number, data: readonly { gpa: number; length: number; write: boolean }[]): number => {
    ram.view.setUint32(HEADER, type, true);
    ram.view.setBigUint64(HEADER + 8, BigInt(sector), true);
    ram.bytes[STATUS] = 0xee;
    driver.add([{ gpa: HEADER, length: 16, write: false }, ...data, { gpa: STATUS, length: 1, write: true }]);
    driver.kick();
    return ram.bytes[STATUS] ?? -1;
  };
  return { ram, device, driver, request, interrupts: () => interrupts };
}

describe('virtio-blk', () => {
  let folder = '';
  let path = '';
  const image = Uint8Array.from({ length: 8192 }, (_, i) => i >> 4);
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'pvm-test-'));
    path = join(folder, 'disk');
    writeFileSync(path, image);
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('reads and writes an image, scattered over buffers', () => {
    const backend = openDrive({ file: path });
    const { ram, request, driver, interrupts } = disk(backend);
    const two = [
      { gpa: DATA, length: 100, write: true },
      { gpa: DATA + 0x800, length: 924, write: true },
    ];
    expect(request(0, 2, two)).toBe(0);
    expect([...ram.bytes.slice(DATA, DATA + 100)]).toEqual([...image.slice(1024, 1124)]);
    expect([...ram.bytes.slice(DATA + 0x800, DATA + 0x800 + 924)]).toEqual([...image.slice(1124, 2048)]);
    expect(driver.completed()).toEqual([1025]);
    expect(interrupts()).toBe(1);
    ram.bytes.fill(0xab, DATA, DATA + 512);
    expect(request(1, 15, [{ gpa: DATA, length: 512, write: false }])).toBe(0);
    expect(request(4, 0, [])).toBe(0);
    expect(readFileSync(path)[15 * 512]).toBe(0xab);
    expect(readFileSync(path).length).toBe(8192);
    backend.close();
  });

  it('keeps a snapshot away from the image and a read-only disk unwritten', () => {
    const snapshot = openDrive({ file: path, snapshot: true });
    const { ram, request } = disk(snapshot);
    ram.bytes.fill(0x11, DATA, DATA + 512);
    expect(request(1, 3, [{ gpa: DATA, length: 512, write: false }])).toBe(0);
    expect(request(0, 2, [{ gpa: DATA, length: 2048, write: true }])).toBe(0);
    expect([...ram.bytes.slice(DATA, DATA + 2048)]).toEqual([...image.slice(1024, 1536), ...new Array(512).fill(0x11), ...image.slice(2048, 3072)]);
    expect(new Uint8Array(readFileSync(path))).toEqual(image);
    snapshot.close();
    const readOnly = openDrive({ file: path, readOnly: true });
    expect(disk(readOnly).request(1, 0, [{ gpa: DATA, length: 512, write: false }])).toBe(1);
    readOnly.close();
  });

  it('zeroes ranges, tells its serial number, refuses what is outside', () => {
    const bytes = image.slice();
    const { ram, request } = disk(openDrive({ file: bytes }));
    ram.view.setBigUint64(DATA, 1n, true);
    ram.view.setUint32(DATA + 8, 2, true);
    ram.view.setUint32(DATA + 12, 0, true);
    expect(request(13, 0, [{ gpa: DATA, length: 16, write: false }])).toBe(0);
    expect(bytes.slice(512, 1536).every((b) => b === 0)).toBe(true);
    expect(request(8, 0, [{ gpa: DATA, length: 20, write: true }])).toBe(0);
    expect(new TextDecoder().decode(ram.bytes.slice(DATA, DATA + 8))).toBe('serial-1');
    expect(request(0, 16, [{ gpa: DATA, length: 512, write: true }])).toBe(1);
    expect(request(0, 15, [{ gpa: DATA, length: 1024, write: true }])).toBe(1);
    expect(request(0, 0, [{ gpa: DATA, length: 100, write: true }])).toBe(1);
    expect(request(77, 0, [])).toBe(2);
  });

  it('uses indirect descriptors and event indices when negotiated', () => {
    const { ram, driver, interrupts } = disk(openDrive({ file: image.slice() }), true);
    const table = 0x3_0000;
    driver.describe(0, BigInt(HEADER), 16, 1, 1, table);
    driver.describe(1, BigInt(DATA), 512, 3, 2, table);
    driver.describe(2, BigInt(STATUS), 1, 2, 0, table);
    driver.describe(0, BigInt(table), 48, 4);
    ram.view.setUint16(driver.available + 4 + 16, 1, true); // used_event: tell me after the second
    driver.offer(0);
    driver.kick();
    expect(interrupts()).toBe(0);
    driver.offer(0);
    driver.kick();
    expect(interrupts()).toBe(1);
    expect(driver.completed()).toEqual([513, 513]);
    expect(ram.view.getUint16(driver.used + 4 + 64, true)).toBe(2);
  });

  const broken: readonly [name: string, make: (d: TestDriver, ram: GuestRam) => void][] = [
    [
      'a loop',
      (d) => {
        d.describe(0, BigInt(HEADER), 16, 1, 0);
        d.offer(0);
      },
    ],
    ['a head beyond the table', (d) => d.offer(99)],
    [
      'a next beyond the table',
      (d) => {
        d.describe(0, BigInt(HEADER), 16, 1, 200);
        d.offer(0);
      },
    ],
    [
      'a buffer outside RAM',
      (d) => {
        d.describe(0, 0xffff_ffff_ffff_f000n, 0xffff_ffff, 0);
        d.offer(0);
      },
    ],
    [
      'a buffer over the end of RAM',
      (d) => {
        d.describe(0, (4n << 20n) - 8n, 16, 0);
        d.offer(0);
      },
    ],
    [
      'an indirect table that was not negotiated',
      (d) => {
        d.describe(0, 0x3_0000n, 48, 4);
        d.offer(0);
      },
    ],
    [
      'a readable buffer after a writable one',
      (d) => {
        d.describe(0, BigInt(STATUS), 1, 3, 1);
        d.describe(1, BigInt(HEADER), 16, 0);
        d.offer(0);
      },
    ],
    ['an index far ahead', (d, ram) => ram.view.setUint16(d.available + 2, 0x8000, true)],
    [
      'a request without a header',
      (d) => {
        d.describe(0, BigInt(STATUS), 1, 2);
        d.offer(0);
      },
    ],
  ];
  it.each(broken)('stops at %s and asks for a reset', (_name, make) => {
    const { ram, device, driver } = disk(openDrive({ file: image.slice() }));
    make(driver, ram);
    driver.kick();
    expect(device.status & STATUS_NEEDS_RESET).toBe(STATUS_NEEDS_RESET);
    expect(device.error).toMatch(/\w/);
    device.writeStatus(0);
    expect(device.status).toBe(0);
  });

  it('survives random rings', () => {
    const random = xorshift(0xbeef);
    const { ram, device } = disk(openDrive({ file: image.slice() }), true);
    for (let round = 0; round < 500; round++) {
      device.writeStatus(0);
      for (let at = RINGS; at < RINGS + 0x2100; at += 2) if (random() % 3 === 0) ram.view.setUint16(at, random() % 5 === 0 ? random() : random() & 0x1f, true);
      const queue = device.queues[0];
      if (queue === undefined) throw new Error('no queue');
      queue.size = 1 << (random() % 10);
      queue.descriptors = BigInt(RINGS + (random() % 3) * 8);
      queue.driver = BigInt(RINGS + 0x1000);
      queue.device = BigInt(RINGS + 0x2000);
      TestDriver.start(device, [0], true);
      device.notify(random() % 3);
    }
  });
});

describe('virtio-console and virtio-rng', () => {
  it('moves bytes both ways', () => {
    const ram = newRam();
    let output = '';
    const device = new VirtioConsole(ram, [
      {
        output: (data) => {
          output += new TextDecoder().decode(data);
        },
      },
    ]);
    const receive = new TestDriver(ram, device, 0, RINGS);
    const transmit = new TestDriver(ram, device, 1, RINGS + 0x4000);
    TestDriver.start(device, [0, 1]);
    ram.write(DATA, new TextEncoder().encode('out'));
    transmit.add([{ gpa: DATA, length: 3, write: false }]);
    transmit.kick();
    expect(output).toBe('out');
    device.receive(new TextEncoder().encode('hello'));
    receive.add([{ gpa: DATA, length: 3, write: true }]);
    receive.add([{ gpa: DATA + 3, length: 10, write: true }]);
    receive.kick();
    expect(receive.completed()).toEqual([3, 2]);
    expect(new TextDecoder().decode(ram.bytes.slice(DATA, DATA + 5))).toBe('hello');
    expect(device.receive(new Uint8Array(2 << 20))).toBe(false);
  });

  it('fills buffers with random bytes', () => {
    const ram = newRam();
    const device = new VirtioRng(ram, (buffer) => buffer.fill(7));
    const driver = new TestDriver(ram, device, 0, RINGS);
    TestDriver.start(device, [0]);
    driver.add([{ gpa: DATA, length: 64, write: true }]);
    driver.kick();
    expect(driver.completed()).toEqual([64]);
    expect(ram.bytes[DATA + 63]).toBe(7);
  });
});
