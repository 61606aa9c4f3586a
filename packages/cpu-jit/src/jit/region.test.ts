import { describe, expect, it } from 'vitest';
import { decode } from '../decoder/index.ts';
import { discover, MAX_REGION_INSNS, type Region } from './region.ts';

const BASE = 0x1000;

/** The region that starts at `start` in flat code; a region of its own starts at each of `others`, and everything has run. */
function regionAt(code: readonly number[], start: number, others: readonly number[], oldEntries?: readonly number[]): Region | undefined {
  const bytes = Uint8Array.from([...code, ...new Uint8Array(16)]);
  return discover({
    hpa: BASE + start,
    codeSize: 64,
    tracked: false,
    maxInsns: MAX_REGION_INSNS,
    page: () => 0,
    decode: (hpa) => {
      const insn = decode(bytes, hpa - BASE, bytes.length - (hpa - BASE), 64);
      return typeof insn === 'string' ? undefined : insn;
    },
    wasEntered: () => true,
    startsOther: (_, hpa) => others.includes(hpa - BASE),
    targets: () => [],
    ...(oldEntries === undefined ? {} : { oldEntries }),
  });
}

describe('a region', () => {
  // 0: call 10; 5: dec ecx; 7: jnz 0; 9: hlt; 10: ret
  const code = [0xe8, 5, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf7, 0xf4, 0xc3];

  it('can be entered where a function outside of it returns to', () => {
    expect(regionAt(code, 0, [10])?.entries).toEqual([{ offset: 5, hpa: BASE + 5 }]);
  });
  it('that starts where a function outside of it returns to has no second entry there', () => {
    expect(regionAt(code, 5, [10])?.entries).toEqual([]);
  });
  it('that takes in the function can be entered where the one that it replaces could', () => {
    expect(regionAt(code, 0, [], [5, 30])).toMatchObject({ entries: [{ offset: 5, hpa: BASE + 5 }], returnSites: [5] });
  });
  it('has none where it holds the function', () => {
    expect(regionAt(code, 0, [])).toMatchObject({ entries: [], returnSites: [5] });
  });
});
