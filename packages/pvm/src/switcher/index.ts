import { readFile } from 'node:fs/promises';

let compiled: Promise<WebAssembly.Module> | undefined;

/**
 * The switcher as a Wasm module, compiled once a process. Imports `env.memory`, `env.getFlags`, `env.setFlags`; exports `syscall(cpu: i32) -> i32`.
 *
 * @throws Error when `build/switcher.wasm` is missing: the package was not built
 */
export function switcherModule(): Promise<WebAssembly.Module> {
  compiled ??= readFile(new URL('../../build/switcher.wasm', import.meta.url)).then((bytes) => WebAssembly.compile(bytes));
  return compiled;
}
