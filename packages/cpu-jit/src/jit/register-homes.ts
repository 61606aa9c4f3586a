import type { Insn } from '../decoder/types.ts';
import { type GuestBlock, type RegionCode, successors } from './region.ts';

/**
 * How many general registers a region keeps in Wasm locals. V8 has some thirteen machine registers, and moves every local that does not fit
 * between places in its frame wherever control flow meets; a register that stays in the state block costs a load or a store where it is used.
 */
const MAX_LOCALS = 10;
/** An instruction in a loop counts so many times one outside; loops inside deeper ones do not count more. */
const LOOP_WEIGHT = 8;
const MAX_DEPTH = 3;
/** An instruction of the block that ran most often, where that was counted, counts so many of those that only are in no loop. */
const COUNTED_WEIGHT = 64 * LOOP_WEIGHT ** MAX_DEPTH;

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

/** In how many loops each block of the code is, by what its backward branches go over; second versions of loops are no code of their own. */
function depths(region: RegionCode): ReadonlyMap<number, number> {
  const depth = new Map<number, number>();
  const blocks = [...region.blocks.values()].filter(({ copy }) => copy === undefined);
  for (const block of blocks) {
    const last = block.insns.at(-1);
    if (last === undefined || last.row.name === 'call') continue;
    for (const to of successors(last, block.end - last.length)) {
      if (to > block.start || !region.blocks.has(to)) continue;
      for (const { start } of blocks) if (start >= to && start <= block.start) depth.set(start, (depth.get(start) ?? 0) + 1);
    }
  }
  return depth;
}

/** How often each block runs, those included that the block before it runs into. */
function frequencies(region: RegionCode): ReadonlyMap<number, number> {
  const found = new Map<number, number>();
  const blocks = [...region.blocks.values()].filter(({ copy }) => copy === undefined).sort((a, b) => a.start - b.start);
  let before: GuestBlock | undefined;
  for (const block of blocks) {
    const falls = before !== undefined && before.end === block.start && before.insns.at(-1)?.row.end !== true;
    found.set(block.start, (block.rate ?? 0) + (falls ? (found.get(before?.start ?? 0) ?? 0) : 0));
    before = block;
  }
  return found;
}

/** The general registers (bit set) that stay in the state block while the region runs: those that it uses least, when it uses many. */
export function registersInMemory(region: RegionCode): number {
  const depth = depths(region);
  const often = frequencies(region);
  const most = Math.max(...often.values());
  const weightOf = (start: number): number => {
    const guessed = LOOP_WEIGHT ** Math.min(depth.get(start) ?? 0, MAX_DEPTH);
    return most === 0 ? guessed : ((often.get(start) ?? 0) / most) * COUNTED_WEIGHT + guessed;
  };
  const uses = new Array<number>(16).fill(0);
  for (const block of region.blocks.values()) {
    const weight = weightOf(block.copy?.of ?? block.start);
    for (const insn of block.insns) for (const n of registersOf(insn, region.codeSize)) uses[n] = (uses[n] ?? 0) + weight;
  }
  const used = [...uses.keys()].filter((n) => (uses[n] ?? 0) > 0).sort((a, b) => (uses[b] ?? 0) - (uses[a] ?? 0));
  return used.slice(MAX_LOCALS).reduce((set, n) => set | (1 << n), 0);
}
