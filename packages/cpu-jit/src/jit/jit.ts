import { performance } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import type { CodeCache } from '../code-cache.ts';
import { decode } from '../decoder/index.ts';
import { BD_FN, BD_HPA, BD_MAX_PAGES, BD_MODE, BD_PAGE_LIST, BD_PAGES, BD_REGION_PAGES, S_EXIT_BLOCK, S_RIP } from '../layout.ts';
import { compileRegions } from './compile.ts';
import { discover, type Region, type RegionSource } from './region.ts';

/** Counters of the compiler since creation. */
export interface JitCounts {
  regions: number;
  /** Guest instructions compiled, repeats in several regions included. */
  instructions: number;
  /** Bytes of Wasm emitted. */
  bytes: number;
  /** Milliseconds in the code generator and in V8. */
  emitMs: number;
  engineMs: number;
}

/** What the compiler needs from the CPU. */
export interface JitHost {
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly view: DataView;
  readonly table: WebAssembly.Table;
  readonly imports: WebAssembly.ModuleImports;
  readonly code: CodeCache;
  /** HPA of executable memory at a virtual address, 0 when it is not mapped now; has no side effects. */
  probeExec(cpu: number, va: bigint): number;
}

/** Compiles hot blocks into regions on the calling thread and links them. */
export class Jit {
  readonly counts: JitCounts = { regions: 0, instructions: 0, bytes: 0, emitMs: 0, engineMs: 0 };
  private readonly host: JitHost;
  private nextSlot: number;
  private readonly freeSlots: number[] = [];

  constructor(host: JitHost, firstSlot: number) {
    this.host = host;
    this.nextSlot = firstSlot;
  }

  /** The block in S_EXIT_BLOCK became hot: compiles the region that starts there. */
  compileHot(cpu: number): void {
    const { u32 } = this.host;
    const desc = u32[(cpu + S_EXIT_BLOCK) >>> 2] ?? 0;
    const region = this.discoverAt(cpu, desc);
    if (region === undefined) return;
    const start = performance.now();
    const wasm = compileRegions([region]);
    const emitted = performance.now();
    const module = compileOptimised(wasm);
    const instance = new WebAssembly.Instance(module, { env: this.host.imports });
    const done = performance.now();
    this.counts.regions++;
    this.counts.instructions += region.insnCount;
    this.counts.bytes += wasm.length;
    this.counts.emitMs += emitted - start;
    this.counts.engineMs += done - emitted;
    const fn = instance.exports['r0'];
    if (typeof fn === 'function') this.link(desc, region, fn as unknown as WebAssembly.ExportValue);
  }

  private discoverAt(cpu: number, desc: number): Region | undefined {
    const { u8, u32, view } = this.host;
    const rip = view.getBigUint64(cpu + S_RIP, true);
    const mode = u32[(desc + BD_MODE) >>> 2];
    const codeSize = mode === 16 || mode === 32 ? mode : 64;
    if (codeSize !== 64) return undefined;
    const page = rip & ~0xfffn;
    const source: RegionSource = {
      hpa: u32[(desc + BD_HPA) >>> 2] ?? 0,
      codeSize,
      page: (delta) => this.host.probeExec(cpu, BigInt.asUintN(64, page + BigInt(delta * 4096))) >>> 0,
      decode: (hpa) => {
        const insn = decode(u8, hpa, 4096 - (hpa & 0xfff), codeSize);
        return typeof insn === 'string' ? undefined : insn;
      },
    };
    return discover(source);
  }

  private link(desc: number, region: Region, fn: WebAssembly.ExportValue): void {
    const { u32, view, table } = this.host;
    // The list of pages starts with the one the interpreter's block needs.
    const needed = view.getUint16(desc + BD_PAGES, true);
    const pages = region.pages.filter((p) => needed === 0 || p.delta !== 1);
    if (pages.length + needed > BD_MAX_PAGES) return;
    for (const [i, p] of pages.entries()) {
      view.setInt32(desc + BD_PAGE_LIST + (needed + i) * 8, p.delta, true);
      view.setUint32(desc + BD_PAGE_LIST + (needed + i) * 8 + 4, p.hpa, true);
    }
    view.setUint16(desc + BD_REGION_PAGES, needed + pages.length, true);
    const slot = this.freeSlots.pop() ?? this.nextSlot++;
    if (slot >= table.length) table.grow(table.length);
    table.set(slot, fn);
    u32[(desc + BD_FN) >>> 2] = slot;
    this.host.code.track({
      ranges: region.ranges,
      drop: () => {
        if (u32[(desc + BD_FN) >>> 2] === slot) u32[(desc + BD_FN) >>> 2] = 0;
        table.set(slot, null);
        this.freeSlots.push(slot);
      },
    });
  }
}

/**
 * Compiles with V8's optimising tier at once: baseline code is 3 to 4 times slower and a hot loop can stay in it for seconds.
 * The flags are put back, since Binaryen and the interpreter are large modules that must stay lazy.
 */
function compileOptimised(wasm: Uint8Array): WebAssembly.Module {
  setFlagsFromString('--experimental-wasm-branch-hinting');
  setFlagsFromString('--no-liftoff');
  setFlagsFromString('--no-wasm-lazy-compilation');
  try {
    return new WebAssembly.Module(wasm as Uint8Array<ArrayBuffer>);
  } finally {
    setFlagsFromString('--liftoff');
    setFlagsFromString('--wasm-lazy-compilation');
  }
}

