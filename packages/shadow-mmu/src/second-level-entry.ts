/**
 * Entries of second-level tables (EPT; SDM vol. 3, 29.3): names of their bits, and what makes one misconfigured. Frames are host-physical addresses
 * in linear memory, below 4 GiB: the high word of an entry is 0.
 */

export const EPT_R = 1 << 0;
export const EPT_W = 1 << 1;
export const EPT_X = 1 << 2;
export const EPT_RWX = EPT_R | EPT_W | EPT_X;
/** Memory type of a leaf, bits 3-5: write-back. */
export const EPT_WB = 6 << 3;
export const EPT_TYPE_SHIFT = 3;
export const EPT_LARGE = 1 << 7;
export const EPT_A = 1 << 8;
export const EPT_D = 1 << 9;
export const EPT_ADDRESS = 0xffff_f000 | 0;
/** A page of device memory: writable and executable but not readable is a misconfiguration, so that every access exits without a walk of ours. KVM's choice. */
export const EPT_MMIO = EPT_W | EPT_X;

/** Bytes that one entry of a level 1..4 covers. */
export function entryBytes(level: number): number {
  return 2 ** (12 + 9 * (level - 1));
}

/** Index of a guest-physical address at a level 1..4. */
export function gpaIndex(gpa: number, level: number): number {
  return Math.floor(gpa / entryBytes(level)) & 511;
}

/** Whether a present entry ends the walk. */
export function isLeaf(low: number, level: number): boolean {
  return level === 1 || (low & EPT_LARGE) !== 0;
}

/** Why the CPU would raise an EPT misconfiguration at an entry (SDM vol. 3, 29.3.3.1), undefined when it would not. Only for present entries. */
export function misconfigurationOf(low: number, high: number, level: number): string | undefined {
  if ((low & (EPT_R | EPT_W)) === EPT_W) return 'writable but not readable';
  if (high !== 0) return 'address beyond the physical address width';
  if (level === 4 && (low & EPT_LARGE) !== 0) return 'large page at level 4';
  if (!isLeaf(low, level)) return (low & 0x78) !== 0 ? 'reserved bits 3-6 of a table entry' : undefined;
  const type = (low >>> EPT_TYPE_SHIFT) & 7;
  if (type === 2 || type === 3 || type === 7) return `memory type ${type}`;
  if (level > 1 && (low & EPT_ADDRESS & (entryBytes(level) - 1)) !== 0) return 'large page that is not aligned';
  return undefined;
}
