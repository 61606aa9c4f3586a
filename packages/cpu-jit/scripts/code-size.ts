// Says where the bytes go of the regions in files of stored code (pvm run --code-cache DIR): how much Wasm each part of the emitter makes,
// and how much machine code V8 makes of it, and in what time. The regions are compiled anew, by this version of the emitter.
//     node -C source packages/cpu-jit/scripts/code-size.ts FILE...
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { readStore } from '../src/jit/code-store.ts';
import { compileRegions, type EntryCounter } from '../src/jit/compile.ts';
import { codeOf } from '../src/jit/compile-requests.ts';
import type { RegionCode } from '../src/jit/region.ts';
import { RegionEmitter } from '../src/jit/region-emitter.ts';
import type { StoredRegion } from '../src/jit/stored-region.ts';
import { BodyEncoder } from '../src/wasm/body-encoder.ts';
import { Nodes } from '../src/wasm/nodes.ts';

const MODULE_INSNS = 250;

/** What nodes are for that are made while a method of the emitter runs; the innermost one counts. */
const PARTS: Readonly<Record<string, string>> = {
  finishGroups: 'page checks',
  either: 'page checks',
  grouped: 'page checks',
  slow: 'slow paths',
  leaveFlags: 'flags for exits and faults',
  flagsToState: 'flags to the state block',
  storeFlags: 'flags to the state block',
  finishFlags: 'flags at ends of blocks',
  followRecipe: 'flags: recipes',
  madeFrom: 'flags: recipes',
  flag: 'flags read',
  condition: 'flags read',
  retire: 'instruction counts',
  backEdgeCode: 'budget checks',
  exitCode: 'exits',
  leaving: 'exits',
  leaveWithException: 'exceptions',
  targetFault: 'canonical targets',
  targetSlot: 'indirect targets',
  isTarget: 'indirect targets',
  finish: 'common end of exits',
  loadRegisters: 'registers loaded',
  storeRegisters: 'registers stored',
  guardCode: 'guards of loops',
  whole: 'registers',
  setWhole: 'registers',
};

/** The bytes of Wasm that each part has made so far. */
const bytes = new Map<string, number>();
let part = 'region entry';
const partOf: string[] = [];

function within<T>(name: string, f: () => T): T {
  const outer = part;
  part = name;
  try {
    return f();
  } finally {
    part = outer;
  }
}

type Method = (this: unknown, ...args: unknown[]) => unknown;
type Methods = Record<string, Method>;

function replaceMethod(prototype: object, name: string, make: (original: Method) => Method): void {
  for (let p: object | null = prototype; p !== null; p = Object.getPrototypeOf(p) as object | null) {
    if (!Object.hasOwn(p, name)) continue;
    const methods = p as Methods;
    const original = methods[name];
    if (original !== undefined) methods[name] = make(original);
    return;
  }
  throw new Error(`there is no method ${name}`);
}

function countParts(): void {
  for (const [method, name] of Object.entries(PARTS)) {
    replaceMethod(
      RegionEmitter.prototype,
      method,
      (original) =>
        function (...args) {
          return within(name, () => original.apply(this, args));
        },
    );
  }
  replaceMethod(
    RegionEmitter.prototype,
    'emitBlocks',
    (original) =>
      function (...args) {
        return within('what instructions do', () => original.apply(this, args));
      },
  );
  replaceMethod(
    RegionEmitter.prototype,
    'finish',
    (original) =>
      function (render) {
        return original.call(this, () => within('branches', render as () => unknown));
      },
  );
  replaceMethod(
    Nodes.prototype,
    'add',
    (original) =>
      function (...args) {
        const node = original.apply(this, args) as number;
        partOf[node] = part;
        return node;
      },
  );
  let inner = 0;
  replaceMethod(
    BodyEncoder.prototype,
    'node',
    (original) =>
      function (node) {
        const { out } = this as { out: { at: number } };
        const [start, outer] = [out.at, inner];
        inner = 0;
        original.call(this, node);
        const all = out.at - start;
        const name = partOf[node as number] ?? '';
        bytes.set(name, (bytes.get(name) ?? 0) + all - inner);
        inner = outer + all;
      },
  );
}

