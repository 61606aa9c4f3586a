import binaryen from 'binaryen';
import type { Insn } from '../decoder/types.ts';
import type { Emitter } from '../emit/emitter.ts';
import { WASM_FEATURES } from '../emit/features.ts';
import { TABLE } from '../emit/handler-emitter.ts';
import {
  CR0_EM_TS,
  EXIT_LIMIT,
  JC_CTX,
  JC_ENTRY_SIZE,
  JC_FN,
  JC_RIP,
  MXCSR_CONTROLS,
  MXCSR_DEFAULT,
  NEXT,
  NEXT_CHECK,
  NEXT_INTERPRET,
  S_CR0,
  S_CTX,
  S_ICOUNT,
  S_ICOUNT_LIMIT,
  S_JC,
  S_MXCSR,
  S_RIP,
  S_TLB,
} from '../layout.ts';
import { semantics } from '../semantics/index.ts';
import { addBranchHints } from './branch-hints.ts';
import { jumpCacheIndex } from './jump-cache.ts';
import type { Region } from './region.ts';
import { type BlockCode, RegionEmitter } from './region-emitter.ts';
import { fixedLocals, type Imports, LOCAL } from './region-state.ts';

/** Indirect branches compare with so few targets one by one; more are searched and switched on. */
const MAX_COMPARED_TARGETS = 3;

/** Compiles regions into one Wasm module that exports function `r<i>` for region i. */
export function compileRegions(regions: readonly Region[]): Uint8Array {
  const m = new binaryen.Module();
  try {
    m.setFeatures(WASM_FEATURES);
    m.setMemory(1, 65536, undefined, [], true);
    m.addMemoryImport('0', 'env', 'memory', true);
    m.addTable(TABLE, 1, -1);
    m.addTableImport(TABLE, 'env', 'table');
    const imports: Imports = new Map();
    addChains(m);
    for (const [i, region] of regions.entries()) {
      addRegion(m, region, `r${i}`, imports);
      m.addFunctionExport(`r${i}`, `r${i}`);
    }
    for (const [name, { params, result }] of imports) {
      m.addFunctionImport(name, 'env', name, binaryen.createType(params.map((p) => binaryen[p])), binaryen[result]);
    }
    m.addFunctionImport('host_syscall', 'env', 'host_syscall', binaryen.i32, binaryen.i32);
    return addBranchHints(m.emitBinary());
  } finally {
    m.dispose();
  }
}

/** The text of the module for regions, for people. */
export function disassemble(wasm: Uint8Array): string {
  const m = binaryen.readBinary(wasm);
  try {
    return m.emitText();
  } finally {
    m.dispose();
  }
}

function runSemantics(insn: Insn, e: Emitter): void {
  const f = semantics[insn.row.name];
  if (f === undefined) e.raise(6);
  else f(e);
}

