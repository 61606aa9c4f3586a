import { mergeRanges, type RegionShape } from './region.ts';

/** How many bytes of code the key of a region is made from; fewer at the end of a page. */
const KEY_BYTES = 16;
const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

/** A compiled region as other code can use it that is the same: nothing in it depends on where the code lies, but for its offset in a page. */
export interface StoredRegion {
  /** Its number in its module, see `functionName`. */
  readonly index: number;
  /** `codeKey` of its first instruction. */
  readonly key: number;
  readonly codeSize: 16 | 32 | 64;
  readonly tracked: boolean;
  readonly insnCount: number;
  readonly maxInsns: number;
  readonly reach: number;
  /** How often it was formed anew, and merged with others. */
  readonly reforms: number;
  readonly merges: number;
  /** Offset of its first instruction in its page. */
  readonly within: number;
  /** Offsets of its blocks: of the first instruction, and after the last one. */
  readonly blocks: readonly (readonly [start: number, end: number])[];
  readonly entries: readonly number[];
  readonly returnSites: readonly number[];
  readonly targets: readonly (readonly [at: number, to: readonly number[]])[];
  readonly cold: readonly number[];
  readonly stops: readonly number[];
  /** The bytes of its blocks, one after the other. */
  readonly code: Uint8Array;
}

/** Regions compiled together, some time ago. */
export interface StoredModule {
  readonly id: number;
  readonly module: WebAssembly.Module;
  /** Bytes of its Wasm. */
  readonly bytes: number;
  readonly regions: readonly StoredRegion[];
}

/** A hash of the first bytes of the code at `hpa`, and of what it is to them. Code that differs may have the same key. */
export function codeKey(u8: Uint8Array, hpa: number, codeSize: number): number {
  const within = hpa & 0xfff;
  const end = hpa + Math.min(KEY_BYTES, 4096 - within);
  let hash = Math.imul(FNV_OFFSET ^ within, FNV_PRIME) ^ codeSize;
  for (let at = hpa; at < end; at++) hash = Math.imul(hash ^ (u8[at] ?? 0), FNV_PRIME);
  return hash >>> 0;
}

/** HPAs by offset from the first instruction; 0 where no page is mapped. */
class Pages {
  readonly first: number;
  readonly found = new Map<number, number>();
  private readonly pageAt: (delta: number) => number;

  constructor(hpa: number, pageAt: (delta: number) => number) {
    this.first = hpa & 0xfff;
    this.found.set(0, hpa - this.first);
    this.pageAt = pageAt;
  }
  hpaOf(offset: number): number {
    const delta = (this.first + offset) >> 12;
    let page = this.found.get(delta);
    if (page === undefined) {
      page = this.pageAt(delta) >>> 0;
      this.found.set(delta, page);
    }
    return page === 0 ? 0 : page + ((this.first + offset) & 0xfff);
  }
  /** The pieces of a block, none of which crosses a page; undefined when one is not mapped. */
  pieces(start: number, end: number): { readonly start: number; readonly end: number }[] | undefined {
    const pieces: { start: number; end: number }[] = [];
    for (let offset = start; offset < end; ) {
      const hpa = this.hpaOf(offset);
      if (hpa === 0) return undefined;
      const length = Math.min(end - offset, 4096 - (hpa & 0xfff));
      pieces.push({ start: hpa, end: hpa + length });
      offset += length;
    }
    return pieces;
  }
}

/** What is to be kept of a region whose code is in `u8`; undefined when it is not mapped as it was. */
export function storedRegion(u8: Uint8Array, shape: RegionShape, kept: Pick<StoredRegion, 'index' | 'reforms' | 'merges'>): StoredRegion | undefined {
  const deltas = new Map(shape.pages.map(({ delta, hpa }) => [delta, hpa]));
  const pages = new Pages(shape.hpa, (delta) => deltas.get(delta) ?? 0);
  const code: number[] = [];
  for (const { start, end } of shape.blocks.values()) {
    const pieces = pages.pieces(start, end);
    if (pieces === undefined) return undefined;
    for (const piece of pieces) code.push(...u8.subarray(piece.start, piece.end));
  }
  const offsets = (list: readonly { readonly offset: number }[]) => list.map(({ offset }) => offset);
  const { codeSize, tracked, insnCount, maxInsns, reach, returnSites } = shape;
  return {
    ...kept,
    ...{ codeSize, tracked, insnCount, maxInsns, reach, returnSites },
    key: codeKey(u8, shape.hpa, codeSize),
    within: shape.hpa & 0xfff,
    blocks: [...shape.blocks.values()].map(({ start, end }) => [start, end]),
    entries: offsets(shape.entries),
    targets: [...shape.targets],
    cold: offsets(shape.cold),
    stops: offsets(shape.stops),
    code: Uint8Array.from(code),
  };
}

/**
 * The region for the code at `hpa`, if that is what `stored` was made from, byte by byte; undefined otherwise, or when not all of it is mapped.
 * `pageAt`: HPA of the page so many pages after that of the first instruction, 0 when it is not mapped now.
 */
export function regionFrom(u8: Uint8Array, stored: StoredRegion, hpa: number, pageAt: (delta: number) => number): RegionShape | undefined {
  if ((hpa & 0xfff) !== stored.within) return undefined;
  const pages = new Pages(hpa, pageAt);
  const ranges: { start: number; end: number }[] = [];
  let next = 0;
  for (const [start, end] of stored.blocks) {
    const pieces = pages.pieces(start, end);
    if (pieces === undefined) return undefined;
    for (const piece of pieces) {
      for (let at = piece.start; at < piece.end; at++) if (u8[at] !== stored.code[next++]) return undefined;
      ranges.push(piece);
    }
  }
  /** Where it ends: what is not mapped yet is found when it is. */
  const places = (offsets: readonly number[]) => offsets.map((offset) => ({ offset, hpa: pages.hpaOf(offset) })).filter((place) => place.hpa !== 0);
  const { codeSize, tracked, insnCount, maxInsns, reach, returnSites } = stored;
  return {
    ...{ hpa, codeSize, tracked, insnCount, maxInsns, reach, returnSites },
    blocks: new Map(stored.blocks.map(([start, end]) => [start, { start, end }])),
    entries: places(stored.entries),
    targets: new Map(stored.targets),
    cold: places(stored.cold),
    stops: places(stored.stops),
    heads: stored.blocks.map(([start]) => pages.hpaOf(start)),
    pages: [...pages.found].filter(([delta, page]) => delta !== 0 && page !== 0).map(([delta, page]) => ({ delta, hpa: page })),
    ranges: mergeRanges(ranges),
  };
}
