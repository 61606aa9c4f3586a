// Time stamp counter and random numbers: both repeatable with CLOCK_ICOUNT.
import {
  CLOCK_HOST, EXIT_PAUSE, EXIT_SPIN, S_CPL, S_ICOUNT, S_PLE_FIRST, S_PLE_LAST, S_RANDOM, S_SPIN_FIRST, S_TSC_OFFSET, V_CLOCK, V_PLE_GAP, V_PLE_WINDOW,
  V_SPIN_WINDOW, V_TSC_MUL, V_TSC_SHIFT,
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

/** Longest gap between two PAUSEs of one loop where V_PLE_GAP does not say it. */
const SPIN_GAP: u64 = 128;

/** PAUSE after `retired` instructions, in a loop that the hypervisor (V_PLE_*) or whoever lets vCPUs take turns (V_SPIN_WINDOW) wants to see? EXIT_*, or 0. */
export function pause_loop(cpu: u32, retired: u64): u32 {
  const pleWindow = <u64>load<u32>(cpu, V_PLE_WINDOW);
  const isNew = retired - load<u64>(cpu, S_PLE_LAST) > (pleWindow ? <u64>load<u32>(cpu, V_PLE_GAP) : SPIN_GAP);
  store<u64>(cpu, retired, S_PLE_LAST);
  if (isNew) {
    store<u64>(cpu, retired, S_PLE_FIRST);
    store<u64>(cpu, retired, S_SPIN_FIRST);
    return 0;
  }
  if (pleWindow && !load<u32>(cpu, S_CPL) && retired - load<u64>(cpu, S_PLE_FIRST) > pleWindow) {
    store<u64>(cpu, retired, S_PLE_FIRST);
    return EXIT_PAUSE;
  }
  const spinWindow = <u64>load<u32>(cpu, V_SPIN_WINDOW);
  if (!spinWindow || retired - load<u64>(cpu, S_SPIN_FIRST) <= spinWindow) return 0;
  store<u64>(cpu, retired, S_SPIN_FIRST);
  return EXIT_SPIN;
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
