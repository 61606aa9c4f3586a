/** States that recorded cases start from. They are computed from a seed, so that vectors need to hold results only: what is here must stay as it is. */
import type { Insn } from '../src/decoder/types.ts';
import { type CodeMode, codeBase, isWithinLimit, type Segment, segmentBase, stackBits } from './code-modes.ts';
import { baseState, MEMORY_WORDS, SLOT, statesOf, type ValueKind } from './form-state.ts';
import { BIT_TESTS, baseOf, codeSelector, type Instance, isInteger, STACK_USERS } from './instance.ts';
import { Prng, SPECIAL } from './prng.ts';
import { DATA, DATA_BYTES, READ_ONLY } from './program.ts';
import { setOperands } from './special-operands.ts';
import { AREAS, FLAGS, START, WINDOW, WINDOW_BYTES } from './window.ts';

const [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI] = [0, 1, 2, 3, 4, 5, 6, 7];
const RIP = 16;
const STATUS = 0x8d5;
const STRINGS: ReadonlySet<string> = new Set('movs cmps stos lods scas ins outs'.split(' '));
const LOOPS: ReadonlySet<string> = new Set('loop loope loopne jrcxz'.split(' '));
const MASK64 = (1n << 64n) - 1n;
const LOW32 = 0xffff_ffffn;

/** Numbers that integer cases start from. */
const POOL: readonly bigint[] = (() => {
  const rng = new Prng(0x706f_6f6c);
  const pool = new Set(SPECIAL);
  while (pool.size < 251) pool.add(rng.interesting());
  return [...pool];
})();

/** What the operands of an instruction are, by its name. */
function valueKind(name: string): ValueKind {
  const legacy = name.startsWith('v') && !name.startsWith('ver') ? name.slice(1) : name;
  if (/^pcmp[ei]str/.test(legacy)) return 'string';
  if (/^cvtt?(ps|ss)2|^(u?comiss)|[^c](ps|ss)$|_m32$/.test(legacy) && !/^fi/.test(legacy)) return 'single';
  if (/^cvtt?(pd|sd)2|[^n](pd|sd)$|_m64$/.test(legacy) && !/^fi/.test(legacy)) return 'double';
  if (/_m80$/.test(legacy)) return 'extended';
  if (/^fb/.test(legacy)) return 'bcd';
  return 'int';
}

/** A state while it is being made: its slots, and which registers hold addresses already. */
export class Draft {
  readonly rng: Prng;
  readonly instance: Instance;
  readonly state: BigUint64Array;
  readonly fixed = new Set<number>();

  constructor(rng: Prng, instance: Instance, state: BigUint64Array) {
    this.rng = rng;
    this.instance = instance;
    this.state = state;
  }
  get insn(): Insn {
    return this.instance.insn;
  }
  get mode(): CodeMode {
    return this.instance.mode;
  }
  reg(n: number): bigint {
    return this.state[SLOT.gpr + n] ?? 0n;
  }
  set(n: number, v: bigint): void {
    this.state[SLOT.gpr + n] = v & MASK64;
  }
  fix(n: number, v: bigint): void {
    this.set(n, v);
    this.fixed.add(n);
  }
  word(k: number): bigint {
    return this.state[SLOT.memory + k] ?? 0n;
  }
  setWord(k: number, v: bigint): void {
    if (k >= 0 && SLOT.memory + k < this.state.length) this.state[SLOT.memory + k] = v & MASK64;
  }
  /** Writes `size` bytes at a byte offset of the window; nothing outside of it. */
  setMemory(at: number, value: bigint, size: number): void {
    const view = new DataView(this.state.buffer, this.state.byteOffset + SLOT.memory * 8);
    for (let i = 0; i < size; i++) if (at + i >= 0 && at + i < WINDOW_BYTES) view.setUint8(at + i, Number((value >> BigInt(i * 8)) & 0xffn));
  }
  /** `value` in the low bits of a register, anything above them. */
  narrow(value: bigint, bits: number): bigint {
    const mask = (1n << BigInt(bits)) - 1n;
    return bits === 64 ? value & mask : (this.rng.u64() & ~mask & MASK64) | (value & mask);
  }
  /** The same for an address register of an instruction that has an address size of its own. */
  address(value: bigint): bigint {
    return this.insn.row.asz === true ? this.narrow(value, this.insn.addrSize * 8) : value;
  }
  /** Makes the stack pointer, or a frame pointer, lead to `at` in the window. */
  pointTo(n: number, at: number): void {
    this.fix(n, this.narrow(BigInt(WINDOW + at - segmentBase(this.mode, 2)), stackBits(this.mode)));
  }
  /** Offset in the window that RSP leads to. */
  get stackAt(): number {
    const offset = Number(this.reg(RSP) & ((1n << BigInt(stackBits(this.mode))) - 1n));
    return offset + segmentBase(this.mode, 2) - WINDOW;
  }
  /** Offset, relative to CS, or the code segment that `selector` names, of HLTs near the instruction. */
  codeOffset(selector?: number): bigint {
    const base = selector === undefined ? segmentBase(this.mode, 1) : codeBase(selector);
    return BigInt(START + this.rng.pick([0x100, 0x7f, -0x200, 0x400]) - base);
  }
  codeSelector(): number {
    return codeSelector(this.rng, this.mode);
  }
}

