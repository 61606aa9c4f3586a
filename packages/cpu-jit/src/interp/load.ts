import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { CpuError } from '../errors.ts';
import { handlerIndex, type InterpreterPart, PARTS } from './handler-table.ts';

const compiled = new Map<InterpreterPart, WebAssembly.Module>();
const indexes = new Map<string, Int32Array>();

function notBuilt(file: string, cause: unknown): CpuError {
  return new CpuError('not-built', `build/${file} is missing from @pvm/cpu-jit: run \`npm run build\``, { cause });
}
const urlOf = (file: string) => new URL(`../../build/${file}`, import.meta.url);

function readSync(file: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(readFileSync(urlOf(file)));
  } catch (cause) {
    throw notBuilt(file, cause);
  }
}
/** Worked out when the interpreter was built: from the tables it takes longer than reading the module. */
function keysOf({ keys }: InterpreterPart): Uint32Array {
  return new Uint32Array(readSync(keys).buffer);
}

/** The modules of these parts, compiled once in a process. */
async function loadParts(parts: readonly InterpreterPart[]): Promise<WebAssembly.Module[]> {
  return Promise.all(
    parts.map(async (part) => {
      let module = compiled.get(part);
      if (module === undefined) {
        const bytes = await readFile(urlOf(part.file)).catch((cause: unknown) => {
          throw notBuilt(part.file, cause);
        });
        module = await WebAssembly.compile(new Uint8Array(bytes));
        compiled.set(part, module);
      }
      return module;
    }),
  );
}
function loadPartSync(part: InterpreterPart): WebAssembly.Module {
  let module = compiled.get(part);
  if (module === undefined) {
    module = new WebAssembly.Module(readSync(part.file));
    compiled.set(part, module);
  }
  return module;
}
function indexOf(parts: readonly InterpreterPart[]): Int32Array {
  const name = parts.map((part) => part.file).join();
  let index = indexes.get(name);
  if (index === undefined) {
    index = handlerIndex(parts.map((part) => [part, keysOf(part)]));
    indexes.set(name, index);
  }
  return index;
}

/** The interpreter of one CPU: its instances share the CPU's memory and table. */
export interface Interpreter {
  /** Of the part for 64-bit code: functions that compiled regions import. */
  readonly exports: WebAssembly.Exports;
  /** formKey -> index of the handler in the table, for code of this size. */
  handlers(codeSize: 16 | 32 | 64): Int32Array;
}

/** Makes `instantiate` ready: throws CpuError `not-built` when a file is missing. */
export async function loadInterpreter(avx: boolean): Promise<{ instantiate(env: WebAssembly.ModuleImports): Interpreter }> {
  const parts = avx ? [PARTS.base, PARTS.avx] : [PARTS.base];
  // Handlers of 16- and 32-bit code are loaded when the first such code runs: few guests need them.
  const legacyParts = avx ? [PARTS.legacy, PARTS.legacyAvx] : [PARTS.legacy];
  const modules = await loadParts(parts);
  const long = indexOf(parts);
  return {
    instantiate(env) {
      const [base] = modules.map((module) => new WebAssembly.Instance(module, { env }));
      let legacy: Int32Array | undefined;
      return {
        exports: base?.exports ?? {},
        handlers(codeSize) {
          if (codeSize === 64) return long;
          if (legacy === undefined) {
            for (const part of legacyParts) new WebAssembly.Instance(loadPartSync(part), { env });
            legacy = indexOf(legacyParts);
          }
          return legacy;
        },
      };
    },
  };
}
