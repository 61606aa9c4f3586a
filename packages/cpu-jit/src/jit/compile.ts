import type { Insn } from '../decoder/types.ts';
import type { Emitter } from '../emit/emitter.ts';
import { avxBlockedNow } from '../emit/handler-emitter.ts';
import {
  BD_COUNT,
  CR0_EM_TS,
  EXIT_LIMIT,
  FLAT_ALWAYS,
  MXCSR_DEFAULT,
  MXCSR_ROUNDING_MASKS,
  NEXT_CHECK,
  NEXT_INTERPRET,
  RUN_LIMIT,
  S_CR0,
  S_EXIT_BLOCK,
  S_FLAT,
  S_ICOUNT,
  S_MXCSR,
  S_REGION_RIP,
  S_RIP,
  S_TLB,
} from '../layout.ts';
import { semantics } from '../semantics/index.ts';
import { WASM_TYPES } from '../wasm/builder.ts';
import { ModuleBuilder } from '../wasm/module-builder.ts';
import type { Expr, WasmTypes } from '../wasm/types.ts';
import { successorsOf } from './flow.ts';
import { counterName, functionName } from './function-name.ts';
import { chainTo } from './jump-cache.ts';
import { asksGuard, beginLoop } from './loop-guard.ts';
import { copyOf, isCandidate, loopsOf, type PagedLoop, windowsOf, withCopies } from './paged-loops.ts';
import type { GuestBlock, RegionCode } from './region.ts';
import { type BlockCode, RegionEmitter } from './region-emitter.ts';
import { fixedLocals, type Imports, LOCAL } from './region-state.ts';
import { returnTargets } from './return-sites.ts';
import { type Edge, type FlowNode, type GuardedEdge, type NodeEnd, structure } from './structure.ts';
import { hashTargets } from './target-hash.ts';

/** Up to so many targets of an indirect branch are compared one after the other; more are found by a jump table. */
const MAX_COMPARED_TARGETS = 3;

/** For one module after the other: making one takes longer than building a small module. */
const builder = new ModuleBuilder();

/** How a region's entries are counted, in the descriptor of its first block, whose address the module has in `counterName`. */
export interface EntryCounter {
  /** The power of two whose multiples are reported. */
  readonly reportAfter: number;
  /** What a profiler should call the region; absent: the module has no names. */
  readonly name?: string;
}

/**
 * Compiles regions into one Wasm module that exports their functions, see `functionName`. With `counters` regions
 * count how often they are entered, and have the names that these give them.
 */
export function compileRegions(regions: readonly RegionCode[], counters: readonly EntryCounter[] = []): Uint8Array<ArrayBuffer> {
  const m = builder;
  m.clear();
  const imports: Imports = new Map();
  const emitters = regions.map((region, i) => addRegion(m, region, i, imports, counters[i]));
  if (emitters.some(({ usesSyscall }) => usesSyscall)) addSyscall(m, imports);
  for (const [name, { params, result }] of imports) {
    m.addFunctionImport(
      name,
      WASM_TYPES.createType(params.map((p) => WASM_TYPES[p])),
      typeof result === 'string' ? WASM_TYPES[result] : WASM_TYPES.createType(result.map((r) => WASM_TYPES[r])),
    );
  }
  return m.emit(counters.some(({ name }) => name !== undefined));
}

function runSemantics(insn: Insn, e: Emitter): void {
  const f = semantics[insn.row.name];
  if (f === undefined) e.raise(6);
  else f(e);
}

