/**
 * Marks the likely side of conditional code, so that V8 lays slow paths out of line and spills registers only there (measured:
 * benchmarks/README.md). Binaryen's JavaScript interface cannot attach hints, so the emitter puts a `nop` first into the likely arm of
 * an `if`, and this pass finds those and adds the section "metadata.code.branch_hint" (WebAssembly branch hinting proposal).
 */

const SECTION = { custom: 0, import: 2, code: 10 };
const OP = { block: 0x02, loop: 0x03, if: 0x04, nop: 0x01 };
const LIKELY = 1;
const SECTION_NAME = 'metadata.code.branch_hint';

class Reader {
  readonly bytes: Uint8Array;
  at: number;
  constructor(bytes: Uint8Array, at: number) {
    this.bytes = bytes;
    this.at = at;
  }
  byte(): number {
    return this.bytes[this.at++] ?? 0;
  }
  u32(): number {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const b = this.byte();
      value |= (b & 0x7f) << shift;
      if (b < 0x80) return value >>> 0;
    }
  }
  /** Skips a LEB128 number of any width. */
  leb(): void {
    while (this.byte() >= 0x80);
  }
  lebs(n: number): void {
    for (let i = 0; i < n; i++) this.leb();
  }
}

/** Skips the immediates of `op`, whose opcode byte was read. */
function skipImmediates(r: Reader, op: number): void {
  if (op >= 0x45 && op <= 0xc4) return;
  if (op >= 0x28 && op <= 0x3e) return r.lebs(2);
  if (op >= 0x20 && op <= 0x26) return r.leb();
  switch (op) {
    case OP.block:
    case OP.loop:
    case OP.if:
    case 0x0c: // br
    case 0x0d: // br_if
    case 0x10: // call
    case 0x12: // return_call
    case 0x3f: // memory.size
    case 0x40: // memory.grow
    case 0x41: // i32.const
    case 0x42: // i64.const
    case 0xd0: // ref.null
    case 0xd2: // ref.func
      return r.leb();
    case 0x11: // call_indirect
    case 0x13: // return_call_indirect
      return r.lebs(2);
    case 0x0e: // br_table
    case 0x1c: // select t
      return r.lebs(r.u32() + (op === 0x0e ? 1 : 0));
    case 0x43: // f32.const
      r.at += 4;
      return;
    case 0x44: // f64.const
      r.at += 8;
      return;
    case 0xfc: {
      const sub = r.u32();
      if (sub >= 8) r.lebs(sub === 8 || sub === 10 || sub === 12 || sub === 14 ? 2 : 1);
      return;
    }
    case 0xfd: {
      const sub = r.u32();
      if (sub <= 11 || sub === 92 || sub === 93) r.lebs(2);
      else if (sub === 12 || sub === 13) r.at += 16;
      else if (sub >= 21 && sub <= 34) r.at += 1;
      else if (sub >= 84 && sub <= 91) {
        r.lebs(2);
        r.at += 1;
      }
      return;
    }
    case 0xfe:
      if (r.u32() === 3) r.at += 1;
      else r.lebs(2);
      return;
    default:
  }
}

function encodeU32(n: number): number[] {
  const out: number[] = [];
  for (let v = n >>> 0; ; v >>>= 7) {
    if (v < 0x80) {
      out.push(v);
      return out;
    }
    out.push((v & 0x7f) | 0x80);
  }
}

/** Number of imported functions, from the body of the import section. */
function importedFunctions(r: Reader): number {
  let functions = 0;
  for (let n = r.u32(); n > 0; n--) {
    for (let name = 0; name < 2; name++) {
      const length = r.u32();
      r.at += length;
    }
    switch (r.byte()) {
      case 0:
        functions++;
        r.leb();
        break;
      case 1:
        r.at += 1;
        r.lebs((r.byte() & 1) === 1 ? 2 : 1);
        break;
      case 2:
        r.lebs((r.byte() & 1) === 1 ? 2 : 1);
        break;
      default:
        r.at += 2;
    }
  }
  return functions;
}

/** Offsets, from the start of the function body, of the `if`s whose first arm begins with a `nop`. */
function likelyIfs(r: Reader, end: number): number[] {
  const start = r.at;
  const found: number[] = [];
  for (let groups = r.u32(); groups > 0; groups--) r.lebs(2);
  while (r.at < end) {
    const at = r.at;
    const op = r.byte();
    skipImmediates(r, op);
    if (op === OP.if && r.bytes[r.at] === OP.nop) found.push(at - start);
  }
  return found;
}

/** The module with a branch hint for every marked `if`. */
export function addBranchHints(wasm: Uint8Array): Uint8Array {
  const r = new Reader(wasm, 8);
  let imported = 0;
  while (r.at < wasm.length) {
    const sectionStart = r.at;
    const id = r.byte();
    const size = r.u32();
    const end = r.at + size;
    if (id === SECTION.import) imported = importedFunctions(r);
    if (id === SECTION.code) {
      const hints: number[] = [];
      let functions = 0;
      const count = r.u32();
      for (let f = 0; f < count; f++) {
        const length = r.u32();
        const bodyEnd = r.at + length;
        const offsets = likelyIfs(r, bodyEnd);
        r.at = bodyEnd;
        if (offsets.length === 0) continue;
        functions++;
        hints.push(...encodeU32(imported + f), ...encodeU32(offsets.length));
        for (const o of offsets) hints.push(...encodeU32(o), 1, LIKELY);
      }
      const name = [...new TextEncoder().encode(SECTION_NAME)];
      const body = [...encodeU32(name.length), ...name, ...encodeU32(functions), ...hints];
      const section = Uint8Array.from([SECTION.custom, ...encodeU32(body.length), ...body]);
      const out = new Uint8Array(wasm.length + section.length);
      out.set(wasm.subarray(0, sectionStart));
      out.set(section, sectionStart);
      out.set(wasm.subarray(sectionStart), sectionStart + section.length);
      return out;
    }
    r.at = end;
  }
  return wasm;
}
