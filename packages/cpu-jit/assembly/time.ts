// Time stamp counter and random numbers: both repeatable with CLOCK_ICOUNT.
import {
  CLOCK_HOST, S_CPL, S_ICOUNT, S_PLE_FIRST, S_PLE_LAST, S_RANDOM, S_TSC_OFFSET, V_CLOCK, V_PLE_GAP, V_PLE_WINDOW, V_TSC_MUL, V_TSC_SHIFT,
} from "../src/layout";
import { hostTsc } from "./host";

/** Virtual TSC. S_ICOUNT must be exact. V_TSC_MUL 0 means one tick an instruction. */
export function rdtsc(cpu: u32): u64 {
  const offset = load<u64>(cpu, S_TSC_OFFSET);
  if (load<u32>(cpu, V_CLOCK) == CLOCK_HOST) return <u64>hostTsc() + offset;
  const retired = load<u64>(cpu, S_ICOUNT);
  const factor = <u64>load<u32>(cpu, V_TSC_MUL);
  return (factor ? retired * factor >> load<u32>(cpu, V_TSC_SHIFT) : retired) + offset;
}

/** PAUSE after `retired` instructions: is it in a loop that the hypervisor wants to see (V_PLE_*)? */
export function pause_loop(cpu: u32, retired: u64): u32 {
  if (load<u32>(cpu, S_CPL)) return 0;
  if (retired - load<u64>(cpu, S_PLE_LAST) > <u64>load<u32>(cpu, V_PLE_GAP)) store<u64>(cpu, retired, S_PLE_FIRST);
  store<u64>(cpu, retired, S_PLE_LAST);
  if (retired - load<u64>(cpu, S_PLE_FIRST) <= <u64>load<u32>(cpu, V_PLE_WINDOW)) return 0;
  store<u64>(cpu, retired, S_PLE_FIRST);
  return 1;
}

/** Next value of a xorshift64* generator seeded by S_RANDOM (0: a fixed seed). For RDRAND and RDSEED; never fails. */
export function rdrand(cpu: u32): u64 {
  let x = load<u64>(cpu, S_RANDOM);
  if (!x) x = 0x9e37_79b9_7f4a_7c15;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  store<u64>(cpu, x, S_RANDOM);
  return x * 0x2545_f491_4f6c_dd1d;
}
