import type { FlagKind } from '../emit/emitter.ts';

/**
 * Flags that lie in registers: most loops end with `cmp rdi, rsi; jne`, and what they compared is still in the registers when a load at
 * the head faults or the region is left. Such flags are not put into the state block on the way around; their kind says which
 * recipe applies, and the exits of the region follow it.
 */

/** Value of the flags' kind for the first recipe. */
export const FIRST_RECIPE = 0x100;
/** A region's exits have a case for each. */
export const MAX_RECIPES = 64;

/** Where a value of the flags' operation is: the low bytes of a general register, or a number. */
export type Source = { readonly register: number } | { readonly constant: number };

/** How flags come about from registers as they are at the exit. `a`: the first source where the result itself is in no register. */
export interface Recipe {
  readonly kind: Exclude<FlagKind, 'inc' | 'dec'>;
  readonly size: number;
  readonly result: Source | undefined;
  readonly a: Source | undefined;
  readonly src: Source;
}

const bit = (s: Source | undefined): number => (s !== undefined && 'register' in s ? 1 << s.register : 0);

/** The registers that a recipe reads (bit set). */
export const registersOf = (r: Recipe): number => bit(r.result) | bit(r.a) | bit(r.src);

const text = (s: Source | undefined): string => (s === undefined ? '' : 'register' in s ? `r${s.register}` : `${s.constant}`);

/** Equal for recipes that do the same. */
export const recipeKey = (r: Recipe): string => `${r.kind}${r.size} ${text(r.result)} ${text(r.a)} ${text(r.src)}`;

/** What a block does with the flags that it begins with. */
export interface FlagUse {
  /** It computes with them, so they must be in the state block. */
  reads: boolean;
  /** It may leave the region with them, which needs the registers of their recipe, except those it has not written by then. */
  observed: boolean;
  /** Registers it has written when it last may leave with them (bit set). */
  clobbers: number;
  /** They are still the flags at its end. */
  passes: boolean;
}

/** What a block does that may be one of two. `written`: registers it writes. */
export function eitherUse(a: FlagUse & { readonly written: number }, b: FlagUse & { readonly written: number }): FlagUse & { readonly written: number } {
  return {
    reads: a.reads || b.reads,
    observed: a.observed || b.observed,
    clobbers: a.clobbers | b.clobbers,
    passes: a.passes || b.passes,
    written: a.written | b.written,
  };
}

/** The same for each block, with what its successors do where it passes the flags on to them. `written`: all registers a block writes. */
export function usesOnAllPaths(
  own: ReadonlyMap<number, FlagUse & { readonly written: number }>,
  successors: ReadonlyMap<number, readonly number[]>,
): ReadonlyMap<number, FlagUse> {
  const uses = new Map<number, FlagUse>([...own].map(([start, use]) => [start, { ...use }]));
  for (let changed = true; changed; ) {
    changed = false;
    for (const [start, use] of uses) {
      if (!use.passes) continue;
      for (const to of successors.get(start) ?? []) {
        const next = uses.get(to);
        if (next === undefined) continue;
        const reads = use.reads || next.reads;
        const observed = use.observed || next.observed;
        const clobbers = use.clobbers | (next.observed ? next.clobbers | (own.get(start)?.written ?? 0) : 0);
        if (reads === use.reads && observed === use.observed && clobbers === use.clobbers) continue;
        Object.assign(use, { reads, observed, clobbers });
        changed = true;
      }
    }
  }
  return uses;
}
