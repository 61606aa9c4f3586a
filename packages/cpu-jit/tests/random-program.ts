/** Random programs: instructions, loops, conditions, calls and changes of their own code. */

import type { Form } from '../src/decoder/types.ts';
import { handlerForms } from '../src/interp/handler-forms.ts';
import { PARTS } from '../src/interp/handler-table.ts';
import type { Encoded, MemoryChoice } from './encoder.ts';
import { Prng } from './prng.ts';
import { DATA, DATA_BYTES, GS_BASE, type Machine, type Node, PATCHES, READ_ONLY, STACK_TOP } from './program.ts';
import { type Kind, kindOf, randomInsn } from './random-instruction.ts';

const [RAX, RCX, RDX, RBX, RSP, RSI, RDI] = [0, 1, 2, 3, 4, 6, 7];
const RBP = 5;
const R12 = 12;
const R13 = 13;
/** Index of masked memory operands and target of indirect branches. */
const R14 = 14;
/** Always DATA. */
const R15 = 15;
const RIP = 16;
const FREE = [RAX, RCX, RDX, RBX, RBP, RSI, RDI, 8, 9, 10, 11];

export interface ProgramOptions {
  /** Kinds of instructions to use. */
  readonly kinds: readonly Kind[];
  /** About how many instructions. */
  readonly size: number;
  /** One memory operand in so many faults; 0: none. */
  readonly faults: number;
  /** Programs may change their own code. */
  readonly selfModifying: boolean;
  /** Forms not to use. */
  readonly avoid?: (form: Form) => boolean;
}

export interface Program {
  readonly seed: bigint;
  readonly nodes: readonly Node[];
  readonly machine: Machine;
}

/** RCP and RSQRT are estimates, and the last bit of x87's transcendental functions is the processor's own. */
export const differsBetweenProcessors = (name: string): boolean => /^v?r(cp|sqrt)[ps]s$|^(f2xm1|fyl2x|fyl2xp1|fptan|fpatan|fsincos|fsin|fcos)$/.test(name);

const formsByKind = new Map<Kind, Form[]>();
for (const form of handlerForms(PARTS.base)) {
  const kind = kindOf(form);
  if (kind === undefined) continue;
  const list = formsByKind.get(kind) ?? [];
  list.push(form);
  formsByKind.set(kind, list);
}
/** By mnemonic, so that instructions with many forms do not crowd out the others. */
const byName = new Map<Kind, Form[][]>();
for (const [kind, list] of formsByKind) {
  const names = new Map<string, Form[]>();
  for (const f of list) names.set(f.row.name, [...(names.get(f.row.name) ?? []), f]);
  byName.set(kind, [...names.values()]);
}
/** What compilers emit most, mixed in more often than one mnemonic in hundreds would be. */
const COMMON =
  'add or adc sbb and sub xor cmp test mov lea inc dec neg shl shr sar rol ror imul2 movzx movsx movsxd xchg setz setb setl setbe cmovz cmovb cmovle push'.split(
    ' ',
  );
const commonForms = COMMON.map((name) => (formsByKind.get('integer') ?? []).filter((f) => f.row.name === name)).filter((l) => l.length > 0);

/** Straight-line forms only: these are built by nodes of their own, or need registers that hold addresses. */
const STRUCTURAL = new Set(
  'push pop enter leave pushf popf ret xlat maskmovdqu maskmovq_mmx movs cmps stos lods scas fldenv fnstenv frstor fnsave fldcw'.split(' '),
);
const BIT_TESTS = new Set(['bt', 'bts', 'btr', 'btc']);
const STRINGS = ['movs', 'cmps', 'stos', 'lods', 'scas'];

class ProgramGenerator {
  private readonly rng: Prng;
  private readonly options: ProgramOptions;
  private left: number;

  constructor(rng: Prng, options: ProgramOptions) {
    this.rng = rng;
    this.options = options;
    this.left = options.size;
  }

  /** A list of pieces; `depth` limits nesting, `gprs` are free for use. */
  list(n: number, depth: number, gprs: readonly number[], counters: readonly number[]): Node[] {
    const out: Node[] = [];
    for (let i = 0; i < n && this.left > 0; i++) {
      const node = this.node(depth, gprs, counters);
      if (node !== undefined) out.push(node);
    }
    return out;
  }

