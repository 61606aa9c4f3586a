import { setFlagsFromString } from 'node:v8';

/**
 * What V8 should know before it compiles regions, once and for good. Unlikely arms go out of line; nothing makes code longer, which costs more time to
 * compile than it gains in regions: our exits inlined, loops peeled or unrolled.
 *
 * Inlining gets no room, but is not turned off: baseline code counts calls for it, and V8 shares a module's code between threads. An instance
 * that a thread makes after `--no-wasm-inlining` has no counters for baseline code that was compiled before, which then writes through
 * a null pointer. Any Wasm of the process may be such a module, Node's own type stripper too.
 */
const FLAGS = [
  '--experimental-wasm-branch-hinting',
  '--wasm-inlining-budget=0',
  '--wasm-inlining-min-budget=0',
  '--wasm-inlining-max-size=0',
  '--no-wasm-loop-peeling',
  '--no-wasm-loop-unrolling',
];
let areSet = false;

/** Sets the flags of this process that compiled guest code needs. */
export function setEngineFlags(): void {
  if (areSet) return;
  areSet = true;
  for (const flag of FLAGS) setFlagsFromString(flag);
}
