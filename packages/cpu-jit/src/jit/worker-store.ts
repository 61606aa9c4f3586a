import { compilerVersion, DamagedStore, MAX_STORE_BYTES, readStore, type StoreModule, writeStore } from './code-store.ts';
import { compileModule } from './compile-module.ts';
import type { StoreChanges } from './jit.ts';
import type { StoredModule } from './stored-region.ts';

/** The compiler thread's side of stored code: it has the bytes. */
export class WorkerStore {
  /** Why what is in the file could not be had. */
  readonly failure: string | undefined;
  private readonly file: string;
  private readonly version = compilerVersion();
  private readonly loaded: readonly StoreModule[];
  /** Wasm of this run, by id; ids of what was loaded come before. */
  private readonly made = new Map<number, Uint8Array<ArrayBuffer>>();
  private madeBytes = 0;

  constructor(file: string) {
    this.file = file;
    const { modules, failure } = load(file, this.version);
    this.loaded = modules;
    this.failure = failure;
  }

  /** Compiles what was loaded, one module after the other. */
  *compiled(): Generator<StoredModule> {
    for (const [id, { wasm, regions }] of this.loaded.entries()) yield { id, module: compileModule(wasm, 'patient'), bytes: wasm.length, regions };
  }

  /** Keeps a module that was compiled now; returns its id, undefined when there is no room. */
  add(wasm: Uint8Array<ArrayBuffer>): number | undefined {
    if (this.madeBytes + wasm.length > MAX_STORE_BYTES) return undefined;
    this.madeBytes += wasm.length;
    const id = this.loaded.length + this.made.size;
    this.made.set(id, wasm);
    return id;
  }

  /** Writes the file, when there is something new. Returns what prevented it. */
  save({ made, used, replaced }: StoreChanges): string | undefined {
    if (made.size === 0 && replaced.size === 0) return undefined;
    const before = this.loaded.map(({ wasm, regions, idle }, id) => ({
      wasm,
      regions: regions.filter(({ index }) => replaced.get(id)?.includes(index) !== true),
      idle: used.has(id) ? 0 : idle + 1,
    }));
    const now = [...this.made].map(([id, wasm]) => ({ wasm, regions: made.get(id) ?? [], idle: 0 }));
    try {
      writeStore(this.file, this.version, [...before, ...now]);
    } catch (error) {
      return `the code cache ${this.file} could not be written: ${messageOf(error)}`;
    }
    return undefined;
  }
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

function load(file: string, version: string): { modules: StoreModule[]; failure?: string } {
  try {
    return { modules: readStore(file, version) };
  } catch (error) {
    const what = error instanceof DamagedStore ? 'is damaged, and will be written anew' : 'could not be read';
    return { modules: [], failure: `the code cache ${file} ${what}: ${messageOf(error)}` };
  }
}