function countEntry(m: ModuleBuilder, index: number, { reportAfter }: EntryCounter, imports: Imports): Expr[] {
  const b = WASM_TYPES;
  imports.set('host_entered', { params: ['i32'], result: 'none' });
  const cpu = () => m.local.get(LOCAL.cpu, b.i32);
  const count = () => m.local.get(LOCAL.tlb, b.i32);
  const global = m.addCounter(counterName(index));
  const desc = () => m.counters.get(global);
  const told = m.block(null, [m.i32.store(S_EXIT_BLOCK, 4, cpu(), desc()), m.call('host_entered', [cpu()], b.none)]);
  return [
    m.local.set(LOCAL.tlb, m.i32.add(m.i32.load(BD_COUNT, 4, desc()), m.i32.const(1))),
    m.i32.store(BD_COUNT, 4, desc(), count()),
    m.if(m.i32.and(count(), m.i32.const(reportAfter - 1)), m.nop(), told),
  ];
}

function addRegion(m: ModuleBuilder, region: RegionCode, index: number, imports: Imports, counter: EntryCounter | undefined): RegionEmitter {
  const b = WASM_TYPES;
  const first = region.blocks.get(0)?.insns[0];
  if (first === undefined) throw new RangeError('a region has at least one instruction');
  const { code: versioned, loops } = secondVersions(m, region, first);
  const e = new RegionEmitter(b, m, versioned, first, imports);
  const codes = e.emitBlocks(runSemantics);
  const starts = [...versioned.blocks.keys()];
  const indexOf = new Map(starts.map((start, i) => [start, i]));
  const added: FlowNode[] = [];
  const addNode = (node: FlowNode): number => starts.length + added.push(node) - 1;
  const nodeOf = (start: number): number => {
    const node = indexOf.get(start);
    if (node === undefined) throw new Error(`there is no block at ${start}`);
    return node;
  };
  const guards = new Map(
    loops.map((loop) => {
      const { code, ok } = e.guardCode(loop);
      const yes = { to: nodeOf(copyOf(loop, loop.header)), code: m.nop() };
      return [loop, addNode({ code, end: { kind: 'cond', condition: ok, yes, no: { to: nodeOf(loop.header), code: 0 } } })];
    }),
  );
  const guardOf = (loop: PagedLoop): number => guards.get(loop) ?? nodeOf(loop.header);
  const loopAt = new Map(loops.map((loop) => [loop.header, loop]));
  /** From a block of the second version of a loop to where its own one goes. */
  const copiedEdge = (from: GuestBlock, loop: PagedLoop, to: number, check: boolean): Edge => {
    if (to !== loop.header) {
      const copy = copyOf(loop, to);
      return { to: nodeOf(copy), code: e.edgeCode(from.start, copy, check) };
    }
    const { place, goesOn, toGuard } = e.turnEdge(from.start, loop, check);
    const yes = { to: nodeOf(copyOf(loop, to)), code: m.nop() };
    return { to: addNode({ code: m.nop(), end: { kind: 'cond', condition: goesOn, yes, no: { to: guardOf(loop), code: toGuard } } }), code: place };
  };
  /** To another block of the region, past the check that a backward or indirect branch makes, or out of it. */
  const edge = (from: GuestBlock, to: number, check: boolean): Edge => {
    const node = indexOf.get(to);
    if (node === undefined) return { code: e.exitCode(from.start, to, check) };
    if (from.copy?.loop.copies.has(to) === true) return copiedEdge(from, from.copy.loop, to, check);
    const code = e.edgeCode(from.start, to, check);
    const loop = loopAt.get(to);
    if (loop === undefined) return { to: node, code };
    if (!loop.copies.has(from.start)) return { to: node, code: m.block(null, [code, beginLoop(m, loop)]) };
    const yes = { to: guardOf(loop), code: m.nop() };
    return { to: addNode({ code: m.nop(), end: { kind: 'cond', condition: () => asksGuard(m), yes, no: { to: node, code: 0 } } }), code };
  };
  const nodes = starts.map((start): FlowNode => {
    const block = codes.get(start);
    if (block === undefined) throw new Error('every start has its code');
    return { code: block.code, end: nodeEnd(m, b, e, block, (to, check) => edge(block.block, to, check)) };
  });

  const cpu = () => m.local.get(LOCAL.cpu, b.i32);
  const isSingle = region.entries.length === 0;
  const body = [
    m.local.set(LOCAL.tlb, m.i32.load(S_TLB, 4, cpu())),
    ...(isSingle ? [m.local.set(LOCAL.rip, m.i64.load(S_RIP, 8, cpu()))] : []),
    m.i64.store(S_REGION_RIP, 8, cpu(), m.local.get(LOCAL.rip, b.i64)),
    m.local.set(LOCAL.icount, m.i64.load(S_ICOUNT, 8, cpu())),
  ];
  if (e.usesSse) {
    const blocked = m.i32.and(m.i32.load(S_CR0, 4, cpu()), m.i32.const(CR0_EM_TS));
    body.unshift(m.if(blocked, m.return(m.i32.const(NEXT_INTERPRET))));
  }
  if (e.usesAvx) body.unshift(m.if(avxBlockedNow(m, cpu), m.return(m.i32.const(NEXT_INTERPRET))));
  if (e.usesFloat) {
    const mxcsr = m.i32.load(S_MXCSR, 4, cpu());
    const controls = region.tracked ? m.i32.and(mxcsr, m.i32.const(MXCSR_ROUNDING_MASKS)) : mxcsr;
    body.unshift(m.if(m.i32.ne(controls, m.i32.const(MXCSR_DEFAULT)), m.return(m.i32.const(NEXT_INTERPRET))));
  }
  if (e.flat) {
    const needed = FLAT_ALWAYS | e.otherSegments;
    const held = m.i32.and(m.i32.load(S_FLAT, 4, cpu()), m.i32.const(needed));
    body.unshift(m.if(m.i32.ne(held, m.i32.const(needed)), m.return(m.i32.const(NEXT_INTERPRET))));
  }
  if (counter !== undefined) body.unshift(...countEntry(m, index, counter, imports));
  const entries = region.entries.map(({ offset }) => {
    const node = indexOf.get(offset);
    if (node === undefined) throw new RangeError(`a region can be entered at ${offset}, where it has no block`);
    return node;
  });
  body.push(e.finish(() => structure(b, m, [...nodes, ...added], LOCAL.label, entries)));
  const { parameters, locals } = fixedLocals(b, isSingle ? 1 : 3);
  // Two regions of a module may start at the same address, one of them in another address space.
  const name = counter?.name !== undefined ? `${counter.name}#${index}` : isSingle ? functionName(index, 0) : `region${index}`;
  m.addFunction(name, parameters, b.i32, [...locals, ...e.extraLocals], m.block(null, body, b.i32));
  if (!isSingle) for (const [i, offset] of [0, ...region.entries.map((entry) => entry.offset)].entries()) addEntry(m, functionName(index, i), name, i, offset);
  for (let i = 0; i <= entries.length; i++) m.addFunctionExport(isSingle ? name : functionName(index, i), functionName(index, i));
  return e;
}

