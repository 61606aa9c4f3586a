// The dispatcher: from RIP to compiled code or to the interpreter, until something must leave Wasm.
import {
  BD_COUNT, BD_FN, BD_HPA, BD_MODE, BD_NEXT, BD_PAGE_LIST, BD_PAGES, BD_REACH, BD_REACH_SHIFT, BD_REC, BD_REGION_PAGES, BD_TRACKED, BLOCK_HEAD_COUNT, BLOCK_HEADS,
  C_INTERP_BLOCKS, C_JC_MISSES, C_JIT_ENTRIES, C_JIT_INSNS, C_JIT_LEFT, CS, EXC_STEP, EXIT_DECODE, EXIT_EXCEPTION, EXIT_LIMIT, JC_CTX, JC_DESC, JC_ENTRIES, JC_ENTRY_SIZE, JC_FN, JC_REC, JC_REFUSED, JC_RIP,
  LEFT_CHECK, LEFT_DECLINED, LEFT_EXCEPTION, LEFT_EXIT, LEFT_LIMIT, LEFT_NO_REGION, NEXT, NEXT_CHECK, NEXT_INTERPRET, MAX_BLOCK_INSNS, MXCSR_DEFAULT, MXCSR_ROUNDING_MASKS, R_HANDLER,
  RUN_LIMIT, S_BLOCK_RIP, S_CODE_SIZE, S_CTX, S_DEBUG, S_EXC, S_EXIT_BLOCK, S_FAR_LIMIT, S_HOT_THRESHOLD, S_ICOUNT, S_ICOUNT_LIMIT, S_INTR, S_JC, S_MXCSR, S_RFLAGS, S_RIP, S_SEG, S_TIER, SEG_BASE,
  SEG_LIMIT, SEG_STRIDE, TIER_COMPILED, TIER_INTERPRETER, S_WATCH, V_LEVELS, V_NATIVE, WATCH_CODE,
} from "../src/layout";
import { GP, RFLAGS_RF, RFLAGS_TF, count, raise } from "./cpu";
import { isCodeWatched } from "./debug";
import { attention, exceptionReason } from "./events";
import { hostHot } from "./host";
import { probeExec, translateExec } from "./memory";
import { forgetStack } from "./tlb";

/** Jump cache entry for `rip`. Generated code uses the same hash: index = (rip ^ rip >> 14) & (JC_ENTRIES - 1). */
@inline
function jumpCacheEntry(cpu: u32, rip: u64): u32 {
  const low = <u32>rip;
  return load<u32>(cpu, S_JC) + ((low ^ low >> 14) & (JC_ENTRIES - 1)) * <u32>JC_ENTRY_SIZE;
}

/** Head of the chain of block descriptors for code at `hpa`: index = (hpa ^ hpa >> 12) & (BLOCK_HEAD_COUNT - 1). */
export function blockHead(hpa: u32): u32 {
  return <u32>BLOCK_HEADS + ((hpa ^ hpa >> 12) & (BLOCK_HEAD_COUNT - 1)) * 4;
}

/** Do the first `n` of the pages a block depends on still translate as they did when it was made? */
function pagesHold(cpu: u32, descriptor: u32, va: u64, n: u32): bool {
  for (let i: u32 = 0; i < n; i++) {
    const pair = descriptor + (i << 3);
    const page = (va & ~0xfff) + (<i64>load<i32>(pair, BD_PAGE_LIST) << 12);
    if (probeExec(cpu, load<u32>(cpu, S_CODE_SIZE) == 64 ? page : page & 0xffff_ffff) != load<u32>(pair, BD_PAGE_LIST + 4)) return false;
  }
  return true;
}

/** Linear address of RIP. */
@inline
function codeAddress(cpu: u32): u64 {
  const rip = load<u64>(cpu, S_RIP);
  if (load<u32>(cpu, S_CODE_SIZE) == 64) return rip;
  return (load<u64>(cpu, S_SEG + CS * SEG_STRIDE + SEG_BASE) + rip) & 0xffff_ffff;
}

/** No block reaches further. */
const MAX_BLOCK_BYTES: u64 = MAX_BLOCK_INSNS * 15;

/** Must the code at `va` run one instruction at a time? Where there is a breakpoint in its page, or the end of the code segment may come. */
@inline
function stepped(cpu: u32, va: u64): bool {
  if (load<u32>(cpu, S_WATCH) & WATCH_CODE && isCodeWatched(cpu, va)) return true;
  if (load<u32>(cpu, S_CODE_SIZE) == 64 || !load<u32>(cpu, V_NATIVE)) return false;
  return load<u64>(cpu, S_RIP) + MAX_BLOCK_BYTES > <u64>load<u32>(cpu, S_SEG + CS * SEG_STRIDE + SEG_LIMIT);
}

/**
 * May a direct branch of the code at `va`, that of `descriptor`, go over the border of the canonical addresses? It must fault itself, which
 * code that is run one instruction at a time does. Or, outside 64-bit code, from the highest addresses on to the lowest? That is no backward branch, but
 * a way to run for ever.
 */
