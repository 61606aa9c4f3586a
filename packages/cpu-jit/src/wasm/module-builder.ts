import { BodyEncoder, typeCode } from './body-encoder.ts';
import { typesOf, WasmBuilder } from './builder.ts';
import { ByteWriter } from './byte-writer.ts';
import type { Expr } from './types.ts';

/** Section numbers of a module, and kinds of imports and exports (WebAssembly core specification 5.5). */
const SECTION = { custom: 0, type: 1, import: 2, function: 3, global: 6, export: 7, code: 10 } as const;
const EXTERN = { function: 0, table: 1, memory: 2, global: 3 } as const;
const FUNCTION_TYPE = 0x60;
const FUNCREF = 0x70;
/** Type, mutability and initial value of a counter: a mutable i32 that begins as 0. */
const COUNTER = [0x7f, 1, 0x41, 0, 0x0b];
const SHARED_WITH_MAXIMUM = 3;
const MAX_PAGES = 65536;
const HEADER = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
/** WebAssembly branch hinting proposal. */
const HINT_SECTION = 'metadata.code.branch_hint';
const LIKELY = 1;
const FUNCTION_NAMES = 1;

interface DefinedFunction {
  readonly name: string;
  readonly type: number;
  readonly locals: readonly number[];
  readonly body: Expr;
  /** Labels that branches of it go to. */
  readonly targets: ReadonlySet<number>;
}

/** Builds a module of functions that imports one shared memory and one table. */
export class ModuleBuilder extends WasmBuilder {
  private readonly types: string[] = [];
  private readonly typeBytes: (readonly number[])[] = [];
  private readonly imports: { readonly name: string; readonly type: number }[] = [];
  private readonly functions: DefinedFunction[] = [];
  private readonly exports: { readonly name: string; readonly external: string }[] = [];
  private readonly counterNames: string[] = [];
  private readonly out = new ByteWriter();

  /** Forgets everything: the next module begins. */
  clear(): void {
    this.nodes.clear();
    this.names.clear();
    this.targets.clear();
    for (const list of [this.types, this.typeBytes, this.imports, this.functions, this.exports, this.counterNames]) list.length = 0;
  }

  protected override signature(parameters: number, results: number): number {
    const [from, to] = [typesOf(parameters), typesOf(results)];
    const key = `${from.join()}>${to.join()}`;
    const known = this.types.indexOf(key);
    if (known >= 0) return known;
    this.typeBytes.push([FUNCTION_TYPE, from.length, ...from.map(typeCode), to.length, ...to.map(typeCode)]);
    return this.types.push(key) - 1;
  }

  /** A function of the module `env`. */
  addFunctionImport(name: string, parameters: number, results: number): void {
    this.imports.push({ name, type: this.signature(parameters, results) });
  }
  addFunction(name: string, parameters: number, results: number, locals: readonly number[], body: Expr): void {
    this.functions.push({ name, type: this.signature(parameters, results), locals, body, targets: new Set(this.targets) });
    this.targets.clear();
  }
  addFunctionExport(name: string, external: string): void {
    this.exports.push({ name, external });
  }

  /** A mutable i32 of the module, exported under this name; returns its index for `counters`. */
  addCounter(external: string): number {
    return this.counterNames.push(external) - 1;
  }

