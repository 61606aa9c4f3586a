/** Encodings compiled as one region each, as compiled code would run them, for tests that call them directly. */
import { readFileSync } from 'node:fs';
import { type CodeSize, decode } from '../src/decoder/index.ts';
import { compileRegions } from '../src/jit/compile.ts';
import { discover, MAX_REGION_INSNS } from '../src/jit/region.ts';
import { NEXT_INTERPRET } from '../src/layout.ts';
import { RAM_BASE, type RuntimeMachine } from '../src/testing/runtime-machine.ts';
import { CODE, CODE_BYTES } from './program.ts';
import { START } from './window.ts';

const HLT = 0xf4;
/** Encodings to a module. */
const BATCH = 250;

export type RegionFunction = (cpu: number) => number;

/** What kind of code: its size, absent 64; `tracked`: it notes floating-point exceptions. */
export interface RegionOptions {
  readonly codeSize?: CodeSize;
  readonly tracked?: boolean;
}

/** A function for each encoding, which is followed by HLTs and lies at START. */
export function regionFunctions(machine: RuntimeMachine, codes: readonly Uint8Array[], options: RegionOptions = {}): RegionFunction[] {
  const imports = importsOf(machine);
  const functions: RegionFunction[] = [];
  for (let i = 0; i < codes.length; i += BATCH) functions.push(...link(imports, codes.slice(i, i + BATCH), options));
  return functions;
}

/** What compiled code calls: the runtime, and functions of the interpreter's module. */
function importsOf(machine: RuntimeMachine): WebAssembly.ModuleImports {
  const { memory, table, rt } = machine;
  const runtime = { ...(rt as unknown as WebAssembly.ModuleImports), memory, table, host_syscall: rt.syscall_native };
  table.grow(1 << 14);
  const bytes = readFileSync(new URL('../build/interp.wasm', import.meta.url));
  const interpreter = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(bytes)), { env: runtime });
  return { ...runtime, ...interpreter.exports };
}

function link(imports: WebAssembly.ModuleImports, batch: readonly Uint8Array[], { codeSize = 64, tracked = false }: RegionOptions): RegionFunction[] {
  const regions = batch.map((code) => {
    const bytes = new Uint8Array(CODE_BYTES).fill(HLT);
    bytes.set(code, START - CODE);
    const region = discover({
      hpa: RAM_BASE + START,
      codeSize,
      tracked,
      page: (delta) => {
        const at = START + delta * 4096;
        return at >= CODE && at < CODE + CODE_BYTES ? RAM_BASE + at : 0;
      },
      decode: (hpa) => {
        const insn = decode(bytes, hpa - RAM_BASE - CODE, 15, codeSize);
        return typeof insn === 'string' ? undefined : insn;
      },
      wasEntered: () => true,
      startsOther: () => false,
      maxInsns: MAX_REGION_INSNS,
      targets: () => [],
    });
    return region;
  });
  const made = regions.filter((r) => r !== undefined);
  const module = new WebAssembly.Module(compileRegions(made) as Uint8Array<ArrayBuffer>);
  const { exports } = new WebAssembly.Instance(module, { env: imports });
  let next = 0;
  // What makes no region is the interpreter's.
  return regions.map((r) => (r === undefined ? () => NEXT_INTERPRET : (exports[`r${next++}`] as RegionFunction)));
}
