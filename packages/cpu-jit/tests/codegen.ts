import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { decode } from '../src/decoder/index.ts';
import { compileRegions } from '../src/jit/compile.ts';
import { discover, MAX_REGION_INSNS } from '../src/jit/region.ts';
import { Reader, SECTION, skipImmediates } from '../src/jit/wasm-reader.ts';

/** The pinned sizes: guest code in hex, what it is, and how many Wasm instructions and bytes the region emitter makes of it. */
export const CODEGEN_FILE = fileURLToPath(new URL('./codegen.txt', import.meta.url));

const HPA = 0x100_0000;
const HLT = 0xf4;

/** Wasm instructions and bytes in the function of the region that starts with `code`. */
function measure(code: Uint8Array): { ops: number; bytes: number } {
  const bytes = new Uint8Array(code.length + 64).fill(HLT);
  bytes.set(code);
  const region = discover({
    hpa: HPA,
    codeSize: 64,
    tracked: false,
    page: () => 0,
    decode: (hpa) => {
      const insn = hpa - HPA >= code.length ? 'end' : decode(bytes, hpa - HPA, 15, 64);
      return typeof insn === 'string' ? undefined : insn;
    },
    wasEntered: () => true,
    startsOther: () => false,
    maxInsns: MAX_REGION_INSNS,
    targets: () => [],
  });
  if (region === undefined) throw new RangeError(`${Buffer.from(code).toString('hex')} does not decode`);
  return firstRegion(compileRegions([region]));
}

function firstRegion(wasm: Uint8Array): { ops: number; bytes: number } {
  const r = new Reader(wasm, 8);
  while (r.at < wasm.length) {
    const id = r.byte();
    const size = r.u32();
    if (id !== SECTION.code) {
      r.at += size;
      continue;
    }
    r.u32();
    const bytes = r.u32();
    const end = r.at + bytes;
    for (let groups = r.u32(); groups > 0; groups--) r.lebs(2);
    let ops = 0;
    for (; r.at < end; ops++) skipImmediates(r, r.byte());
    return { ops, bytes };
  }
  throw new RangeError('the module has no code');
}

/** The contents of CODEGEN_FILE for its guest code and the emitter as it is. */
export function codegenTable(): string {
  const lines = readFileSync(CODEGEN_FILE, 'utf8').trimEnd().split('\n');
  return lines
    .map((line) => {
      if (line.startsWith('#')) return line;
      const [hex = '', name = ''] = line.split('|').map((field) => field.trim());
      const { ops, bytes } = measure(Uint8Array.from(Buffer.from(hex, 'hex')));
      return `${hex.padEnd(34)} | ${name.padEnd(82)} | ${String(ops).padStart(4)} ops ${String(bytes).padStart(5)} bytes\n`.trimEnd();
    })
    .join('\n')
    .concat('\n');
}