  private node(depth: number, gprs: readonly number[], counters: readonly number[]): Node | undefined {
    const { rng } = this;
    this.left--;
    if (depth > 0) {
      const inner = () => this.list(rng.between(1, 8), depth - 1, gprs, counters);
      switch (rng.below(24)) {
        case 0: {
          const counter = counters[0];
          if (counter === undefined) break;
          return {
            kind: 'loop',
            counter,
            count: rng.oneIn(4) ? rng.between(1, 40) : rng.between(1, 6),
            style: rng.below(6),
            body: this.list(rng.between(1, 10), depth - 1, gprs, counters.slice(1)),
          };
        }
        case 1:
        case 2:
          return { kind: 'if', cc: rng.below(16), near: rng.oneIn(2), yes: inner(), no: rng.oneIn(2) ? inner() : [] };
        case 7: {
          const bodies = Array.from({ length: rng.pick([1, 2, 4, 8]) }, () => this.list(rng.between(1, 3), depth - 1, gprs, counters));
          return { kind: 'switch', style: rng.below(2), from: rng.pick(gprs), bodies };
        }
        case 3:
          return { kind: 'call', style: rng.below(4), body: inner() };
        case 4:
          return this.bracket(depth, gprs, counters);
        case 5:
          if (rng.oneIn(2)) return { kind: 'hole', bytes: Uint8Array.from({ length: rng.between(1, 9) }, () => rng.below(256)) };
          break;
        case 6:
          if (this.options.selfModifying) return this.smc();
          break;
        case 8:
          if (this.options.kinds.includes('sse') && rng.oneIn(2)) return this.mxcsr();
      }
    }
    return this.straight(gprs);
  }

  private bracket(depth: number, gprs: readonly number[], counters: readonly number[]): Node {
    const { rng } = this;
    const inner = (free: readonly number[]) => this.list(rng.between(1, 5), depth - 1, free, counters);
    const [from, to] = [rng.pick(gprs), rng.pick(gprs)];
    const short = (op: number, n: number) => Uint8Array.from(n >= 8 ? [0x41, op | (n & 7)] : [op | n]);
    switch (rng.below(4)) {
      case 0: {
        const locals = rng.below(64) * 8;
        const enter = Uint8Array.from([0xc8, locals & 0xff, locals >> 8, rng.below(2)]);
        return { kind: 'bracket', before: enter, after: Uint8Array.of(0xc9), body: inner(gprs.filter((n) => n !== RBP)) };
      }
      case 1:
        return { kind: 'bracket', before: Uint8Array.of(0x9c), after: short(0x58, to), body: inner(gprs) };
      case 2:
        // AND of the pushed value keeps only status flags and DF for POPF.
        return {
          kind: 'bracket',
          before: Uint8Array.of(...short(0x50, from), 0x48, 0x81, 0x24, 0x24, 0xd5, 0x0c, 0, 0),
          after: Uint8Array.of(0x9d, 0xfc),
          body: inner(gprs),
        };
      default:
        return { kind: 'bracket', before: rng.oneIn(2) ? short(0x50, from) : Uint8Array.of(0x6a, rng.below(256)), after: short(0x58, to), body: inner(gprs) };
    }
  }

  /** MOV dword [rsp-40], value; LDMXCSR [rsp-40]: a rounding mode, flush to zero, denormals are zero, or the default. */
  private mxcsr(): Node {
    const { rng } = this;
    const value = 0x1f80 | (rng.oneIn(2) ? 0 : (rng.below(4) << 13) | (rng.below(2) << 15) | (rng.below(2) << 6));
    return { kind: 'code', bytes: Uint8Array.of(0xc7, 0x44, 0x24, 0xd8, value & 0xff, value >> 8, 0, 0, 0x0f, 0xae, 0x54, 0x24, 0xd8), fixups: [] };
  }

  private smc(): Node {
    const { rng } = this;
    // ADD r32, imm32 or MOV r32, imm32 or LEA: any byte of the immediate may change.
    const n = rng.below(4);
    const target = rng.oneIn(2) ? [0x81, 0xc0 | n] : [0x69, 0xc0 | (n << 3) | n];
    for (let i = 0; i < 4; i++) target.push(rng.below(256));
    return { kind: 'smc', target: Uint8Array.from(target), at: 2 + rng.below(4), patch: rng.below(PATCHES.length), value: rng.below(256), first: rng.oneIn(2) };
  }

