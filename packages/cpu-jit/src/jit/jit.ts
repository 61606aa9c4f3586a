import type { CodeCache } from '../code-cache.ts';
import {
  BD_COUNT,
  BD_FN,
  BD_HPA,
  BD_MAX_PAGES,
  BD_MODE,
  BD_PAGE_LIST,
  BD_PAGES,
  BD_REACH,
  BD_REGION_PAGES,
  BD_TRACKED,
  FLAT_ALWAYS,
  MXCSR_DEFAULT,
  MXCSR_ROUNDING_MASKS,
  S_EXIT_BLOCK,
  S_FLAT,
  S_ICOUNT,
  S_MXCSR,
  S_RIP,
} from '../layout.ts';
import type { StallClock } from '../stalls.ts';
import { counterName, functionName } from './function-name.ts';
import { isTiny, observedTargets, regionCode } from './guest-code.ts';
import { KnownCode, type KnownRegion } from './known-code.ts';
import { discover, MAX_MERGED_INSNS, MAX_REGION_INSNS, type Region, type RegionShape, shapeOf } from './region.ts';
import { type StoredModule, type StoredRegion, storedRegion } from './stored-region.ts';

/** A region to compile, as it is sent to a compiler, which decodes the instructions again from the shared memory. */
export interface CompileRequest {
  readonly id: number;
  /** Address of the descriptor of its first block, whose count of entries says how hot it is by now. */
  readonly desc: number;
  readonly insnCount: number;
  readonly hpa: number;
  readonly codeSize: 16 | 32 | 64;
  readonly tracked: boolean;
  readonly pages: Region['pages'];
  /** Offsets of its blocks: of the first instruction, and after the last one; and `GuestBlock.rate`. */
  readonly blocks: readonly (readonly [start: number, end: number, rate?: number | undefined])[];
  readonly entries: Region['entries'];
  readonly returnSites: Region['returnSites'];
  readonly targets: Region['targets'];
  /** It replaces a region that runs: code that is still interpreted goes first. */
  readonly isMerge: boolean;
  /** The compiled region says when it has been entered so often, a power of two, and each time again. */
  readonly reportAfter: number;
  /** For profilers; absent: nobody wants names. */
  readonly name?: string;
}

/** What came of some requests. The module exports functions (see `functionName`) for `ids[i]`; it is missing when compiling failed, which is a bug of this package. */
export interface CompileResult {
  readonly ids: readonly number[];
  /** Requests whose code has vanished meanwhile. */
  readonly vanished?: readonly number[];
  readonly module?: WebAssembly.Module;
  readonly wasm?: Uint8Array<ArrayBuffer>;
  /** The compiler can store the module, and calls it so. */
  readonly storeId?: number;
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
  /** The next module that an earlier run has stored, undefined when there is none now. */
  stored?(): StoredModule | undefined;
  /** Modules of earlier runs are still on their way. */
  readonly isLoading?: boolean;
  /** Stores what this run has added to it. */
  save?(changes: StoreChanges): Promise<void>;
  dispose(): Promise<void>;
}

/** What a run adds to stored code. */
export interface StoreChanges {
  /** Regions that were compiled in this run, and are still good, by the `storeId` of their module. */
  readonly made: ReadonlyMap<number, readonly StoredRegion[]>;
  /** Modules that earlier runs have stored and this one has used, and regions of them that it has replaced. */
  readonly used: ReadonlySet<number>;
  readonly replaced: ReadonlyMap<number, readonly number[]>;
}

/** Counters of the compiler since creation. */
export interface JitCounts {
  regions: number;
  /** Regions that an earlier run had compiled. */
  reused: number;
  /** Of these, regions that took in a neighbour because control often went from one to the other. */
  merges: number;
  /** Guest instructions compiled, repeats in several regions included. */
  instructions: number;
  /** Bytes of Wasm emitted. */
  bytes: number;
  /** Milliseconds in the code generator and in V8, on whatever thread. */
  emitMs: number;
  engineMs: number;
  /** Regions that run, and the bytes of their Wasm; the others were dropped because their code changed, or replaced. */
  liveRegions: number;
  liveBytes: number;
  /** How often all were dropped because there was too much of them. */
  evictions: number;
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
  /** Is told what the vCPU's thread is kept from running for. */
  readonly stalls: StallClock;
  /** What a profiler should call the region that starts at a virtual address; absent: nobody asks. */
  readonly nameRegion?: ((rip: bigint) => string) | undefined;
  /** Has every jump be looked up anew. */
  forgetLinks(): void;
  /** HPA of executable memory at a virtual address, 0 when it is not mapped now; has no side effects. */
  probeExec(cpu: number, va: bigint): number;
}

