import type { CpuCore } from '@pvm/cpu-jit';
import { CPU_BASE, CPU_STRIDE, FRAME_WRITTEN, TLB_BASE, TLB_CPU_SIZE } from '@pvm/cpu-jit/layout';
import { badSnapshot, MAX_SECTION } from './format.ts';

const PAGE = 4096;
/** Frames of linear memory that FRAME_WRITTEN has a bit for: 4 GiB of them. */
const FRAME_WRITTEN_SIZE = 2 ** 32 / PAGE / 8;
/** Pages of one section; with their numbers they fit into MAX_SECTION. Count and numbers fill a page: V8 copies to shared memory byte by byte unless both sides are aligned. */
const SECTION_PAGES = PAGE / 4 - 1;
const ZEROES = new Uint8Array(PAGE);

/** A part of linear memory, in pages. */
interface Area {
  readonly first: number;
  readonly end: number;
}

/** What of linear memory is state: vCPUs and their TLBs, page-table frames, guest RAM. Decoded and compiled code is made again. */
function areasOf(core: CpuCore): readonly Area[] {
  const area = (base: number, size: number): Area => ({ first: base / PAGE, end: Math.ceil((base + size) / PAGE) });
  return [
    area(CPU_BASE, core.vcpus * CPU_STRIDE),
    area(TLB_BASE, core.vcpus * TLB_CPU_SIZE),
    area(FRAME_WRITTEN, FRAME_WRITTEN_SIZE),
    area(core.framePoolBase, core.framePoolFrames * PAGE),
    area(core.ramBase, core.ramBytes),
  ];
}

/** Pages that are not all zeros, packed for sections: count, page numbers (u32 each), contents. */
export function* packMemory(core: CpuCore): Generator<Uint8Array, void> {
  const { u8 } = core;
  const memory = bytesOf(core);
  let pages: number[] = [];
  for (const { first, end } of areasOf(core)) {
    for (let page = first; page < end; page++) {
      if (!isUsed(memory, page)) continue;
      pages.push(page);
      if (pages.length < SECTION_PAGES) continue;
      yield pack(u8, pages);
      pages = [];
    }
  }
  if (pages.length > 0) yield pack(u8, pages);
}

/** For comparisons, which only a Buffer does without a loop in JavaScript. */
function bytesOf(core: CpuCore): Buffer {
  return Buffer.from(core.memory.buffer);
}

function isUsed(memory: Buffer, page: number): boolean {
  return memory.compare(ZEROES, 0, PAGE, page * PAGE, (page + 1) * PAGE) !== 0;
}

function pack(memory: Uint8Array, pages: readonly number[]): Uint8Array {
  const header = 4 + 4 * pages.length;
  const packed = new Uint8Array(header + pages.length * PAGE);
  const view = new DataView(packed.buffer);
  view.setUint32(0, pages.length, true);
  pages.forEach((page, i) => {
    view.setUint32(4 + 4 * i, page, true);
    packed.set(memory.subarray(page * PAGE, (page + 1) * PAGE), header + i * PAGE);
  });
  return packed;
}

/** Puts the pages of a snapshot into a machine that has not run. */
export class MemoryRestore {
  private readonly core: CpuCore;
  private readonly areas: readonly Area[];

  /** Empties everything but guest RAM, which is empty in a new machine. Pages that nothing was written to are only read, which takes no memory of the host. */
  constructor(core: CpuCore) {
    this.core = core;
    this.areas = areasOf(core);
    const memory = bytesOf(core);
    for (const { first, end } of this.areas.slice(0, -1)) {
      for (let page = first; page < end; page++) if (isUsed(memory, page)) core.u8.fill(0, page * PAGE, (page + 1) * PAGE);
    }
  }

  /** @throws PvmError `bad-snapshot` for pages that this machine does not have */
  put(packed: Uint8Array): void {
    const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
    const count = packed.length < 4 ? -1 : view.getUint32(0, true);
    if (count < 0 || packed.length !== 4 + count * (4 + PAGE) || packed.length > MAX_SECTION)
      throw badSnapshot('a section of memory has not the length it says');
    const pageAt = (i: number) => view.getUint32(4 + 4 * i, true);
    for (let i = 0; i < count; ) {
      const page = pageAt(i);
      const area = this.areas.find(({ first, end }) => page >= first && page < end);
      if (area === undefined) throw badSnapshot(`page ${page} is no memory of this machine`);
      let n = 1;
      while (i + n < count && page + n < area.end && pageAt(i + n) === page + n) n++;
      const from = 4 + 4 * count + i * PAGE;
      this.core.u8.set(packed.subarray(from, from + n * PAGE), page * PAGE);
      i += n;
    }
  }
}