  private pickForm(): Form {
    const { rng, options } = this;
    for (;;) {
      const names = rng.oneIn(2) && options.kinds.includes('integer') ? commonForms : (byName.get(rng.pick(options.kinds)) ?? commonForms);
      const form = rng.pick(rng.pick(names));
      if (form.row.end === true && !STRINGS.includes(form.row.name)) continue;
      if (options.avoid?.(form) === true) continue;
      return form;
    }
  }

  private straight(gprs: readonly number[]): Node | undefined {
    const { rng } = this;
    const form = this.pickForm();
    if (STRUCTURAL.has(form.row.name)) return this.addressed(form);
    const before: Encoded[] = [];
    let target = 0;
    const moffs = form.row.operands.some((o) => o.startsWith('O'));
    const mem = (size: number): MemoryChoice => {
      before.length = 0;
      const choice = moffs ? { base: -1, index: -1, scale: 0, disp: DATA + rng.below(DATA_BYTES - 8), target: 0 } : this.memory(size, gprs, before);
      target = choice.target;
      return choice;
    };
    const random = randomInsn(rng, form, { gprs, mem, ...(rng.oneIn(20) && form.isMem ? { addrSize: 4 } : {}) });
    if (random === undefined) return undefined;
    if (BIT_TESTS.has(form.row.name) && form.isMem) {
      const bit = random.insn.operands.find((o) => o.kind === 'gpr');
      // MOVSX r64, r8 keeps the bit offset near.
      if (bit !== undefined) before.push(raw(0x48 | (random.insn.reg >= 8 ? 5 : 0), 0x0f, 0xbe, 0xc0 | ((random.insn.reg & 7) * 9)));
    }
    if (form.row.name === 'div' || form.row.name === 'idiv') {
      if (!rng.oneIn(8)) before.push(raw(0x31, 0xd2), raw(0x66, 0x83, 0xe0, 0x7f));
      if (!rng.oneIn(8) && random.insn.rm !== RDX && !random.insn.isMem)
        before.push(raw(0x40 | (random.insn.rm >= 8 ? 1 : 0), 0x80, 0xc8 | (random.insn.rm & 7), 1));
    }
    const bytes: number[] = [];
    for (const e of before) bytes.push(...e.bytes);
    const start = bytes.length;
    bytes.push(...random.bytes);
    const fixups = random.ripField < 0 ? [] : [{ at: start + random.ripField, end: bytes.length, target }];
    return { kind: 'code', bytes: Uint8Array.from(bytes), fixups };
  }

  /** Instructions whose implicit operands are memory. */
  private addressed(form: Form): Node | undefined {
    const { rng } = this;
    const name = form.row.name;
    const bytes: number[] = [];
    const lea = (n: number, disp: number) => bytes.push(0x49, 0x8d, 0x87 | (n << 3), disp & 0xff, disp >> 8, 0, 0);
    const place = () => (rng.oneIn(3) ? 0xf80 + rng.below(0x100) : 0x100 + rng.below(DATA_BYTES - 0x600));
    if (name === 'xlat') lea(RBX, place());
    else if (name === 'maskmovdqu' || name === 'maskmovq_mmx') lea(RDI, place());
    else if (STRINGS.includes(name)) {
      lea(RSI, place());
      lea(RDI, place());
      if (form.rep !== 0) {
        const count = rng.oneIn(8) ? rng.below(this.options.faults > 0 ? 2000 : 90) : rng.below(20);
        bytes.push(0xb9, count & 0xff, count >> 8, 0, 0);
      }
      const down = rng.oneIn(3);
      if (down) bytes.push(0xfd);
      const e = randomInsn(rng, form, { gprs: FREE, mem: () => ({ base: -1, index: -1, scale: 0, disp: DATA }) });
      if (e === undefined) return undefined;
      bytes.push(...e.bytes);
      if (down) bytes.push(0xfc);
      return { kind: 'code', bytes: Uint8Array.from(bytes), fixups: [] };
    } else return undefined;
    const e = randomInsn(rng, form, { gprs: FREE, mem: () => ({ base: -1, index: -1, scale: 0, disp: DATA }) });
    if (e === undefined) return undefined;
    bytes.push(...e.bytes);
    return { kind: 'code', bytes: Uint8Array.from(bytes), fixups: [] };
  }

