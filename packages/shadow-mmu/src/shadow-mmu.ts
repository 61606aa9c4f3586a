/**
 * The shadow MMU of one virtual machine, as the run loop sees it.
 */
import type { ShadowMmuOptions, ShadowMmuStats } from './api.ts';

/**
 * Contract with the run loop
 *
 * - One instance per machine, shared by its vCPUs. `load` on CR3 load / LOAD_PGTBL, then use `kernelRoot`, `userRoot` and `slot`: TLB array `slot * 2` with the kernel
 *   root in smod, `slot * 2 + 1` with the user root in umod. They stay valid until the next `load` of that vCPU: a root in use is never freed, only emptied.
 * - The soft TLBs never hold more than the shadow tables allow and those never more than the guest's tables allow: whatever makes a shadow entry lose rights flushes at once.
 *   So guest TLB flushes need no work unless `invlpg`, `flushCurrent` or `flushAll` do it (they may decide that nothing can be stale).
 * - No method allocates on the paths a guest can repeat (`fault`, `prefault`, `emulateWrite`, `load` of a cached root); results are numbers and fields.
 * - Anything that writes guest RAM other than generated code (devices, `read()`-like loaders, PVCS writes) must call `guestWrote(hpa, length)`; it is cheap when nothing is tracked there.
 */
export class ShadowMmu {
  /** After FAULT_PF: error code of the #PF (P, W, U, RSVD, I/D). U is set for the user root and clear for the kernel root, as PVM reports it. */
  errorCode = 0;
  /** After FAULT_TRACKED: HPA of the first byte accessed. */
  faultHpa = 0;
  /** After FAULT_TRACKED, FAULT_MMIO and a successful `translate`: guest-physical address of the first byte accessed. */
  faultGpa = 0;

  /** @throws RangeError when an option is out of range. */
  constructor(_options: ShadowMmuOptions) {
    throw new Error('not written yet');
  }

  /**
   * Makes guest tables current on a vCPU (MOV CR3, LOAD_PGTBL) and returns the TLB slot 0..15 that now belongs to them.
   * @param kernelCr3 guest-physical address of the top-level table for smod (bits 12..51 of CR3, low bits ignored)
   * @param userCr3 the same for umod; equal to kernelCr3 in ABI v2
   * @param pcid guest PCID, 0 when CR4.PCIDE is off
   * @param mode MODE_* bits
   * @param flush false for a no-flush load (CR3 bit 63, LOAD_PGTBL without bit 0)
   */
  load(_vcpu: number, _kernelCr3: number, _userCr3: number, _pcid: number, _mode: number, _flush: boolean): number {
    throw new Error('not written yet');
  }

  /** Slot made current by the last `load`, -1 before the first. */
  slot(_vcpu: number): number {
    throw new Error('not written yet');
  }

  /** HPA of the shadow root for smod. An empty table when CR3 names no RAM or nothing is loaded. Never 0. */
  kernelRoot(_vcpu: number): number {
    throw new Error('not written yet');
  }

  /** HPA of the shadow root for umod. */
  userRoot(_vcpu: number): number {
    throw new Error('not written yet');
  }

  /** Levels of the current shadow table: 4 or 5 (goes to V_LEVELS). */
  levels(_vcpu: number): number {
    throw new Error('not written yet');
  }

  /** Drops all roots and slots: before a snapshot is restored or the machine is torn down. `load` again before running. Flushes every TLB. */
  reset(): void {
    throw new Error('not written yet');
  }

  /**
   * A translation failed in the shadow tables. `user` 1: umod (user root), 0: smod. `access`: ACCESS_* of the layout.
   * The access must not cross a 4 KiB boundary: (vaLow, vaHigh) names its first byte in the page that failed.
   * @returns FAULT_FIXED, FAULT_PF, FAULT_TRACKED or FAULT_MMIO
   */
  fault(_vcpu: number, _user: number, _vaLow: number, _vaHigh: number, _access: number): number {
    throw new Error('not written yet');
  }

  /**
   * Fills the shadow of one page before it is touched (ERETU after a page fault). Never changes guest memory: an entry whose accessed
   * bit (for writes: dirty bit) the guest has not set is left for the real fault.
   * @returns true when the shadow now allows the access
   */
  prefault(_vcpu: number, _user: number, _vaLow: number, _vaHigh: number, _access: number): boolean {
    throw new Error('not written yet');
  }

  /**
   * Walks the guest's tables without any side effect. On success `faultGpa` is set and the HPA is returned; -1 when the guest forbids it
   * (`errorCode` set) and -2 when the page is not RAM (`faultGpa` set).
   */
  translate(_vcpu: number, _user: number, _vaLow: number, _vaHigh: number, _access: number): number {
    throw new Error('not written yet');
  }

  /**
   * Performs a store to a guest page table: copies `size` bytes (1..64, inside one 4 KiB page) from linear-memory address `source` to `hpa`,
   * then brings the shadow tables and the TLBs in step. Does not look for translated code: call CpuCore.dirtyCode for that.
   */
  emulateWrite(_hpa: number, _size: number, _source: number): void {
    throw new Error('not written yet');
  }

  /** Guest RAM [hpa, hpa + length) was changed by something other than guest code: brings the shadow in step if page tables are in it. */
  guestWrote(_hpa: number, _length: number): void {
    throw new Error('not written yet');
  }

  /** True when the guest frame that holds `hpa` is in use as a page table (mapped read-only everywhere). */
  isTracked(_hpa: number): boolean {
    throw new Error('not written yet');
  }

  /** Guest INVLPG / TLB_INVLPG: one address, every tag of this vCPU. */
  invlpg(_vcpu: number, _vaLow: number, _vaHigh: number): void {
    throw new Error('not written yet');
  }

  /** TLB_FLUSH_CURRENT: the current PCID of this vCPU. */
  flushCurrent(_vcpu: number): void {
    throw new Error('not written yet');
  }

  /** TLB_FLUSH: everything of this vCPU. */
  flushAll(_vcpu: number): void {
    throw new Error('not written yet');
  }

  /** Removes every shadow entry of every root; roots in use stay loaded and become empty. Flushes every TLB. */
  zapAll(): void {
    throw new Error('not written yet');
  }

  /** Removes every shadow leaf that maps the 4 KiB guest frame at `gpa`, and every shadow page built from it; flushes what they covered. */
  zapGfn(_gpa: number): void {
    throw new Error('not written yet');
  }

  stats(): ShadowMmuStats {
    throw new Error('not written yet');
  }

  /** @throws Error naming the first broken invariant; for tests and `--check` runs (walks the whole pool). */
  check(): void {
    throw new Error('not written yet');
  }
}