/** Base state `number` with the memory of `area`: the words of the window, repeated. */
function startState(number: number, area: number): BigUint64Array {
  const base = baseState(number);
  const words = AREAS[area]?.words ?? 0;
  const state = new BigUint64Array(SLOT.memory + words);
  state.set(base.subarray(0, SLOT.memory));
  for (let k = 0; k < words; k++) state[SLOT.memory + k] = base[SLOT.memory + (k % MEMORY_WORDS)] ?? 0n;
  return state;
}

/** The state that case `seed` of an instance starts from; undefined when its operands would lie where there is nothing to compare. */
export function inputOf(instance: Instance, seed: number): BigUint64Array | undefined {
  const { insn, mode } = instance;
  const { name } = insn.row;
  const rng = new Prng(BigInt(seed));
  const kind = valueKind(name);
  const draft = new Draft(
    rng,
    instance,
    startState(rng.pick(statesOf(rng.oneIn(4) ? rng.pick(['int', 'single', 'double', 'extended']) : kind)), instance.area),
  );
  const { state } = draft;
  if (isInteger(insn)) {
    const random = Number(rng.u64() & LOW32);
    for (let n = 0; n < 16; n++) state[n] = POOL[hash(random, n) % POOL.length] ?? 0n;
    for (let k = 0; k < MEMORY_WORDS; k++) state[SLOT.memory + k] = POOL[hash(random, 16 + k) % POOL.length] ?? 0n;
  }
  arrange(draft);
  setOperands(draft);
  const [es, cs, ss, ds, fs, gs] = mode.segments;
  const pack = (...list: readonly Segment[]) => list.reduce((sum, { selector }, n) => sum | (BigInt(selector) << BigInt(16 * n)), 0n);
  state[SLOT.selectors] = pack(es, ds, fs, gs);
  state[SLOT.codeStack] = pack(cs, ss);
  state[SLOT.fsBase] = BigInt(fs.base);
  state[SLOT.gsBase] = BigInt(gs.base);
  if (mode.codeSize !== 64) narrowToLegacy(state);
  return instance.area === 1 || isReplayable(instance, state) ? state : undefined;
}

/** What 32-bit code has of the registers. */
export function narrowToLegacy(state: BigUint64Array): void {
  for (let n = 0; n < 16; n++) state[n] = n < 8 ? (state[n] ?? 0n) & LOW32 : 0n;
  state.fill(0n, SLOT.xmm + 16, SLOT.xmm + 32);
  state.fill(0n, SLOT.high + 16, SLOT.high + 32);
}