  /** The module's bytes; `hasNames`: with the names of its functions, for profilers. */
  emit(hasNames: boolean): Uint8Array<ArrayBuffer> {
    const { out, imports, functions } = this;
    const indexes = new Map([...imports, ...functions].map(({ name }, i) => [name, i] as const));
    const index = (name: string): number => {
      const found = indexes.get(name);
      if (found === undefined) throw new Error(`there is no function ${name}`);
      return found;
    };
    out.clear();
    out.raw(HEADER);
    this.section(SECTION.type, this.typeBytes, (type) => out.raw(type));
    this.importSection();
    this.section(SECTION.function, functions, ({ type }) => out.u32(type));
    if (this.counterNames.length > 0) this.section(SECTION.global, this.counterNames, () => out.raw(COUNTER));
    const exported = [
      ...this.exports.map(({ name, external }) => ({ external, kind: EXTERN.function, index: index(name) })),
      ...this.counterNames.map((external, i) => ({ external, kind: EXTERN.global, index: i })),
    ];
    this.section(SECTION.export, exported, (e) => {
      out.name(e.external);
      out.byte(e.kind);
      out.u32(e.index);
    });
    const code = new ByteWriter();
    const hints = this.code(code, index);
    this.hintSection(hints);
    out.byte(SECTION.code);
    const bytes = code.take();
    out.u32(bytes.length);
    out.raw(bytes);
    if (hasNames) this.nameSection();
    return out.take();
  }

  private section<T>(id: number, items: readonly T[], write: (item: T) => void): void {
    const { out } = this;
    out.byte(id);
    out.sized(() => {
      out.u32(items.length);
      for (const item of items) write(item);
    });
  }

  private importSection(): void {
    const { out } = this;
    const writers = [
      () => {
        out.name('memory');
        out.raw([EXTERN.memory, SHARED_WITH_MAXIMUM]);
        out.u32(1);
        out.u32(MAX_PAGES);
      },
      () => {
        out.name('table');
        out.raw([EXTERN.table, FUNCREF, 0]);
        out.u32(1);
      },
      ...this.imports.map(({ name, type }) => () => {
        out.name(name);
        out.byte(EXTERN.function);
        out.u32(type);
      }),
    ];
    this.section(SECTION.import, writers, (write) => {
      out.name('env');
      write();
    });
  }

  /** Writes all bodies; returns the likely `if`s of each, as offsets from its start. */
  private code(out: ByteWriter, index: (name: string) => number): (readonly number[])[] {
    const numbers = new Map<number, string>([...this.names].map(([name, number]) => [number, name]));
    let targets: ReadonlySet<number> = new Set();
    const encoder = new BodyEncoder(
      this.nodes,
      out,
      (label) => targets.has(label),
      (name) => index(numbers.get(name) ?? ''),
    );
    out.u32(this.functions.length);
    return this.functions.map(({ locals, body, targets: own }) => {
      targets = own;
      let hints: readonly number[] = [];
      let start = 0;
      out.sized(() => {
        start = out.at;
        writeLocals(out, locals);
        hints = encoder.encode(body);
      });
      return hints.map((at) => at - start);
    });
  }

  private hintSection(hints: readonly (readonly number[])[]): void {
    const { out } = this;
    const some = hints.map((offsets, i) => ({ offsets, index: this.imports.length + i })).filter(({ offsets }) => offsets.length > 0);
    if (some.length === 0) return;
    out.byte(SECTION.custom);
    out.sized(() => {
      out.name(HINT_SECTION);
      out.u32(some.length);
      for (const { offsets, index } of some) {
        out.u32(index);
        out.u32(offsets.length);
        for (const offset of offsets) {
          out.u32(offset);
          out.raw([1, LIKELY]);
        }
      }
    });
  }

  private nameSection(): void {
    const { out } = this;
    out.byte(SECTION.custom);
    out.sized(() => {
      out.name('name');
      out.byte(FUNCTION_NAMES);
      out.sized(() => {
        out.u32(this.functions.length);
        for (const [i, { name }] of this.functions.entries()) {
          out.u32(this.imports.length + i);
          out.name(name);
        }
      });
    });
  }
}

/** Declares locals, neighbours of one type together. */
function writeLocals(out: ByteWriter, locals: readonly number[]): void {
  const runs: { type: number; count: number }[] = [];
  for (const type of locals) {
    const last = runs.at(-1);
    if (last?.type === type) last.count++;
    else runs.push({ type, count: 1 });
  }
  out.u32(runs.length);
  for (const { type, count } of runs) {
    out.u32(count);
    out.byte(typeCode(type));
  }
}