@inline
function reachesBorder(cpu: u32, descriptor: u32, va: u64): bool {
  const reach = <u64>load<u16>(descriptor, BD_REACH) << BD_REACH_SHIFT;
  if (load<u32>(cpu, S_CODE_SIZE) != 64) return load<u64>(cpu, S_RIP) + reach >> 32 != 0;
  const border: u64 = load<u32>(cpu, V_LEVELS) == 5 ? 1 << 56 : 1 << 47;
  return border - va <= reach || va + border < reach;
}

/** Has none of the pages that a compiled region also lies in a breakpoint? */
function regionOpen(cpu: u32, descriptor: u32, va: u64): bool {
  const n = load<u16>(descriptor, BD_REGION_PAGES);
  for (let i: u32 = 0; i < n; i++) {
    const page = (va & ~0xfff) + (<i64>load<i32>(descriptor + (i << 3), BD_PAGE_LIST) << 12);
    if (isCodeWatched(cpu, page)) return false;
  }
  return true;
}

/**
 * Find the block at S_RIP and enter it in the jump cache. Returns the cache entry; 0 with S_EXC set when the fetch faults;
 * 0 with S_EXC clear when it is not decoded (S_EXIT_BLOCK = HPA of its first byte).
 */
export function lookupBlock(cpu: u32): u32 {
  count(cpu, C_JC_MISSES);
  if (load<u32>(cpu, S_CODE_SIZE) != 64 && load<u32>(cpu, V_NATIVE) && load<u64>(cpu, S_RIP) > <u64>load<u32>(cpu, S_SEG + CS * SEG_STRIDE + SEG_LIMIT)) {
    raise(cpu, GP, 0);
    return 0;
  }
  const va = codeAddress(cpu);
  if (stepped(cpu, va)) {
    store<u32>(cpu, EXC_STEP, S_EXC);
    return 0;
  }
  const hpa = translateExec(cpu, va);
  if (!hpa) return 0;
  const size = load<u32>(cpu, S_CODE_SIZE);
  let d = load<u32>(blockHead(hpa));
  while (d) {
    if (load<u32>(d, BD_HPA) == hpa && load<u32>(d, BD_MODE) == size && pagesHold(cpu, d, va, load<u16>(d, BD_PAGES))) break;
    d = load<u32>(d, BD_NEXT);
  }
  if (!d) {
    store<u32>(cpu, hpa, S_EXIT_BLOCK);
    return 0;
  }
  if (reachesBorder(cpu, d, va)) {
    store<u32>(cpu, EXC_STEP, S_EXC);
    return 0;
  }
  const rip = load<u64>(cpu, S_RIP);
  const entry = jumpCacheEntry(cpu, rip);
  const region = load<u32>(d, BD_FN);
  const usable = region != 0 && pagesHold(cpu, d, va, load<u16>(d, BD_REGION_PAGES)) && (!(load<u32>(cpu, S_WATCH) & WATCH_CODE) || regionOpen(cpu, d, va));
  store<u64>(entry, rip, JC_RIP);
  store<u32>(entry, load<u32>(cpu, S_CTX), JC_CTX);
  store<u32>(entry, usable ? region : 0, JC_FN);
  store<u32>(entry, usable ? 0 : region, JC_REFUSED);
  store<u32>(entry, load<u32>(d, BD_REC), JC_REC);
  store<u32>(entry, d, JC_DESC);
  return entry;
}

/** The jump cache entry for S_RIP, made anew when the block of `entry` got compiled code since; 0 when the code cannot be fetched any more. */
function linked(cpu: u32, entry: u32): u32 {
  return load<u32>(load<u32>(entry, JC_DESC), BD_FN) == load<u32>(entry, JC_REFUSED) ? entry : lookupBlock(cpu);
}

/** Count an entry of an interpreted block; true when that made it hot and the compiler was told. */
function becomesHot(cpu: u32, descriptor: u32): bool {
  const entered = load<u32>(descriptor, BD_COUNT) + 1;
  store<u32>(descriptor, entered, BD_COUNT);
  if (entered != load<u32>(cpu, S_HOT_THRESHOLD)) return false;
  store<u32>(cpu, descriptor, S_EXIT_BLOCK);
  hostHot(cpu);
  return true;
}

/** Compiled code declined to run the block of `entry`. When that may be because it does not note floating-point exceptions, code that does is asked
 *  for, once. Is there other code by now? Then the entry is forgotten. */
function isReplaced(cpu: u32, entry: u32): bool {
  const descriptor = load<u32>(entry, JC_DESC);
  const mxcsr = load<u32>(cpu, S_MXCSR);
  if (!load<u16>(descriptor, BD_TRACKED) && mxcsr != MXCSR_DEFAULT && (mxcsr & MXCSR_ROUNDING_MASKS) == MXCSR_DEFAULT) {
    store<u16>(descriptor, 1, BD_TRACKED);
    store<u32>(cpu, descriptor, S_EXIT_BLOCK);
    hostHot(cpu);
  }
  if (load<u32>(descriptor, BD_FN) == load<u32>(entry, JC_FN)) return false;
  store<u32>(entry, 0, JC_CTX);
  return true;
}

