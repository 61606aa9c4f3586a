import type { Expr, WasmModule, WasmTypes } from '../wasm/types.ts';

/** How a node of the control-flow graph ends. `code` of an edge runs when it is taken. */
export type NodeEnd =
  | { readonly kind: 'ended' }
  | { readonly kind: 'goto'; readonly to: Edge }
  /** `likely`: the edge that V8 should lay out first; it moves the other one's code, and what must be saved for it, out of the way. */
  | { readonly kind: 'cond'; readonly condition: () => Expr; readonly yes: Edge; readonly no: Edge; readonly likely?: 'yes' | 'no' | undefined }
  /** The first edge whose condition holds, else `otherwise`, which leaves. */
  | { readonly kind: 'chain'; readonly edges: readonly GuardedEdge[]; readonly otherwise: Expr }
  /** `index` selects a slot, which names an edge; this one is taken if its condition holds. Anything else runs `otherwise`, which leaves. */
  | {
      readonly kind: 'switch';
      readonly index: () => Expr;
      readonly slots: readonly number[];
      readonly edges: readonly GuardedEdge[];
      readonly otherwise: Expr;
    };

/** To another node after `code` (0: none), or, without `to`, code that leaves the function. */
export type Edge = { readonly to: number; readonly code: Expr } | { readonly to?: undefined; readonly code: Expr };

/** An edge that is taken only if `condition`, i32, holds; without one it always is. */
export type GuardedEdge = Edge & { readonly condition?: () => Expr };

export interface FlowNode {
  readonly code: Expr;
  readonly end: NodeEnd;
}

function edgesOf(end: NodeEnd): readonly Edge[] {
  switch (end.kind) {
    case 'ended':
      return [];
    case 'goto':
      return [end.to];
    case 'cond':
      return [end.yes, end.no];
    case 'chain':
    case 'switch':
      return end.edges;
  }
}

/** Reverse postorder numbers and immediate dominators of the graph that `successors` spans from `entry`. */
function analyse(count: number, entry: number, successors: (n: number) => readonly number[]): { order: number[]; number: Int32Array; idom: Int32Array } {
  const number = new Int32Array(count).fill(-1);
  const seen = new Uint8Array(count);
  const order: number[] = [];
  const stack: { n: number; next: number }[] = [{ n: entry, next: 0 }];
  seen[entry] = 1;
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const s = successors(top.n)[top.next++];
    if (s === undefined) {
      order.push(top.n);
      stack.pop();
    } else if (seen[s] === 0) {
      seen[s] = 1;
      stack.push({ n: s, next: 0 });
    }
  }
  order.reverse();
  for (const [i, n] of order.entries()) number[n] = i;
  const predecessors = new Map<number, number[]>();
  for (const n of order) for (const s of successors(n)) predecessors.set(s, [...(predecessors.get(s) ?? []), n]);
  // Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm".
  const idom = new Int32Array(count).fill(-1);
  idom[entry] = entry;
  const at = (array: Int32Array, i: number) => array[i] ?? -1;
  const intersect = (a: number, b: number): number => {
    let [x, y] = [a, b];
    while (x !== y) {
      while (at(number, x) > at(number, y)) x = at(idom, x);
      while (at(number, y) > at(number, x)) y = at(idom, y);
    }
    return x;
  };
  for (let changed = true; changed; ) {
    changed = false;
    for (const n of order) {
      if (n === entry) continue;
      let best = -1;
      for (const p of predecessors.get(n) ?? []) if (at(idom, p) >= 0) best = best < 0 ? p : intersect(p, best);
      if (idom[n] !== best) {
        idom[n] = best;
        changed = true;
      }
    }
  }
  return { order, number, idom };
}

/**
 * Turns a control-flow graph into nested blocks and loops (Ramsey: "Beyond Relooper"): each node's code is placed once, at its
 * place in the dominator tree. Where the graph is irreducible (a loop entered at several places, as returns into the middle of
 * callers make it), the offending targets are reached through one dispatching loop on the local `label` instead.
 * It starts at node 0 when `label` is 0, at node `entries[i]` when it is i + 1.
 */
