/** Programs as trees of pieces, which can be cut smaller, and their assembler. User code that ends in HLT. */

/** Where things are, in the native process and in the guest. */
export const CODE = 0x10_0000;
export const CODE_BYTES = 0x4000;
export const DATA = 0x11_0000;
export const DATA_BYTES = 0x2000;
/** Bases of the FS and GS segments. */
export const FS_BASE = DATA + 0x400;
export const GS_BASE = DATA + 0x800;
/** A page that can be read but not written. What follows the data is not mapped. */
export const READ_ONLY = 0x11_8000;
export const STACK = 0x12_0000;
export const STACK_BYTES = 0x4000;
export const STACK_TOP = 0x12_2000;

const HLT = 0xf4;

/** A piece of a program. */
export type Node =
  /** Instructions as bytes; `fixups`: offsets of RIP-relative displacements, the end of their instruction, and the address. */
  | { readonly kind: 'code'; readonly bytes: Uint8Array; readonly fixups: readonly { at: number; end: number; target: number }[] }
  /** Body `count` times; `counter` is R12 or R13. */
  | { readonly kind: 'loop'; readonly counter: number; readonly count: number; readonly style: number; readonly body: readonly Node[] }
  /** `yes` if condition `cc` holds, else `no`. */
  | { readonly kind: 'if'; readonly cc: number; readonly near: boolean; readonly yes: readonly Node[]; readonly no: readonly Node[] }
  /** A jump (`style` 0) or call (1) through a table indexed by the low bits of register `from`; as many bodies as a power of two. */
  | { readonly kind: 'switch'; readonly style: number; readonly from: number; readonly bodies: readonly (readonly Node[])[] }
  | { readonly kind: 'call'; readonly style: number; readonly body: readonly Node[] }
  /** PUSH, body, POP or LEAVE. */
  | { readonly kind: 'bracket'; readonly before: Uint8Array; readonly after: Uint8Array; readonly body: readonly Node[] }
  /** Bytes jumped over. */
  | { readonly kind: 'hole'; readonly bytes: Uint8Array }
  /** Changes an immediate of `target` (bytes; `at`: offset of the changed byte) by `patch`, placed before or after it. */
  | { readonly kind: 'smc'; readonly target: Uint8Array; readonly at: number; readonly patch: number; readonly value: number; readonly first: boolean };

/** Instructions that change a byte at [rip+disp32]: MOV, ADD, XOR, ADC, SBB, LOCK INC, RCL by 1, SHL by CL, CMPXCHG, NEG. */
export const PATCHES: readonly { readonly opcode: readonly number[]; readonly immediate: boolean }[] = [
  { opcode: [0xc6, 0x05], immediate: true },
  { opcode: [0x80, 0x05], immediate: true },
  { opcode: [0x80, 0x35], immediate: true },
  { opcode: [0x80, 0x15], immediate: true },
  { opcode: [0x80, 0x1d], immediate: true },
  { opcode: [0xf0, 0xfe, 0x05], immediate: false },
  { opcode: [0xd0, 0x15], immediate: false },
  { opcode: [0xd2, 0x25], immediate: false },
  { opcode: [0x0f, 0xb0, 0x0d], immediate: false },
  { opcode: [0xf6, 0x1d], immediate: false },
];

/** Initial state of a run. */
export interface Machine {
  readonly gprs: bigint[];
  readonly flags: number;
  /** 16 x 16 bytes. */
  readonly xmm: Uint8Array;
  /** DATA_BYTES bytes. */
  readonly data: Uint8Array;
}

