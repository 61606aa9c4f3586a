/**
 * Types at the edge of the package: what a shadow MMU is built over and what it answers.
 *
 * Addresses: `hpa` is a byte offset in the linear memory (below 2^32), `gpa` a guest-physical byte address
 * (below 2^52, so a double holds it exactly), a virtual address is a pair of 32-bit words (low, high).
 */

/** How the soft TLBs are told that translations became stale. `array` is slot * 2 + (user ? 1 : 0). */
export interface TlbFlush {
  /** Drop every translation of one TLB array. */
  flushArray(vcpu: number, array: number): void;
  /** Drop the translation of one 4 KiB page in one TLB array. */
  invlpg(vcpu: number, array: number, vaLow: number, vaHigh: number): void;
  /** Drop every translation of one vCPU. */
  flushAll(vcpu: number): void;
}

export interface ShadowMmuOptions {
  /** The whole linear memory: frame pool and guest RAM are inside it. */
  memory: ArrayBufferLike;
  /** HPA of the frame pool, 4 KiB aligned. The first frame is kept as an empty table (see {@link ShadowMmu.kernelRoot}). */
  framePoolBase: number;
  /** Frames of 4 KiB in the pool; at least 64. */
  framePoolFrames: number;
  /** HPA of the first byte of guest RAM, 4 KiB aligned. 2 MiB shadow leaves are used only when it is 2 MiB aligned. */
  ramBase: number;
  /** Bytes of guest RAM, contiguous in linear memory. */
  ramBytes: number;
  /**
   * HPA of a guest-physical address, or -1 when it is not RAM (MMIO, hole). Contiguous inside each 4 KiB page; large shadow leaves
   * also need it to be contiguous inside each 2 MiB guest page whose first and last 4 KiB are RAM.
   */
  gpaToHpa: (gpa: number) => number;
  /** Number of vCPUs, 1..8. */
  vcpus: number;
  flush: TlbFlush;
  /** False for virtual addresses the guest may not use; a walk there finds nothing. Default: everything is legal. Call `zapAll` when the answer changes. */
  isLegal?: (vaLow: number, vaHigh: number, levels: number) => boolean;
  /** MAXPHYADDR the guest sees (CPUID 0x80000008); PTE address bits above it are reserved. Default 46. */
  physicalAddressBits?: number;
  /** Neighbouring entries filled with a faulting one, a power of two 1..64; 1 turns it off. Default 8. */
  prefetch?: number;
  /** Use 2 MiB shadow leaves where alignment allows. Default true. */
  largePages?: boolean;
}

/** Mode bits of {@link ShadowMmu.load}. */
/** 57-bit virtual addresses: five-level tables. */
export const MODE_LA57 = 1;
/** EFER.NXE: bit 63 of a PTE means no-execute; otherwise it is reserved. */
export const MODE_NX = 2;
/** The supervisor may not execute user pages. Takes effect only with MODE_NX (v2 sets both together). */
export const MODE_SMEP = 4;

/** The shadow tables now allow the access: walk again. */
export const FAULT_FIXED = 0;
/** The guest's tables forbid it: raise #PF with {@link ShadowMmu.errorCode}. */
export const FAULT_PF = 1;
/**
 * The guest allows it, but it writes a guest page that is in use as a page table. {@link ShadowMmu.faultHpa} is the byte written: do the store
 * with `emulateWrite`. (For ACCESS_RMW: read the old value at that address; the store will fault again as ACCESS_WRITE.)
 */
export const FAULT_TRACKED = 2;
/** The guest allows it, and {@link ShadowMmu.faultGpa} is not RAM. */
export const FAULT_MMIO = 3;

export interface ShadowMmuStats {
  /** Pool frames: all, free now. */
  frames: number;
  framesFree: number;
  /** Shadow pages built, zapped for any reason, zapped because the pool was empty, zapped because they were written like data. */
  pagesBuilt: number;
  pagesZapped: number;
  pagesReclaimed: number;
  pagesFlooded: number;
  /** Calls of `fault` by answer. */
  faultsFixed: number;
  faultsGuest: number;
  faultsTracked: number;
  faultsMmio: number;
  /** Leaf entries written by faults, by prefetch, by prefault. */
  leavesFilled: number;
  leavesPrefetched: number;
  leavesPrefaulted: number;
  /** Guest page-table entries emulated, and how many of them changed a present shadow entry. */
  pteWrites: number;
  pteWritesVisible: number;
  /** TLB operations asked for. */
  flushPage: number;
  flushArray: number;
  flushAll: number;
  /** Flushes the guest asked for that could find nothing stale. */
  flushesNeedless: number;
  /** `load` calls; how many found a slot with the same tables. */
  loads: number;
  loadsCached: number;
  /** Guest frames in use as page tables now. */
  tracked: number;
  /** Longest list of shadow leaves of one guest frame now (computed by the call). */
  rmapMax: number;
}
