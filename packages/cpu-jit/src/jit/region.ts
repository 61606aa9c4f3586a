import { reachOf } from '../code-cache.ts';
import type { Insn } from '../decoder/types.ts';
import type { PagedLoop } from './paged-loops.ts';

/** Limits of a region. Larger ones compile slower than they gain (benchmarks/compile-costs.md). */
export const MAX_REGION_INSNS = 400;
/** The same for regions that take in others because control often goes from one to the other. */
export const MAX_MERGED_INSNS = 1000;
/** Guest instructions a block; more blocks than the limit of instructions divided by it stay outside. */
const INSNS_PER_BLOCK = 4;
/** Pages a region may depend on beside the one it starts in: BD_MAX_PAGES, less the one that a block itself may run into. */
export const MAX_REGION_PAGES = 10;
/** Places beside its start where a region can be entered. */
export const MAX_REGION_ENTRIES = 64;

/** Straight-line code inside a region. Positions are byte offsets from the first instruction of the region. */
export interface GuestBlock {
  readonly start: number;
  /** Offset after its last instruction. */
  readonly end: number;
  readonly insns: readonly Insn[];
  /** Entries from elsewhere than the block before it for each instruction that was retired, 0 or absent: not known. */
  readonly rate?: number | undefined;
  /** It is the copy of the block at `of` in the second version of a loop: `start` is its id then, all other positions are those of the code. */
  readonly copy?: { readonly of: number; readonly loop: PagedLoop };
}

/** Guest code that is compiled as one function. */
export interface Region {
  /** HPA of the first instruction. */
  readonly hpa: number;
  readonly codeSize: 16 | 32 | 64;
  /** It notes floating-point exceptions in MXCSR. */
  readonly tracked: boolean;
  /** Blocks by start offset; the first one is at offset 0. */
  readonly blocks: ReadonlyMap<number, GuestBlock>;
  /** Blocks where control comes back from functions outside: the region can be entered there as well. */
  readonly entries: readonly { readonly offset: number; readonly hpa: number }[];
  /** Offsets of blocks that a RET may come back to: those after the calls of the region. */
  readonly returnSites: readonly number[];
  /** Offset of an indirect jump or call -> offsets of blocks it was seen to go to. */
  readonly targets: ReadonlyMap<number, readonly number[]>;
  /** Where it ends because the code there had hardly run: offsets, and HPAs. */
  readonly cold: readonly { readonly offset: number; readonly hpa: number }[];
  /** Where it ends because another region starts there: offsets, and HPAs. */
  readonly stops: readonly { readonly offset: number; readonly hpa: number }[];
  /** Other pages it lies in: distance in pages from the page of the first instruction, and HPA. */
  readonly pages: readonly { readonly delta: number; readonly hpa: number }[];
  /** Bytes of linear memory it was made from. */
  readonly ranges: readonly { readonly start: number; readonly end: number }[];
  readonly insnCount: number;
  /** The limit it was grown with. */
  readonly maxInsns: number;
  /** HPA of the first instruction of each block. */
  readonly heads: readonly number[];
  /** BD_REACH of its furthest direct branch. */
  readonly reach: number;
}

/** What is known of a region that is compiled: where its blocks are, not their instructions. */
export type RegionShape = Omit<Region, 'blocks'> & { readonly blocks: ReadonlyMap<number, Pick<GuestBlock, 'start' | 'end' | 'rate'>> };

/** A region's decoded instructions are most of what it takes in memory. */
export function shapeOf(region: Region): RegionShape {
  return { ...region, blocks: new Map([...region.blocks].map(([at, { start, end, rate }]) => [at, { start, end, rate }])) };
}

/** What is compiled of a region. */
export type RegionCode = Pick<Region, 'hpa' | 'codeSize' | 'tracked' | 'blocks' | 'entries' | 'returnSites' | 'targets'>;

