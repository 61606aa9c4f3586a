import { describe, expect, test } from 'vitest';
import { decode } from '../decoder/index.ts';
import { discover, MAX_REGION_INSNS } from './region.ts';
import { returnTargets } from './return-sites.ts';

const BASE = 0x1000;

/** Where the returns of flat code that starts at 0 go to. */
function returnsIn(code: readonly number[], targets: ReadonlyMap<number, readonly number[]> = new Map()): [number, readonly number[]][] {
  const bytes = Uint8Array.from([...code, ...new Uint8Array(16)]);
  const region = discover({
    hpa: BASE,
    codeSize: 64,
    tracked: false,
    maxInsns: MAX_REGION_INSNS,
    page: () => 0,
    decode: (hpa) => {
      const insn = decode(bytes, hpa - BASE, bytes.length - (hpa - BASE), 64);
      return typeof insn === 'string' ? undefined : insn;
    },
    wasEntered: () => true,
    startsOther: () => false,
    targets: (offset) => targets.get(offset) ?? [],
  });
  if (region === undefined) throw new Error('no region');
  return [...returnTargets(region)];
}

const CALL = (distance: number) => [0xe8, distance, 0, 0, 0];
const RET = 0xc3;

describe('a return inside a region goes back', () => {
  test('to all callers of its function, and the function that the region starts with goes out', () => {
    // 0: call 12; 5: call 12; 10: nop; 11: ret; 12: ret
    expect(returnsIn([...CALL(7), ...CALL(2), 0x90, RET, RET])).toEqual([[12, [5, 10]]]);
  });
  test('only to the callers of its own function', () => {
    // 0: call 11; 5: call 12; 10: ret; 11: ret; 12: ret
    expect(returnsIn([...CALL(6), ...CALL(2), RET, RET, RET])).toEqual([
      [11, [5]],
      [12, [10]],
    ]);
  });
  test('to the callers of functions that jump to its own, at once or after a condition', () => {
    // 0: call 6; 5: ret; 6: jz 9; 8: ret; 9: jmp 12; 11: ret; 12: ret
    expect(returnsIn([...CALL(1), RET, 0x74, 1, RET, 0xeb, 1, RET, RET])).toEqual([
      [8, [5]],
      [12, [5]],
    ]);
  });
  test('after calls through pointers, where the target was seen', () => {
    // 0: call rax; 2: ret; 3: ret
    expect(returnsIn([0xff, 0xd0, RET, RET], new Map([[0, [3]]]))).toEqual([[3, [2]]]);
  });
  test('to callers of a function that calls itself', () => {
    // 0: jz 7; 2: call 0; 7: ret
    expect(returnsIn([0x74, 5, ...CALL(-7 & 0xff).slice(0, 2), 0xff, 0xff, 0xff, RET])).toEqual([[7, [7]]]);
  });
});
