// Second-level (EPT) walk: guest-physical to host. Entries hold HPAs. SDM vol. 3, 28.3.
import {
  EPT_CACHE_ENTRIES, EPT_QUAL_APIC, EPT_QUAL_MISCONFIG, EPT_QUAL_PRESENT, EPT_QUAL_TABLE, S_EPT_CACHE, S_EXIT_QUAL, V_APIC_PAGE, V_EPT_ROOT,
} from "../src/layout";

export const EPT_TO_READ: u32 = 1;
export const EPT_TO_WRITE: u32 = 2;
export const EPT_TO_EXEC: u32 = 4;

const EPT_LARGE: u64 = 0x80;
const EPT_A: u64 = 0x100;
const EPT_D: u64 = 0x200;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/** Linear memory ends at 4 GiB: our physical addresses have 32 bits. */
const RESERVED: u64 = 0x000f_ffff_0000_0000;
/** Bits 3 to 6 of an entry that leads to a table. */
const RESERVED_TABLE: u64 = 0x78;

/** Guest-physical address of the last failure. */
export let eptGpa: u64 = 0;
/** Rights of the last translation, combined over the levels; dirty bit of its leaf. */
export let eptReadable: bool = false;
export let eptWritable: bool = false;
export let eptExecutable: bool = false;
export let eptDirty: bool = false;

/** A 2 MiB page with all rights whose accessed and dirty bits are set: whatever the access, nothing is refused and nothing is left to mark. */
const EPT_OPEN: u64 = EPT_LARGE | EPT_A | EPT_D | 7;

/** HPA of guest-physical `gpa` if the cache leads to a page of the common kind (EPT_OPEN), else 0: `eptTranslate` knows more. */
@inline
export function eptOpen(cpu: u32, gpa: u64): u32 {
  const cached = cpu + S_EPT_CACHE + ((<u32>(gpa >> 30) & (EPT_CACHE_ENTRIES - 1)) << 4);
  if (load<u64>(cached) != (gpa >> 30 | <u64>load<u32>(cpu, V_EPT_ROOT) << 32) || load<u32>(cached, 12) != 7) return 0;
  const entry = load<u64>(load<u32>(cached, 8) + ((<u32>(gpa >> 21) & 511) << 3));
  if ((entry & (EPT_OPEN | RESERVED)) != EPT_OPEN) return 0;
  return (<u32>entry & 0xffe0_0000) | (<u32>gpa & 0x001f_ffff);
}

/** HPA of guest-physical `gpa` for `need` (EPT_TO_*), or 0 with eptGpa and S_EXIT_QUAL set. `table`: access to a guest paging structure. */
export function eptTranslate(cpu: u32, gpa: u64, need: u32, table: bool): u32 {
  if (gpa >> 48) return violation(cpu, gpa, table, 0);
  let at = load<u32>(cpu, V_EPT_ROOT);
  let shift: u32 = 39;
  let rights: u64 = 7;
  const tag = gpa >> 30 | <u64>at << 32;
  const cached = cpu + S_EPT_CACHE + ((<u32>(gpa >> 30) & (EPT_CACHE_ENTRIES - 1)) << 4);
  if (load<u64>(cached) == tag) {
    at = load<u32>(cached, 8);
    rights = load<u32>(cached, 12);
    shift = 21;
  }
  while (true) {
    const slot = at + ((<u32>(gpa >> shift) & 511) << 3);
    const entry = load<u64>(slot);
    if (!(entry & 7)) return violation(cpu, gpa, table, 0);
    // Writable but not readable is a misconfiguration.
    if ((entry & 3) == 2 || entry & RESERVED) return violation(cpu, gpa, table, EPT_QUAL_PRESENT | EPT_QUAL_MISCONFIG);
    rights &= entry;
    if (shift == 12 || entry & EPT_LARGE) {
      if (shift > 30) return violation(cpu, gpa, table, EPT_QUAL_PRESENT | EPT_QUAL_MISCONFIG);
      if ((<u32>rights & need) != need) return violation(cpu, gpa, table, EPT_QUAL_PRESENT);
      if (shift == 12 && <u32>(entry & ADDRESS) == load<u32>(cpu, V_APIC_PAGE)) return violation(cpu, gpa, table, EPT_QUAL_PRESENT | EPT_QUAL_APIC);
      const marks = need & EPT_TO_WRITE ? EPT_A | EPT_D : EPT_A;
      if ((entry & marks) != marks) atomic.or<u64>(slot, marks);
      eptReadable = (rights & 1) != 0;
      eptWritable = (rights & 2) != 0;
      eptExecutable = (rights & 4) != 0;
      eptDirty = ((entry | marks) & EPT_D) != 0;
      const below = (<u64>1 << shift) - 1;
      return <u32>((entry & ADDRESS & ~below) | (gpa & below));
    }
    if (entry & RESERVED_TABLE) return violation(cpu, gpa, table, EPT_QUAL_PRESENT | EPT_QUAL_MISCONFIG);
    if (!(entry & EPT_A)) atomic.or<u64>(slot, EPT_A);
    at = <u32>(entry & ADDRESS);
    shift -= 9;
    if (shift == 21) {
      store<u64>(cached, tag);
      store<u32>(cached, at, 8);
      store<u32>(cached, <u32>rights & 7, 12);
    }
  }
}

/** HPA of a guest paging structure, or 0 as `eptTranslate`. Of the rights only eptWritable and eptDirty are valid then. */
@inline
export function eptTable(cpu: u32, gpa: u64, need: u32): u32 {
  const hpa = eptOpen(cpu, gpa);
  if (!hpa) return eptTranslate(cpu, gpa, need, true);
  eptWritable = true;
  eptDirty = true;
  return hpa;
}

/** Empty the cache of second-level walks. */
export function forgetEpt(cpu: u32): void {
  memory.fill(cpu + S_EPT_CACHE, 0, EPT_CACHE_ENTRIES << 4);
}

function violation(cpu: u32, gpa: u64, table: bool, qualification: u32): u32 {
  eptGpa = gpa;
  store<u32>(cpu, qualification | (table ? EPT_QUAL_TABLE : 0), S_EXIT_QUAL);
  return 0;
}
