import { setFlagsFromString } from 'node:v8';

/** V8 compiles the functions of a module at once while this flag is set, not at their first call, which would be on the vCPU's thread. */
const EAGER = ['--no-wasm-lazy-compilation', '--wasm-lazy-compilation'] as const;
/** V8 takes its optimising tier at once while this flag is set. */
const OPTIMISED = ['--no-liftoff', '--liftoff'] as const;
/**
 * Bytes of Wasm that a function runs before V8 optimises it, noted when its module is compiled; then V8's own again. For code of earlier runs, which there is much of
 * at once: on two cores, a boot then waits for V8's threads more than it gains. In a program that has just been compiled, four times V8's own is too patient.
 */
const PATIENT = ['--wasm-tiering-budget=52000000', '--wasm-tiering-budget=13000000'] as const;

/** How a module is compiled: to baseline code that V8 optimises when it is hot, the same but later, or optimised at once. */
export type Tier = 'baseline' | 'patient' | 'optimised';
const FLAGS = { baseline: [EAGER], patient: [EAGER, PATIENT], optimised: [EAGER, OPTIMISED] } as const satisfies Record<Tier, unknown>;

/**
 * Baseline code takes V8 a fifteenth of the time of optimised code and runs at half its speed, several times that of the interpreter. So regions
 * begin with it, and V8 optimises those that turn out hot, on threads of its own. Regions that replace code that is already optimised are optimised at once.
 *
 * Only flags that one function's compilation looks at once may be switched like this: other threads compile meanwhile. They are those of the
 * process, so they are put back: the interpreter is a large module that must stay lazy.
 */
export function compileModule(wasm: Uint8Array<ArrayBuffer>, tier: Tier): WebAssembly.Module {
  const flags = FLAGS[tier];
  for (const [during] of flags) setFlagsFromString(during);
  try {
    return new WebAssembly.Module(wasm);
  } finally {
    for (const [, after] of flags) setFlagsFromString(after);
  }
}
