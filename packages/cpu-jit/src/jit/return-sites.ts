import { isCall, type RegionCode, successors } from './region.ts';

/**
 * For each RET of a region, by its offset: where it comes back to inside the region, which is after the calls of the functions that it belongs to. What
 * goes back elsewhere leaves the region. All returns going to all places would make one knot of the control flow, with every register alive around it.
 */
export function returnTargets(region: RegionCode): ReadonlyMap<number, readonly number[]> {
  const { blocks } = region;
  const sites = new Set(region.returnSites);
  const targets = new Map<number, Set<number>>();
  const returns = new Map<number, readonly number[]>();
  for (const block of blocks.values()) {
    const last = block.insns.at(-1);
    if (last === undefined || !isCall(last) || !sites.has(block.end)) continue;
    const at = block.end - last.length;
    for (const callee of [...successors(last, at), ...(region.targets.get(at) ?? [])]) {
      const found = returns.get(callee) ?? returnsFrom(region, callee);
      returns.set(callee, found);
      for (const ret of found) targets.set(ret, (targets.get(ret) ?? new Set()).add(block.end));
    }
  }
  return new Map([...targets].map(([ret, list]) => [ret, [...list].sort((a, b) => a - b)]));
}

/** Offsets of the RETs that the function at offset `callee` may end with, the functions that it jumps to included. */
function returnsFrom({ blocks, targets }: RegionCode, callee: number): number[] {
  const found: number[] = [];
  const seen = new Set<number>();
  const work = [callee];
  for (let start = work.pop(); start !== undefined; start = work.pop()) {
    const block = blocks.get(start);
    const last = block?.insns.at(-1);
    if (block === undefined || last === undefined || seen.has(start)) continue;
    seen.add(start);
    const at = block.end - last.length;
    const { name } = last.row;
    if (name === 'ret') found.push(at);
    else if (isCall(last) || last.row.end !== true) work.push(block.end);
    else work.push(...successors(last, at), ...(targets.get(at) ?? []));
  }
  return found;
}
