import type { Semantics } from '../emit/emitter.ts';
import { alu } from './alu.ts';

const parts: readonly Readonly<Record<string, Semantics>>[] = [alu];

/** Semantics by mnemonic (`Row.name`). A mnemonic of the tables that is missing here raises #UD. */
export const semantics: Readonly<Record<string, Semantics>> = merge();

function merge(): Record<string, Semantics> {
  const all: Record<string, Semantics> = {};
  for (const part of parts) {
    for (const [name, f] of Object.entries(part)) {
      if (name in all) throw new Error(`two semantics functions are named ${name}`);
      all[name] = f;
    }
  }
  return all;
}
