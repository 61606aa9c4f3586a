/**
 * SMAP with a TLB (SDM vol. 3, 5.6.1). User pages that a supervisor reached while RFLAGS.AC was set stay cached, with tags that match nothing
 * while AC is clear: kernels set AC around each copy from or to user memory, most often to the same few pages. The entries are listed,
 * so that opening and closing them is a short loop.
 */
import {
  S_CPL, S_CR4, S_RFLAGS, S_SMAP_COUNT, S_SMAP_LIST, S_SMAP_OPEN, SMAP_ENTRIES, TLB_CLOSED, TLB_ENTRY_SIZE, TLB_FLAG_SMAP, TLB_FLAGS, TLB_READ, TLB_WRITE, V_DEPRIVILEGED,
} from "../src/layout";
import { CR4_SMAP, RFLAGS_AC } from "./cpu";
import { forgetStack, noDataTag } from "./tlb";

const CLOSED: u64 = TLB_CLOSED;

/** Is the entry still what it was listed for? */
@inline
function isListed(entry: u32): bool {
  return entry != 0 && (load<u32>(entry, TLB_FLAGS) & TLB_FLAG_SMAP) != 0;
}
/** The tag of `entry` at `offset` in it matches its page, or has another bit TLB_CLOSED than the addresses that select the entry. */
function setTag(entry: u32, offset: u32, open: bool): void {
  const tag = load<u64>(entry + offset);
  if (tag == noDataTag(entry)) return;
  const own: u64 = entry & TLB_ENTRY_SIZE ? CLOSED : 0;
  store<u64>(entry + offset, (tag & ~CLOSED) | (open ? own : own ^ CLOSED));
}

/** `entry` has just been filled with such a page. */
export function listSmapEntry(cpu: u32, entry: u32): void {
  store<u32>(cpu, 1, S_SMAP_OPEN);
  for (let i: u32 = 0; i < <u32>SMAP_ENTRIES; i++) if (load<u32>(cpu + (i << 2), S_SMAP_LIST) == entry) return;
  const n = load<u32>(cpu, S_SMAP_COUNT);
  store<u32>(cpu, n + 1, S_SMAP_COUNT);
  const at = cpu + S_SMAP_LIST + (n & (SMAP_ENTRIES - 1)) * 4;
  const oldest = load<u32>(at);
  if (isListed(oldest)) {
    store<u64>(oldest, noDataTag(oldest), TLB_READ);
    store<u64>(oldest, noDataTag(oldest), TLB_WRITE);
  }
  store<u32>(at, entry);
}

/** RFLAGS.AC, CPL or CR4.SMAP may have changed. */
export function updateSmap(cpu: u32): void {
  const lifted = (load<u32>(cpu, S_RFLAGS) & RFLAGS_AC) != 0 && load<u32>(cpu, S_CPL) != 3 && (load<u32>(cpu, S_CR4) & CR4_SMAP) != 0;
  const open: u32 = lifted && !load<u32>(cpu, V_DEPRIVILEGED) ? 1 : 0;
  if (open == load<u32>(cpu, S_SMAP_OPEN)) return;
  store<u32>(cpu, open, S_SMAP_OPEN);
  forgetStack();
  for (let i: u32 = 0; i < <u32>SMAP_ENTRIES; i++) {
    const entry = load<u32>(cpu + (i << 2), S_SMAP_LIST);
    if (!isListed(entry)) continue;
    setTag(entry, TLB_READ, open != 0);
    setTag(entry, TLB_WRITE, open != 0);
  }
}
