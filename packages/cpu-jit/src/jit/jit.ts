import type { CodeCache } from '../code-cache.ts';
import { decode } from '../decoder/index.ts';
import {
  BD_COUNT,
  BD_FN,
  BD_HPA,
  BD_MAX_PAGES,
  BD_MODE,
  BD_PAGE_LIST,
  BD_PAGES,
  BD_REGION_PAGES,
  FLAT_ALWAYS,
  PROFILE_BASE,
  PROFILE_COUNT,
  PROFILE_ENTRIES,
  PROFILE_ENTRY_SIZE,
  PROFILE_LIST,
  PROFILE_SITE,
  S_EXIT_BLOCK,
  S_FLAT,
  S_RIP,
} from '../layout.ts';
import { discover, type Region, type RegionSource } from './region.ts';

/** A region to compile, as it is sent to a compiler: enough to find the same instructions again in the shared memory. */
export interface CompileRequest {
  readonly id: number;
  /** Address of the descriptor of its first block, whose count of entries says how hot it is by now. */
  readonly desc: number;
  readonly insnCount: number;
  readonly hpa: number;
  readonly codeSize: 16 | 32 | 64;
  readonly pages: Region['pages'];
  /** Offsets of the region's blocks, and the indirect targets in it: what the requester knows of the behaviour. */
  readonly leaders: readonly number[];
  readonly stops: readonly number[];
  readonly targets: Region['targets'];
}

/** What came of some requests. The module exports `r<i>` for `ids[i]`; it is missing when compiling failed, which is a bug of this package. */
export interface CompileResult {
  readonly ids: readonly number[];
  readonly module?: WebAssembly.Module;
  /** Message of the failure. */
  readonly failure?: string;
  /** Bytes of Wasm. */
  readonly bytes: number;
  /** Milliseconds in the code generator and in V8. */
  readonly emitMs: number;
  readonly engineMs: number;
}

/** Turns requests into modules, at once or later. */
export interface Compiler {
  /** Takes a request; a compiler on this thread has its result in `poll` right away. */
  request(r: CompileRequest): void;
  /** The next finished result, undefined when there is none now. */
  poll(): CompileResult | undefined;
  dispose(): Promise<void>;
}

/** Counters of the compiler since creation. */
export interface JitCounts {
  regions: number;
  /** Guest instructions compiled, repeats in several regions included. */
  instructions: number;
  /** Bytes of Wasm emitted. */
  bytes: number;
  /** Milliseconds in the code generator and in V8, on whatever thread. */
  emitMs: number;
  engineMs: number;
  /** Milliseconds of this thread spent on finding regions and linking results. */
  linkMs: number;
  /** Regions that could not be compiled, and why the last of them could not; they stay with the interpreter. */
  failures: number;
  failure: string | undefined;
}

/** What the JIT needs from the CPU. */
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

/** Blocks that the interpreter has entered less often stay outside of regions: start-up and error paths. */
const MIN_ENTRIES = 8;
/** Functions whose region is not larger are copied into their callers. */
const MAX_COPIED_INSNS = 64;

interface Pending {
  readonly desc: number;
  readonly region: Region;
  /** The code changed, or was forgotten, before the result came. */
  cancelled: boolean;
  /** Table slot once linked. */
  slot: number;
}

/** Finds regions where blocks become hot, has them compiled, and links the results. */
export class Jit {
  readonly counts: JitCounts = { regions: 0, instructions: 0, bytes: 0, emitMs: 0, engineMs: 0, linkMs: 0, failures: 0, failure: undefined };
  private readonly host: JitHost;
  private readonly compiler: Compiler;
  private nextSlot: number;
  private nextId = 1;
  private readonly freeSlots: number[] = [];
  private readonly pending = new Map<number, Pending>();
  /** Regions by the HPA of their first instruction, from the request on. */
  private readonly heads = new Map<number, Pending>();
  /** HPA of each block inside a region that is being compiled -> how many such regions. */
  private readonly pendingBlocks = new Map<number, number>();

  constructor(host: JitHost, compiler: Compiler, firstSlot: number) {
    this.host = host;
    this.compiler = compiler;
    this.nextSlot = firstSlot;
  }

  /** The block in S_EXIT_BLOCK became hot. */
  hot(cpu: number): void {
    const start = performance.now();
    this.poll();
    const { u32 } = this.host;
    const desc = u32[(cpu + S_EXIT_BLOCK) >>> 2] ?? 0;
    const hpa = u32[(desc + BD_HPA) >>> 2] ?? 0;
    if (this.pendingBlocks.has(hpa)) {
      // Most likely it will run inside that region; if it is still entered by itself afterwards, it will be back.
      u32[(desc + BD_COUNT) >>> 2] = MIN_ENTRIES;
    } else {
      const region = this.regionAt(cpu, hpa, u32[(desc + BD_MODE) >>> 2] ?? 64);
      if (region !== undefined) this.request(desc, region);
    }
    this.counts.linkMs += performance.now() - start;
  }

  /** Links what has been compiled since the last call. Only when no compiled region of the same code is being replaced: links are never patched in place. */
  poll(): void {
    for (let r = this.compiler.poll(); r !== undefined; r = this.compiler.poll()) this.install(r);
  }

  dispose(): Promise<void> {
    return this.compiler.dispose();
  }

