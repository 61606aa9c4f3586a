import { copiedSuccessors } from './paged-loops.ts';
import type { GuestBlock, RegionCode } from './region.ts';

/** Offset of a RET -> where it may go inside the region. */
type Returns = ReadonlyMap<number, readonly number[]>;

/** Where control may go from the end of a block inside the region, by offset; a branch that has two ways to one place counts twice. */
export function successorsOf(region: RegionCode, returns: Returns, block: GuestBlock): number[] {
  const { copy } = block;
  const found = successorsInCode(region, returns, block);
  return copy === undefined ? found : found.flatMap((to) => copiedSuccessors(copy.loop, to));
}
function successorsInCode(region: RegionCode, returns: Returns, block: GuestBlock): number[] {
  const last = block.insns.at(-1);
  if (last === undefined) return [];
  const inside = (offsets: readonly number[]) => offsets.filter((offset) => region.blocks.has(offset));
  if (last.row.end !== true) return inside([block.end]);
  const name = last.row.name;
  if (last.operands.some((o) => o.kind === 'rel')) {
    const target = block.end + last.immLow;
    return inside(name === 'jmp' || name === 'call' ? [target] : [target, block.end]);
  }
  const at = block.end - last.length;
  if (name === 'ret') return inside(returns.get(at) ?? []);
  // Some ends go on at the next instruction after all (INTO).
  return inside([...(region.targets.get(at) ?? []), ...(name === 'jmp_ind' || name === 'call_ind' ? [] : [block.end])]);
}

/** A block, and those that only its end leads to. */
export interface BlockTree {
  readonly block: GuestBlock;
  readonly children: readonly BlockTree[];
}

/** All blocks as trees (extended basic blocks): the roots can be reached from several places or from outside. */
export function blockTrees(region: RegionCode, returns: Returns): readonly BlockTree[] {
  const from = new Map<number, number[]>();
  for (const [start, block] of region.blocks) for (const to of successorsOf(region, returns, block)) from.set(to, [...(from.get(to) ?? []), start]);
  const headers = [...region.blocks.values()].filter(({ copy }) => copy !== undefined && copy.of === copy.loop.header);
  const isEntry = new Set([0, ...region.entries.map((e) => e.offset), ...headers.map(({ start }) => start)]);
  const parentOf = (start: number): number | undefined => {
    const [only, ...more] = from.get(start) ?? [];
    return isEntry.has(start) || more.length > 0 || only === start ? undefined : only;
  };
  const children = new Map<number, GuestBlock[]>();
  const roots: GuestBlock[] = [];
  for (const [start, block] of region.blocks) {
    const parent = parentOf(start);
    if (parent === undefined) roots.push(block);
    else children.set(parent, [...(children.get(parent) ?? []), block]);
  }
  const tree = (block: GuestBlock): BlockTree => ({ block, children: (children.get(block.start) ?? []).map((child) => tree(child)) });
  return roots.map(tree);
}
