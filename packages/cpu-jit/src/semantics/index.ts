import type { Semantics } from '../emit/emitter.ts';
import { alu } from './alu.ts';
import { atomics } from './atomic.ts';
import { avx } from './avx.ts';
import { bits } from './bits.ts';
import { branches } from './branch.ts';
import { decimal } from './decimal.ts';
import { descriptors } from './descriptor.ts';
import { flagInstructions } from './flags.ts';
import { io } from './io.ts';
import { mmx } from './mmx.ts';
import { moves } from './mov.ts';
import { msrs } from './msr.ts';
import { mulDiv } from './muldiv.ts';
import { shifts } from './shift.ts';
import { sse } from './sse.ts';
import { strings } from './string.ts';
import { system } from './system.ts';
import { x87 } from './x87.ts';

const parts: readonly Readonly<Record<string, Semantics>>[] = [
  alu,
  atomics,
  avx,
  bits,
  branches,
  decimal,
  descriptors,
  flagInstructions,
  io,
  mmx,
  moves,
  msrs,
  mulDiv,
  shifts,
  sse,
  strings,
  system,
  x87,
];

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
