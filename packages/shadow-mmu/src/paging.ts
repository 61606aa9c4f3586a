/**
 * Names of the bits in x86 page-table entries (SDM Vol. 3, 5.5) and in shadow-page roles.
 * Entries are handled as two 32-bit words; bit numbers in the high word are minus 32.
 */

export const PTE_P = 1 << 0;
export const PTE_W = 1 << 1;
export const PTE_U = 1 << 2;
export const PTE_A = 1 << 5;
export const PTE_D = 1 << 6;
export const PTE_PS = 1 << 7;
/** Execute disable, bit 63: in the high word. */
export const PTE_NX_HIGH = 0x8000_0000 | 0;
/** Address bits of the low word. */
export const PTE_ADDR_LOW = 0xffff_f000 | 0;
/** Address bits 32..51, in the high word. */
export const PTE_ADDR_HIGH = 0x000f_ffff;

/** Page-fault error code (SDM Vol. 3, 5.7). */
export const PF_P = 1 << 0;
export const PF_W = 1 << 1;
export const PF_U = 1 << 2;
export const PF_RSVD = 1 << 3;
export const PF_I = 1 << 4;

/** ACCESS_* of the vCPU layout; the low two bits are the kind. */
export const ACCESS_READ = 0;
export const ACCESS_WRITE = 1;
export const ACCESS_EXEC = 2;
export const ACCESS_RMW = 3;
export const ACCESS_KIND = 3;
/** Made by the CPU itself, at privilege 0 whatever CPL is. */
export const ACCESS_IMPLICIT_SUPERVISOR = 4;

/** Rights accumulated over the levels of a walk. */
export const ACC_W = 1;
export const ACC_U = 2;
export const ACC_X = 4;
export const ACC_ALL = ACC_W | ACC_U | ACC_X;

/**
 * Role of a shadow page: what, beside the guest frame it was made from, decides its contents. Two walks may share a shadow page only if
 * frame and role are equal. Bits 0-2: level 1..5. Never 0 for a page in use.
 */
export const ROLE_LEVEL = 7;
/** Not made from a guest table but from a part of a large guest page. */
export const ROLE_DIRECT = 1 << 3;
/** Rights accumulated from the levels above (ACC_* << 4); for direct pages including those of the large entry. */
export const ROLE_ACC_SHIFT = 4;
/** Page of a user shadow: holds only pages with U set. Otherwise of a kernel shadow. */
export const ROLE_USER = 1 << 7;
export const ROLE_NX = 1 << 8;
export const ROLE_SMEP = 1 << 9;
export const ROLE_LA57 = 1 << 10;
/** Level-4 page below entry 511 of a five-level root, where the legal range is finer than one entry of the root. */
export const ROLE_TOP = 1 << 11;
/** Which part of a 32-bit guest table the page is made from: a half of a page table, a quarter of a page directory. */
export const ROLE_QUADRANT_SHIFT = 12;
/** Guest entries have 4 bytes (32-bit paging); they are those of PAE paging; CR4.PSE is set. */
export const ROLE_32BIT = 1 << 14;
export const ROLE_PAE = 1 << 15;
export const ROLE_PSE = 1 << 16;
/** CR0.WP is 0: leaves may have become the supervisor's for a write. ROLE_SMEP and ROLE_SMAP matter to those. */
export const ROLE_NO_WP = 1 << 17;
export const ROLE_SMAP = 1 << 18;
/** Top of a three-level shadow: not made from a guest table as it is in memory. */
export const ROLE_TOP3 = 1 << 19;
/** Bits a child inherits from its root. */
export const ROLE_INHERITED = ROLE_USER | ROLE_NX | ROLE_SMEP | ROLE_LA57 | ROLE_32BIT | ROLE_PAE | ROLE_PSE | ROLE_NO_WP | ROLE_SMAP;
/** Pages that are not kept in step with one guest frame. */
export const ROLE_UNTRACKED = ROLE_DIRECT | ROLE_TOP3;

/** Index of a virtual address at a table level 1..5. */
export function vaIndex(vaLow: number, vaHigh: number, level: number): number {
  switch (level) {
    case 1:
      return (vaLow >>> 12) & 511;
    case 2:
      return (vaLow >>> 21) & 511;
    case 3:
      return (vaLow >>> 30) | ((vaHigh & 0x7f) << 2);
    case 4:
      return (vaHigh >>> 7) & 511;
    default:
      return (vaHigh >>> 16) & 511;
  }
}

/** What a level's index adds to the low word of a virtual address. */
export function vaLowOf(index: number, level: number): number {
  return level === 1 ? index << 12 : level === 2 ? index << 21 : level === 3 ? index << 30 : 0;
}

/** What a level's index adds to the high word of a virtual address, before sign extension. */
export function vaHighOf(index: number, level: number): number {
  return level === 3 ? index >>> 2 : level === 4 ? index << 7 : level === 5 ? index << 16 : 0;
}

/** Rights one guest entry gives. */
export function accessOf(low: number, high: number): number {
  return ((low >>> 1) & (ACC_W | ACC_U)) | (high < 0 ? 0 : ACC_X);
}
