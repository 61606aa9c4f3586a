import { setFlagsFromString } from 'node:v8';

/** V8 compiles the functions of a module at once while this flag is set, not at their first call, which would be on the vCPU's thread. */
const EAGER = ['--no-wasm-lazy-compilation', '--wasm-lazy-compilation'] as const;
/** V8 takes its optimising tier at once while this flag is set. */
const OPTIMISED = ['--no-liftoff', '--liftoff'] as const;

/**
 * Baseline code takes V8 a fifteenth of the time of optimised code and runs at half its speed, several times that of the interpreter. So regions
 * begin with it, and V8 optimises those that turn out hot, on threads of its own. Regions that replace code that is already optimised are optimised at once.
 *
 * Only flags that one function's compilation looks at once may be switched like this: other threads compile meanwhile. They are those of the
 * process, so they are put back: the interpreter is a large module that must stay lazy.
 */
export function compileModule(wasm: Uint8Array<ArrayBuffer>, isOptimised: boolean): WebAssembly.Module {
  const flags = isOptimised ? [EAGER, OPTIMISED] : [EAGER];
  for (const [during] of flags) setFlagsFromString(during);
  try {
    return new WebAssembly.Module(wasm);
  } finally {
    for (const [, after] of flags) setFlagsFromString(after);
  }
}
