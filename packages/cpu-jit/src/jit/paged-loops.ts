import type { BlockTree } from './flow.ts';
import type { GuestBlock, RegionCode } from './region.ts';
import type { Symbolic } from './region-state.ts';

/**
 * Loops whose accesses all move by constants from one turn to the next are compiled twice. Before the second version, which looks nothing up, a guard asks the TLB about the
 * page of each access and works out after how many turns the first of them leaves it. The first version runs the first turn, those in which
 * an access runs over a page boundary, and those that the TLB does not allow.
 */

/** Instructions that the second version of a loop may have. */
const MAX_INSNS = 96;
/** A guard looks up so many pages at most. */
const MAX_WINDOWS = 8;
/** Bytes that the accesses of a window may span, and that it may move in a turn: otherwise too few turns stay in a page. */
const MAX_SPAN = 1024;
const MAX_STEP = 256;
/** Ids of copies are this much apart from the offsets of blocks, which are 32-bit numbers. */
const COPY = 2 ** 34;

/** Roots of addresses that are relative to the region's RIP, and of absolute ones. */
export const RIP_ROOT = -1;
export const ABSOLUTE_ROOT = -2;

/** A loop in the blocks of one tree: its header is the root. */
interface Loop {
  readonly header: number;
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
}

/** A sum of registers times powers of two as they are where a turn begins, and of the region's RIP if it is relative to that. */
export interface AddressForm {
  readonly key: string;
  readonly terms: readonly (readonly [register: number, factor: number])[];
  readonly isRelative: boolean;
}

/** A loop that is compiled twice. */
export interface PagedLoop {
  readonly header: number;
  /** Offset of each of its blocks -> id of the copy. */
  readonly copies: ReadonlyMap<number, number>;
  readonly windows: readonly Window[];
  readonly turnInsns: number;
}

/** The loops whose blocks are all in one tree, which begins where a turn does. */
export function loopsOf(trees: readonly BlockTree[], successors: (block: GuestBlock) => readonly number[]): readonly Loop[] {
  return trees.flatMap((tree) => {
    const header = tree.block.start;
    const blocks: GuestBlock[] = [];
    let turnInsns = Number.POSITIVE_INFINITY;
    const visit = ({ block, children }: BlockTree, before: number): boolean => {
      const insns = before + block.insns.length;
      const turns = successors(block).includes(header);
      if (turns) turnInsns = Math.min(turnInsns, insns);
      const isInside = children.filter((child) => visit(child, insns)).length > 0 || turns;
      if (isInside) blocks.push(block);
      return isInside;
    };
    return visit(tree, 0) ? [{ header, blocks: blocks.reverse(), turnInsns }] : [];
  });
}

/** Is it worth a look? */
export function isCandidate({ blocks }: Loop): boolean {
  const insns = blocks.flatMap((block) => block.insns);
  return insns.length <= MAX_INSNS && insns.some((insn) => insn.mem !== null && insn.row.name !== 'lea' && insn.row.name !== 'nop');
}

/** The value of a root as registers of the turn's beginning, undefined if it is something else. */
export function formOf(root: number, { registers, sums }: Pick<LoopFacts, 'registers' | 'sums'>): AddressForm | undefined {
  const factors = new Map<number, number>();
  let isRelative = false;
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
    return sum !== undefined && add(sum.base, factor) && add(sum.index, factor * 2 ** sum.scale);
  };
  if (!add(root, 1)) return undefined;
  const terms = [...factors].sort(([a], [b]) => a - b);
  return { key: `${terms.map(([register, factor]) => `${register}*${factor}`).join('+')}${isRelative ? ' rip' : ''}`, terms, isRelative };
}

/** How far a form moves in each way through a turn; undefined where one of its registers changes by more than a constant. */
function stepsOf({ terms }: AddressForm, { registers, turns }: LoopFacts): number[] | undefined {
  const steps: number[] = [];
  for (const turn of turns) {
    let step = 0;
    for (const [register, factor] of terms) {
      const now = turn[register];
      if (now === undefined || registers.get(now.root) !== register) return undefined;
      step += factor * now.offset;
    }
    steps.push(step);
  }
  return steps;
}

/** The windows of a loop's accesses; undefined when one of them is not of the kind that can be foreseen. */
export function windowsOf(facts: LoopFacts): readonly Window[] | undefined {
  if (facts.callsHelpers) return undefined;
  const windows = new Map<string, Window>();
  for (const { at, size, writes, alignment } of facts.accesses) {
    const form = at === undefined ? undefined : formOf(at.root, facts);
    if (at === undefined || form === undefined) return undefined;
    const known = windows.get(form.key);
    const aligned = alignment === undefined ? undefined : { offset: at.offset, size: alignment };
    const min = Math.min(known?.min ?? at.offset, at.offset);
    const end = Math.max(known?.end ?? at.offset + size, at.offset + size);
    const steps = stepsOf(form, facts);
    if (steps === undefined || end - min > MAX_SPAN) return undefined;
    const [low, high] = [Math.min(...steps), Math.max(...steps)];
    if ((low < 0 && high > 0) || Math.max(-low, high) > MAX_STEP) return undefined;
    if (aligned !== undefined && steps.some((step) => step % aligned.size !== 0)) return undefined;
    windows.set(form.key, { form, min, end, writes: writes || known?.writes === true, alignment: known?.alignment ?? aligned, step: low < 0 ? low : high });
  }
  return windows.size > 0 && windows.size <= MAX_WINDOWS ? [...windows.values()] : undefined;
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

/** Where the copy of a block goes instead of `to`: to the next turn, or to the guard, at the end of one. */
export function copiedSuccessors({ header, copies }: PagedLoop, to: number): readonly number[] {
  const copy = copies.get(to);
  return copy === undefined ? [to] : to === header ? [copy, header] : [copy];
}