/** The region with a second version of each loop that can have one. */
function secondVersions(m: ModuleBuilder, region: RegionCode, first: Insn): ReturnType<typeof withCopies> {
  const returns = returnTargets(region);
  const successors = (block: GuestBlock) => successorsOf(region, returns, block);
  const loops = loopsOf(region.blocks, new Set([0, ...region.entries.map(({ offset }) => offset)]), successors).filter(isCandidate);
  const found = loops.flatMap((loop) => {
    const blocks = new Map(loop.blocks.map((block) => [block.start, block]));
    const alone = { ...region, blocks, entries: [{ offset: loop.header, hpa: 0 }], returnSites: [], targets: new Map() };
    const windows = windowsOf(new RegionEmitter(WASM_TYPES, m, alone, first, new Map()).probe(loop.header, runSemantics));
    return windows === undefined ? [] : [{ ...loop, windows }];
  });
  return withCopies(region, found);
}

/** A function that enters a region of several entries at the one that is `offset` bytes from its first instruction. */
function addEntry(m: ModuleBuilder, name: string, region: string, label: number, offset: number): void {
  const b = WASM_TYPES;
  const cpu = () => m.local.get(LOCAL.cpu, b.i32);
  const rip = m.i64.sub(m.i64.load(S_RIP, 8, cpu()), m.i64.const(BigInt(offset)));
  m.addFunction(name, b.i32, b.i32, [], m.return_call(region, [cpu(), m.i32.const(label), rip], b.i32));
}

