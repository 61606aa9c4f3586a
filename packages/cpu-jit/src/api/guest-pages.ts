/** The memory of a `Cpu`: pages that are mapped anywhere, kept as a second-level table (SDM vol. 3, 28.3) that the CPU walks by itself. */
import type { CpuCore } from '../cpu.ts';
import { CpuError } from '../errors.ts';
import { PAGING_EPT, V_EPT_ROOT, V_PAGING } from '../layout.ts';
import { type Address, addressOf, PAGE, pageOf, toAddress, toRange } from './address.ts';

/** What code may do with a page: some of 'r', 'w' and 'x'; 'w' needs 'r'. */
export type Permissions = '' | 'r' | 'rw' | 'rx' | 'rwx' | 'x';

/** Neighbouring pages with the same permissions. */
export interface Region {
  readonly address: bigint;
  /** Bytes. */
  readonly size: number;
  readonly permissions: Permissions;
}

export const MAY_READ = 1;
export const MAY_WRITE = 2;
export const MAY_EXECUTE = 4;
const NAMES: Readonly<Record<Permissions, number>> = { '': 0, r: 1, rw: 3, x: 4, rx: 5, rwx: 7 };
const BY_BITS = new Map(Object.entries(NAMES).map(([name, bits]) => [bits, name as Permissions]));
/** Tables have 512 entries of 8 bytes; an entry that leads to a table allows everything. */
const TABLE_BITS = 9;
const TABLE_ENTRIES = 512;
const LEADS_TO_TABLE = 7n;
const TOP_SHIFT = 27;

interface GuestPage {
  /** HPA of the frame. */
  readonly frame: number;
  bits: number;
}

function permissionBits(permissions: string): number {
  const sorted = [...'rwx'].filter((c) => permissions.includes(c)).join('');
  const bits = NAMES[sorted as Permissions];
  if (sorted.length !== permissions.length || bits === undefined) {
    throw new CpuError('bad-argument', `permissions must be '', 'r', 'rw', 'rx', 'rwx' or 'x', got '${permissions}'`);
  }
  return bits;
}

export class GuestPages {
  private readonly core: CpuCore;
  private readonly pages = new Map<number, GuestPage>();
  /** Page number by frame. */
  private readonly owners = new Map<number, number>();
  private readonly free: number[] = [];
  private nextFrame: number;
  private nextTable: number;
  /** See `executableBytes`; negative: to be counted. */
  private executable = -1;
  /** Rights that hooks take from a page for as long as they want to see accesses. */
  private readonly withheld: (page: number) => number;

  constructor(core: CpuCore, withheld: (page: number) => number) {
    this.core = core;
    this.withheld = withheld;
    this.nextFrame = core.ramBase;
    this.nextTable = core.framePoolBase;
    this.newTable();
  }

  /** Makes the table the one that the CPU walks. */
  install(): void {
    const cpu = this.core.cpuAddress(0) >>> 2;
    this.core.u32[cpu + (V_PAGING >>> 2)] = PAGING_EPT;
    this.core.u32[cpu + (V_EPT_ROOT >>> 2)] = this.core.framePoolBase;
    this.core.tlbFlushAll(0);
  }

  map(address: Address, size: number, permissions: string): void {
    const bits = permissionBits(permissions);
    const { firstPage, lastPage } = this.whole(address, size);
    const count = lastPage - firstPage + 1;
    const available = this.free.length + (this.core.ramBase + this.core.ramBytes - this.nextFrame) / PAGE;
    if (count > available) {
      throw new CpuError('out-of-memory', `${size} bytes do not fit in the ${available * PAGE} bytes that are left: give Cpu.create more 'memory'`);
    }
    for (let page = firstPage; page <= lastPage; page++) {
      if (this.pages.has(page)) throw new CpuError('bad-argument', `0x${addressOf(page).toString(16)} is mapped already: unmap or protect it`);
    }
    for (let page = firstPage; page <= lastPage; page++) {
      let frame = this.free.pop();
      if (frame === undefined) {
        frame = this.nextFrame;
        this.nextFrame += PAGE;
      } else {
        this.core.u8.fill(0, frame, frame + PAGE);
      }
      this.pages.set(page, { frame, bits });
      this.owners.set(frame, page);
      this.enter(page);
    }
    // A walk that failed is not cached, but the table that it failed at is.
    this.core.tlbFlushAll(0);
  }

  unmap(address: Address, size: number): void {
    for (const [page, { frame }] of this.mapped(address, size)) {
      this.pages.delete(page);
      this.owners.delete(frame);
      this.core.dirtyCode(frame, PAGE);
      this.free.push(frame);
      this.enter(page);
    }
    this.core.tlbFlushAll(0);
  }

  protect(address: Address, size: number, permissions: string): void {
    const bits = permissionBits(permissions);
    for (const [page, entry] of this.mapped(address, size)) {
      entry.bits = bits;
      this.enter(page);
    }
    this.core.tlbFlushAll(0);
  }

  regions(): Region[] {
    const out: { address: bigint; size: number; permissions: Permissions }[] = [];
    const numbers = [...this.pages.keys()].sort((a, b) => a - b);
    let next = -1;
    for (const page of numbers) {
      const permissions = BY_BITS.get(this.pages.get(page)?.bits ?? 0) ?? '';
      const last = out.at(-1);
      if (last !== undefined && page === next && last.permissions === permissions) last.size += PAGE;
      else out.push({ address: addressOf(page), size: PAGE, permissions });
      next = page + 1;
    }
    return out;
  }

