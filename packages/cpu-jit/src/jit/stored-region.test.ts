import { describe, expect, it } from 'vitest';
import { regionCode } from './guest-code.ts';
import { discover, MAX_REGION_INSNS } from './region.ts';
import { codeKey, regionFrom, storedRegion } from './stored-region.ts';

/** Pages of linear memory, by distance from the first page of the code. */
const HERE = [0x3000, 0x5000];
const THERE = [0x9000, 0x7000];
/** The code begins so far from the end of its first page: the second part lies in another page. */
const BEFORE_END = 4;
// 0: dec ecx; 2: jnz +100 (cold); 4 (next page): cmp eax, 1; 7: jnz 0; 9: ret
const CODE = [0xff, 0xc9, 0x75, 0x64, 0x83, 0xf8, 0x01, 0x75, 0xf7, 0xc3];

const page = (pages: readonly number[]) => (delta: number) => pages[delta] ?? 0;
const startOf = (pages: readonly number[]) => (pages[0] ?? 0) + 4096 - BEFORE_END;

function memoryWith(...places: readonly (readonly number[])[]): Uint8Array {
  const u8 = new Uint8Array(0xb000);
  for (const [first = 0, second = 0] of places) {
    u8.set(CODE.slice(0, BEFORE_END), first + 4096 - BEFORE_END);
    u8.set(CODE.slice(BEFORE_END), second);
  }
  return u8;
}

function grown(u8: Uint8Array) {
  const region = discover({
    ...regionCode(u8, startOf(HERE), 64),
    tracked: false,
    maxInsns: MAX_REGION_INSNS,
    page: page(HERE),
    wasEntered: (offset) => offset < 100,
    startsOther: () => false,
    targets: () => [],
  });
  if (region === undefined) throw new Error('the code decodes');
  return region;
}

describe('a region that is stored', () => {
  const u8 = memoryWith(HERE, THERE);
  const region = grown(u8);
  const stored = storedRegion(u8, region, { index: 0, reforms: 1, merges: 2 });
  if (stored === undefined) throw new Error('its pages are there');

  it('is found where the same code lies, with the pages there', () => {
    expect(codeKey(u8, startOf(THERE), 64)).toBe(stored.key);
    const found = regionFrom(u8, stored, startOf(THERE), page(THERE));
    expect(found).toMatchObject({
      hpa: startOf(THERE),
      insnCount: 5,
      pages: [{ delta: 1, hpa: THERE[1] }],
      heads: [startOf(THERE), THERE[1], (THERE[1] ?? 0) + 5],
    });
    expect(found?.cold).toEqual([{ offset: 104, hpa: (THERE[1] ?? 0) + 100 }]);
  });
  it('is the same region where it came from', () => {
    const { blocks, ...rest } = region;
    const found = regionFrom(u8, stored, region.hpa, page(HERE));
    expect({ ...found, blocks: [...(found?.blocks.values() ?? [])] }).toEqual({
      ...rest,
      blocks: [...blocks.values()].map(({ start, end }) => ({ start, end })),
    });
  });
  it.each(CODE.map((_, i) => i))('is not found where byte %i of the code differs', (i) => {
    const changed = memoryWith(THERE);
    const at = i < BEFORE_END ? startOf(THERE) + i : (THERE[1] ?? 0) + i - BEFORE_END;
    changed[at] = (changed[at] ?? 0) ^ 0x80;
    expect(regionFrom(changed, stored, startOf(THERE), page(THERE))).toBeUndefined();
  });
  it('is not found while a page of it is not mapped, or at another place in a page', () => {
    expect(regionFrom(u8, stored, startOf(THERE), page([THERE[0] ?? 0]))).toBeUndefined();
    expect(regionFrom(u8, stored, startOf(THERE) - 1, page(THERE))).toBeUndefined();
  });
});
