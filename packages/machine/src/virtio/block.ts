import type { StateIo } from '@pvm/cpu-jit';
import type { GuestRam } from '../ram.ts';
import { type BlockBackend, SECTOR } from '../storage/block-backend.ts';
import { VirtioDevice } from './virtio-device.ts';
import { type Chain, readSegments, type Segment, subSegments, totalLength, type Virtqueue, VirtqueueError, writeSegments } from './virtqueue.ts';

// VIRTIO 1.2, section 5.2: block device.
const DEVICE_ID = 2;
const F_SEG_MAX = 1n << 2n;
const F_GEOMETRY = 1n << 4n;
const F_RO = 1n << 5n;
const F_BLK_SIZE = 1n << 6n;
const F_FLUSH = 1n << 9n;
const F_DISCARD = 1n << 13n;
const F_WRITE_ZEROES = 1n << 14n;
const T_IN = 0;
const T_OUT = 1;
const T_FLUSH = 4;
const T_GET_ID = 8;
const T_DISCARD = 11;
const T_WRITE_ZEROES = 13;
const S_OK = 0;
const S_IOERR = 1;
const S_UNSUPPORTED = 2;
const HEADER_SIZE = 16;
const ID_SIZE = 20;
const RANGE_SIZE = 16;
const UNMAP = 1;
/** Most sectors of one discard or write-zeroes range, and most ranges. */
const MAX_RANGE_SECTORS = 1 << 16;
const MAX_RANGES = 16;
const SEG_MAX = 254;
const HEADS = 16;
const SECTORS_PER_TRACK = 63;

/** Virtio disk on a `BlockBackend`. Requests are served at once, in order. */
export class VirtioBlock extends VirtioDevice {
  private readonly backend: BlockBackend;
  private readonly serial: Uint8Array;

  constructor(ram: GuestRam, backend: BlockBackend, serial = 'pvm') {
    const features = F_SEG_MAX | F_GEOMETRY | F_BLK_SIZE | F_FLUSH | (backend.readOnly ? F_RO : F_DISCARD | F_WRITE_ZEROES);
    super(ram, { name: 'virtio-blk', deviceId: DEVICE_ID, features, queues: 1, configSize: 60 });
    this.backend = backend;
    this.serial = new TextEncoder().encode(serial).subarray(0, ID_SIZE);
    const { config } = this;
    const sectors = backend.size / SECTOR;
    config.setBigUint64(0, BigInt(sectors), true); // capacity
    config.setUint32(12, SEG_MAX, true);
    config.setUint16(16, Math.min(0xffff, Math.floor(sectors / HEADS / SECTORS_PER_TRACK)), true);
    config.setUint8(18, HEADS);
    config.setUint8(19, SECTORS_PER_TRACK);
    config.setUint32(20, SECTOR, true); // blk_size
    if (backend.readOnly) return;
    config.setUint32(36, MAX_RANGE_SECTORS, true); // max_discard_sectors
    config.setUint32(40, MAX_RANGES, true);
    config.setUint32(44, 1, true); // discard_sector_alignment
    config.setUint32(48, MAX_RANGE_SECTORS, true); // max_write_zeroes_sectors
    config.setUint32(52, MAX_RANGES, true);
    config.setUint8(56, 0); // write_zeroes_may_unmap
  }

  protected override process(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) queue.push(chain, this.request(chain));
  }

  /** @returns bytes written into the chain */
  private request(chain: Chain): number {
    const writable = totalLength(chain.writable);
    const readable = totalLength(chain.readable);
    if (readable < HEADER_SIZE || writable < 1) throw new VirtqueueError(`block request with ${readable} readable and ${writable} writable bytes`);
    const header = readSegments(this.ram, chain.readable, HEADER_SIZE);
    const view = new DataView(header.buffer);
    const input = subSegments(chain.writable, 0, writable - 1);
    const output = subSegments(chain.readable, HEADER_SIZE, readable - HEADER_SIZE);
    let written = 0;
    let status = S_IOERR;
    try {
      [status, written] = this.serve(view.getUint32(0, true), view.getBigUint64(8, true), input, output);
    } catch (e) {
      // A failing medium is the guest's business: it sees an I/O error.
      if (e instanceof VirtqueueError) throw e;
    }
    writeSegments(this.ram, subSegments(chain.writable, writable - 1, 1), Uint8Array.of(status));
    return written + 1;
  }

  private serve(type: number, sector: bigint, input: readonly Segment[], output: readonly Segment[]): [status: number, written: number] {
    const { backend, ram } = this;
    switch (type) {
      case T_IN: {
        const length = totalLength(input);
        const offset = this.offset(sector, length);
        if (offset === undefined) return [S_IOERR, 0];
        backend.read(
          offset,
          input.map((s) => ram.slice(s.gpa, s.length)),
        );
        for (const s of input) ram.written(s.gpa, s.length);
        return [S_OK, length];
      }
      case T_OUT: {
        const offset = this.offset(sector, totalLength(output));
        if (offset === undefined || backend.readOnly) return [S_IOERR, 0];
        backend.write(
          offset,
          output.map((s) => ram.slice(s.gpa, s.length)),
        );
        return [S_OK, 0];
      }
      case T_FLUSH:
        backend.flush();
        return [S_OK, 0];
      case T_GET_ID: {
        const id = new Uint8Array(ID_SIZE);
        id.set(this.serial);
        return [S_OK, writeSegments(ram, input, id)];
      }
      case T_DISCARD:
      case T_WRITE_ZEROES:
        return [this.ranges(type, readSegments(ram, output, MAX_RANGES * RANGE_SIZE + 1)), 0];
      default:
        return [S_UNSUPPORTED, 0];
    }
  }

  private ranges(type: number, data: Uint8Array): number {
    const { backend } = this;
    if (backend.readOnly) return S_IOERR;
    if (data.length === 0 || data.length % RANGE_SIZE !== 0 || data.length > MAX_RANGES * RANGE_SIZE) return S_IOERR;
    const view = new DataView(data.buffer);
    for (let at = 0; at < data.length; at += RANGE_SIZE) {
      const sectors = view.getUint32(at + 8, true);
      const flags = view.getUint32(at + 12, true);
      const offset = this.offset(view.getBigUint64(at, true), sectors * SECTOR);
      if (offset === undefined || sectors > MAX_RANGE_SECTORS) return S_IOERR;
      if ((flags & ~UNMAP) !== 0 || (type === T_DISCARD && flags !== 0)) return S_UNSUPPORTED;
      if (type === T_DISCARD) backend.discard(offset, sectors * SECTOR);
      else backend.writeZeroes(offset, sectors * SECTOR);
    }
    return S_OK;
  }

  /** Byte offset of a range, undefined when it is not inside the disk. */
  private offset(sector: bigint, length: number): number | undefined {
    if (sector >= BigInt(this.backend.size / SECTOR) || length % SECTOR !== 0) return undefined;
    const offset = Number(sector) * SECTOR;
    return offset + length <= this.backend.size ? offset : undefined;
  }

  override state(s: StateIo): void {
    super.state(s);
    s.fields(this, ['backend']);
  }
}
