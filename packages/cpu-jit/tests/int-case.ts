/** Random instances of integer forms: an encoding, and states in which its operands lie where the harness has memory and code. */
import { decode } from '../src/decoder/index.ts';
import type { Form, Insn } from '../src/decoder/types.ts';
import { FS, GS } from '../src/layout.ts';
import type { MemoryChoice, SegmentOverride } from './encoder.ts';
import { FLAGS, type IntState, START, WINDOW, WINDOW_BYTES } from './int-vectors.ts';
import { type Prng, SPECIAL } from './prng.ts';
import { DATA, DATA_BYTES, FS_BASE, GS_BASE, READ_ONLY } from './program.ts';
import { type RandomInsn, randomInsn } from './random-instruction.ts';

const [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI] = [0, 1, 2, 3, 4, 5, 6, 7];
const RIP = 16;
const ALL = Array.from({ length: 16 }, (_, n) => n);
const STACK_USERS = new Set('push pop pushf popf call call_ind ret enter leave push_seg pop_seg callf'.split(' '));
export const STRINGS: ReadonlySet<string> = new Set('movs cmps stos lods scas'.split(' '));
const BIT_TESTS = new Set('bt bts btr btc'.split(' '));
const LOOPS = new Set('loop loope loopne jrcxz'.split(' '));
const MASK64 = (1n << 64n) - 1n;

/** Numbers registers and memory start from: special values and others, the same for all cases of a file. */
export function makePool(rng: Prng): bigint[] {
  const pool = new Set(SPECIAL);
  while (pool.size < 160) pool.add(rng.interesting());
  return [...pool];
}

/** A form with its bytes and where its memory operand lies. */
export interface Instance {
  readonly random: RandomInsn;
  readonly form: Form;
  readonly code: Uint8Array;
  /** Offset of the memory operand in the window. */
  readonly at: number;
}

/** Where a memory operand may lie, and the segment it is addressed through. */
export interface Placement {
  /** Segment override; absent: GS at times. */
  readonly segment?: SegmentOverride;
  /** Offset from the window, and alignment in bytes, of the memory operand; absent: any place in the window. */
  readonly at?: number;
  readonly align?: number;
}

/** A random encoding of the form; undefined when it cannot be tried this way. */
export function randomInstance(rng: Prng, form: Form, placement: Placement = {}): Instance | undefined {
  const { name } = form.row;
  for (let attempt = 0; attempt < 30; attempt++) {
    let at = 0;
    const addr32 = form.isMem && rng.oneIn(8);
    const mem = (size: number): MemoryChoice => {
      at = BIT_TESTS.has(name) ? 24 : rng.below(WINDOW_BYTES - Math.max(size, 1) + 1);
      if (name === 'cmpxchg16b') at &= ~15;
      if (name === 'jmp_ind' || name === 'call_ind' || STACK_USERS.has(name)) at &= ~7;
      at = placement.at ?? at & -(placement.align ?? 1);
      const gs = placement.segment === undefined && rng.oneIn(8);
      const segment = placement.segment ?? (gs ? 'gs' : undefined);
      const start = WINDOW - (segment === undefined ? 0 : segment === 'gs' ? GS_BASE : FS_BASE);
      const override = segment === undefined ? {} : { segment };
      if (form.row.operands.some((o) => o.startsWith('O'))) return { base: -1, index: -1, scale: 0, disp: start + at, ...override };
      const disp = rng.pick([0, rng.below(256) - 128, rng.below(0x10000) - 0x8000, 8]);
      const base = rng.below(16);
      const index = rng.pick(ALL.filter((n) => n !== RSP && n !== base));
      switch (rng.below(8)) {
        case 0:
          return { base: RIP, index: -1, scale: 0, disp: 0 };
        case 1:
          return { base: -1, index: -1, scale: 0, disp: start + at, ...override };
        case 2:
          return { base: -1, index, scale: rng.below(4), disp: WINDOW - 0x1000 + at, ...override };
        case 3:
        case 4:
          return { base, index, scale: rng.below(4), disp, ...override };
        default:
          return { base, index: -1, scale: 0, disp, ...override };
      }
    };
    const random = randomInsn(rng, form, { gprs: ALL, mem, addr32, ...(placement.segment === undefined ? {} : { segment: placement.segment }) });
    if (random === undefined) continue;
    const code = random.bytes.slice();
    if (random.ripField >= 0) new DataView(code.buffer).setInt32(random.ripField, WINDOW + at - (START + code.length), true);
    if (name === 'enter') code.set([rng.below(256), rng.below(16), rng.below(4)], code.length - 3);
    const insn = checked(code);
    if (insn === undefined || !isUsable(insn, name)) continue;
    return { random: { ...random, insn }, form, code, at };
  }
  return undefined;
}

