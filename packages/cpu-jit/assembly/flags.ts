// Lazy status flags (FLAGS_* in layout.ts): the triple (kind, result, source) to RFLAGS bits and back.
import { FLAGS_ADD, FLAGS_DEC, FLAGS_EXPLICIT, FLAGS_INC, FLAGS_LOGIC, FLAGS_SUB, S_CC_KIND, S_CC_RES, S_CC_SRC } from "../src/layout";

export const CF: u32 = 1;
export const PF: u32 = 4;
export const AF: u32 = 0x10;
export const ZF: u32 = 0x40;
export const SF: u32 = 0x80;
export const OF: u32 = 0x800;
const STATUS: u32 = 0x8d5;

/** CF, PF, AF, ZF, SF, OF at their RFLAGS positions. */
export function getFlags(cpu: u32): u32 {
  const kind = load<u32>(cpu, S_CC_KIND);
  const res = load<u64>(cpu, S_CC_RES);
  const src = load<u64>(cpu, S_CC_SRC);
  let parity = <u32>res;
  let flags: u32 = res == 0 ? ZF : 0;
  if (<i64>res < 0) flags |= SF;
  if (kind == FLAGS_EXPLICIT) {
    flags ^= <u32>src & SF;
    flags |= <u32>src & (CF | AF | OF);
    parity ^= <u32>(src >> 16);
  } else if (kind < <u32>FLAGS_SUB) {
    const shift = 64 - (8 << (kind - FLAGS_ADD));
    const a = res - src;
    if (res << shift < src << shift) flags |= CF;
    if (<i64>(((a ^ res) & (src ^ res)) << shift) < 0) flags |= OF;
    flags |= <u32>(a ^ src ^ res) & AF;
  } else if (kind < <u32>FLAGS_LOGIC) {
    const shift = 64 - (8 << (kind - FLAGS_SUB));
    const a = res + src;
    if (a << shift < src << shift) flags |= CF;
    if (<i64>(((a ^ src) & (a ^ res)) << shift) < 0) flags |= OF;
    flags |= <u32>(a ^ src ^ res) & AF;
  } else if (kind >= <u32>FLAGS_DEC) {
    const shift = 64 - (8 << (kind - FLAGS_DEC));
    flags |= <u32>src & CF;
    if ((res + 1) << shift == 0x8000_0000_0000_0000) flags |= OF;
    if ((<u32>res & 15) == 15) flags |= AF;
  } else if (kind >= <u32>FLAGS_INC) {
    const shift = 64 - (8 << (kind - FLAGS_INC));
    flags |= <u32>src & CF;
    if (res << shift == 0x8000_0000_0000_0000) flags |= OF;
    if (!(<u32>res & 15)) flags |= AF;
  }
  if (!(popcnt(parity & 0xff) & 1)) flags |= PF;
  return flags;
}

/** Set all six status flags from RFLAGS positions; other bits are ignored. */
export function setFlags(cpu: u32, flags: u32): void {
  // The result is 0 for ZF, else 1: SF and PF are corrected by CC_SRC.
  const zero = (flags & ZF) != 0;
  let source = flags & (CF | AF | OF | SF);
  // Result 0 has even parity, result 1 odd: flip when that is not the flag wanted.
  if (zero != ((flags & PF) != 0)) source |= 1 << 16;
  store<u32>(cpu, FLAGS_EXPLICIT, S_CC_KIND);
  store<u64>(cpu, zero ? 0 : 1, S_CC_RES);
  store<u64>(cpu, source, S_CC_SRC);
}

/** Lazy flags of a comparison a - b of `size` bytes. */
export function compareFlags(cpu: u32, size: u32, a: u64, b: u64): void {
  const shift = 64 - (size << 3);
  store<u32>(cpu, FLAGS_SUB + ctz(size), S_CC_KIND);
  store<i64>(cpu, <i64>((a - b) << shift) >> shift, S_CC_RES);
  store<u64>(cpu, b, S_CC_SRC);
}

/** 0 or 1: condition code 0..15 of the SDM, volume 1, appendix B. */
export function condition(cpu: u32, cc: u32): u32 {
  const f = getFlags(cpu) & STATUS;
  let yes: bool;
  switch (cc >> 1) {
    case 0: yes = (f & OF) != 0; break;
    case 1: yes = (f & CF) != 0; break;
    case 2: yes = (f & ZF) != 0; break;
    case 3: yes = (f & (CF | ZF)) != 0; break;
    case 4: yes = (f & SF) != 0; break;
    case 5: yes = (f & PF) != 0; break;
    case 6: yes = (f >> 7 & 1) != (f >> 11 & 1); break;
    default: yes = (f & ZF) != 0 || (f >> 7 & 1) != (f >> 11 & 1);
  }
  return <u32>yes ^ (cc & 1);
}
