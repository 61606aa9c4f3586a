// Virtualised APIC registers: the task priority in MOV to CR8 and in the APIC-access page (SDM vol. 3, 30.3, 30.4).
import {
  ACCESS_EXEC, ACCESS_PROBE, ACCESS_WRITE, EPT_QUAL_APIC, EXIT_CR8, INTERCEPT_CR8, S_CR8, S_EXIT_QUAL, S_EXIT_VALUE, V_INTERCEPTS, V_TPR_THRESHOLD,
} from "../src/layout";

/** Offset of the task-priority register in the page. */
const TPR: u64 = 0x80;

/** What follows a change of the task priority: `next`, or EXIT_CR8 when it has fallen below the threshold. */
export function tprChanged(cpu: u32, next: u32): u32 {
  return load<u32>(cpu, V_INTERCEPTS) & INTERCEPT_CR8 && load<u32>(cpu, S_CR8) < load<u32>(cpu, V_TPR_THRESHOLD) ? EXIT_CR8 : next;
}

/**
 * An access at `gpa` whose second-level walk failed with S_EXIT_QUAL: done here, without an exit, when it is to the task priority. Values with a
 * sub-class, which CR8 cannot hold, and those below the threshold are left to the hypervisor. A value stored or loaded is in S_EXIT_VALUE.
 */
export function virtualTpr(cpu: u32, gpa: u64, access: u32): bool {
  if (!(load<u32>(cpu, S_EXIT_QUAL) & EPT_QUAL_APIC) || (gpa & 0xfff) != TPR) return false;
  const kind = access & 3;
  if (kind == ACCESS_EXEC) return false;
  if (access & ACCESS_PROBE) return true;
  if (kind != ACCESS_WRITE) {
    store<u64>(cpu, load<u64>(cpu, S_CR8) << 4, S_EXIT_VALUE);
    return true;
  }
  const value = load<u32>(cpu, S_EXIT_VALUE);
  if (value & ~0xf0 || value >> 4 < load<u32>(cpu, V_TPR_THRESHOLD)) return false;
  store<u64>(cpu, value >> 4, S_CR8);
  return true;
}