/** A region has what has run: a branch out of it is seldom taken. */
function withHint(end: Extract<NodeEnd, { kind: 'cond' }>): NodeEnd {
  const [yesStays, noStays] = [end.yes.to !== undefined, end.no.to !== undefined];
  return yesStays === noStays ? end : { ...end, likely: yesStays ? 'yes' : 'no' };
}

/** The end of a block as a node of the control-flow graph. */
function nodeEnd(m: ModuleBuilder, b: WasmTypes, e: RegionEmitter, block: BlockCode, edge: (to: number, check: boolean) => Edge): NodeEnd {
  const t = block.terminator;
  switch (t.kind) {
    case 'ended':
      return { kind: 'ended' };
    case 'goto':
      return { kind: 'goto', to: edge(t.to, t.backward) };
    case 'cond':
      if (t.to === t.next) return { kind: 'goto', to: edge(t.to, false) };
      return withHint({ kind: 'cond', condition: () => m.local.get(t.condition, b.i32), yes: edge(t.to, t.backward), no: edge(t.next, false) });
    case 'indirect': {
      const leaving = e.exitCode(block.block.start, { rip: t.rip }, true);
      const otherwise = t.fault === undefined ? leaving : m.block(null, [t.fault, leaving]);
      const hash = t.targets.length > MAX_COMPARED_TARGETS ? hashTargets(t.targets) : undefined;
      const edges = t.targets.map((to): GuardedEdge => ({ ...edge(to, true), condition: () => e.isTarget(t, to, hash !== undefined) }));
      if (hash === undefined) return { kind: 'chain', edges, otherwise };
      return { kind: 'switch', index: () => e.targetSlot(t, hash), slots: hash.slots, edges, otherwise };
    }
  }
}

/** `syscall_chain(cpu)`: runs SYSCALL, then tail-calls the compiled code for S_RIP, or returns to the dispatcher. `chain_check` compares the budget first. */
function addSyscall(m: ModuleBuilder, imports: Imports): void {
  const b = WASM_TYPES;
  imports.set('host_syscall', { params: ['i32'], result: 'i32' });
  const cpu = () => m.local.get(0, b.i32);
  const body = [m.local.set(1, m.i64.load(S_RIP, 8, cpu())), ...chainTo(m, { cpu: 0, rip: 1, entry: 2, fn: 3 })];
  m.addFunction('chain', b.i32, b.i32, [b.i64, b.i32, b.i32], m.block(null, body, b.i32));
  const spent = m.i64.ge_u(m.i64.load(S_ICOUNT, 8, cpu()), m.i64.load(RUN_LIMIT, 8, m.i32.const(0)));
  m.addFunction(
    'chain_check',
    b.i32,
    b.i32,
    [],
    m.block(null, [m.if(spent, m.return(m.i32.const(EXIT_LIMIT))), m.return_call('chain', [cpu()], b.i32)], b.i32),
  );
  const result = () => m.local.get(1, b.i32);
  m.addFunction(
    'syscall_chain',
    b.i32,
    b.i32,
    [b.i32],
    m.block(
      null,
      [
        m.local.set(1, m.call('host_syscall', [cpu()], b.i32)),
        m.if(m.i32.gt_u(result(), m.i32.const(NEXT_CHECK)), m.return(result())),
        m.return_call('chain_check', [cpu()], b.i32),
      ],
      b.i32,
    ),
  );
}