/** Assembles the program for address CODE; it ends in HLT, and the rest is HLT too. */
export function assemble(nodes: readonly Node[]): Uint8Array {
  const out: number[] = [];
  const subroutines: { at: number; style: number; body: readonly Node[] }[] = [];
  const tables: { at: number; entries: number[] }[] = [];
  const put32 = (at: number, v: number) => {
    for (let i = 0; i < 4; i++) out[at + i] = (v >> (i * 8)) & 0xff;
  };
  /** A near branch whose displacement is known later: returns its position. */
  const near = (...opcode: number[]): number => {
    out.push(...opcode, 0, 0, 0, 0);
    return out.length - 4;
  };
  const land = (at: number) => put32(at, out.length - at - 4);
  const emitAll = (list: readonly Node[]): void => {
    for (const n of list) emit(n);
  };
  const emit = (n: Node): void => {
    switch (n.kind) {
      case 'code': {
        const start = out.length;
        out.push(...n.bytes);
        for (const f of n.fixups) put32(start + f.at, f.target - (CODE + start + f.end));
        return;
      }
      case 'loop': {
        const low = n.counter & 7;
        out.push(0x41, 0xb8 | low, n.count, 0, 0, 0);
        const top = out.length;
        emitAll(n.body);
        // DEC r32, SUB r64, 1, DEC r64, LEA + TEST: all leave ZF for JNZ; the third counts up from the negative.
        if (n.style === 0) out.push(0x41, 0xff, 0xc8 | low);
        else if (n.style === 1) out.push(0x49, 0x83, 0xe8 | low, 1);
        else if (n.style === 2) out.push(0x49, 0xff, 0xc8 | low);
        else if (n.style === 3) out.push(0x41, 0x80, 0xe8 | low, 1);
        // The last two go through RCX: JRCXZ out and JMP back, or LOOP.
        else out.push(0x4c, 0x89, 0xc1 | (low << 3), 0x49, 0xff, 0xc8 | low);
        if (n.style >= 4) {
          const back = top - (out.length + 2);
          if (n.style === 5 && back >= -128) out.push(0xe2, back & 0xff);
          else {
            out.push(0x48, 0xff, 0xc9, 0xe3, 5);
            put32(near(0xe9), top - out.length);
          }
          return;
        }
        const distance = top - (out.length + 2);
        if (distance >= -128) out.push(0x75, distance & 0xff);
        else put32(near(0x0f, 0x85), top - out.length);
        return;
      }
      case 'if': {
        const skip = near(0x0f, 0x80 | (n.cc ^ 1));
        emitAll(n.yes);
        if (n.no.length === 0) {
          land(skip);
          return;
        }
        const end = near(0xe9);
        land(skip);
        emitAll(n.no);
        land(end);
        return;
      }
      case 'switch': {
        // MOV R14D, r32; AND R14D, mask; JMP [table + R14*8], or MOV R14, [table + R14*8] and CALL R14.
        out.push(0x44 | (n.from >= 8 ? 1 : 0), 0x8b, 0xf0 | (n.from & 7), 0x41, 0x83, 0xe6, n.bodies.length - 1);
        const table = { at: near(...(n.style === 0 ? [0x42, 0xff, 0x24, 0xf5] : [0x4e, 0x8b, 0x34, 0xf5])), entries: [] as number[] };
        tables.push(table);
        if (n.style === 1) out.push(0x41, 0xff, 0xd6);
        const ends = [near(0xe9)];
        for (const body of n.bodies) {
          table.entries.push(out.length);
          emitAll(body);
          if (n.style === 1) out.push(0xc3);
          else ends.push(near(0xe9));
        }
        for (const at of ends) land(at);
        return;
      }
      case 'call': {
        // CALL rel32; LEA R14 + CALL R14; LEA R14 + PUSH + CALL [RSP] is style 2; JMP there and back through R14 would need a link.
        if (n.style < 2) subroutines.push({ at: near(0xe8), style: n.style, body: n.body });
        else {
          const at = near(0x4c, 0x8d, 0x35);
          subroutines.push({ at, style: n.style, body: n.body });
          if (n.style === 2) out.push(0x41, 0xff, 0xd6);
          else out.push(0x4c, 0x89, 0x74, 0x24, 0xf0, 0xff, 0x54, 0x24, 0xf0);
        }
        return;
      }
      case 'bracket':
        out.push(...n.before);
        emitAll(n.body);
        out.push(...n.after);
        return;
      case 'hole':
        if (n.bytes.length < 128) out.push(0xeb, n.bytes.length);
        else put32(near(0xe9), n.bytes.length);
        out.push(...n.bytes);
        return;
      case 'smc': {
        const emitPatch = (targetAt: (end: number) => number): void => {
          const start = out.length;
          const { opcode, immediate } = PATCHES[n.patch] ?? { opcode: [0xc6, 0x05], immediate: true };
          out.push(...opcode, 0, 0, 0, 0);
          if (immediate) out.push(n.value);
          put32(start + opcode.length, targetAt(out.length) - out.length);
        };
        if (n.first) {
          emitPatch((end) => end + n.at);
          out.push(...n.target);
        } else {
          const at = out.length + n.at;
          out.push(...n.target);
          emitPatch(() => at);
        }
        return;
      }
    }
  };
  emitAll(nodes);
  out.push(HLT);
  for (let s = subroutines.shift(); s !== undefined; s = subroutines.shift()) {
    land(s.at);
    emitAll(s.body);
    if (s.style === 1) out.push(0xc2, 0, 0);
    else out.push(0xc3);
  }
  for (const { at, entries } of tables) {
    put32(at, CODE + out.length);
    for (const entry of entries) {
      out.push(0, 0, 0, 0, 0, 0, 0, 0);
      put32(out.length - 8, CODE + entry);
    }
  }
  if (out.length > CODE_BYTES) throw new RangeError(`a program of ${out.length} bytes does not fit`);
  const code = new Uint8Array(CODE_BYTES).fill(HLT);
  code.set(out);
  return code;
}

