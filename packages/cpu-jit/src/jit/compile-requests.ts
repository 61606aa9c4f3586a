import type { Insn } from '../decoder/index.ts';
import { compileRegions, type EntryCounter } from './compile.ts';
import { compileModule } from './compile-module.ts';
import { regionCode } from './guest-code.ts';
import type { CompileRequest, CompileResult } from './jit.ts';
import type { GuestBlock, RegionCode } from './region.ts';

/** Compiles requests; when that fails for several together, one by one, so that a bad one does not take the others with it. */
export function compileRequests(u8: Uint8Array, requests: readonly CompileRequest[]): CompileResult[] {
  try {
    return [compileTogether(u8, requests)];
  } catch (error) {
    if (requests.length > 1) return requests.flatMap((r) => compileRequests(u8, [r]));
    return [{ ids: requests.map((r) => r.id), failure: String(error), bytes: 0, emitMs: 0, engineMs: 0 }];
  }
}

/** The code of the region that `r` asks for, undefined when it is not there any more. */
export function codeOf(u8: Uint8Array, r: Omit<RegionCode, 'blocks'> & Pick<CompileRequest, 'pages' | 'blocks'>): RegionCode | undefined {
  const code = regionCode(u8, r.hpa, r.codeSize);
  const first = r.hpa & 0xfff;
  const pages = new Map([[0, r.hpa - first], ...r.pages.map(({ delta, hpa }) => [delta, hpa] as const)]);
  const pageOf = (offset: number) => pages.get((first + offset) >> 12) ?? 0;
  const blocks = new Map<number, GuestBlock>();
  for (const [start, end, rate] of r.blocks) {
    const insns: Insn[] = [];
    let offset = start;
    while (offset < end) {
      const within = (first + offset) & 0xfff;
      const at = offset;
      const page = pageOf(at);
      const insn = page === 0 ? undefined : code.decode(page + within, () => pageOf(at + 4096 - within));
      if (insn === undefined) return undefined;
      insns.push(insn);
      offset += insn.length;
      // A NOP of a kernel's jump label has become a jump.
      if (insn.row.end === true && offset < end) return undefined;
    }
    if (offset !== end) return undefined;
    blocks.set(start, { start, end, insns, rate });
  }
  const { hpa, codeSize, tracked, entries, returnSites, targets } = r;
  return { hpa, codeSize, tracked, blocks, entries, returnSites, targets };
}

/** Compiles requests into one module. Requests whose code has vanished meanwhile are named in the result. */
function compileTogether(u8: Uint8Array, requests: readonly CompileRequest[]): CompileResult {
  const start = performance.now();
  const ids: number[] = [];
  const vanished: number[] = [];
  const regions: RegionCode[] = [];
  const counters: EntryCounter[] = [];
  for (const r of requests) {
    const region = codeOf(u8, r);
    if (region === undefined) {
      vanished.push(r.id);
      continue;
    }
    ids.push(r.id);
    regions.push(region);
    counters.push(r);
  }
  const wasm = compileRegions(regions, counters);
  const emitted = performance.now();
  const module = compileModule(wasm, requests.every((r) => r.isMerge) ? 'optimised' : 'baseline');
  return { ids, vanished, module, wasm, bytes: wasm.length, emitMs: emitted - start, engineMs: performance.now() - emitted };
}
