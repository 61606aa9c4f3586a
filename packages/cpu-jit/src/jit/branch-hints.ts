/**
 * Marks the likely side of conditional code, so that V8 lays slow paths out of line and spills registers only there (measured:
 * benchmarks/README.md). Binaryen's JavaScript interface cannot attach hints, so the emitter puts a `nop` first into the likely arm of
 * an `if`, and this pass finds those and adds the section "metadata.code.branch_hint" (WebAssembly branch hinting proposal).
 */

import { OP, Reader, SECTION, skipImmediates } from './wasm-reader.ts';

const LIKELY = 1;
const SECTION_NAME = 'metadata.code.branch_hint';

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
