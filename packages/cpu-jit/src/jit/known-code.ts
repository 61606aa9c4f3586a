import type { StoreChanges } from './jit.ts';
import type { RegionShape } from './region.ts';
import { codeKey, regionFrom, type StoredModule, type StoredRegion } from './stored-region.ts';

/** A module whose code is known, and its instances: each region of one counts for one place in memory. */
class KnownModule {
  readonly id: number;
  readonly bytes: number;
  /** Guest instructions of its regions. */
  readonly insns: number;
  private readonly module: WebAssembly.Module;
  private instance: WebAssembly.Instance | undefined;
  private readonly taken = new Set<number>();

  constructor({ id, module, bytes, regions }: StoredModule) {
    this.id = id;
    this.module = module;
    this.bytes = bytes;
    this.insns = regions.reduce((sum, { insnCount }) => sum + insnCount, 0);
  }
  /** An instance whose region `index` nobody has. */
  instantiate(index: number, imports: WebAssembly.Imports): WebAssembly.Instance {
    if (this.instance === undefined || this.taken.has(index)) {
      this.instance = new WebAssembly.Instance(this.module, imports);
      this.taken.clear();
    }
    this.taken.add(index);
    return this.instance;
  }
}

/** A region that is known, of a module. */
export interface KnownRegion {
  readonly module: KnownModule;
  readonly region: StoredRegion;
  /** Another one has taken its place. */
  isReplaced: boolean;
}

/** Compiled code by the guest code that it was made from: of earlier runs, and of this one. */
export class KnownCode {
  private readonly byKey = new Map<number, KnownRegion[]>();
  private readonly made: KnownRegion[] = [];
  private readonly loaded: KnownRegion[] = [];
  private readonly used = new Set<number>();

  /** Code of an earlier run. */
  add(stored: StoredModule): void {
    this.loaded.push(...this.index(stored));
  }
  /** Code of this run. */
  addMade(stored: StoredModule): readonly KnownRegion[] {
    const regions = this.index(stored);
    this.made.push(...regions);
    return regions;
  }
  private index(stored: StoredModule): readonly KnownRegion[] {
    const module = new KnownModule(stored);
    return stored.regions.map((region) => {
      const known: KnownRegion = { module, region, isReplaced: false };
      const list = this.byKey.get(region.key);
      if (list === undefined) this.byKey.set(region.key, [known]);
      else list.push(known);
      return known;
    });
  }

  /** The region for the code at `hpa`, the one that was compiled last if there are several. `tracked`: it must note floating-point exceptions. */
  find(
    u8: Uint8Array,
    hpa: number,
    codeSize: number,
    tracked: boolean,
    pageAt: (delta: number) => number,
  ): { readonly known: KnownRegion; readonly shape: RegionShape } | undefined {
    const list = this.byKey.get(codeKey(u8, hpa, codeSize)) ?? [];
    for (let i = list.length - 1; i >= 0; i--) {
      const known = list[i];
      if (known === undefined || known.isReplaced || known.region.codeSize !== codeSize || (tracked && !known.region.tracked)) continue;
      const shape = regionFrom(u8, known.region, hpa, pageAt);
      if (shape === undefined) continue;
      this.used.add(known.module.id);
      return { known, shape };
    }
    return undefined;
  }

  /** Forgets a region in whose place there is another one now. */
  replace(known: KnownRegion): void {
    known.isReplaced = true;
  }

  /** What is to be stored. */
  changes(): StoreChanges {
    const made = new Map<number, StoredRegion[]>();
    for (const { module, region, isReplaced } of this.made) if (!isReplaced) made.set(module.id, [...(made.get(module.id) ?? []), region]);
    const replaced = new Map<number, number[]>();
    for (const { module, region, isReplaced } of this.loaded) if (isReplaced) replaced.set(module.id, [...(replaced.get(module.id) ?? []), region.index]);
    return { made, used: this.used, replaced };
  }
}
