// Segment checks of 16- and 32-bit code (SDM vol. 3, 5.3, 5.5).
import { S_CODE_SIZE, S_CR0, S_SEG, S_ZERO, SEG_ATTR, SEG_FIRST, SEG_LAST, SEG_STRIDE, SS, V_NATIVE } from "../src/layout";
import { GP, SS_FAULT, raise } from "./cpu";

/** Whether an access of `size` bytes at `offset` of the segment whose record is at state-block offset `segment` is allowed; else #GP or #SS. */
export function checkSegment(cpu: u32, segment: u32, offset: u64, size: u32, write: bool): bool {
  if (load<u32>(cpu, S_CODE_SIZE) == 64 || segment == S_ZERO) return true;
  const at = cpu + segment;
  const attr = load<u32>(at, SEG_ATTR);
  const inside = <u32>offset >= load<u32>(at, SEG_FIRST) && offset + size - 1 <= <u64>load<u32>(at, SEG_LAST);
  // Writable data; or data, or code that may be read.
  const real = !(load<u32>(cpu, S_CR0) & 1);
  const right = real || (write ? (attr & 0x1a) == 0x12 : (attr & 0x18) == 0x10 || (attr & 0x1a) == 0x1a);
  if (inside && right) return true;
  raise(cpu, segment == S_SEG + SS * SEG_STRIDE ? SS_FAULT : GP, 0);
  return false;
}

/** #SS for SS, #GP for the others; `segment`: state-block offset of the record. */
export function segment_fault(cpu: u32, segment: u32): void {
  raise(cpu, segment == S_SEG + SS * SEG_STRIDE ? SS_FAULT : GP, 0);
}

/** Of `n` elements of a string from `offset` on, how many lie within the segment; 0 with S_EXC set when not even one does. */
export function within(cpu: u32, segment: u32, offset: u64, size: u32, n: u32, backward: bool, write: bool): u32 {
  if (load<u32>(cpu, S_CODE_SIZE) == 64 || !load<u32>(cpu, V_NATIVE)) return n;
  if (!checkSegment(cpu, segment, offset, size, write)) return 0;
  const at = cpu + segment;
  const left = backward ? (offset - load<u32>(at, SEG_FIRST)) / size + 1 : (<u64>load<u32>(at, SEG_LAST) - offset + 1) / size;
  return <u64>n > left ? <u32>left : n;
}
