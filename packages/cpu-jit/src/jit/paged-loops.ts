import type { Insn } from '../decoder/types.ts';
import type { GuestBlock, RegionCode } from './region.ts';
import type { Symbolic } from './region-state.ts';

/**
 * Loops with accesses that move by constants from one turn to the next, or that stay in a table, are compiled twice. Before the second version, which does not look these up, a guard asks the TLB about their
 * pages and works out after how many turns the first of them leaves its own. The first version runs the first turns, those in which
 * such an access runs over a page boundary, and those that the TLB does not allow. Accesses that cannot be foreseen are looked up in both.
 */

/** Instructions and blocks that the second version of a loop may have. */
const MAX_INSNS = 192;
const MAX_BLOCKS = 16;
/** A guard looks up so many windows at most. */
const MAX_WINDOWS = 8;
/** Bytes that the accesses of a window may span, and that it may move in a turn: otherwise too few turns stay in a page. */
const MAX_SPAN = 1024;
const MAX_STEP = 256;
/** The same for a window that does not move, such as a table that is indexed by what was read. */
const MAX_TABLE = 16384;
/** So many accesses of a loop must be foreseen for each one that is not: with half as many short loops lost more than long ones gained. */
const MIN_FORESEEN = 1;
/** Ids of copies are this much apart from the offsets of blocks, which are 32-bit numbers. */
const COPY = 2 ** 34;

/** Roots of addresses that are relative to the region's RIP, and of absolute ones. */
export const RIP_ROOT = -1;
export const ABSOLUTE_ROOT = -2;

/** A loop without others inside. */
interface Loop {
  readonly header: number;
  /** Each after those that lead to it. */
  readonly blocks: readonly GuestBlock[];
  /** The fewest instructions of a turn. */
  readonly turnInsns: number;
}

/** An access, as the emission of the loop came by it. `alignment`: its address must be a multiple of that. */
export interface LoopAccess {
  readonly at: Symbolic | undefined;
  readonly size: number;
  readonly writes: boolean;
  readonly alignment: number | undefined;
}

/** What the emission of a loop's blocks found out. */
export interface LoopFacts {
  /** Root -> the general register that has its value where a turn begins. */
  readonly registers: ReadonlyMap<number, number>;
  /** Root -> the two that it is the sum of, the second one shifted left by `scale`. */
  readonly sums: ReadonlyMap<number, Sum>;
  /** Root -> the largest number that it can be. */
  readonly bounds: ReadonlyMap<number, number>;
  readonly accesses: readonly LoopAccess[];
  /** The general registers at the end of each way through a turn. */
  readonly turns: readonly (readonly (Symbolic | undefined)[])[];
  /** It calls helpers, which may change mappings. */
  readonly callsHelpers: boolean;
}

export interface Sum {
  readonly base: number;
  readonly index: number;
  readonly scale: number;
}

/** Accesses whose addresses differ by constants: `form` + `min` up to `form` + `end`. */
export interface Window {
  readonly form: AddressForm;
  readonly min: number;
  readonly end: number;
  readonly writes: boolean;
  /** `form` + `offset` must be a multiple of `size`. */
  readonly alignment: { readonly offset: number; readonly size: number } | undefined;
  /** Bytes it moves in a turn at most: up if positive. */
  readonly step: number;
  /** Registers times factors that it moves by as well, which do not change in the loop; with any, `step` is the same in all turns. */
  readonly strides: Terms;
}

type Terms = readonly (readonly [register: number, factor: number])[];

interface Move {
  readonly by: number;
  readonly strides: Terms;
}

/** A sum of registers times powers of two as they are where a turn begins, and of the region's RIP if it is relative to that. */
export interface AddressForm {
  readonly key: string;
  readonly terms: Terms;
  readonly isRelative: boolean;
  /** It may be larger by so much. */
  readonly spread: number;
}

/** A loop that is compiled twice. */
export interface PagedLoop {
  readonly header: number;
  /** Offset of each of its blocks -> id of the copy. */
  readonly copies: ReadonlyMap<number, number>;
  readonly windows: readonly Window[];
  readonly turnInsns: number;
}

