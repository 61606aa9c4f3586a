/**
 * Which addresses a PVM guest may use: the lower half, a window of the upper half given in PML4 slots, and one in
 * PML5 slots. MSR_PVM_LINEAR_ADDRESS_RANGE holds the four bounds.
 */
export interface AddressRange {
  /** Window of PML4 slots [start, end) in the topmost PML5 slot, 256..511. Equal bounds 0x1ff: empty. */
  readonly start4: number;
  readonly end4: number;
  readonly start5: number;
  readonly end5: number;
}

/** The hypervisor hands out 32 TiB: 64 PML4 slots, and no PML5 slot. */
export const DEFAULT_RANGE: AddressRange = { start4: 0x1a0, end4: 0x1e0, start5: 0x1ff, end5: 0x1ff };

/** Bits of the MSR that must be set. */
const FIXED_BITS = 0xff00_ff00_ff00_ff00n;
const NO_SLOT = 0x1ff;

/** Value of the MSR that stands for `range`. */
export function packRange(range: AddressRange): bigint {
  const field = (slot: number) => BigInt(0xfe00 | slot);
  return field(range.start4) | (field(range.end4) << 16n) | (field(range.start5) << 32n) | (field(range.end5) << 48n);
}

/** The range a guest asks for by writing `value`, or undefined when that is #GP. 0 restores the default; a guest may only shrink it. */
export function parseRange(value: bigint): AddressRange | undefined {
  if (value === 0n) return DEFAULT_RANGE;
  if ((value & FIXED_BITS) !== FIXED_BITS) return undefined;
  const slot = (shift: bigint) => Number((value >> shift) & 0x1ffn);
  const range = { start4: slot(0n), end4: slot(16n), start5: slot(32n), end5: slot(48n) };
  const inside = (start: number, end: number, outerStart: number, outerEnd: number) =>
    (start === NO_SLOT && end === NO_SLOT) || (start >= 256 && start < end && end < NO_SLOT && start >= outerStart && end <= outerEnd);
  return inside(range.start4, range.end4, DEFAULT_RANGE.start4, DEFAULT_RANGE.end4) &&
    inside(range.start5, range.end5, DEFAULT_RANGE.start5, DEFAULT_RANGE.end5)
    ? range
    : undefined;
}

/** Whether a walk may find anything at the virtual address (low, high 32 bits). `levels`: 4 or 5. */
export function isLegal(range: AddressRange, vaHigh: number, levels: number): boolean {
  const high = vaHigh >>> 0;
  // Lower half: bit 63 clear; whether the address is canonical is the walker's business.
  if (high < 0x8000_0000) return true;
  // Slots as the spec writes them: bits 39..63 = 0x1fffe00 | slot4, bits 48..63 = 0xfe00 | slot5.
  const slot4 = (high >>> 7) - 0x1fffe00;
  if (slot4 >= range.start4 && slot4 < range.end4) return true;
  if (levels !== 5) return false;
  const slot5 = (high >>> 16) - 0xfe00;
  return slot5 >= range.start5 && slot5 < range.end5;
}