function checked(code: Uint8Array): Insn | undefined {
  const bytes = new Uint8Array(16);
  bytes.set(code);
  const insn = decode(bytes, 0, 16, 64);
  return typeof insn === 'string' ? undefined : insn;
}

function isUsable(insn: Insn, name: string): boolean {
  // Direct branches end in the HLTs around, neither in themselves nor far away.
  if (insn.operands.some((o) => o.kind === 'rel')) {
    const target = insn.length + insn.immLow;
    if (Math.abs(target) > 0x1800 || (target > -16 && target < insn.length)) return false;
  }
  const registers = [insn.mem?.base ?? -1, insn.mem?.index ?? -1];
  // The bit offset must stay small, and the address of a conditional target must not be the target.
  const bit = BIT_TESTS.has(name) && insn.isMem ? insn.operands.find((o) => o.kind === 'gpr') : undefined;
  if (bit !== undefined && (registers.includes(insn.reg) || insn.reg === RSP)) return false;
  if ((name === 'jmp_ind' || name === 'call_ind') && !insn.isMem && (insn.opSize !== 8 || (insn.rm === RSP && name === 'call_ind'))) return false;
  return true;
}

/** A state to run the instance from. */
export function randomState(rng: Prng, instance: Instance, pool: readonly bigint[]): IntState {
  const gprs = Array.from({ length: 16 }, () => rng.pick(pool));
  const start = rng.below(pool.length);
  const memory = Array.from({ length: 8 }, (_, k) => pool[(start + k) % pool.length] ?? 0n);
  return arrange(rng, instance, gprs, memory);
}