/** Compiled code came back with `reason` after `instructions`. */
@inline
function left(cpu: u32, reason: u32, instructions: u64): void {
  store<u64>(cpu, load<u64>(cpu, C_JIT_INSNS) + instructions, C_JIT_INSNS);
  let cause: u32 = LEFT_EXIT;
  if (reason == NEXT) cause = LEFT_NO_REGION;
  else if (reason == NEXT_INTERPRET) cause = LEFT_DECLINED;
  else if (reason == EXIT_EXCEPTION) cause = LEFT_EXCEPTION;
  else if (reason == EXIT_LIMIT) cause = LEFT_LIMIT;
  else if (reason == NEXT_CHECK) cause = LEFT_CHECK;
  count(cpu + (cause << 3), C_JIT_LEFT);
}

/** Is there something that `attention` would look at? */
@inline
function isDisturbed(cpu: u32): bool {
  return load<u64>(cpu, S_INTR) != 0 || (load<u32>(cpu, S_RFLAGS) & (RFLAGS_TF | RFLAGS_RF) | load<u32>(cpu, S_DEBUG)) != 0;
}

/** The compiler thread lowers S_ICOUNT_LIMIT, then RUN_LIMIT. */
@inline
function copyLimit(cpu: u32): void {
  let limit: u64;
  do {
    limit = atomic.load<u64>(cpu, S_ICOUNT_LIMIT);
    atomic.store<u64>(RUN_LIMIT, limit);
  } while (atomic.load<u64>(cpu, S_ICOUNT_LIMIT) != limit);
}

/** Run from S_RIP until an exit; returns EXIT_*. S_EXC stays set for EXIT_EXCEPTION only. */
export function run(cpu: u32): u32 {
  copyLimit(cpu);
  // It may be another vCPU's, or from before something that the hypervisor did.
  forgetStack();
  // Set for one turn when compiled code declined to run.
  let interpret = false;
  while (true) {
    const rip = load<u64>(cpu, S_RIP);
    let entry = jumpCacheEntry(cpu, rip);
    let reason: u32;
    if (load<u64>(entry, JC_RIP) != rip || load<u32>(entry, JC_CTX) != load<u32>(cpu, S_CTX)) {
      // Code that goes straight on misses here again and again, and comes to no check point.
      if (load<u64>(cpu, S_ICOUNT) >= load<u64>(cpu, S_FAR_LIMIT)) return EXIT_LIMIT;
      entry = lookupBlock(cpu);
      if (!entry) {
        reason = load<u32>(cpu, S_EXC) ? exceptionReason(cpu) : EXIT_DECODE;
        if (reason != NEXT_CHECK) return reason;
        if (load<u64>(cpu, S_ICOUNT) >= load<u64>(cpu, S_ICOUNT_LIMIT)) return EXIT_LIMIT;
        continue;
      }
    }
    if (interpret && load<u32>(entry, JC_FN) && isReplaced(cpu, entry)) {
      interpret = false;
      continue;
    }
    let region: u32 = 0;
    if (!interpret) {
      region = load<u32>(entry, JC_FN);
      if (!region) {
        entry = linked(cpu, entry);
        if (entry && !load<u32>(entry, JC_FN) && becomesHot(cpu, load<u32>(entry, JC_DESC))) entry = linked(cpu, entry);
        // The page was executable a moment ago.
        if (!entry) return load<u32>(cpu, S_EXC) ? exceptionReason(cpu) : EXIT_DECODE;
        region = load<u32>(entry, JC_FN);
      }
    }
    if (region) {
      count(cpu, C_JIT_ENTRIES);
      store<u32>(cpu, TIER_COMPILED, S_TIER);
      const first = load<u64>(cpu, S_ICOUNT);
      reason = call_indirect<u32>(region, cpu);
      left(cpu, reason, load<u64>(cpu, S_ICOUNT) - first);
    } else {
      count(cpu, C_INTERP_BLOCKS);
      store<u32>(cpu, TIER_INTERPRETER, S_TIER);
      store<u64>(cpu, rip, S_BLOCK_RIP);
      const record = load<u32>(entry, JC_REC);
      reason = call_indirect<u32>(load<u32>(record, R_HANDLER), cpu, record);
    }
    interpret = reason == NEXT_INTERPRET;
    if (reason == NEXT || interpret) continue;
    if (reason == EXIT_EXCEPTION) reason = exceptionReason(cpu);
    if (reason != NEXT_CHECK) return reason;
    if (load<u64>(cpu, S_ICOUNT) >= load<u64>(cpu, S_ICOUNT_LIMIT)) return EXIT_LIMIT;
    if (isDisturbed(cpu)) {
      reason = attention(cpu);
      if (reason > <u32>NEXT_CHECK) return reason;
    }
  }
}

/** Run the block of records at `record` once, for S_BLOCK_RIP; returns NEXT, NEXT_CHECK or EXIT_*. */
export function callRecord(cpu: u32, record: u32): u32 {
  const reason = call_indirect<u32>(load<u32>(record, R_HANDLER), cpu, record);
  return reason == EXIT_EXCEPTION ? exceptionReason(cpu) : reason;
}
