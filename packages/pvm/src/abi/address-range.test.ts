import { describe, expect, it } from 'vitest';
import { DEFAULT_RANGE, isLegal, packRange, parseRange } from './address-range.ts';

const EMPTY5 = 0xffff_ffffn << 32n;
const high = (va: bigint) => Number(va >> 32n);

describe('MSR_PVM_LINEAR_ADDRESS_RANGE', () => {
  it('reads the default: 64 PML4 slots, with the fixed bits set', () => {
    const value = packRange(DEFAULT_RANGE);
    expect(value & 0xff00_ff00_ff00_ff00n).toBe(0xff00_ff00_ff00_ff00n);
    expect(((value >> 16n) & 0x1ffn) - (value & 0x1ffn)).toBe(64n);
    expect(parseRange(value)).toEqual(DEFAULT_RANGE);
  });

  it.each([
    ['0 restores the default', 0n, DEFAULT_RANGE],
    ['a smaller window', 0xffc0_ffb0n | EMPTY5, { start4: 0x1b0, end4: 0x1c0, start5: 0x1ff, end5: 0x1ff }],
    ['no window at all', 0xffff_ffffn | EMPTY5, { start4: 0x1ff, end4: 0x1ff, start5: 0x1ff, end5: 0x1ff }],
    ['a fixed bit missing', 0xffc0_feb0n | EMPTY5, undefined],
    ['an empty window that is not 0x1ff', 0xffb0_ffb0n | EMPTY5, undefined],
    ['bounds the wrong way round', 0xffb0_ffc0n | EMPTY5, undefined],
    ['a start below the default', 0xffc0_ff9fn | EMPTY5, undefined],
    ['an end beyond the default', 0xffe1_ffb0n | EMPTY5, undefined],
    ['a PML5 window that was not given', 0xffc0_ffb0n | (0xff90_ff80n << 32n), undefined],
  ] as const)('%s', (_name, value, expected) => {
    expect(parseRange(value)).toEqual(expected);
  });
});

describe('legal addresses', () => {
  it.each([
    [0n, true],
    [0x7fff_ffff_f000n, true],
    [0xffff_cfff_ffff_f000n, false],
    [0xffff_d000_0000_0000n, true],
    [0xffff_efff_ffff_f000n, true],
    [0xffff_f000_0000_0000n, false],
    [0xffff_ffff_8000_0000n, false],
  ])('0x%s: %s', (va, expected) => {
    expect(isLegal(DEFAULT_RANGE, high(va), 4)).toBe(expected);
  });
});