/** The state with these registers and this memory, changed so that operands lie where they can be used, mostly. */
export function arrange(rng: Prng, { random, form, at }: Instance, gprs: bigint[], memory: bigint[]): IntState {
  const { insn } = random;
  const { name } = form.row;
  const size = BigInt(insn.opSize);
  const fixed = new Set<number>();
  const fix = (n: number, v: bigint) => {
    gprs[n] = v & MASK64;
    fixed.add(n);
  };
  /** Low part of an address register whose upper half may be anything. */
  const short = (v: bigint) => (form.row.asz === true && insn.addrSize === 4 ? (rng.u64() & 0xffff_ffff_0000_0000n) | (v & 0xffff_ffffn) : v);
  const codeAddress = () => BigInt(START + rng.pick([0x100, 0x7f, -0x200, 0x400]));
  let flags = rng.below(0x1000) & FLAGS;

  if (STACK_USERS.has(name)) fix(RSP, BigInt(WINDOW + 16 + 8 * rng.below(4)));
  if (name === 'leave') fix(RBP, BigInt(WINDOW + 8 * rng.between(1, 6)));
  if (name === 'enter') {
    fix(RSP, BigInt(WINDOW + 8 * rng.between(5, 7)));
    fix(RBP, BigInt(WINDOW + 8 * rng.between(3, 7)));
  }
  if (name === 'ret' || name === 'popf') {
    const word = (Number(gprs[RSP]) - WINDOW) / 8;
    memory[word] = name === 'ret' ? codeAddress() : BigInt(rng.below(0x1000) & FLAGS) | 0x202n;
  }
  if (STRINGS.has(name)) {
    const n = rng.below(5);
    const down = (flags & 0x400) !== 0;
    const span = insn.opSize * Math.max(n, 1);
    const place = () => short(BigInt(WINDOW + (down ? span - insn.opSize : 0) + rng.below(WINDOW_BYTES - span)));
    fix(RSI, place() - segmentBase(insn));
    fix(RDI, place());
    if (insn.rep !== 0) fix(RCX, short(BigInt(n)));
  } else flags &= rng.oneIn(4) ? FLAGS : 0x8d5;
  if (LOOPS.has(name)) fix(RCX, short(BigInt(rng.pick([0, 1, 2]))));
  if (name === 'xlat') fix(RBX, short(BigInt(WINDOW + rng.below(WINDOW_BYTES)) - segmentBase(insn) - ((gprs[RAX] ?? 0n) & 0xffn)));
  if (name === 'div' || name === 'idiv') {
    if (rng.oneIn(2)) fix(RDX, rng.pick([0n, MASK64]));
    if (insn.opSize === 1) fix(RAX, rng.oneIn(3) ? rng.u64() : BigInt(rng.below(0x4000)));
  }
  if (BIT_TESTS.has(name) && insn.isMem && insn.operands.some((o) => o.kind === 'gpr')) {
    const mask = (1n << (size * 8n)) - 1n;
    fix(insn.reg, (rng.u64() & ~mask) | (BigInt(rng.below(256) - 128) & mask));
  }
  if ((name === 'jmp_ind' || name === 'call_ind') && !insn.isMem) fix(insn.rm, codeAddress());
  placeMemory(rng, insn, gprs, fixed, at);
  const place = operandOffset(insn, gprs);
  if ((name === 'jmp_ind' || name === 'call_ind') && insn.isMem && place % 8 === 0 && place >= 0 && place < WINDOW_BYTES) memory[place / 8] = codeAddress();
  if (name.startsWith('cmpxchg') && rng.oneIn(2)) equalAccumulator(insn, gprs, fixed, memory, at);
  if (rng.oneIn(12)) misplace(rng, insn, gprs, fixed);
  return { gprs, flags, memory };
}

/** Moves an operand to where it faults, or can be read but not written. */
function misplace(rng: Prng, insn: Insn, gprs: bigint[], fixed: ReadonlySet<number>): void {
  const { name } = insn.row;
  const bad = BigInt(rng.pick([READ_ONLY + 0x40, DATA + DATA_BYTES + 0x40]));
  if (STRINGS.has(name)) gprs[rng.pick([RSI, RDI])] = bad;
  else if (name === 'xlat') gprs[RBX] = bad;
  else if (name === 'leave') gprs[RBP] = bad;
  else if (STACK_USERS.has(name) && (!insn.isMem || rng.oneIn(2))) gprs[RSP] = bad;
  else if (insn.mem !== null && insn.mem.base >= 0 && insn.mem.base !== RIP && !fixed.has(insn.mem.base)) {
    const size = insn.operands.find((o) => o.kind === 'mem')?.size ?? 0;
    const crossing = size > 1 && !BIT_TESTS.has(name) && rng.oneIn(3);
    placeMemory(rng, insn, gprs, fixed, (crossing ? DATA + DATA_BYTES - rng.between(1, size - 1) : Number(bad)) - WINDOW);
  }
}

