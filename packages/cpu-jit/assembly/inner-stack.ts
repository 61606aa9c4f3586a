// The stack of an inner privilege level, which the TSS names (SDM vol. 3, 5.8.5, 7.12.1, 8.2).
import { S_EXC, SEG_ATTR, SEG_BASE, SEG_LIMIT, SEG_SELECTOR, TR } from "../src/layout";
import { SS_FAULT, TS, isCanonical, raise } from "./cpu";
import { loadSys16, loadSys32, loadSys64 } from "./memory";
import { ATTR_BIG, ATTR_UNUSABLE, flatStack, otherStack, segmentAt } from "./mode";
import { descriptorAttr, descriptorBase, descriptorLimit, fetchStackSegment } from "./segment";

/** What SS becomes with the stack found last. */
export let innerSelector: u32 = 0;
export let innerBase: u32 = 0;
export let innerLimit: u32 = 0;
export let innerAttr: u32 = 0;

/** Bit of a TSS's type: it has the 32-bit layout. */
const WIDE: u32 = 8;
/** First RSP and first IST pointer of a 64-bit TSS (SDM vol. 3, figure 8-11). */
const RSP0: u32 = 4;
const IST0: u32 = 28;

/** `size` bytes at `offset` of the TSS; #TS when it is too small for all `span` bytes from there. */
function fromTss(cpu: u32, offset: u32, size: u32, span: u32, ext: u32): u64 {
  const tss = segmentAt(cpu, TR);
  if (offset + span - 1 > load<u32>(tss, SEG_LIMIT)) {
    raise(cpu, TS, (load<u32>(tss, SEG_SELECTOR) & 0xfffc) | ext);
    return 0;
  }
  const address = load<u64>(tss, SEG_BASE) + offset;
  return size == 8 ? loadSys64(cpu, address) : size == 4 ? loadSys32(cpu, address) : loadSys16(cpu, address);
}

/** The current stack becomes the one for `cpl` outside long mode; false with S_EXC set. */
export function innerStack(cpu: u32, cpl: u32, ext: u32): bool {
  const wide = (load<u32>(segmentAt(cpu, TR), SEG_ATTR) & WIDE) != 0;
  const pointer = wide ? fromTss(cpu, 4 + cpl * 8, 4, 6, ext) : fromTss(cpu, 2 + cpl * 4, 2, 4, ext);
  if (load<u32>(cpu, S_EXC)) return false;
  innerSelector = <u32>(wide ? fromTss(cpu, 8 + cpl * 8, 2, 2, ext) : fromTss(cpu, 4 + cpl * 4, 2, 2, ext));
  if (load<u32>(cpu, S_EXC) || !fetchStackSegment(cpu, innerSelector, cpl, TS, ext)) return false;
  innerBase = descriptorBase();
  innerLimit = descriptorLimit();
  innerAttr = descriptorAttr();
  const down = (innerAttr & 0x1c) == 0x14;
  const big = (innerAttr & ATTR_BIG) != 0;
  otherStack(pointer, innerBase, big, down ? innerLimit + 1 : 0, down ? (big ? 0xffff_ffff : 0xffff) : innerLimit, (innerSelector & 0xfffc) | ext);
  return true;
}

/** The same in long mode. */
export function innerStack64(cpu: u32, cpl: u32): bool {
  return useStack64(cpu, fromTss(cpu, RSP0 + cpl * 8, 8, 8, 0), cpl, 0);
}

/** Stack of an interrupt in long mode: `ist` 1..7, or 0 for the one of `cpl`. */
export function eventStack64(cpu: u32, ist: u32, cpl: u32, ext: u32): bool {
  return useStack64(cpu, fromTss(cpu, ist ? IST0 + ist * 8 : RSP0 + cpl * 8, 8, 8, ext), cpl, ext);
}

function useStack64(cpu: u32, pointer: u64, cpl: u32, ext: u32): bool {
  if (load<u32>(cpu, S_EXC)) return false;
  if (!isCanonical(cpu, pointer)) {
    raise(cpu, SS_FAULT, ext);
    return false;
  }
  innerSelector = cpl;
  innerBase = 0;
  innerLimit = 0xffff_ffff;
  innerAttr = ATTR_UNUSABLE;
  flatStack(pointer);
  return true;
}
