// PCMPISTRI/M and PCMPESTRI/M (SDM vol. 2, 4.1). `a` is the first operand, `b` the second.
import { S_SCRATCH } from "../src/layout";
import { CF, OF, SF, ZF, setFlags } from "./flags";

const A_AT = S_SCRATCH + 16;
const B_AT = S_SCRATCH + 32;

/** Element `i` of the operand at `at`; format: imm[1:0], 0 u8, 1 u16, 2 s8, 3 s16. */
@inline
function element(at: u32, i: u32, format: u32): i32 {
  if (format & 1) return format & 2 ? <i32>load<i16>(at + (i << 1)) : <i32>load<u16>(at + (i << 1));
  return format & 2 ? <i32>load<i8>(at + i) : <i32>load<u8>(at + i);
}

/** Elements before the terminating zero. */
function implicitLength(at: u32, n: u32, format: u32): u32 {
  let i: u32 = 0;
  while (i < n && element(at, i, format)) i++;
  return i;
}

function explicitLength(length: i64, n: u32): u32 {
  if (length < 0) length = -length;
  return <u64>length > <u64>n ? n : <u32>length;
}

/** IntRes1: bit j for each element of b. */
function aggregate(a: u32, b: u32, la: u32, lb: u32, n: u32, imm: u32): u32 {
  const format = imm & 3;
  let result: u32 = 0;
  const mode = imm >> 2 & 3;
  for (let j: u32 = 0; j < n; j++) {
    let hit = false;
    if (mode == 0) {
      if (j < lb) for (let i: u32 = 0; i < la && !hit; i++) hit = element(a, i, format) == element(b, j, format);
    } else if (mode == 1) {
      if (j < lb) {
        const v = element(b, j, format);
        for (let i: u32 = 0; i + 1 < la && !hit; i += 2) hit = element(a, i, format) <= v && v <= element(a, i + 1, format);
      }
    } else if (mode == 2) {
      hit = j < la && j < lb ? element(a, j, format) == element(b, j, format) : j >= la && j >= lb;
    } else {
      hit = true;
      for (let i: u32 = 0; i < la && i + j < n && hit; i++) hit = i + j < lb && element(a, i, format) == element(b, i + j, format);
    }
    if (hit) result |= 1 << j;
  }
  return result;
}

/** Flags, the mask result in S_SCRATCH, and the index result. */
function compare(cpu: u32, la: u32, lb: u32, n: u32, imm: u32): u32 {
  const all: u32 = (1 << n) - 1;
  let result = aggregate(cpu + A_AT, cpu + B_AT, la, lb, n, imm);
  if (imm & 0x10) result ^= imm & 0x20 ? (1 << lb) - 1 : all;
  setFlags(cpu, (result ? CF : 0) | (lb < n ? ZF : 0) | (la < n ? SF : 0) | (result & 1 ? OF : 0));
  const mask = cpu + S_SCRATCH;
  store<u64>(mask, 0);
  store<u64>(mask, 0, 8);
  if (!(imm & 0x40)) {
    store<u32>(mask, result);
  } else {
    for (let i: u32 = 0; i < n; i++) {
      if (!(result >> i & 1)) continue;
      if (n == 8) store<u16>(mask + (i << 1), 0xffff);
      else store<u8>(mask + i, 0xff);
    }
  }
  // PF and AF are 0, which `setFlags` has done.
  if (!result) return n;
  return imm & 0x40 ? 31 - clz(result) : ctz(result);
}

function spill(cpu: u32, a: v128, b: v128): void {
  v128.store(cpu + A_AT, a);
  v128.store(cpu + B_AT, b);
}

/** Returns the index for ECX; the mask for XMM0 is in S_SCRATCH (16 bytes). */
export function pcmpistr(cpu: u32, a: v128, b: v128, imm: u32): u32 {
  spill(cpu, a, b);
  const n: u32 = imm & 1 ? 8 : 16;
  return compare(cpu, implicitLength(cpu + A_AT, n, imm & 3), implicitLength(cpu + B_AT, n, imm & 3), n, imm);
}

/** Lengths are the sign-extended EAX/RAX and EDX/RDX. */
export function pcmpestr(cpu: u32, a: v128, b: v128, imm: u32, lengthA: i64, lengthB: i64): u32 {
  spill(cpu, a, b);
  const n: u32 = imm & 1 ? 8 : 16;
  return compare(cpu, explicitLength(lengthA, n), explicitLength(lengthB, n), n, imm);
}