/** Where the guest's code is, by offset from the region's first instruction, and what is known of its behaviour. */
export interface RegionSource {
  readonly hpa: number;
  readonly codeSize: 16 | 32 | 64;
  /** `Region.tracked` */
  readonly tracked: boolean;
  /** Instructions it may have at most. */
  readonly maxInsns: number;
  /** HPA of the page at `delta` pages from the first one, 0 when it is not mapped now. */
  page(delta: number): number;
  /** The instruction whose bytes start at `hpa`, undefined when it does not decode. `nextPage`: HPA of the page it may run into, 0 without one. */
  decode(hpa: number, nextPage: () => number): Insn | undefined;
  /** Has control ever come to the code at `offset` (HPA `hpa`)? What has not been executed stays outside. */
  wasEntered(offset: number, hpa: number): boolean;
  /** `GuestBlock.rate` of the block at HPA `hpa`. */
  readonly rate?: (hpa: number) => number;
  /** Should this region leave at `offset` (HPA `hpa`) for another one that starts there, or will, instead of holding a copy? Small
   *  functions are copied into their callers (`isCall`). */
  startsOther(offset: number, hpa: number, isCall: boolean): boolean;
  /** Targets that the indirect jump or call at `offset` was seen to take. */
  targets(offset: number): readonly number[];
  /** Offsets where the region that it replaces can be entered. Functions outside go on returning there, and would stay in the old code for as long as a loop runs. */
  readonly oldEntries?: readonly number[];
}

/** Where the direct branch at `offset` goes, taken target first. */
export function successors(insn: Insn, offset: number): number[] {
  if (!insn.operands.some((o) => o.kind === 'rel')) return [];
  const next = offset + insn.length;
  const target = next + insn.immLow;
  return insn.row.name === 'jmp' || insn.row.name === 'call' ? [target] : [target, next];
}

/** A direct branch of 16-bit operand size, which clears the upper half of EIP: its target depends on where the code is. The interpreter runs it. */
export const isTruncating = (insn: Insn): boolean => insn.opSize === 2 && insn.operands.some((o) => o.kind === 'rel');
export const isCall = (insn: Insn) => insn.row.name === 'call' || insn.row.name === 'call_ind';
const isIndirect = (insn: Insn) => insn.row.name === 'jmp_ind' || insn.row.name === 'call_ind';

