import { setFlagsFromString } from 'node:v8';

/**
 * What V8 should know before it compiles anything of ours, once and for good: baseline code whose compilation sees `wasm-inlining` change
 * midway writes through a pointer it never loaded, and the process dies. Unlikely arms go out of line; nothing makes code longer, which
 * costs more time to compile than it gains in regions: our exits inlined, loops peeled or unrolled.
 */
const FLAGS = ['--experimental-wasm-branch-hinting', '--no-wasm-inlining', '--no-wasm-loop-peeling', '--no-wasm-loop-unrolling'];
let areSet = false;

/** Sets the flags of this process that compiled guest code needs. */
export function setEngineFlags(): void {
  if (areSet) return;
  areSet = true;
  for (const flag of FLAGS) setFlagsFromString(flag);
}