/** Blocks that the interpreter has entered less often stay outside of regions: start-up and error paths. */
const MIN_ENTRIES = 8;
/** How often a region is formed anew because code that it left out has become hot. */
const MAX_REFORMS = 4;
/** Regions of so many instructions are taken into one that grows over their start. */
const MAX_ABSORBED_INSNS = 100;
/** Functions whose region is not larger are copied into their callers, */
const MAX_COPIED_INSNS = 64;
/** but only into so many regions, unless they are tiny. */
const MAX_COPIES = 4;
/**
 * Two regions that are entered so often for each `MERGE_INSNS` instructions of both are merged: a crossing costs some ten nanoseconds, compiling an instruction with V8's
 * optimising tier a tenth of a millisecond, for which other code waits.
 */
const MERGE_AFTER = 1 << 15;
const MERGE_INSNS = 20;
/** Bytes of Wasm; V8's machine code comes on top. */
const MAX_BYTES = 64 << 20;
/** How often a region is merged with others. */
const MAX_MERGES = 12;
/** How many merges are tried at a time: growing a region takes up to a millisecond, and the vCPU waits. */
const MERGE_TRIES = 2;

export interface JitOptions {
  /** Two regions are merged when both have been entered so often for each 20 instructions of theirs; default 32,768, a power of two. */
  readonly mergeAfter?: number | undefined;
  /** Bytes of Wasm that may be in use; default 64 MiB. When there are more, all are dropped. */
  readonly maxBytes?: number | undefined;
  /** The compiler has a store of compiled code, see `Compiler.save`. */
  readonly isStored?: boolean;
}

interface Pending {
  readonly desc: number;
  readonly region: RegionShape;
  /** Where the guest had its first instruction when it was requested. */
  readonly rip: bigint;
  /** How often it was formed anew. */
  readonly reforms: number;
  readonly merges: number;
  /** HPAs where other regions start that it grows over, for control often comes from there or goes there. */
  readonly absorbed: ReadonlySet<number>;
  /** What it takes the place of when it is linked. */
  replaces: Pending | undefined;
  /** The code changed, or was forgotten, before the result came. */
  cancelled: boolean;
  /** Once linked: table slots, and the descriptors of the blocks that they start at; its part of the module's bytes. */
  readonly links: { readonly desc: number; readonly slot: number }[];
  bytes: number;
  /** Entries, by HPA, whose block was not decoded when it was linked. */
  readonly open: Map<number, { readonly offset: number; readonly fn: WebAssembly.ExportValue | undefined }>;
  /** What it is in `known`. */
  stored: KnownRegion | undefined;
}

/** How a region is formed anew. */
interface Growth {
  /** Virtual address of its first instruction; that of the vCPU when it is missing. */
  readonly rip?: bigint;
  /** What it replaces. */
  readonly before?: Pending;
  readonly absorbed?: ReadonlySet<number>;
  readonly maxInsns?: number;
}

/** Control goes from one to the other. */
interface Pair {
  readonly from: Pending;
  readonly to: Pending;
}

/** A region that runs compiled. */
export interface CompiledRegion {
  /** Virtual address of its first instruction. */
  readonly rip: bigint;
  readonly region: RegionShape;
}

/** How long `Jit.idle` waits at most, and how often it looks. */
const MAX_IDLE_WAIT_MS = 120_000;
const IDLE_POLL_MS = 2;