function addRegion(m: binaryen.Module, region: Region, name: string, imports: Imports): void {
  const b = binaryen;
  const first = region.blocks.get(0)?.insns[0];
  if (first === undefined) throw new RangeError('a region has at least one instruction');
  const e = new RegionEmitter(b, m, region, first, imports);
  const codes = new Map<number, BlockCode>();
  for (const [start, block] of region.blocks) codes.set(start, e.emitBlock(block, runSemantics));

  const relooper = new b.Relooper(m);
  const nodes = new Map<number, number>();
  for (const [start, code] of codes) {
    const t = code.terminator;
    const isSwitch = t.kind === 'indirect' && t.targets.length > MAX_COMPARED_TARGETS;
    nodes.set(start, isSwitch ? relooper.addBlockWithSwitch(code.code, e.targetIndex(t)) : relooper.addBlock(code.code));
  }
  const node = (start: number): number => {
    const n = nodes.get(start);
    if (n === undefined) throw new Error('a branch inside a region goes to one of its blocks');
    return n;
  };
  for (const [start, code] of codes) {
    const t = code.terminator;
    if (t.kind === 'ended') continue;
    if (t.kind === 'indirect') {
      for (const [i, target] of t.targets.entries()) {
        const check = e.backEdgeCode(target);
        if (t.targets.length > MAX_COMPARED_TARGETS) relooper.addBranchForSwitch(node(start), node(target), [i], check);
        else relooper.addBranch(node(start), node(target), e.isTarget(t, target), check);
      }
      const out = relooper.addBlock(e.exitCode({ rip: t.rip }, true));
      if (t.targets.length > MAX_COMPARED_TARGETS) relooper.addBranchForSwitch(node(start), out, [], 0);
      else relooper.addBranch(node(start), out, 0, 0);
      continue;
    }
    const edge = (to: number, backward: boolean): { to: number; code: number } =>
      codes.has(to) ? { to: node(to), code: backward ? e.backEdgeCode(to) : 0 } : { to: relooper.addBlock(e.exitCode(to, backward)), code: 0 };
    const taken = edge(t.to, t.backward);
    if (t.kind === 'goto' || t.to === t.next) {
      relooper.addBranch(node(start), taken.to, 0, taken.code);
      continue;
    }
    const next = edge(t.next, false);
    relooper.addBranch(node(start), taken.to, m.local.get(t.condition, b.i32), taken.code);
    relooper.addBranch(node(start), next.to, 0, next.code);
  }

  const cpu = () => m.local.get(LOCAL.cpu, b.i32);
  const body = [
    m.local.set(LOCAL.tlb, m.i32.load(S_TLB, 4, cpu())),
    m.local.set(LOCAL.rip, m.i64.load(S_RIP, 8, cpu())),
    m.local.set(LOCAL.icount, m.i64.load(S_ICOUNT, 8, cpu())),
  ];
  if (e.usesSse) {
    const blocked = m.i32.and(m.i32.load(S_CR0, 4, cpu()), m.i32.const(CR0_EM_TS));
    body.unshift(m.if(blocked, m.return(m.i32.const(NEXT_INTERPRET))));
  }
  if (e.usesFloat) {
    const controls = m.i32.and(m.i32.load(S_MXCSR, 4, cpu()), m.i32.const(MXCSR_CONTROLS));
    body.unshift(m.if(m.i32.ne(controls, m.i32.const(MXCSR_DEFAULT)), m.return(m.i32.const(NEXT_INTERPRET))));
  }
  body.push(e.finish(() => relooper.renderAndDispose(node(0), LOCAL.label)));
  m.addFunction(name, b.i32, b.i32, [...fixedLocals(b), ...e.extraLocals], m.block(null, body, b.i32));
}

/** `chain(cpu)`: tail-calls the compiled code for S_RIP, or returns to the dispatcher. `chain_check` compares the budget first. */
function addChains(m: binaryen.Module): void {
  const b = binaryen;
  const cpu = () => m.local.get(0, b.i32);
  const rip = () => m.local.get(1, b.i64);
  const entry = () => m.local.get(2, b.i32);
  const fn = () => m.local.get(3, b.i32);
  const hit = m.i32.and(m.i64.eq(m.i64.load(JC_RIP, 8, entry()), rip()), m.i32.eq(m.i32.load(JC_CTX, 4, entry()), m.i32.load(S_CTX, 4, cpu())));
  const body = [
    m.local.set(1, m.i64.load(S_RIP, 8, cpu())),
    m.local.set(2, m.i32.add(m.i32.load(S_JC, 4, cpu()), m.i32.mul(jumpCacheIndex(m, rip), m.i32.const(JC_ENTRY_SIZE)))),
    m.if(hit, m.if(m.local.tee(3, m.i32.load(JC_FN, 4, entry()), b.i32), m.return_call_indirect(TABLE, fn(), [cpu()], b.i32, b.i32))),
    m.i32.const(NEXT),
  ];
  m.addFunction('chain', b.i32, b.i32, [b.i64, b.i32, b.i32], m.block(null, body, b.i32));
  const spent = m.i64.ge_u(m.i64.load(S_ICOUNT, 8, cpu()), m.i64.load(S_ICOUNT_LIMIT, 8, cpu()));
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
