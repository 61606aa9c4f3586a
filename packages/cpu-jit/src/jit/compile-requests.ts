import { setFlagsFromString } from 'node:v8';
import { compileRegions, type EntryCounter } from './compile.ts';
import { regionCode } from './guest-code.ts';
import type { CompileRequest, CompileResult } from './jit.ts';
import { discover, type Region } from './region.ts';

/** Compiles requests; when that fails for several together, one by one, so that a bad one does not take the others with it. */
export function compileRequests(u8: Uint8Array, requests: readonly CompileRequest[]): CompileResult[] {
  try {
    return [compileTogether(u8, requests)];
  } catch (error) {
    if (requests.length > 1) return requests.flatMap((r) => compileRequests(u8, [r]));
    return [{ ids: requests.map((r) => r.id), failure: String(error), bytes: 0, emitMs: 0, engineMs: 0 }];
  }
}

/** Compiles requests into one module. Requests whose code has vanished meanwhile are left out of the result. */
function compileTogether(u8: Uint8Array, requests: readonly CompileRequest[]): CompileResult {
  const start = performance.now();
  const ids: number[] = [];
  const regions: Region[] = [];
  const counters: EntryCounter[] = [];
  for (const r of requests) {
    const leaders = new Set(r.leaders);
    const stops = new Set(r.stops);
    const region = discover({
      ...regionCode(u8, r.hpa, r.codeSize),
      tracked: r.tracked,
      maxInsns: r.maxInsns,
      page: (delta) => r.pages.find((p) => p.delta === delta)?.hpa ?? 0,
      wasEntered: (offset) => leaders.has(offset),
      startsOther: (offset) => stops.has(offset),
      targets: (offset) => r.targets.get(offset) ?? [],
    });
    if (region === undefined || !r.entries.every(({ offset }) => region.blocks.has(offset))) continue;
    ids.push(r.id);
    regions.push({ ...region, entries: r.entries });
    counters.push(r);
  }
  const wasm = compileRegions(regions, counters);
  const emitted = performance.now();
  const module = compileOptimised(wasm);
  return { ids, module, bytes: wasm.length, emitMs: emitted - start, engineMs: performance.now() - emitted };
}

/**
 * V8 while it compiles regions: the optimising tier at once, because baseline code is 3 to 4 times slower and a hot loop can stay in it for
 * seconds. Only flags that one function's compilation looks at once may be switched like this: other threads compile meanwhile.
 */
const FLAGS = [
  ['--no-liftoff', '--liftoff'],
  ['--no-wasm-lazy-compilation', '--wasm-lazy-compilation'],
] as const;

/** Flags are those of the process, so they are put back: Binaryen and the interpreter are large modules that must stay lazy. */
function compileOptimised(wasm: Uint8Array): WebAssembly.Module {
  for (const [during] of FLAGS) setFlagsFromString(during);
  try {
    return new WebAssembly.Module(wasm as Uint8Array<ArrayBuffer>);
  } finally {
    for (const [, after] of FLAGS) setFlagsFromString(after);
  }
}
