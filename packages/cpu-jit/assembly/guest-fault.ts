// Telling a fault of the guest from one that only the shadow tables cause, without asking the hypervisor.
import { ACCESS_EXEC, MAXPHYADDR, S_CR3, S_EFER, V_LEVELS } from "../src/layout";
import { EFER_NXE } from "./cpu";
import { PF_I, PF_P, PF_U, PF_W, ramHpa } from "./walk";

const PTE_P: u64 = 1;
const PTE_W: u64 = 2;
const PTE_U: u64 = 4;
const PTE_PS: u64 = 0x80;
const PTE_NX: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const RESERVED: u64 = 0x000f_ffff_ffff_ffff & ~((<u64>1 << MAXPHYADDR) - 1);

/** Not a fault of the guest, or one that is for the hypervisor to judge (addresses of the upper half, reserved bits, tables outside RAM). */
export const NO_GUEST_FAULT: u32 = 0xffff_ffff;

/** Error code of the #PF that the guest's own tables (S_CR3) mean for an access of user mode, or NO_GUEST_FAULT. Changes nothing. */
export function userFault(cpu: u32, va: u64, access: u32): u32 {
  const levels = load<u32>(cpu, V_LEVELS);
  if (va >> (levels == 5 ? 56 : 47)) return NO_GUEST_FAULT;
  const nxe = (load<u32>(cpu, S_EFER) & EFER_NXE) != 0;
  const kind = access & 3;
  let error = PF_U;
  if (kind & 1) error |= PF_W;
  if (kind == ACCESS_EXEC && nxe) error |= PF_I;
  const reserved = nxe ? RESERVED : RESERVED | PTE_NX;
  let table = load<u64>(cpu, S_CR3) & ADDRESS;
  let rights: u64 = PTE_W | PTE_U;
  let denied: u64 = 0;
  for (let shift: u32 = 3 + 9 * levels; ; shift -= 9) {
    const base = ramHpa(cpu, table);
    if (!base) return NO_GUEST_FAULT;
    const entry = load<u64>(base + ((<u32>(va >> shift) & 511) << 3));
    if (!(entry & PTE_P)) return error;
    if (entry & reserved) return NO_GUEST_FAULT;
    rights &= entry;
    denied |= entry & PTE_NX;
    const isLarge = shift > 12 && (entry & PTE_PS) != 0;
    // Of a large entry, the bits between PAT and the address are reserved.
    if (isLarge && (shift > 30 || entry & (((<u64>1 << shift) - 1) & 0x000f_ffff_ffff_e000))) return NO_GUEST_FAULT;
    if (shift == 12 || isLarge) break;
    table = entry & ADDRESS;
  }
  const allowed = (rights & PTE_U) != 0 && (!(kind & 1) || (rights & PTE_W) != 0) && (kind != ACCESS_EXEC || !denied);
  return allowed ? NO_GUEST_FAULT : error | PF_P;
}
