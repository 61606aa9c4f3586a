/**
 * Whether MXCSR's exception flags are noted.
 *
 * Noting them costs time in every floating-point instruction, and hardly any program looks at them. One that does clears them
 * first, by LDMXCSR (SDM vol. 1, 10.2.3; feclearexcept, feholdexcept, fesetenv of C libraries). So they are noted from the first time
 * that MXCSR is loaded. Until then S_MXCSR is MXCSR_DEFAULT and stays so; MXCSR_TRACKED, which no guest sees, tells the same value
 * apart once it was loaded.
 *
 * An operating system saves and restores MXCSR in images. Any other value in an image is one of a program that has loaded MXCSR. The
 * default one is either that of a program that never did, or of one that has just cleared the flags; images of the second kind are
 * remembered by where they are.
 */
import { CPU_BASE, MXCSR_DEFAULT, MXCSR_TRACKED, MXCSR_VISIBLE, S_MXCSR, S_TLB_COUNTED, S_TRACKED_IMAGES, TLB_ADDEND, TLB_READ, TRACKED_IMAGE_COUNT } from "../src/layout";
import { PAGE_MASK, entryOf } from "./tlb";

const TABLE: u32 = CPU_BASE + S_TRACKED_IMAGES;

/** Host-physical address of `va`, whose page has just been accessed; the address itself where the TLB holds no such page. */
function addressOf(cpu: u32, va: u64): u32 {
  const entry = entryOf(cpu, va);
  return load<u64>(entry, TLB_READ) == (va & PAGE_MASK ^ load<u64>(cpu, S_TLB_COUNTED)) ? <u32>va + load<u32>(entry, TLB_ADDEND) : <u32>va;
}
@inline
function slotOf(address: u32): u32 {
  return TABLE + ((address >> 6 ^ address >> 16) & (TRACKED_IMAGE_COUNT - 1)) * 4;
}

export function visibleMxcsr(cpu: u32): u32 {
  return load<u32>(cpu, S_MXCSR) & MXCSR_VISIBLE;
}
/** MXCSR was written to `va`, in an image from which it may be restored. */
export function mxcsrSaved(cpu: u32, va: u64): void {
  const address = addressOf(cpu, va);
  const slot = slotOf(address);
  if (load<u32>(cpu, S_MXCSR) == (MXCSR_DEFAULT | MXCSR_TRACKED)) store<u32>(slot, address);
  else if (load<u32>(slot) == address) store<u32>(slot, 0);
}
/** MXCSR comes from `va`, in an image. */
export function restoreMxcsr(cpu: u32, value: u32, va: u64): void {
  let tracked = value != MXCSR_DEFAULT;
  if (!tracked) {
    const address = addressOf(cpu, va);
    tracked = load<u32>(slotOf(address)) == address;
  }
  store<u32>(cpu, tracked ? value | MXCSR_TRACKED : value, S_MXCSR);
}
