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
  /** Default `pvm`. */
  flavour?: ShadowFlavour;
  /**
   * Flavour `kvm` only: last-level guest tables may be written without an exit and go out of step ("unsync") until the guest flushes. Default false.
   * Then `load` with flush, `invlpg`, `flushPcid` and `flushAll` must be called for every flush of the guest.
   */
  unsync?: boolean;
  /** Address spaces kept per vCPU, the current one included, 1..16. Default 16; KVM's is 4. */
  cachedRoots?: number;
}

/**
 * Whose shadow tables: PVM's, where guest kernel and user both run at privilege 3 and have a root each, or KVM's, where one root has the guest's U/S bits
 * and the CPU applies CPL, SMEP and SMAP to them.
 */
export type ShadowFlavour = 'pvm' | 'kvm';

/** Mode bits of {@link ShadowMmu.load}. */
/** 57-bit virtual addresses: five-level tables. */
export const MODE_LA57 = 1;
/** EFER.NXE: bit 63 of a PTE means no-execute; otherwise it is reserved. */
export const MODE_NX = 2;
/** The supervisor may not execute user pages. Takes effect only with MODE_NX (v2 sets both together). */
export const MODE_SMEP = 4;
/** CR0.WP = 0: the supervisor writes pages whatever their W bits say. */
export const MODE_NO_WP = 8;
/** The remaining bits are for the flavour `kvm`. CR4.SMAP. */
export const MODE_SMAP = 16;
/** PAE paging: four page-directory pointers, two levels of 8-byte entries. */
export const MODE_PAE = 32;
/** 32-bit paging: two levels of 4-byte entries. */
export const MODE_32BIT = 64;
/** CR4.PSE, for 32-bit paging: 4 MiB pages. */
export const MODE_PSE = 128;
/** CR0.PG = 0: linear addresses are guest-physical. */
export const MODE_NO_PAGING = 256;
/** Modes whose linear addresses have 32 bits; their shadow has three levels. */
export const MODE_LEGACY = MODE_PAE | MODE_32BIT | MODE_NO_PAGING;

/** Beside ACCESS_* of the layout in the `access` of {@link ShadowMmu.fault}: RFLAGS.AC is set, which lifts SMAP. */
export const ACCESS_AC = 8;

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
  /** Tables that went out of step, and that were brought back in step. */
  pagesUnsynced: number;
  pagesSynced: number;
  /** Tables out of step now. */
  unsync: number;
  /** `load` calls; how many found a slot with the same tables. */
  loads: number;
  loadsCached: number;
  /** Guest frames in use as page tables now. */
  tracked: number;
  /** Longest list of shadow leaves of one guest frame now (computed by the call). */
  rmapMax: number;
}