  /** A memory operand; instructions it needs go to `before`. */
  private memory(size: number, gprs: readonly number[], before: Encoded[]): MemoryChoice & { target: number } {
    const { rng, options } = this;
    const none = { index: -1, scale: 0 };
    if (options.faults > 0 && rng.oneIn(options.faults)) {
      const bad = rng.pick([READ_ONLY + 0x80, DATA + DATA_BYTES + 0x10, DATA + DATA_BYTES - 2, READ_ONLY - 1]);
      return rng.oneIn(2) ? { base: RIP, ...none, disp: 0, target: bad } : { base: R15, ...none, disp: bad - DATA, target: 0 };
    }
    const aligned = size === 16 && !rng.oneIn(16);
    let offset = 0x100 + rng.below(DATA_BYTES - 0x400);
    if (rng.oneIn(8)) offset = 0x1000 - rng.below(Math.max(size, 1) + 2);
    if (aligned) offset &= ~15;
    switch (rng.below(8)) {
      case 0:
        return { base: RIP, ...none, disp: 0, target: DATA + offset };
      case 1:
        return { base: -1, ...none, disp: DATA + offset, target: 0 };
      case 4:
        if (rng.oneIn(2)) return { base: -1, ...none, disp: DATA + offset - GS_BASE, segment: 'gs', target: 0 };
        return { base: R15, ...none, disp: -GS_BASE + offset, segment: 'gs', target: 0 };
      case 2:
        return { base: RSP, ...none, disp: aligned ? -64 : -rng.between(32, 120), target: 0 };
      case 3: {
        // MOV R14D, r32; AND R14D, mask: an index that depends on the data.
        const from = rng.pick(gprs);
        const scale = rng.below(4);
        before.push(raw(0x44 | (from >= 8 ? 1 : 0), 0x8b, 0xf0 | (from & 7)), raw(0x41, 0x81, 0xe6, aligned ? 0xf0 : 0xff, rng.below(2), 0, 0));
        return { base: R15, index: R14, scale, disp: aligned ? 0x80 : rng.below(0x80), target: 0 };
      }
      default:
        return { base: R15, ...none, disp: rng.oneIn(2) && size < 16 ? rng.below(112) : offset, target: 0 };
    }
  }
}

function raw(...bytes: number[]): Encoded {
  return { bytes: Uint8Array.from(bytes), ripField: -1 };
}

/** The initial state of a seed. Recorded programs are replayed from it: it must stay as it is. */
export function randomMachine(seed: bigint): Machine {
  const rng = new Prng(seed);
  const gprs = Array.from({ length: 16 }, () => rng.interesting());
  gprs[RSP] = BigInt(STACK_TOP);
  gprs[R15] = BigInt(DATA);
  return { gprs, xmm: randomXmm(rng), data: randomData(rng), flags: rng.below(0x10000) & 0x8d5 };
}

/** The program of a seed; the same for the same arguments. */
export function randomProgram(seed: bigint, options: ProgramOptions): Program {
  const rng = new Prng(~seed);
  const nodes = new ProgramGenerator(rng, options).list(options.size, 3, FREE, [R13, R12]);
  // One in three lies across a page boundary.
  if (rng.oneIn(3)) nodes.unshift({ kind: 'hole', bytes: new Uint8Array(rng.between(0xe00, 0xffa)).fill(0x90) });
  return { seed, nodes, machine: randomMachine(seed) };
}

function randomXmm(rng: Prng): Uint8Array {
  const out = new Uint8Array(256);
  const view = new DataView(out.buffer);
  for (let i = 0; i < 256; i += 8) {
    const shape = rng.below(4);
    if (shape < 2) view.setFloat64(i, (rng.below(2000) - 1000) / 8, true);
    else if (shape === 2) for (const k of [0, 4]) view.setFloat32(i + k, (rng.below(2000) - 1000) / 8, true);
    else view.setBigUint64(i, rng.interesting(), true);
  }
  return out;
}
function randomData(rng: Prng): Uint8Array {
  const out = new Uint8Array(DATA_BYTES);
  const view = new DataView(out.buffer);
  for (let i = 0; i < DATA_BYTES; i += 8) view.setBigUint64(i, rng.oneIn(2) ? rng.interesting() : rng.u64(), true);
  return out;
}