/** Finds regions where blocks become hot, has them compiled, and links the results. */
export class Jit {
  readonly counts: JitCounts = {
    regions: 0,
    reused: 0,
    merges: 0,
    instructions: 0,
    bytes: 0,
    emitMs: 0,
    engineMs: 0,
    liveRegions: 0,
    liveBytes: 0,
    evictions: 0,
    failures: 0,
    failure: undefined,
  };
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
  /** HPAs of cold code where a region ends: which one, and how far from its start. */
  private readonly ends = new Map<number, { readonly owner: Pending; readonly offset: number }>();
  /** HPA of each block -> regions that hold a copy of it. */
  private readonly copies = new Map<number, number>();
  /** HPA -> regions that end there because another one starts. */
  private readonly stoppedAt = new Map<number, Set<Pending>>();
  /** Regions -> neighbours that they cannot be merged with. */
  private readonly refused = new WeakMap<Pending, WeakSet<Pending>>();

  private readonly mergeAfter: number;
  private readonly maxBytes: number;
  /** Compiled code by what it was made from; undefined when none is stored. */
  private readonly known: KnownCode | undefined;
  private isDisposed = false;
  private isWaitInVain = false;

  constructor(host: JitHost, compiler: Compiler, firstSlot: number, { mergeAfter = MERGE_AFTER, maxBytes = MAX_BYTES, isStored = false }: JitOptions = {}) {
    this.maxBytes = maxBytes;
    this.mergeAfter = mergeAfter;
    this.host = host;
    this.compiler = compiler;
    this.nextSlot = firstSlot;
    this.known = isStored ? new KnownCode() : undefined;
  }

  /** The block in S_EXIT_BLOCK became hot. */
  hot(cpu: number): void {
    this.poll();
    const { u32 } = this.host;
    const desc = u32[(cpu + S_EXIT_BLOCK) >>> 2] ?? 0;
    const hpa = u32[(desc + BD_HPA) >>> 2] ?? 0;
    const mode = u32[(desc + BD_MODE) >>> 2] ?? 64;
    if (this.retrack(cpu, hpa, mode)) {
      // The code that declined stays until the new one is there.
    } else if (this.pendingBlocks.has(hpa)) {
      // Most likely it will run inside that region; if it is still entered by itself afterwards, it will be back.
      u32[(desc + BD_COUNT) >>> 2] = MIN_ENTRIES;
    } else if (this.reform(cpu, hpa, mode)) u32[(desc + BD_COUNT) >>> 2] = MIN_ENTRIES;
    else if (this.reuse(cpu, desc, hpa, mode)) {
      // It had not arrived, or not all of its pages were mapped, when the block was decoded.
    } else if (this.compiler.isLoading === true) {
      // What it would be compiled to may come any moment.
      u32[(desc + BD_COUNT) >>> 2] = MIN_ENTRIES;
    } else {
      const region = this.regionAt(cpu, hpa, mode);
      const rip = this.host.view.getBigUint64(cpu + S_RIP, true);
      if (region !== undefined) this.request({ desc, region, rip, reforms: 0, merges: 0, absorbed: new Set(), replaces: undefined });
    }
  }

  /** Forms the region anew that ends at `hpa`, where the vCPU is, because it seemed cold; false when there is none that may grow. */
  private reform(cpu: number, hpa: number, mode: number): boolean {
    const found = this.ends.get(hpa);
    if (found === undefined || found.owner.reforms >= MAX_REFORMS || this.pendingBlocks.has(found.owner.region.hpa)) return false;
    const { owner, offset } = found;
    if (owner.cancelled || this.heads.get(owner.region.hpa) !== owner) return false;
    const rip = BigInt.asUintN(64, this.host.view.getBigUint64(cpu + S_RIP, true) - BigInt(offset));
    const { absorbed } = owner;
    const region = this.regionAt(cpu, owner.region.hpa, mode, { rip, before: owner, absorbed, maxInsns: owner.region.maxInsns });
    if (region === undefined || !region.blocks.has(offset)) return false;
    this.request({ ...owner, region, rip, reforms: owner.reforms + 1, replaces: owner });
    return true;
  }