/** 32 bits of a case's random number and the number of a register. */
function hash(random: number, n: number): number {
  let x = Math.imul(random ^ Math.imul(n + 1, 0x9e37_79b1), 0x85eb_ca6b);
  x = Math.imul(x ^ (x >>> 15), 0xc2b2_ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** Makes operands lie where they can be used, mostly. */
function arrange(d: Draft): void {
  const { rng, insn, mode } = d;
  const { name } = insn.row;
  const size = BigInt(insn.opSize);
  let flags = rng.below(0x1000) & FLAGS;
  if (STACK_USERS.has(name)) d.pointTo(RSP, 16 + 8 * rng.below(4));
  if (name === 'pusha') d.pointTo(RSP, 32 + 8 * rng.below(4));
  if (name === 'popa') d.pointTo(RSP, 4 * rng.below(9));
  if (name === 'leave') d.pointTo(RBP, 8 * rng.between(1, 6));
  if (name === 'enter') {
    d.pointTo(RSP, 8 * rng.between(5, 7));
    d.pointTo(RBP, 8 * rng.between(3, 7));
  }
  if (name === 'ret') d.setWord(d.stackAt / 8, d.codeOffset());
  if (name === 'popf') d.setWord(d.stackAt / 8, BigInt(rng.below(0x1000) & FLAGS) | 0x202n);
  if (STRINGS.has(name)) {
    const n = rng.below(5);
    const span = insn.opSize * Math.max(n, 1);
    const place = (base: bigint) => {
      const at = WINDOW + ((flags & 0x400) !== 0 ? span - insn.opSize : 0) + rng.below(WINDOW_BYTES - span);
      return d.address(BigInt(at) - base);
    };
    d.fix(RSI, place(baseOf(d.instance)));
    d.fix(RDI, place(BigInt(segmentBase(mode, 0))));
    if (insn.rep !== 0) d.fix(RCX, d.address(BigInt(n)));
  } else flags &= rng.oneIn(4) ? FLAGS : STATUS;
  if (LOOPS.has(name)) d.fix(RCX, d.address(BigInt(rng.pick([0, 1, 2]))));
  if (name === 'xlat') d.fix(RBX, d.address(BigInt(WINDOW + rng.below(WINDOW_BYTES)) - baseOf(d.instance) - (d.reg(RAX) & 0xffn)));
  if (name === 'div' || name === 'idiv') {
    if (rng.oneIn(2)) d.fix(RDX, rng.pick([0n, MASK64]));
    if (insn.opSize === 1) d.fix(RAX, rng.oneIn(3) ? rng.u64() : BigInt(rng.below(0x4000)));
  }
  if (BIT_TESTS.has(name) && insn.isMem && insn.operands.some((o) => o.kind === 'gpr')) {
    const mask = (1n << (size * 8n)) - 1n;
    d.fix(insn.reg, (rng.u64() & ~mask) | (BigInt(rng.below(256) - 128) & mask));
  }
  const isIndirect = name === 'jmp_ind' || name === 'call_ind';
  if (isIndirect && !insn.isMem) d.fix(insn.rm, d.codeOffset());
  placeMemory(d, WINDOW + d.instance.at);
  if (isIndirect && insn.isMem) d.setMemory(linearOf(d.instance, d.state) - WINDOW, d.codeOffset(), insn.opSize);
  if (name.startsWith('cmpxchg') && rng.oneIn(2)) equalAccumulator(d);
  if (rng.oneIn(12)) misplace(d);
  d.state[SLOT.flags] = BigInt(flags);
}

/** Moves an operand to where it faults, or can be read but not written. */
function misplace(d: Draft): void {
  const { rng, insn, mode } = d;
  const { name } = insn.row;
  const bad = rng.pick([READ_ONLY + 0x40, DATA + DATA_BYTES + 0x40]);
  const offset = (n: number) => BigInt(bad - segmentBase(mode, n));
  /** Near the largest offset of a segment. What becomes of an access that wraps around 4 GiB is the processor's own (SDM vol. 3, 5.3). */
  const last = (limit: number) => BigInt(limit - rng.below(6));
  const beyond = (n: number) => {
    const limit = mode.codeSize === 64 ? Number.MAX_VALUE : (mode.segments[n]?.limit ?? 0);
    return limit < 0x10_0000 && rng.oneIn(2) ? last(limit) : offset(n);
  };
  if (STRINGS.has(name)) rng.oneIn(2) ? d.set(RSI, beyond(insn.seg)) : d.set(RDI, beyond(0));
  else if (name === 'xlat') d.set(RBX, beyond(insn.seg));
  else if (name === 'leave') d.set(RBP, offset(2));
  else if (STACK_USERS.has(name) && (!insn.isMem || rng.oneIn(2))) d.set(RSP, offset(2));
  else if (insn.mem !== null && insn.mem.base >= 0 && insn.mem.base !== RIP && !d.fixed.has(insn.mem.base)) {
    const size = insn.operands.find((o) => o.kind === 'mem')?.size ?? 0;
    // Which address a masked access over the end of a page faults at is the processor's own.
    const isCrossing = size > 1 && !BIT_TESTS.has(name) && !name.includes('maskmov') && rng.oneIn(3);
    // Over the end of the data, or of the segment.
    const segment = mode.segments[insn.seg];
    const end =
      mode.codeSize !== 64 && segment !== undefined && segment.limit < 0x10_0000 && rng.oneIn(2) ? segment.base + segment.limit + 1 : DATA + DATA_BYTES;
    placeMemory(d, isCrossing ? end - rng.between(1, size - 1) : bad);
  }
}

/** Gives base and index values that make the operand's linear address `linear`. */
function placeMemory(d: Draft, linear: number): void {
  const { insn } = d;
  const { mem } = insn;
  if (mem === null || insn.row.operands.some((o) => o.startsWith('O'))) return;
  const bits = insn.addrSize * 8;
  if (insn.operands.some((o) => o.field === 'vsib')) return placeGather(d, linear);
  const target = BigInt(linear) - BigInt(mem.disp) - poppedBefore(insn) - baseOf(d.instance);
  if (mem.base < 0) {
    if (mem.index >= 0) d.set(mem.index, d.narrow(target >> BigInt(mem.scale), bits));
    return;
  }
  if (mem.base === RIP || d.fixed.has(mem.base)) return;
  const index = mem.index < 0 ? 0n : d.reg(mem.index) << BigInt(mem.scale);
  d.set(mem.base, d.narrow(target - index, bits));
}

/** Indexes that lead into the window from its middle, which the base register points to. */
function placeGather(d: Draft, linear: number): void {
  const { rng, insn, state } = d;
  const { mem } = insn;
  if (mem === null) return;
  const MIDDLE = 28;
  d.set(mem.base, BigInt(linear - d.instance.at + MIDDLE - mem.disp) - baseOf(d.instance));
  const reach = MIDDLE >> mem.scale;
  const wide = insn.row.operands[1] === 'vm64x';
  const view = new DataView(state.buffer, state.byteOffset);
  for (const at of [SLOT.xmm + mem.index * 2, SLOT.high + mem.index * 2]) {
    for (let i = 0; i < 16; i += wide ? 8 : 4) {
      const index = rng.below(2 * reach + 1) - reach;
      if (wide) view.setBigInt64(at * 8 + i, BigInt(index), true);
      else view.setInt32(at * 8 + i, index, true);
    }
  }
}

/** POP computes its address after it has moved RSP. */
const poppedBefore = (insn: Insn): bigint => (insn.row.name === 'pop' && insn.mem?.base === RSP ? BigInt(insn.opSize) : 0n);

/** Makes a CMPXCHG succeed where that is easy to see. */
function equalAccumulator(d: Draft): void {
  const { insn, instance } = d;
  const addressing = [insn.mem?.base, insn.mem?.index];
  if ([RAX, RDX].some((n) => d.fixed.has(n) || addressing.includes(n))) return;
  if (!insn.isMem) return d.set(RAX, d.reg(insn.rm));
  const bytes = new Uint8Array(WINDOW_BYTES + 16);
  bytes.set(new Uint8Array(d.state.buffer, d.state.byteOffset + SLOT.memory * 8, WINDOW_BYTES));
  const view = new DataView(bytes.buffer);
  const low = view.getBigUint64(instance.at, true);
  d.set(RAX, low);
  if (insn.row.name === 'cmpxchg16b') d.set(RDX, view.getBigUint64(instance.at + 8, true));
  else if (insn.row.name === 'cmpxchg8b') d.set(RDX, low >> 32n);
}

/** Offset of the memory operand in its segment; NaN when it has none. */
function offsetOf(instance: Instance, state: BigUint64Array): number {
  const { insn } = instance;
  const { mem } = insn;
  if (mem === null) return Number.NaN;
  if (mem.base === RIP) return START + insn.length + mem.disp;
  const reg = (n: number) => (n < 0 ? 0n : (state[n] ?? 0n));
  const ea = reg(mem.base) + (reg(mem.index) << BigInt(mem.scale)) + BigInt(mem.disp) + poppedBefore(insn);
  return Number(ea & ((1n << BigInt(insn.addrSize * 8)) - 1n));
}

/** Linear address of the memory operand. */
function linearOf(instance: Instance, state: BigUint64Array): number {
  const linear = offsetOf(instance, state) + Number(baseOf(instance));
  return instance.mode.codeSize === 64 || Number.isNaN(linear) ? linear : linear % 2 ** 32;
}

/** Whether addresses computed from the state are what native runs and guests both have: the window, a page that cannot be written, or nothing. */
function isReplayable(instance: Instance, state: BigUint64Array): boolean {
  const { insn, mode } = instance;
  const { name } = insn.row;
  if (insn.mem === null || name === 'lea' || name === 'nop' || insn.operands.some((o) => o.field === 'vsib')) return true;
  if (insn.row.operands.some((o) => o.startsWith('O'))) return true;
  const size = Math.max(insn.operands.find((o) => o.kind === 'mem')?.size ?? 0, 1);
  const at = linearOf(instance, state);
  if (BIT_TESTS.has(name) && at === WINDOW + instance.at) return true;
  if (!isWithinLimit(mode, insn.seg, offsetOf(instance, state), size)) return true;
  const end = at + size;
  const isNothing = (end > DATA + DATA_BYTES && end < DATA + DATA_BYTES + 0x800) || end < 0x1_0000;
  if ((at >= READ_ONLY && end <= READ_ONLY + 0x800) || isNothing) return !BIT_TESTS.has(name) || isNothing;
  if (BIT_TESTS.has(name)) return false;
  if ((name === 'jmp_ind' || name === 'call_ind') && (at - WINDOW) % insn.opSize !== 0) return false;
  return at >= WINDOW && end <= WINDOW + WINDOW_BYTES;
}
