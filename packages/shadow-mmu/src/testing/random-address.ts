/** Addresses for random guests: few, so that they meet each other's tables. */
import type { Paging } from './plain-guest.ts';
import type { Random } from './random.ts';

/** Indices used at each level, upper to lower, by paging mode. */
const INDICES: Record<Paging, readonly (readonly number[])[]> = {
  '5-level': [
    [0, 1, 511],
    [0, 256, 511],
    [0, 1, 511],
    [0, 1, 511],
    [0, 1, 2, 3, 9],
  ],
  '4-level': [
    [0, 1, 256, 511],
    [0, 1, 511],
    [0, 1, 511],
    [0, 1, 2, 3, 9],
  ],
  pae: [
    [0, 1, 3],
    [0, 1, 511],
    [0, 1, 2, 3, 9],
  ],
  '32-bit': [
    [0, 1, 512, 1023],
    [0, 1, 2, 3, 9, 1023],
  ],
  off: [
    [0, 1, 2, 3],
    [0, 1, 2, 511],
    [0, 1, 2, 3, 9],
  ],
};

/** A random address of a paging mode, canonical and a multiple of 8. */
export function randomAddress(random: Random, paging: Paging): [low: number, high: number] {
  const levels = INDICES[paging];
  let page = 0;
  levels.forEach((indices, i) => {
    page = page * (paging === '32-bit' ? 1024 : i === 0 && levels.length === 3 ? 4 : 512) + random.pick(indices);
  });
  const low = (page << 12) | (random.below(512) * 8);
  let high = Math.floor(page / 2 ** 20);
  if (paging === '4-level') high = (high << 16) >> 16;
  if (paging === '5-level') high = (high << 7) >> 7;
  return [low, high];
}