  /** The compiled region of the block in S_EXIT_BLOCK has been entered often once more: what it is entered from, or leaves for, may as well be a part of it. */
  entered(cpu: number): void {
    const { u32 } = this.host;
    const p = this.heads.get(u32[((u32[(cpu + S_EXIT_BLOCK) >>> 2] ?? 0) + BD_HPA) >>> 2] ?? 0);
    if (p !== undefined && this.isCurrent(p)) {
      const pairs = [
        ...[...(this.stoppedAt.get(p.region.hpa) ?? [])].map((from) => ({ from, to: p })),
        ...p.region.stops.flatMap(({ hpa }) => {
          const to = this.heads.get(hpa);
          return to === undefined ? [] : [{ from: p, to }];
        }),
      ].filter(
        ({ from, to }) => from !== to && this.isCurrent(from) && this.isCurrent(to) && from.merges < MAX_MERGES && this.refused.get(from)?.has(to) !== true,
      );
      const size = ({ from, to }: Pair) => Math.min(from.region.insnCount + to.region.insnCount, MAX_MERGED_INSNS);
      const entries = ({ desc }: Pending) => u32[(desc + BD_COUNT) >>> 2] ?? 0;
      const weight = ({ from, to }: Pair) => Math.min(entries(from), entries(to));
      const worth = pairs.filter((pair) => weight(pair) * MERGE_INSNS >= this.mergeAfter * size(pair)).sort((x, y) => weight(y) - weight(x));
      worth.slice(0, MERGE_TRIES).some(({ from, to }) => this.merge(cpu, from, to) || this.refuse(from, to));
    }
  }

  /** Remembers that a merge cannot be: both would have to change first. */
  private refuse(from: Pending, to: Pending): false {
    this.refused.set(from, (this.refused.get(from) ?? new WeakSet()).add(to));
    return false;
  }

  /** Has compiled code, and nothing that replaces it is on its way. */
  private isCurrent(p: Pending): boolean {
    return !p.cancelled && p.links.length > 0 && this.heads.get(p.region.hpa) === p && !this.pendingBlocks.has(p.region.hpa);
  }

  /** Forms `from` anew with `to` inside; false when the whole would be too large. */
  private merge(cpu: number, from: Pending, to: Pending): boolean {
    const { rip } = from;
    const stop = from.region.stops.find(({ hpa }) => this.heads.get(hpa) === to);
    if (stop === undefined || from.region.codeSize !== to.region.codeSize) return false;
    if (this.host.probeExec(cpu, rip) >>> 0 !== from.region.hpa) return false;
    const absorbed = new Set([...from.absorbed, ...to.absorbed, ...entryPoints(to.region), ...to.region.heads]);
    const region = this.regionAt(cpu, from.region.hpa, from.region.codeSize, { rip, before: from, absorbed, maxInsns: MAX_MERGED_INSNS });
    if (region === undefined || !region.blocks.has(stop.offset) || region.insnCount >= MAX_MERGED_INSNS) return false;
    this.request({ ...from, region, merges: from.merges + 1, absorbed, replaces: from });
    return true;
  }

  /** Forms the region anew that is entered at `hpa`, where the vCPU is, because it declined to run: exceptions are to be noted now. */
  private retrack(cpu: number, hpa: number, mode: number): boolean {
    const owner = this.heads.get(hpa);
    if (owner === undefined || owner.cancelled || owner.region.tracked || !notesExceptions(this.host.u32, cpu)) return false;
    const offset = owner.region.entries.find((entry) => entry.hpa === hpa)?.offset ?? 0;
    const rip = BigInt.asUintN(64, this.host.view.getBigUint64(cpu + S_RIP, true) - BigInt(offset));
    const { absorbed } = owner;
    const region = this.regionAt(cpu, owner.region.hpa, mode, { rip, before: owner, absorbed, maxInsns: owner.region.maxInsns });
    if (region === undefined) return false;
    this.request({ ...owner, region, rip, replaces: owner });
    return true;
  }