/** Number of instructions-like pieces, nested ones included. */
export function weight(nodes: readonly Node[]): number {
  let n = 0;
  for (const node of nodes) n += 1 + children(node).reduce((sum, list) => sum + weight(list), 0);
  return n;
}
function children(n: Node): readonly (readonly Node[])[] {
  switch (n.kind) {
    case 'if':
      return [n.yes, n.no];
    case 'switch':
      return n.bodies;
    case 'loop':
    case 'call':
    case 'bracket':
      return [n.body];
    default:
      return [];
  }
}

/** Smaller versions of a program, largest cuts first. */
export function* smaller(nodes: readonly Node[]): Generator<readonly Node[]> {
  for (let size = nodes.length >> 1; size > 1; size >>= 1) {
    for (let at = 0; at + size <= nodes.length; at += size) yield [...nodes.slice(0, at), ...nodes.slice(at + size)];
  }
  for (const [i, node] of nodes.entries()) {
    const replace = (...by: readonly Node[]) => [...nodes.slice(0, i), ...by, ...nodes.slice(i + 1)];
    yield replace();
    for (const list of children(node)) yield replace(...list);
    if (node.kind === 'if') {
      for (const yes of smaller(node.yes)) yield replace({ ...node, yes });
      for (const no of smaller(node.no)) yield replace({ ...node, no });
    } else if (node.kind === 'switch') {
      if (node.bodies.length > 1) yield replace({ ...node, bodies: node.bodies.slice(0, node.bodies.length / 2) });
      for (const [k, body] of node.bodies.entries()) {
        for (const less of smaller(body)) yield replace({ ...node, bodies: node.bodies.map((old, at) => (at === k ? less : old)) });
      }
    } else if (node.kind === 'loop' || node.kind === 'call' || node.kind === 'bracket') {
      for (const body of smaller(node.body)) yield replace({ ...node, body });
      if (node.kind === 'loop' && node.count > 1) yield replace({ ...node, count: node.count - 1 });
    }
  }
}

/** The smallest program for which `fails` still holds that cutting finds. */
export function shrink(nodes: readonly Node[], fails: (nodes: readonly Node[]) => boolean): readonly Node[] {
  let best = nodes;
  for (let found = true; found; ) {
    found = false;
    for (const candidate of smaller(best)) {
      if (!fails(candidate)) continue;
      best = candidate;
      found = true;
      break;
    }
  }
  return best;
}