/** The region with its code in memory of its own. */
function regionOf(r: StoredRegion): RegionCode {
  const offsets = r.blocks.flat();
  const deltas = [...new Set(offsets.map((offset) => (r.within + offset) >> 12))].flatMap((d) => [d, d + 1]);
  const slots = new Map([...new Set([0, ...deltas])].map((delta, i) => [delta, (i + 1) << 12] as const));
  const u8 = new Uint8Array((slots.size + 1) << 12);
  const at = (offset: number) => (slots.get((r.within + offset) >> 12) ?? 0) + ((r.within + offset) & 0xfff);
  let next = 0;
  for (const [start, end] of r.blocks) for (let o = start; o < end; o++) u8[at(o)] = r.code[next++] ?? 0;
  const region = codeOf(u8, {
    ...r,
    hpa: at(0),
    entries: r.entries.map((offset) => ({ offset, hpa: 0 })),
    targets: new Map(r.targets),
    pages: [...slots].map(([delta, hpa]) => ({ delta, hpa })),
  });
  if (region === undefined) throw new Error('stored code does not decode');
  return region;
}

/** Whatever version of the compiler has written the file: only the guest's code in it is looked at. */
function versionOf(file: string): string {
  const found = /"version":"([0-9a-f]+)"/.exec(readFileSync(file).toString('latin1', 0, 256));
  if (found?.[1] === undefined) throw new Error(`${file} is no file of stored code`);
  return found[1];
}

/** Modules of some 250 instructions each, as the compiler thread makes them. */
function modulesOf(file: string): RegionCode[][] {
  const version = versionOf(file);
  const modules: RegionCode[][] = [];
  let insns = MODULE_INSNS;
  for (const stored of readStore(file, version).flatMap(({ regions }) => regions)) {
    if (insns >= MODULE_INSNS) {
      modules.push([]);
      insns = 0;
    }
    modules.at(-1)?.push(regionOf(stored));
    insns += stored.insnCount;
  }
  return modules;
}

const counter: EntryCounter = { reportAfter: 1 << 15 };
const compile = (regions: readonly RegionCode[]) =>
  compileRegions(
    regions,
    regions.map(() => counter),
  );
const instructions = (regions: readonly RegionCode[]) => regions.flatMap(({ blocks }) => [...blocks.values()]).reduce((n, { insns }) => n + insns.length, 0);

/** Has V8 compile the regions of a file in a process of its own, which prints what it says of each function, and the processor time of all threads in us. */
function compiledBy(flags: readonly string[], file: string): { readonly us: number; readonly bytes: number } {
  const options = [
    ...process.execArgv,
    import.meta.filename,
    `--child=${['--trace-wasm-compilation-times', '--no-wasm-lazy-compilation', ...flags].join(' ')}`,
    file,
  ];
  const { stdout, stderr } = spawnSync(process.execPath, options, { encoding: 'utf8', maxBuffer: 1 << 28 });
  const us = Number(/^us (\d+)/m.exec(stdout)?.[1]);
  if (Number.isNaN(us)) throw new Error(`V8 did not come to an end: ${stderr}`);
  return { us, bytes: [...stdout.matchAll(/^Compiled function .* codesize (\d+)/gm)].reduce((sum, [, size]) => sum + Number(size), 0) };
}

function child(flags: string, files: readonly string[]): void {
  const modules = files.flatMap(modulesOf).map(compile);
  for (const flag of flags.split(' ')) setFlagsFromString(flag);
  const start = process.cpuUsage();
  for (const wasm of modules) new WebAssembly.Module(wasm);
  const { user, system } = process.cpuUsage(start);
  console.log(`us ${user + system}`);
}

function report(file: string): void {
  bytes.clear();
  const modules = modulesOf(file);
  const total = modules.reduce((sum, regions) => sum + compile(regions).length, 0);
  const n = instructions(modules.flat());
  console.log(`${file}: ${modules.flat().length} regions, ${n} instructions, ${(total / n).toFixed(2)} bytes of Wasm each`);
  for (const [name, size] of [...bytes].sort((a, b) => b[1] - a[1])) {
    console.log(`  ${name.padEnd(32)} ${(size / n).toFixed(2).padStart(7)} ${((100 * size) / total).toFixed(1).padStart(6)} %`);
  }
  const tiers = { optimised: ['--no-liftoff'], baseline: ['--liftoff-only'] };
  for (const [tier, flags] of Object.entries(tiers)) {
    const made = compiledBy(flags, file);
    console.log(`  ${tier}: ${(made.bytes / n).toFixed(1)} bytes of machine code each, ${(made.us / n).toFixed(1)} us of all threads`);
  }
}

const { values, positionals } = parseArgs({ options: { child: { type: 'string' } }, allowPositionals: true });
if (values.child !== undefined) child(values.child, positionals);
else {
  countParts();
  for (const file of positionals) report(file);
}