  /** Links what has been compiled since the last call. Only when no compiled region of the same code is being replaced: links are never patched in place. */
  poll(): void {
    const { stalls } = this.host;
    const next = () => stalls.measure('receive', () => this.compiler.poll());
    for (let r = next(); r !== undefined; r = next()) {
      const result = r;
      stalls.measure('link', () => this.install(result));
    }
    for (let m = this.compiler.stored?.(); m !== undefined; m = this.compiler.stored?.()) this.known?.add(m);
  }

  async dispose(): Promise<void> {
    this.isDisposed = true;
    if (this.known !== undefined) await this.compiler.save?.(this.known.changes());
    await this.compiler.dispose();
  }

  /** The block at `hpa`, where the vCPU is, was decoded: code that is known for it is linked. */
  decoded(cpu: number, hpa: number, mode: number): void {
    this.poll();
    const desc = this.host.code.descriptor(hpa, mode);
    const owner = this.heads.get(hpa);
    const entry = owner?.open.get(hpa);
    if (desc === 0) return;
    if (owner !== undefined && entry !== undefined) {
      owner.open.delete(hpa);
      this.link(owner, desc, pageDelta(owner.region, entry.offset), entry.fn);
    } else if (owner === undefined) this.reuse(cpu, desc, hpa, mode);
  }

  /** Links compiled code that is known for the block at `hpa`, where the vCPU is; false when there is none. */
  private reuse(cpu: number, desc: number, hpa: number, mode: number): boolean {
    // A region that is known may go over a breakpoint.
    if (this.known === undefined || this.heads.has(hpa) || this.host.code.hasBreakpoints || !this.mayCompile(cpu, hpa, mode)) return false;
    const rip = this.host.view.getBigUint64(cpu + S_RIP, true);
    const tracked = notesExceptions(this.host.u32, cpu);
    const found = this.known.find(this.host.u8, hpa, mode, tracked, (delta) => this.probePage(cpu, rip, delta));
    if (found === undefined) return false;
    const { known, shape } = found;
    const p: Pending = {
      ...{ desc, region: shape, rip, reforms: known.region.reforms, merges: known.region.merges, absorbed: new Set(shape.heads) },
      ...{ replaces: undefined, cancelled: false, links: [], open: new Map(), stored: known },
      bytes: Math.ceil((known.module.bytes * shape.insnCount) / known.module.insns),
    };
    this.register(p);
    const { exports } = known.module.instantiate(known.region.index, { env: this.host.imports });
    this.counts.reused++;
    this.linkAll(p, exports, known.region.index);
    return true;
  }

  /** Settles when no region waits for the compiler any more, or after `MAX_IDLE_WAIT_MS`; undefined: none does, or one such wait was in vain. */
  idle(): Promise<void> | undefined {
    this.poll();
    return this.isWaitInVain || !this.isBusy() ? undefined : this.waitForCompiler();
  }

  /** Requests whose code has vanished are never answered. */
  private isBusy(): boolean {
    return this.compiler.isLoading === true || [...this.pending.values()].some((p) => !p.cancelled);
  }

