import type { Insn } from '../decoder/types.ts';
import { type RegionCode, successors } from './region.ts';

/**
 * How many general registers a region keeps in Wasm locals. V8 has some thirteen machine registers, and moves every local that does not fit
 * between places in its frame wherever control flow meets; a register that stays in the state block costs a load or a store where it is used.
 */
const MAX_LOCALS = 10;
/** An instruction in a loop counts so many times one outside; loops inside deeper ones do not count more. */
const LOOP_WEIGHT = 8;
const MAX_DEPTH = 3;

const [RAX, RCX, RDX, RSP, RBP, RSI, RDI] = [0, 1, 2, 4, 5, 6, 7];
const STACK = new Set('push pop call call_ind ret leave enter pushf popf'.split(' '));
const WIDE = new Set('mul imul1 div idiv cwd'.split(' '));

/** General registers that an instruction reads or writes; those that it does so without naming them, as far as they matter. */
function registersOf(insn: Insn, codeSize: number): number[] {
  const found: number[] = [];
  for (const o of insn.operands) {
    if (o.kind !== 'gpr') continue;
    const n = o.field === 'reg' ? insn.reg : o.field === 'rm' ? insn.rm : o.field === 'vvvv' ? insn.vvvv : (o.fixed ?? 0);
    found.push(o.size === 1 && !insn.rex && n >= 4 && n < 8 && o.field !== 'fixed' ? n - 4 : n & (codeSize === 64 ? 15 : 7));
  }
  if (insn.mem !== null) found.push(insn.mem.base, insn.mem.index);
  const { name } = insn.row;
  if (STACK.has(name)) found.push(RSP);
  if (name === 'leave' || name === 'enter') found.push(RBP);
  if (WIDE.has(name)) found.push(RAX, RDX);
  if (insn.row.rep === true) found.push(RCX, RSI, RDI);
  return found.filter((n) => n >= 0 && n < 16);
}

/** The general registers (bit set) that stay in the state block while the region runs: those that it uses least, when it uses many. */
export function registersInMemory(region: RegionCode): number {
  const depth = new Map<number, number>();
  for (const block of region.blocks.values()) {
    const last = block.insns.at(-1);
    if (last === undefined || last.row.name === 'call') continue;
    for (const to of successors(last, block.end - last.length)) {
      if (to > block.start || !region.blocks.has(to)) continue;
      for (const start of region.blocks.keys()) if (start >= to && start <= block.start) depth.set(start, (depth.get(start) ?? 0) + 1);
    }
  }
  const uses = new Array<number>(16).fill(0);
  for (const block of region.blocks.values()) {
    const weight = LOOP_WEIGHT ** Math.min(depth.get(block.start) ?? 0, MAX_DEPTH);
    for (const insn of block.insns) for (const n of registersOf(insn, region.codeSize)) uses[n] = (uses[n] ?? 0) + weight;
  }
  const used = [...uses.keys()].filter((n) => (uses[n] ?? 0) > 0).sort((a, b) => (uses[b] ?? 0) - (uses[a] ?? 0));
  return used.slice(MAX_LOCALS).reduce((set, n) => set | (1 << n), 0);
}