/** The innermost loops: `successors` spans the graph of blocks, which control enters at `entries` from outside. */
export function loopsOf(
  blocks: ReadonlyMap<number, GuestBlock>,
  entries: ReadonlySet<number>,
  successors: (block: GuestBlock) => readonly number[],
): readonly Loop[] {
  const from = new Map<number, number[]>();
  for (const [start, block] of blocks) for (const to of successors(block)) from.set(to, [...(from.get(to) ?? []), start]);
  /** The blocks on all ways from `header` to `last`; undefined if there are ways that do not come by `header`, or too many blocks. */
  const between = (header: number, last: number): Set<number> | undefined => {
    const found = new Set([header, last]);
    const work = last === header ? [] : [last];
    for (let at = work.pop(); at !== undefined; at = work.pop()) {
      if (entries.has(at) || found.size > MAX_BLOCKS) return undefined;
      for (const before of from.get(at) ?? []) {
        if (found.has(before)) continue;
        found.add(before);
        work.push(before);
      }
    }
    return found;
  };
  const loops: Loop[] = [];
  for (const [header, sources] of from) {
    const inside = new Set(sources.flatMap((last) => [...(between(header, last) ?? [])]));
    const loop = inside.size === 0 ? undefined : inOrder(header, inside, blocks, successors);
    if (loop !== undefined) loops.push(loop);
  }
  return loops;
}

/** The loop's blocks, each after those that lead to it in a turn; undefined when it has another loop inside or leaves by other branches than direct ones. */
function inOrder(
  header: number,
  inside: ReadonlySet<number>,
  blocks: ReadonlyMap<number, GuestBlock>,
  successors: (block: GuestBlock) => readonly number[],
): Loop | undefined {
  const order: GuestBlock[] = [];
  const state = new Map<number, 'open' | 'done'>();
  let isRegular = true;
  const visit = (start: number): void => {
    const block = blocks.get(start);
    if (block === undefined || !isDirect(block.insns.at(-1)) || state.get(start) === 'open') {
      isRegular = false;
      return;
    }
    if (state.has(start)) return;
    state.set(start, 'open');
    for (const to of successors(block)) if (to !== header && inside.has(to)) visit(to);
    state.set(start, 'done');
    order.unshift(block);
  };
  visit(header);
  if (!isRegular) return undefined;
  /** The fewest instructions from the header to the end of each block. */
  const fewest = new Map<number, number>([[header, 0]]);
  let turnInsns = Number.POSITIVE_INFINITY;
  for (const block of order) {
    const insns = (fewest.get(block.start) ?? 0) + block.insns.length;
    for (const to of successors(block)) {
      if (to === header) turnInsns = Math.min(turnInsns, insns);
      else fewest.set(to, Math.min(fewest.get(to) ?? Number.POSITIVE_INFINITY, insns));
    }
  }
  return { header, blocks: order, turnInsns };
}

/** Does a block that ends with it go on at known places? */
function isDirect(last: Insn | undefined): boolean {
  return last !== undefined && (last.row.end !== true || (last.row.name !== 'call' && last.operands.some((o) => o.kind === 'rel')));
}

/** Is it worth a look? */
export function isCandidate({ blocks }: Loop): boolean {
  const insns = blocks.flatMap((block) => block.insns);
  return insns.length <= MAX_INSNS && insns.some((insn) => insn.mem !== null && insn.row.name !== 'lea' && insn.row.name !== 'nop');
}

/** The value of a root as registers of the turn's beginning, undefined if it is something else. */
export function formOf(root: number, { registers, sums, bounds }: Pick<LoopFacts, 'registers' | 'sums' | 'bounds'>): AddressForm | undefined {
  const factors = new Map<number, number>();
  let isRelative = false;
  let spread = 0;
  const add = (part: number, factor: number): boolean => {
    if (part === ABSOLUTE_ROOT) return true;
    if (part === RIP_ROOT) {
      const isFirst = !isRelative && factor === 1;
      isRelative = true;
      return isFirst;
    }
    const register = registers.get(part);
    if (register !== undefined) {
      factors.set(register, (factors.get(register) ?? 0) + factor);
      return true;
    }
    const sum = sums.get(part);
    if (sum !== undefined) return add(sum.base, factor) && add(sum.index, factor * 2 ** sum.scale);
    spread += factor * (bounds.get(part) ?? Number.POSITIVE_INFINITY);
    return spread <= MAX_TABLE;
  };
  if (!add(root, 1)) return undefined;
  const terms = [...factors].sort(([a], [b]) => a - b);
  return { key: `${terms.map(([register, factor]) => `${register}*${factor}`).join('+')}${isRelative ? ' rip' : ''}`, terms, isRelative, spread };
}

/** How far a form moves in each way through a turn: by a constant and by registers that do not change; undefined where it moves by anything else. */
function movesOf({ terms }: AddressForm, facts: LoopFacts): readonly Move[] | undefined {
  const moves: Move[] = [];
  for (const turn of facts.turns) {
    let by = 0;
    const factors = new Map<number, number>();
    for (const [register, factor] of terms) {
      const now = turn[register];
      const form = now === undefined ? undefined : formOf(now.root, facts);
      if (now === undefined || form === undefined || form.isRelative || form.spread > 0) return undefined;
      by += factor * now.offset;
      for (const [other, count] of [...form.terms, [register, -1] as const]) factors.set(other, (factors.get(other) ?? 0) + factor * count);
    }
    const strides = [...factors].filter(([, factor]) => factor !== 0).sort(([a], [b]) => a - b);
    if (strides.some(([register]) => !facts.turns.every((t) => isUnchanged(t[register], register, facts)))) return undefined;
    moves.push({ by, strides });
  }
  return moves;
}

