import { GuestRam } from '../ram.ts';
import { openDrive } from '../storage/drive.ts';
import { VirtioBlock } from '../virtio/block.ts';
import { TestDriver } from './virtio-driver.ts';

/**
 * A process that writes the sectors of a disk one after the other and flushes after each, until it is killed. It says the number of each sector that the disk
 * has confirmed to be flushed. Arguments: path of the image.
 */
const RINGS = 0x1_0000;
const HEADER = 0x2_0000;
const DATA = 0x2_1000;
const STATUS = 0x2_f000;
const T_OUT = 1;
const T_FLUSH = 4;

const ram = new GuestRam(new SharedArrayBuffer(4 << 20), 0, 4 << 20);
const backend = openDrive({ file: process.argv[2] ?? '' });
const device = new VirtioBlock(ram, backend);
const driver = new TestDriver(ram, device, 0, RINGS);
TestDriver.start(device, [0], true);

function request(type: number, sector: number, length: number): void {
  ram.view.setUint32(HEADER, type, true);
  ram.view.setBigUint64(HEADER + 8, BigInt(sector), true);
  ram.bytes[STATUS] = 0xee;
  const data = length > 0 ? [{ gpa: DATA, length, write: false }] : [];
  driver.add([{ gpa: HEADER, length: 16, write: false }, ...data, { gpa: STATUS, length: 1, write: true }]);
  driver.kick();
  if (ram.bytes[STATUS] !== 0) throw new Error(`request ${type} failed with status ${ram.bytes[STATUS]}`);
}

const sectors = backend.size / 512;
for (let n = 0; ; n++) {
  const sector = n % sectors;
  // The sector's number, all over it, and how often the disk was written.
  for (let at = DATA; at < DATA + 512; at += 8) {
    ram.view.setUint32(at, sector, true);
    ram.view.setUint32(at + 4, Math.floor(n / sectors) + 1, true);
  }
  request(T_OUT, sector, 512);
  request(T_FLUSH, 0, 0);
  process.stdout.write(`${n}\n`);
}