  /** Calls `use` with the HPA and length of each piece of a range that lies in one page. Throws before the first call when a page is missing. */
  pieces(address: Address, size: number, use: (hpa: number, length: number, done: number) => void): void {
    if (size === 0) return;
    const { start, firstPage, lastPage } = toRange({ address, size });
    for (let page = firstPage; page <= lastPage; page++) {
      if (!this.pages.has(page)) throw new CpuError('bad-argument', `0x${addressOf(page).toString(16)} is not mapped`);
    }
    let offset = Number(start & 0xfffn);
    let done = 0;
    for (let page = firstPage; page <= lastPage; page++) {
      const length = Math.min(PAGE - offset, size - done);
      use((this.pages.get(page)?.frame ?? 0) + offset, length, done);
      done += length;
      offset = 0;
    }
  }

  /** Bytes that can be executed. */
  get executableBytes(): number {
    if (this.executable < 0) {
      this.executable = 0;
      for (const { bits } of this.pages.values()) if ((bits & MAY_EXECUTE) !== 0) this.executable += PAGE;
    }
    return this.executable;
  }
  /** HPA of a byte, 0 when it is not mapped. */
  hpaOf(address: bigint): number {
    const found = this.pages.get(pageOf(address));
    return found === undefined ? 0 : found.frame + Number(address & 0xfffn);
  }
  /** Address of the byte of guest memory at `hpa`; undefined when no page has it. */
  addressAt(hpa: number): bigint | undefined {
    const page = this.owners.get(hpa - (hpa & 0xfff));
    return page === undefined ? undefined : addressOf(page, hpa & 0xfff);
  }
  /** What code may do with the page of `address`; undefined when it is not mapped. */
  bitsAt(address: bigint): number | undefined {
    return this.pages.get(pageOf(address))?.bits;
  }

  /** What is withheld from these pages has changed. */
  refresh(pages: Iterable<number>): void {
    for (const page of pages) this.enter(page);
    this.core.tlbFlushAll(0);
  }

  private whole(address: Address, size: number): { firstPage: number; lastPage: number } {
    if ((toAddress(address) & 0xfffn) !== 0n || size % PAGE !== 0) {
      throw new CpuError('bad-argument', `address and size must be multiples of 4096, got 0x${BigInt(address).toString(16)} and ${size}`);
    }
    return toRange({ address, size });
  }
  private mapped(address: Address, size: number): [number, GuestPage][] {
    const { firstPage, lastPage } = this.whole(address, size);
    const out: [number, GuestPage][] = [];
    for (let page = firstPage; page <= lastPage; page++) {
      const entry = this.pages.get(page);
      if (entry === undefined) throw new CpuError('bad-argument', `0x${addressOf(page).toString(16)} is not mapped`);
      out.push([page, entry]);
    }
    return out;
  }

  /** Writes the table entry of a page. */
  private enter(page: number): void {
    this.executable = -1;
    const found = this.pages.get(page);
    if (found === undefined) {
      const slot = this.slotOf(page, false);
      if (slot !== 0) this.core.u64[slot >>> 3] = 0n;
      return;
    }
    let slot = this.slotOf(page, true);
    if (slot === 0) {
      this.rebuild();
      slot = this.slotOf(page, true);
      if (slot === 0) throw new CpuError('out-of-memory', 'too many tables are needed: the mapped pages are too far apart');
    }
    let bits = found.bits & ~this.withheld(page);
    // Writable but not readable is a misconfiguration.
    if ((bits & MAY_READ) === 0) bits &= ~MAY_WRITE;
    this.core.u64[slot >>> 3] = bits === 0 ? 0n : BigInt(found.frame) | BigInt(bits);
  }

  /** Address of the last-level entry of a page; 0 when a table on the way is missing (`make`: and there is no room for it). */
  private slotOf(page: number, make: boolean): number {
    let table = this.core.framePoolBase;
    for (let shift = TOP_SHIFT; shift > 0; shift -= TABLE_BITS) {
      const slot = table + (Math.floor(page / 2 ** shift) % TABLE_ENTRIES) * 8;
      let next = this.core.u32[slot >>> 2] ?? 0;
      if (next === 0) {
        if (!make) return 0;
        next = this.newTable();
        if (next === 0) return 0;
        this.core.u64[slot >>> 3] = BigInt(next) | LEADS_TO_TABLE;
      }
      table = next - (next & 0xfff);
    }
    return table + (page % TABLE_ENTRIES) * 8;
  }
  private newTable(): number {
    const at = this.nextTable;
    if (at >= this.core.framePoolBase + this.core.framePoolFrames * PAGE) return 0;
    this.nextTable += PAGE;
    this.core.u8.fill(0, at, at + PAGE);
    return at;
  }
  /** Makes the tables anew, without those that nothing is mapped in any more. */
  private rebuild(): void {
    this.nextTable = this.core.framePoolBase;
    this.newTable();
    this.core.tlbFlushAll(0);
    for (const page of this.pages.keys()) if (this.slotOf(page, true) === 0) return;
    for (const page of this.pages.keys()) this.enter(page);
  }
}