/** Gives base and index values that make the operand's address WINDOW + at. */
function placeMemory(rng: Prng, insn: Insn, gprs: bigint[], fixed: ReadonlySet<number>, at: number): void {
  const { mem } = insn;
  if (mem === null || insn.row.operands.some((o) => o.startsWith('O'))) return;
  const narrow = insn.addrSize === 4;
  const upper = () => (narrow ? rng.u64() & 0xffff_ffff_0000_0000n : 0n);
  const wrap = (v: bigint) => (narrow ? (v & 0xffff_ffffn) | upper() : v & MASK64);
  // POP computes its address after it has moved RSP.
  const moved = insn.row.name === 'pop' && mem.base === RSP ? BigInt(insn.opSize) : 0n;
  const target = BigInt(WINDOW + at) - BigInt(mem.disp) - moved - segmentBase(insn);
  if (mem.base < 0) {
    if (mem.index >= 0) gprs[mem.index] = wrap(target >> BigInt(mem.scale));
    return;
  }
  if (mem.base === RIP || fixed.has(mem.base)) return;
  const index = mem.index < 0 ? 0n : (gprs[mem.index] ?? 0n) << BigInt(mem.scale);
  gprs[mem.base] = wrap(target - index);
}

/** Makes a CMPXCHG succeed where that is easy to see. */
function equalAccumulator(insn: Insn, gprs: bigint[], fixed: ReadonlySet<number>, memory: readonly bigint[], at: number): void {
  const addressing = [insn.mem?.base, insn.mem?.index];
  if ([RAX, RDX].some((n) => fixed.has(n) || addressing.includes(n))) return;
  if (!insn.isMem) {
    gprs[RAX] = gprs[insn.rm] ?? 0n;
    return;
  }
  const bytes = new Uint8Array(WINDOW_BYTES + 16);
  const view = new DataView(bytes.buffer);
  for (const [k, v] of memory.entries()) view.setBigUint64(k * 8, v, true);
  const low = view.getBigUint64(at, true);
  const high = view.getBigUint64(at + 8, true);
  gprs[RAX] = low;
  if (insn.row.name === 'cmpxchg16b') gprs[RDX] = high;
  else if (insn.row.name === 'cmpxchg8b') gprs[RDX] = low >> 32n;
}

/** Base of the segment of the memory operand, explicit or implicit. */
export const segmentBase = (insn: Insn): bigint => (insn.seg === GS ? BigInt(GS_BASE) : insn.seg === FS ? BigInt(FS_BASE) : 0n);

/** Offset of the memory operand in the window; NaN when it has none that depends on registers. */
function operandOffset(insn: Insn, gprs: readonly bigint[]): number {
  const { mem } = insn;
  if (mem === null || insn.row.operands.some((o) => o.startsWith('O'))) return Number.NaN;
  if (mem.base === RIP) return START + insn.length + mem.disp - WINDOW;
  const index = mem.index < 0 ? 0n : (gprs[mem.index] ?? 0n) << BigInt(mem.scale);
  const moved = insn.row.name === 'pop' && mem.base === RSP ? BigInt(insn.opSize) : 0n;
  const ea = (mem.base < 0 ? 0n : (gprs[mem.base] ?? 0n)) + index + BigInt(mem.disp) + moved;
  return Number(((ea & (insn.addrSize === 4 ? 0xffff_ffffn : MASK64)) + segmentBase(insn)) & MASK64) - WINDOW;
}

/** Whether addresses computed from the state are what native runs and guests both have: the window, a page that cannot be written, or nothing. */
export function isReplayable({ random, form, at }: Instance, s: IntState): boolean {
  const { insn } = random;
  const { name } = form.row;
  const offset = operandOffset(insn, s.gprs);
  if (Number.isNaN(offset) || name === 'lea' || name === 'nop') return true;
  const size = Math.max(insn.operands.find((o) => o.kind === 'mem')?.size ?? 0, 1);
  const end = WINDOW + offset + size;
  const readOnly = WINDOW + offset >= READ_ONLY && end <= READ_ONLY + 0x800;
  const nothing = end > DATA + DATA_BYTES && end < DATA + DATA_BYTES + 0x800;
  if (readOnly || nothing) return true;
  if (BIT_TESTS.has(name)) return offset === at;
  if ((name === 'jmp_ind' || name === 'call_ind') && offset % 8 !== 0) return false;
  return offset >= 0 && offset + size <= WINDOW_BYTES;
}
