/** Section numbers of a Wasm module, and opcodes that matter here (WebAssembly core specification, binary format). */
export const SECTION = { custom: 0, import: 2, code: 10 } as const;
export const OP = { block: 0x02, loop: 0x03, if: 0x04, nop: 0x01 } as const;

/** Reads a Wasm module from front to back. */
export class Reader {
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
export function skipImmediates(r: Reader, op: number): void {
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