function isUnchanged(now: Symbolic | undefined, register: number, { registers }: LoopFacts): boolean {
  return now !== undefined && now.offset === 0 && registers.get(now.root) === register;
}

/** The windows of a loop's accesses; undefined when too few of them can be foreseen. */
export function windowsOf(facts: LoopFacts): readonly Window[] | undefined {
  if (facts.callsHelpers || facts.turns.length === 0) return undefined;
  const windows: Window[] = [];
  let foreseen = 0;
  for (const access of facts.accesses) {
    const form = access.at === undefined ? undefined : formOf(access.at.root, facts);
    const moves = form === undefined ? undefined : movesOf(form, facts);
    if (form === undefined || moves === undefined) continue;
    const known = windows.findIndex((w) => w.form.key === form.key && widened(w, access, form, moves) !== undefined);
    const window = widened(windows[known], access, form, moves);
    if (window === undefined || (known < 0 && windows.length === MAX_WINDOWS)) continue;
    foreseen++;
    if (known < 0) windows.push(window);
    else windows[known] = window;
  }
  const others = facts.accesses.length - foreseen;
  return foreseen > 0 && foreseen >= MIN_FORESEEN * others ? windows : undefined;
}

/** The window, or a new one, with an access in it; undefined if that cannot be. */
function widened(window: Window | undefined, { at, size, writes, alignment }: LoopAccess, form: AddressForm, moves: readonly Move[]): Window | undefined {
  const [first] = moves;
  if (at === undefined || first === undefined) return undefined;
  const min = Math.min(window?.min ?? at.offset, at.offset);
  const end = Math.max(window?.end ?? Number.NEGATIVE_INFINITY, at.offset + form.spread + size);
  const { strides } = first;
  const steps = moves.map(({ by }) => by);
  const [low, high] = [Math.min(...steps), Math.max(...steps)];
  const isFixed = low === 0 && high === 0 && strides.length === 0;
  if (end - min > (isFixed ? MAX_TABLE : MAX_SPAN)) return undefined;
  if ((low < 0 && high > 0) || Math.max(-low, high) > MAX_STEP) return undefined;
  const aligned = alignment === undefined ? undefined : { offset: at.offset, size: alignment };
  if (aligned !== undefined && (form.spread > 0 || strides.length > 0 || steps.some((step) => step % aligned.size !== 0))) return undefined;
  const isSame = (move: Move) => move.by === first.by && String(move.strides) === String(strides);
  if (strides.length > 0 && !moves.every(isSame)) return undefined;
  const step = low < 0 ? low : high;
  return { form, min, end, writes: writes || window?.writes === true, alignment: window?.alignment ?? aligned, step, strides };
}

/** Where among the windows an access is, negative if it is in none. */
export function windowAt(windows: readonly Window[], form: AddressForm | undefined, offset: number, size: number, writes: boolean): number {
  if (form === undefined) return -1;
  return windows.findIndex((w) => w.form.key === form.key && w.min <= offset && offset + form.spread + size <= w.end && (w.writes || !writes));
}

/** The region with copies of the loops' blocks. */
export function withCopies(
  region: RegionCode,
  loops: readonly (Loop & { readonly windows: readonly Window[] })[],
): { code: RegionCode; loops: readonly PagedLoop[] } {
  const blocks = new Map(region.blocks);
  const paged = loops.map((loop, i): PagedLoop => {
    const { header, windows, turnInsns } = loop;
    const copies = new Map(loop.blocks.map(({ start }) => [start, (i + 1) * COPY + start]));
    const made = { header, copies, windows, turnInsns };
    for (const block of loop.blocks) {
      const start = copies.get(block.start) ?? block.start;
      blocks.set(start, { ...block, start, copy: { of: block.start, loop: made } });
    }
    return made;
  });
  return { code: { ...region, blocks }, loops: paged };
}

/** The id of the block at `start` in the second version of a loop, which has it. */
export const copyOf = ({ copies }: PagedLoop, start: number): number => copies.get(start) ?? start;

/** Where the copy of a block goes instead of `to`: to the next turn, or to the guard, at the end of one. */
export function copiedSuccessors({ header, copies }: PagedLoop, to: number): readonly number[] {
  const copy = copies.get(to);
  return copy === undefined ? [to] : to === header ? [copy, header] : [copy];
}