/** Grows a region from its first instruction over branches, calls and the code after them, nearest first, within the limits. */
export function discover(source: RegionSource): Region | undefined {
  const insns = new Map<number, Insn>();
  const leaders = new Set<number>([0]);
  const calls = new Set<number>();
  const entries = new Set<number>();
  const targets = new Map<number, number[]>();
  const pages = new Map<number, number>();
  const first = source.hpa & 0xfff;
  const hpaOf = (offset: number): number => {
    const delta = (first + offset) >> 12;
    const within = (first + offset) & 0xfff;
    if (delta === 0) return source.hpa - first + within;
    let page = pages.get(delta);
    if (page === undefined) {
      if (pages.size >= MAX_REGION_PAGES) return 0;
      page = source.page(delta);
      if (page === 0) return 0;
      pages.set(delta, page);
    }
    return page + within;
  };
  const nextPage = (offset: number): number => hpaOf(offset + 4096 - ((first + offset) & 0xfff));
  const stops = new Map<number, number>();
  const cold = new Map<number, number>();
  const isStop = (offset: number, hpa: number, isCall = false): boolean => {
    if (offset === 0 || !source.startsOther(offset, hpa, isCall)) return false;
    stops.set(offset, hpa);
    return true;
  };
  const work = [0];
  const enter = (offset: number, isCall = false): boolean => {
    if (leaders.has(offset)) return true;
    if (leaders.size >= source.maxInsns / INSNS_PER_BLOCK) return false;
    const hpa = hpaOf(offset);
    if (hpa === 0) return false;
    if (!source.wasEntered(offset, hpa)) {
      if (!isCall) cold.set(offset, hpa);
      return false;
    }
    if (isStop(offset, hpa, isCall)) return false;
    // A branch may have stopped here before a call made a copy.
    stops.delete(offset);
    leaders.add(offset);
    work.push(offset);
    return true;
  };
  for (let at = work.shift(); at !== undefined; at = work.shift()) {
    let offset = at;
    while (!insns.has(offset) && insns.size < source.maxInsns) {
      const hpa = hpaOf(offset);
      if (hpa === 0 || (offset !== at && isStop(offset, hpa))) break;
      const insn = source.decode(hpa, () => nextPage(offset));
      if (insn === undefined || isTruncating(insn)) break;
      insns.set(offset, insn);
      if (insn.row.end === true) {
        const next = offset + insn.length;
        const direct = successors(insn, offset).filter((s) => enter(s, isCall(insn)));
        const known = isIndirect(insn) ? source.targets(offset) : [];
        const seen = known.filter((t) => enter(t, isCall(insn)));
        if (seen.length > 0) targets.set(offset, seen);
        if (!isCall(insn)) break;
        // From a function that is inside control comes back inside the region; from others it comes back through an entry, of which the start is one already.
        const isInside = direct.length + seen.length > 0;
        if (isInside && enter(next)) calls.add(next);
        const comesFromOutside = !isInside || seen.length < known.length;
        if (comesFromOutside && next !== 0 && entries.size < MAX_REGION_ENTRIES && enter(next)) entries.add(next);
        break;
      }
      offset += insn.length;
    }
  }
  if (!insns.has(0)) return undefined;
  for (const offset of source.oldEntries ?? []) if (entries.size < MAX_REGION_ENTRIES) entries.add(offset);
  const blocks = new Map<number, GuestBlock>();
  const ranges: { start: number; end: number }[] = [];
  for (const start of leaders) {
    const list: Insn[] = [];
    let offset = start;
    for (let insn = insns.get(offset); insn !== undefined; insn = insns.get(offset)) {
      if (list.length > 0 && leaders.has(offset)) break;
      list.push(insn);
      const hpa = hpaOf(offset);
      const room = Math.min(insn.length, 4096 - (hpa & 0xfff));
      const last = ranges.at(-1);
      if (last !== undefined && last.end === hpa && (hpa & 0xfff) !== 0) last.end = hpa + room;
      else ranges.push({ start: hpa, end: hpa + room });
      if (room < insn.length) ranges.push({ start: nextPage(offset), end: nextPage(offset) + insn.length - room });
      offset += insn.length;
      if (insn.row.end === true) break;
    }
    if (list.length > 0) blocks.set(start, { start, end: offset, insns: list, rate: source.rate?.(hpaOf(start)) });
  }
  const present = (list: Iterable<number>) => [...list].filter((o) => blocks.has(o)).sort((a, b) => a - b);
  return {
    hpa: source.hpa,
    codeSize: source.codeSize,
    tracked: source.tracked,
    blocks,
    entries: present(entries).map((offset) => ({ offset, hpa: hpaOf(offset) })),
    returnSites: present(calls),
    targets: new Map([...targets].map(([at, list]) => [at, present(list)])),
    cold: [...cold].map(([offset, hpa]) => ({ offset, hpa })),
    stops: [...stops].map(([offset, hpa]) => ({ offset, hpa })),
    pages: [...pages].map(([delta, hpa]) => ({ delta, hpa })),
    ranges: mergeRanges(ranges),
    insnCount: insns.size,
    maxInsns: source.maxInsns,
    heads: [...blocks.keys()].map(hpaOf),
    reach: Math.max(...[...blocks.values()].map(({ insns: list, end }) => reachOf(list.at(-1), end))),
  };
}

/** Sorted, without overlaps; never joined across a page boundary (each frame is tracked by itself). */
export function mergeRanges(ranges: { start: number; end: number }[]): { start: number; end: number }[] {
  ranges.sort((a, b) => a.start - b.start);
  const out: { start: number; end: number }[] = [];
  for (const r of ranges) {
    const last = out.at(-1);
    if (last !== undefined && r.start <= last.end && r.start >>> 12 === (last.end - 1) >>> 12) last.end = Math.max(last.end, r.end);
    else out.push({ ...r });
  }
  return out;
}
