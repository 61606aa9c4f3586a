// Segment checks of 16- and 32-bit code (SDM vol. 3, 5.3, 5.5).
import { S_CODE_SIZE, S_SEG, SEG_ATTR, SEG_FIRST, SEG_LAST, SEG_STRIDE, SS, S_ZERO } from "../src/layout";
import { GP, SS_FAULT, raise } from "./cpu";

/** Whether an access of `size` bytes at `offset` of the segment whose record is at state-block offset `segment` is allowed; else #GP or #SS. */
export function checkSegment(cpu: u32, segment: u32, offset: u64, size: u32, write: bool): bool {
  if (load<u32>(cpu, S_CODE_SIZE) == 64 || segment == S_ZERO) return true;
  const at = cpu + segment;
  const attr = load<u32>(at, SEG_ATTR);
  const inside = <u32>offset >= load<u32>(at, SEG_FIRST) && offset + size - 1 <= <u64>load<u32>(at, SEG_LAST);
  // Writable data; or data, or code that may be read.
  const right = write ? (attr & 0x1a) == 0x12 : (attr & 0x18) == 0x10 || (attr & 0x1a) == 0x1a;
  if (inside && right) return true;
  raise(cpu, segment == S_SEG + SS * SEG_STRIDE ? SS_FAULT : GP, 0);
  return false;
}