  /** The region that would be compiled for code at the current RIP; undefined when its first instruction cannot be decoded. */
  regionAt(cpu: number, hpa: number, mode: number): Region | undefined {
    const { u8, u32, view } = this.host;
    if (mode !== 64 && !(mode === 32 && ((u32[(cpu + S_FLAT) >>> 2] ?? 0) & FLAT_ALWAYS) === FLAT_ALWAYS)) return undefined;
    const rip = view.getBigUint64(cpu + S_RIP, true);
    const page = rip & ~0xfffn;
    return discover({
      ...regionCode(u8, hpa, mode),
      page: (delta) => this.host.probeExec(cpu, BigInt.asUintN(64, page + BigInt(delta * 4096))) >>> 0,
      wasEntered: (_, at) => this.host.code.entries(at, mode) >= MIN_ENTRIES,
      startsOther: (_, at, isCall) => {
        const other = this.heads.get(at);
        return other !== undefined && !(isCall && other.region.insnCount <= MAX_COPIED_INSNS);
      },
      targets: (offset) => observedTargets(view, rip, offset),
    });
  }

  private request(desc: number, region: Region): void {
    const p: Pending = { desc, region, cancelled: false, slot: 0 };
    const id = this.nextId++;
    this.pending.set(id, p);
    this.heads.set(region.hpa, p);
    this.countBlocks(region, 1);
    this.host.code.track({ ranges: region.ranges, drop: () => this.drop(p) });
    this.compiler.request({
      id,
      desc,
      insnCount: region.insnCount,
      hpa: region.hpa,
      codeSize: region.codeSize,
      pages: region.pages,
      leaders: [...region.blocks.keys()],
      stops: region.stops,
      targets: region.targets,
    });
    this.poll();
  }

  private countBlocks(region: Region, by: 1 | -1): void {
    for (const hpa of region.heads) {
      const n = (this.pendingBlocks.get(hpa) ?? 0) + by;
      if (n === 0) this.pendingBlocks.delete(hpa);
      else this.pendingBlocks.set(hpa, n);
    }
  }

  private drop(p: Pending): void {
    p.cancelled = true;
    if (this.heads.get(p.region.hpa) === p) this.heads.delete(p.region.hpa);
    if (p.slot === 0) return;
    const { u32, table } = this.host;
    if (u32[(p.desc + BD_FN) >>> 2] === p.slot) u32[(p.desc + BD_FN) >>> 2] = 0;
    table.set(p.slot, null);
    this.freeSlots.push(p.slot);
    p.slot = 0;
  }

  private install(r: CompileResult): void {
    this.counts.bytes += r.bytes;
    this.counts.emitMs += r.emitMs;
    this.counts.engineMs += r.engineMs;
    if (r.failure !== undefined) {
      // A compiler that ended as a whole names no region.
      this.counts.failures += Math.max(1, r.ids.length);
      this.counts.failure = r.failure;
    }
    const instance = r.module === undefined ? undefined : new WebAssembly.Instance(r.module, { env: this.host.imports });
    for (const [i, id] of r.ids.entries()) {
      const p = this.pending.get(id);
      this.pending.delete(id);
      if (p === undefined) continue;
      this.countBlocks(p.region, -1);
      const fn = instance?.exports[`r${i}`];
      if (p.cancelled || fn === undefined) continue;
      this.counts.regions++;
      this.counts.instructions += p.region.insnCount;
      this.link(p, fn);
    }
  }

  private link(p: Pending, fn: WebAssembly.ExportValue): void {
    const { u32, view, table } = this.host;
    const { desc, region } = p;
    // The list of pages starts with the one the interpreter's block needs.
    const needed = view.getUint16(desc + BD_PAGES, true);
    const pages = region.pages.filter((page) => needed === 0 || page.delta !== 1);
    if (pages.length + needed > BD_MAX_PAGES) return;
    for (const [i, page] of pages.entries()) {
      view.setInt32(desc + BD_PAGE_LIST + (needed + i) * 8, page.delta, true);
      view.setUint32(desc + BD_PAGE_LIST + (needed + i) * 8 + 4, page.hpa, true);
    }
    view.setUint16(desc + BD_REGION_PAGES, needed + pages.length, true);
    p.slot = this.freeSlots.pop() ?? this.nextSlot++;
    if (p.slot >= table.length) table.grow(table.length);
    table.set(p.slot, fn);
    u32[(desc + BD_FN) >>> 2] = p.slot;
  }
}

/** The part of a `RegionSource` that the bytes in linear memory give. */
export function regionCode(u8: Uint8Array, hpa: number, codeSize: 16 | 32 | 64): Pick<RegionSource, 'hpa' | 'codeSize' | 'decode'> {
  return {
    hpa,
    codeSize,
    decode: (at) => {
      const insn = decode(u8, at, 4096 - (at & 0xfff), codeSize);
      if (typeof insn === 'string') return undefined;
      // A 16-bit branch in 32-bit code cuts its target to 16 bits.
      const isCut = codeSize !== 64 && insn.opSize === 2 && insn.operands.some((o) => o.kind === 'rel');
      return isCut ? undefined : insn;
    },
  };
}

/** What the interpreter's profile has for the indirect branch at `rip + offset`, as offsets from `rip`. */
function observedTargets(view: DataView, rip: bigint, offset: number): number[] {
  const site = BigInt.asUintN(64, rip + BigInt(offset));
  const low = Number(site & 0xffff_ffffn);
  const entry = PROFILE_BASE + ((low ^ (low >>> 10)) & (PROFILE_ENTRIES - 1)) * PROFILE_ENTRY_SIZE;
  if (view.getBigUint64(entry + PROFILE_SITE, true) !== site) return [];
  const count = view.getUint32(entry + PROFILE_COUNT, true);
  const found: number[] = [];
  for (let i = 0; i < count; i++) {
    const delta = BigInt.asIntN(64, view.getBigUint64(entry + PROFILE_LIST + i * 8, true) - rip);
    if (delta >= -0x4000_0000n && delta < 0x4000_0000n) found.push(Number(delta));
  }
  return found;
}
