import { fileURLToPath } from 'node:url';
import { EMBEDDED_KERNEL, loadSymbols, type Symboliser } from '@pvm/pvm';

/** Names for the addresses of a run: from `--symbols`, then from the program and the kernel themselves as far as they have symbols. */
export function runSymbols(a: { readonly symbols: readonly string[]; readonly kernel: string | undefined }, program: readonly string[]): Promise<Symboliser> {
  return loadSymbols(a.symbols, [...program.slice(0, 1), a.kernel ?? fileURLToPath(EMBEDDED_KERNEL)]);
}