  private async waitForCompiler(): Promise<void> {
    const end = performance.now() + MAX_IDLE_WAIT_MS;
    while (!this.isDisposed && this.isBusy()) {
      if (performance.now() > end) {
        this.isWaitInVain = true;
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, IDLE_POLL_MS));
      if (!this.isDisposed) this.poll();
    }
  }

  /** The regions with compiled code that hold the instruction at virtual address `rip`, largest first; several functions may have a copy. */
  regionsAt(rip: bigint): CompiledRegion[] {
    const found: CompiledRegion[] = [];
    for (const p of new Set(this.heads.values())) {
      const offset = Number(BigInt.asIntN(64, rip - p.rip));
      const holds = [...p.region.blocks.values()].some((block) => offset >= block.start && offset < block.end);
      if (holds && p.links.length > 0) found.push({ rip: p.rip, region: p.region });
    }
    return found.sort((a, b) => b.region.insnCount - a.region.insnCount);
  }

  /** The region that would be compiled for code at `rip`, instead of `before`; undefined when its first instruction cannot be decoded. */
  regionAt(cpu: number, hpa: number, mode: number, growth: Growth = {}): Region | undefined {
    const { u8, u32, view } = this.host;
    if (!this.mayCompile(cpu, hpa, mode)) return undefined;
    const { before, absorbed, rip = view.getBigUint64(cpu + S_RIP, true), maxInsns = MAX_REGION_INSNS } = growth;
    const held = new Set(before?.region.heads);
    const now = view.getBigUint64(cpu + S_ICOUNT, true);
    return discover({
      ...regionCode(u8, hpa, mode),
      tracked: before?.region.tracked === true || notesExceptions(u32, cpu),
      maxInsns,
      page: (delta) => this.probePage(cpu, rip, delta),
      wasEntered: (_, at) => this.host.code.entries(at, mode) >= MIN_ENTRIES,
      rate: (at) => this.host.code.rate(at, mode, now),
      startsOther: (_, at, isCall) => {
        if (this.host.code.hasBreakpoint(at)) return true;
        if (absorbed?.has(at) === true || held.has(at)) return false;
        const other = this.heads.get(at);
        // Pieces of a function are often hot, and compiled, before its first instruction is: a crossing at each of them would cost more than the copy.
        if (other !== undefined && (other === before || (!isCall && other.region.insnCount <= MAX_ABSORBED_INSNS))) return false;
        if (!isCall) return other !== undefined;
        if (other !== undefined && (other.region.hpa !== at || other.region.insnCount > MAX_COPIED_INSNS)) return true;
        return (this.copies.get(at) ?? 0) >= MAX_COPIES && !isTiny(u8, at, mode);
      },
      targets: (offset) => observedTargets(view, rip, offset),
      oldEntries: before?.region.entries.map(({ offset }) => offset) ?? [],
    });
  }

  /** Is the code at `hpa`, where the vCPU is, of a kind that is compiled? */
  private mayCompile(cpu: number, hpa: number, mode: number): mode is 32 | 64 {
    if (this.host.code.hasBreakpoint(hpa)) return false;
    return mode === 64 || (mode === 32 && ((this.host.u32[(cpu + S_FLAT) >>> 2] ?? 0) & FLAT_ALWAYS) === FLAT_ALWAYS);
  }

  /** HPA of the page so many pages after that of `rip`, 0 when it is not mapped now. */
  private probePage(cpu: number, rip: bigint, delta: number): number {
    return this.host.probeExec(cpu, BigInt.asUintN(64, (rip & ~0xfffn) + BigInt(delta * 4096))) >>> 0;
  }

  private request(wanted: Omit<Pending, 'cancelled' | 'links' | 'bytes' | 'open' | 'stored' | 'region'> & { readonly region: Region }): void {
    const { desc, region } = wanted;
    const p: Pending = { ...wanted, region: shapeOf(region), cancelled: false, links: [], bytes: 0, open: new Map(), stored: undefined };
    const id = this.nextId++;
    this.pending.set(id, p);
    count(this.pendingBlocks, region.heads, 1);
    this.register(p);
    this.compiler.request({
      id,
      desc,
      insnCount: region.insnCount,
      hpa: region.hpa,
      codeSize: region.codeSize,
      tracked: region.tracked,
      pages: region.pages,
      blocks: [...region.blocks.values()].map(({ start, end, rate }) => [start, end, rate] as const),
      entries: region.entries,
      returnSites: region.returnSites,
      targets: region.targets,
      isMerge: p.merges > 0,
      reportAfter: this.mergeAfter,
      ...(this.host.nameRegion === undefined ? {} : { name: this.host.nameRegion(p.rip) }),
    });
    this.poll();
  }

  /** Makes a region known: where it starts and ends, and what it was made from. */
  private register(p: Pending): void {
    const { region } = p;
    for (const hpa of entryPoints(region)) this.heads.set(hpa, p);
    for (const { offset, hpa } of region.cold) this.ends.set(hpa, { owner: p, offset });
    for (const { hpa } of region.stops) this.stoppedAt.set(hpa, (this.stoppedAt.get(hpa) ?? new Set()).add(p));
    count(this.copies, region.heads, 1);
    this.host.code.track({ ranges: region.ranges, drop: () => this.drop(p) });
  }

  private drop(p: Pending): void {
    p.cancelled = true;
    p.open.clear();
    count(this.copies, p.region.heads, -1);
    for (const hpa of entryPoints(p.region)) if (this.heads.get(hpa) === p) this.heads.delete(hpa);
    for (const { hpa } of p.region.cold) if (this.ends.get(hpa)?.owner === p) this.ends.delete(hpa);
    for (const { hpa } of p.region.stops) {
      const stopped = this.stoppedAt.get(hpa);
      stopped?.delete(p);
      if (stopped?.size === 0) this.stoppedAt.delete(hpa);
    }
    const { u32, table } = this.host;
    // Its first block may be as it was, and is to become hot again: a region is dropped for a change anywhere in it.
    for (const desc of [p.desc, ...p.links.map((link) => link.desc)]) u32[(desc + BD_COUNT) >>> 2] = MIN_ENTRIES;
    for (const { desc, slot } of p.links.splice(0)) {
      if (u32[(desc + BD_FN) >>> 2] === slot) u32[(desc + BD_FN) >>> 2] = 0;
      table.set(slot, null);
      this.freeSlots.push(slot);
    }
    this.forget(p);
  }

  /** The code of `p` cannot be entered any more. */
  private forget(p: Pending): void {
    if (p.bytes === 0) return;
    this.counts.liveRegions--;
    this.counts.liveBytes -= p.bytes;
    p.bytes = 0;
  }

  /** Lets the code of `p` go where other code has taken its place; all jumps are looked up anew. */
  private retire(p: Pending): void {
    const { u32, table } = this.host;
    const kept = p.links.filter(({ desc, slot }) => u32[(desc + BD_FN) >>> 2] === slot);
    if (kept.length === p.links.length) return;
    for (const { desc, slot } of p.links) {
      if (u32[(desc + BD_FN) >>> 2] === slot) continue;
      table.set(slot, null);
      this.freeSlots.push(slot);
    }
    p.links.splice(0, p.links.length, ...kept);
    if (kept.length === 0) this.forget(p);
  }

  /** Code is kept from run to run: `decoded` wants to know of blocks. */
  get isStored(): boolean {
    return this.known !== undefined;
  }

  /** There is more compiled code than there may be: `CodeCache.flush` is due, which drops all of it. */
  get isFull(): boolean {
    return this.counts.liveBytes > this.maxBytes;
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
    const { module } = r;
    const instance = module && this.host.stalls.measure('instantiate', () => new WebAssembly.Instance(module, { env: this.host.imports }));
    for (const id of r.vanished ?? []) {
      const p = this.pending.get(id);
      this.pending.delete(id);
      if (p !== undefined) count(this.pendingBlocks, p.region.heads, -1);
    }
    const made: { readonly p: Pending; readonly index: number }[] = [];
    const insns = r.ids.reduce((sum, id) => sum + (this.pending.get(id)?.region.insnCount ?? 0), 0);
    for (const [i, id] of r.ids.entries()) {
      const p = this.pending.get(id);
      this.pending.delete(id);
      if (p === undefined) continue;
      count(this.pendingBlocks, p.region.heads, -1);
      if (p.cancelled || instance === undefined) continue;
      if (p.replaces !== undefined) {
        this.host.u32[(p.desc + BD_COUNT) >>> 2] = MIN_ENTRIES;
        this.host.forgetLinks();
      }
      this.counts.regions++;
      if (p.merges > 0) this.counts.merges++;
      this.counts.instructions += p.region.insnCount;
      p.bytes = Math.ceil((r.bytes * p.region.insnCount) / insns);
      this.linkAll(p, instance.exports, i);
      if (p.replaces !== undefined) {
        this.retire(p.replaces);
        if (p.replaces.stored !== undefined) this.known?.replace(p.replaces.stored);
      }
      p.replaces = undefined;
      made.push({ p, index: i });
    }
    if (r.module !== undefined && r.storeId !== undefined) this.keep({ id: r.storeId, module: r.module, bytes: r.bytes }, made);
  }

  /** Stores regions of a module that was compiled now. */
  private keep(module: Omit<StoredModule, 'regions'>, made: readonly { readonly p: Pending; readonly index: number }[]): void {
    const kept = made.map(({ p, index }) => ({ p, region: storedRegion(this.host.u8, p.region, { index, reforms: p.reforms, merges: p.merges }) }));
    const regions = kept.map(({ region }) => region).filter((region) => region !== undefined);
    const found = this.known?.addMade({ ...module, regions });
    for (const { p, region } of kept) p.stored = found?.find((known) => known.region === region);
  }

  /** Links region `index` of a module wherever it is entered. */
  private linkAll(p: Pending, exports: WebAssembly.Exports, index: number): void {
    this.counts.liveRegions++;
    this.counts.liveBytes += p.bytes;
    const counter = exports[counterName(index)];
    if (counter instanceof WebAssembly.Global) counter.value = p.desc;
    this.link(p, p.desc, 0, exports[functionName(index, 0)]);
    for (const [n, { offset, hpa }] of p.region.entries.entries()) {
      if (this.heads.get(hpa) !== p) continue;
      const fn = exports[functionName(index, n + 1)];
      const desc = this.host.code.descriptor(hpa, p.region.codeSize);
      if (desc !== 0) this.link(p, desc, pageDelta(p.region, offset), fn);
      else p.open.set(hpa, { offset, fn });
    }
  }

  /** Makes `fn` the code of the block of `desc`, which lies `delta` pages after the start of the region. */
  private link(p: Pending, desc: number, delta: number, fn: WebAssembly.ExportValue | undefined): void {
    const { u32, view, table } = this.host;
    if (fn === undefined) return;
    // The list of pages starts with the one the interpreter's block needs.
    const needed = view.getUint16(desc + BD_PAGES, true);
    const { region } = p;
    const all = [{ delta: 0, hpa: region.hpa - (region.hpa & 0xfff) }, ...region.pages].map((page) => ({ delta: page.delta - delta, hpa: page.hpa }));
    const pages = all.filter((page) => page.delta !== 0 && (needed === 0 || page.delta !== 1));
    if (pages.length + needed > BD_MAX_PAGES) return;
    for (const [i, page] of pages.entries()) {
      view.setInt32(desc + BD_PAGE_LIST + (needed + i) * 8, page.delta, true);
      view.setUint32(desc + BD_PAGE_LIST + (needed + i) * 8 + 4, page.hpa, true);
    }
    view.setUint16(desc + BD_TRACKED, 0, true);
    view.setUint16(desc + BD_REACH, Math.max(view.getUint16(desc + BD_REACH, true), region.reach), true);
    view.setUint16(desc + BD_REGION_PAGES, needed + pages.length, true);
    const slot = this.freeSlots.pop() ?? this.nextSlot++;
    if (slot >= table.length) table.grow(table.length);
    table.set(slot, fn);
    p.links.push({ desc, slot });
    u32[(desc + BD_FN) >>> 2] = slot;
  }
}

/** Does the vCPU note floating-point exceptions, and could compiled code do so? */
function notesExceptions(u32: Uint32Array, cpu: number): boolean {
  const mxcsr = u32[(cpu + S_MXCSR) >>> 2] ?? 0;
  return mxcsr !== MXCSR_DEFAULT && (mxcsr & MXCSR_ROUNDING_MASKS) === MXCSR_DEFAULT;
}

/** Adds `by` to the number of each key; numbers that come to 0 go. */
function count(numbers: Map<number, number>, keys: readonly number[], by: 1 | -1): void {
  for (const key of keys) {
    const n = (numbers.get(key) ?? 0) + by;
    if (n === 0) numbers.delete(key);
    else numbers.set(key, n);
  }
}

/** HPAs of the places where the region is entered. */
function entryPoints(region: RegionShape): number[] {
  return [region.hpa, ...region.entries.map((entry) => entry.hpa)];
}

/** How many pages `offset` is after the page of the region's first instruction. */
function pageDelta(region: RegionShape, offset: number): number {
  return ((region.hpa & 0xfff) + offset) >> 12;
}