export function structure(b: WasmTypes, m: WasmModule, nodes: readonly FlowNode[], label: number, entries: readonly number[] = []): Expr {
  const dispatcher = nodes.length;
  /** Targets that are reached through the dispatcher, in the order of their labels. */
  const dispatched = [...entries];
  const redirected = new Set<string>();
  const targetOf = (from: number, to: number) => (redirected.has(`${from}>${to}`) ? dispatcher : to);
  const successors = (n: number): number[] => {
    if (n === dispatcher) return [0, ...dispatched];
    const node = nodes[n];
    return node === undefined ? [] : edgesOf(node.end).flatMap((e) => (e.to === undefined ? [] : [targetOf(n, e.to)]));
  };
  const entryOf = () => (dispatched.length > 0 ? dispatcher : 0);
  let analysis = analyse(nodes.length + 1, entryOf(), successors);
  const dominates = (a: number, n: number): boolean => {
    for (let x = n; ; x = analysis.idom[x] ?? a) {
      if (x === a) return true;
      if (x === analysis.idom[x]) return false;
    }
  };
  for (let irreducible = true; irreducible; ) {
    irreducible = false;
    for (const n of analysis.order) {
      for (const s of successors(n)) {
        const retreats = (analysis.number[s] ?? 0) <= (analysis.number[n] ?? 0);
        if (!retreats || dominates(s, n)) continue;
        redirected.add(`${n}>${s}`);
        if (!dispatched.includes(s)) dispatched.push(s);
        irreducible = true;
      }
    }
    if (irreducible) analysis = analyse(nodes.length + 1, entryOf(), successors);
  }

  const { order, number, idom } = analysis;
  const numberOf = (n: number) => number[n] ?? -1;
  const isHeader = new Set<number>();
  const forwardEdges = new Map<number, number>();
  for (const n of order) {
    for (const s of successors(n)) {
      if (numberOf(s) <= numberOf(n)) isHeader.add(s);
      else forwardEdges.set(s, (forwardEdges.get(s) ?? 0) + 1);
    }
  }
  const isMerge = (n: number) => (forwardEdges.get(n) ?? 0) > 1;
  const mergeChildren = new Map<number, number[]>();
  for (const n of order) {
    const parent = idom[n] ?? -1;
    if (n !== parent && isMerge(n)) mergeChildren.set(parent, [...(mergeChildren.get(parent) ?? []), n]);
  }

  const blockLabel = (n: number) => `b${n}`;
  const loopLabel = (n: number) => `l${n}`;
  /** Statements that go from node `from` to `to`. */
  const goTo = (from: number, to: number): Expr => {
    if (numberOf(to) <= numberOf(from)) return m.br(loopLabel(to));
    return isMerge(to) ? m.br(blockLabel(to)) : tree(to);
  };
  const take = (from: number, e: Edge): Expr => {
    if (e.to === undefined) return e.code;
    const to = targetOf(from, e.to);
    const list = e.code === 0 ? [] : [e.code];
    if (to === dispatcher) list.push(m.local.set(label, m.i32.const(1 + dispatched.indexOf(e.to))));
    list.push(goTo(from, to));
    return m.block(null, list);
  };
  const switchOver = (from: number, index: Expr, slots: readonly number[], edges: readonly GuardedEdge[], otherwise: Expr): Expr => {
    const name = (i: number) => `s${from}_${i}`;
    const none = name(edges.length);
    const names = slots.map((i) => (edges[i] === undefined ? none : name(i)));
    let inner: Expr = m.switch(names, none, index);
    for (const [i, e] of edges.entries()) {
      const guard = e.condition === undefined ? [] : [m.br(none, m.i32.eqz(e.condition()))];
      inner = m.block(null, [m.block(name(i), [inner]), ...guard, take(from, e)]);
    }
    return m.block(null, [m.block(none, [inner]), otherwise]);
  };
  const branch = (n: number, { condition, yes, no, likely }: Extract<NodeEnd, { kind: 'cond' }>): Expr => {
    if (likely === undefined) return m.if(condition(), take(n, yes), take(n, no));
    const first = m.block(null, [m.nop(), take(n, likely === 'yes' ? yes : no)]);
    return likely === 'yes' ? m.if(condition(), first, take(n, no)) : m.if(m.i32.eqz(condition()), first, take(n, yes));
  };
  const ending = (n: number): Expr => {
    if (n === dispatcher) {
      const edges = [0, ...dispatched].map((to): Edge => ({ to, code: 0 }));
      return switchOver(n, m.local.get(label, b.i32), [...edges.keys()], edges, m.unreachable());
    }
    const end = nodes[n]?.end ?? { kind: 'ended' };
    switch (end.kind) {
      case 'ended':
        return m.unreachable();
      case 'goto':
        return take(n, end.to);
      case 'cond':
        return branch(n, end);
      case 'chain':
        return end.edges.reduceRight((rest, e) => (e.condition === undefined ? take(n, e) : m.if(e.condition(), take(n, e), rest)), end.otherwise);
      case 'switch':
        return switchOver(n, end.index(), end.slots, end.edges, end.otherwise);
    }
  };
  const tree = (n: number): Expr => {
    let code: Expr = m.block(null, [nodes[n]?.code ?? m.nop(), ending(n)]);
    // The merge node that comes first in the order follows the innermost block.
    for (const child of mergeChildren.get(n) ?? []) code = m.block(null, [m.block(blockLabel(child), [code]), tree(child)]);
    return isHeader.has(n) ? m.loop(loopLabel(n), code) : code;
  };
  return tree(entryOf());
}
