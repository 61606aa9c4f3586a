/** A hash without collisions on given numbers: `(n * multiplier mod 2^32) >>> shift & slots.length - 1` is the place in `slots` of the number's position in the list. */
export interface TargetHash {
  readonly multiplier: number;
  readonly shift: number;
  /** Position in the list; `UNUSED` where no number of the list comes to. The length is a power of two. */
  readonly slots: readonly number[];
}

export const UNUSED = -1;
/** Slots for each number at most, as a power of two: Wasm jump tables take V8 time to compile and memory. */
const MAX_SPREAD = 3;
/** Odd numbers whose bits look random: the golden ratio and the multipliers of MurmurHash3. */
const MULTIPLIERS = [0x9e37_79b1, 0x85eb_ca6b, 0xc2b2_ae35, 0xcc9e_2d51, 0x1b87_3593, 0xe654_6b65];

const indexOf = (n: number, multiplier: number, shift: number, mask: number) => (Math.imul(n, multiplier) >>> shift) & mask;

function slotsOf(numbers: readonly number[], multiplier: number, shift: number, bits: number): number[] | undefined {
  const slots = new Array<number>(1 << bits).fill(UNUSED);
  for (const [i, n] of numbers.entries()) {
    const at = indexOf(n, multiplier, shift, slots.length - 1);
    if (slots[at] !== UNUSED) return undefined;
    slots[at] = i;
  }
  return slots;
}

/**
 * The smallest such hash for 32-bit `numbers`, which are all different; among equals one that only shifts. Undefined when none is
 * small enough.
 */
export function hashTargets(numbers: readonly number[]): TargetHash | undefined {
  const least = Math.ceil(Math.log2(Math.max(2, numbers.length)));
  for (let bits = least; bits <= least + MAX_SPREAD; bits++) {
    for (const multiplier of [1, ...MULTIPLIERS]) {
      for (let shift = 0; shift <= 32 - bits; shift++) {
        const slots = slotsOf(numbers, multiplier, shift, bits);
        if (slots !== undefined) return { multiplier, shift, slots };
      }
    }
  }
  return undefined;
}
