// Port I/O: the permission bitmap of the TSS, string forms, and what follows the exit.
import {
  ACCESS_READ, ACCESS_WRITE, ES, EXIT_IO, IO_ADDR_SHIFT, IO_REP, IO_STRING, S_CODE_SIZE, S_CPL, S_EXC, S_EXIT_ACCESS, S_EXIT_INSN_LEN, S_EXIT_QUAL,
  S_EXIT_SIZE, S_EXIT_VA, S_EXIT_VALUE, S_GPR, S_ICOUNT, S_REPEATING, S_RFLAGS, S_RIP, S_SEG, S_STEP, S_WATCH, SEG_ATTR, SEG_BASE, SEG_LIMIT, SEG_STRIDE, TR, V_IO_BITMAP, V_NATIVE, WATCH_IO,
} from "../src/layout";
import { GP, RFLAGS_DF, done, fail, linear } from "./cpu";
import { debug_completed, portTouched } from "./debug";
import { loadSized, loadSys16, probeWrite, storeSized } from "./memory";
import { protectedMode, segmentAt } from "./mode";
import { checkSegment } from "./limits";

const RAX = S_GPR;
const RCX = S_GPR + 8;
const RDX = S_GPR + 16;
const RSI = S_GPR + 48;
const RDI = S_GPR + 56;

/** May code without I/O privilege use `size` ports from `port` on? By the bitmap of the TSS (SDM vol. 1, 19.5.2); S_EXC when reading it faults. */
export function io_allowed(cpu: u32, port: u32, size: u32): u32 {
  const tss = segmentAt(cpu, TR);
  const limit = load<u32>(tss, SEG_LIMIT);
  if (!load<u32>(cpu, V_NATIVE) || !(load<u32>(tss, SEG_ATTR) & 8) || limit < 103) return 0;
  const base = load<u64>(tss, SEG_BASE);
  const at = loadSys16(cpu, base + 102) + (port >> 3);
  if (load<u32>(cpu, S_EXC) || at + 1 > limit) return 0;
  const bits = loadSys16(cpu, base + at);
  if (load<u32>(cpu, S_EXC)) return 0;
  return bits >> (port & 7) & ((1 << size) - 1) ? 0 : 1;
}

/** Does the control block leave these ports to the CPU? Bitmaps as VMX has them (SDM vol. 3, 25.6.4); no bus is behind such ports. */
export function io_open(cpu: u32, port: u32, size: u32): u32 {
  const bitmap = load<u32>(cpu, V_IO_BITMAP);
  if (!bitmap) return 0;
  for (let i = port; i < port + size; i++) {
    // An access that wraps around leaves.
    if (i > 0xffff || load<u8>(bitmap + (i >> 3)) >> <u8>(i & 7) & 1) return 0;
  }
  return 1;
}

function register(cpu: u32, at: u32, addrSize: u32): u64 {
  const value = load<u64>(cpu + at);
  return addrSize == 8 ? value : addrSize == 4 ? value & 0xffff_ffff : value & 0xffff;
}
function setRegister(cpu: u32, at: u32, addrSize: u32, value: u64): void {
  if (addrSize == 2) store<u16>(cpu + at, <u16>value);
  else store<u64>(cpu + at, addrSize == 4 ? value & 0xffff_ffff : value);
}
function destination(cpu: u32, addrSize: u32): u64 {
  const offset = register(cpu, RDI, addrSize);
  return load<u32>(cpu, S_CODE_SIZE) == 64 ? offset : linear(cpu, offset + load<u64>(cpu, S_SEG + ES * SEG_STRIDE + SEG_BASE));
}

/**
 * One element of INS (`access` ACCESS_READ) or OUTS: leaves with EXIT_IO, the value of OUTS in S_EXIT_VALUE, memory known to
 * be accessible. `io_complete` does the rest.
 */
export function sys_string_io(cpu: u32, access: u32, size: u32, addrSize: u32, rep: u32, segment: u32): u32 {
  if (rep && register(cpu, RCX, addrSize) == 0) return done(cpu);
  store<u64>(cpu, 0, S_EXIT_VALUE);
  if (access == ACCESS_READ) {
    if (!checkSegment(cpu, S_SEG + ES * SEG_STRIDE, register(cpu, RDI, addrSize), size, true)) return 16;
    if (!probeWrite(cpu, destination(cpu, addrSize), size)) return 16;
  } else {
    const offset = register(cpu, RSI, addrSize);
    if (!checkSegment(cpu, segment, offset, size, false)) return 16;
    store<u64>(cpu, loadSized(cpu, linear(cpu, load<u64>(cpu + segment) + offset), size), S_EXIT_VALUE);
    if (load<u32>(cpu, S_EXC)) return 16;
  }
  store<u64>(cpu, load<u64>(cpu, RDX) & 0xffff, S_EXIT_VA);
  store<u32>(cpu, access, S_EXIT_ACCESS);
  store<u32>(cpu, size, S_EXIT_SIZE);
  store<u32>(cpu, IO_STRING | (rep ? IO_REP : 0) | addrSize << IO_ADDR_SHIFT, S_EXIT_QUAL);
  return EXIT_IO;
}

/** After EXIT_IO: finish the instruction at S_RIP; what IN and INS read is in S_EXIT_VALUE. NEXT_CHECK, or EXIT_EXCEPTION with S_EXC set. */
export function io_complete(cpu: u32): u32 {
  const size = load<u32>(cpu, S_EXIT_SIZE);
  const reads = load<u32>(cpu, S_EXIT_ACCESS) == ACCESS_READ;
  const qualifier = load<u32>(cpu, S_EXIT_QUAL);
  if (load<u32>(cpu, S_WATCH) & WATCH_IO) portTouched(cpu, load<u32>(cpu, S_EXIT_VA) & 0xffff, size);
  debug_completed(cpu);
  if (!(qualifier & IO_STRING)) {
    if (reads) {
      if (size == 4) store<u64>(cpu, load<u32>(cpu, S_EXIT_VALUE), RAX);
      else if (size == 2) store<u16>(cpu, load<u16>(cpu, S_EXIT_VALUE), RAX);
      else store<u8>(cpu, load<u8>(cpu, S_EXIT_VALUE), RAX);
    }
    return done(cpu);
  }
  const addrSize = qualifier >> IO_ADDR_SHIFT & 15;
  if (reads) {
    // Decoded code there is dropped at once: no generated code is active.
    store<u32>(cpu, 1, S_STEP);
    storeSized(cpu, destination(cpu, addrSize), size, load<u64>(cpu, S_EXIT_VALUE));
    store<u32>(cpu, 0, S_STEP);
    if (load<u32>(cpu, S_EXC)) return 16;
  }
  const delta: u64 = load<u32>(cpu, S_RFLAGS) & RFLAGS_DF ? -<i64>size : size;
  const pointer = reads ? RDI : RSI;
  setRegister(cpu, pointer, addrSize, register(cpu, pointer, addrSize) + delta);
  if (qualifier & IO_REP) {
    const left = register(cpu, RCX, addrSize) - 1;
    setRegister(cpu, RCX, addrSize, left);
    if (register(cpu, RCX, addrSize)) {
      // The instruction goes on; an element counts as one.
      store<u64>(cpu, load<u64>(cpu, S_ICOUNT) + 1, S_ICOUNT);
      store<u64>(cpu, load<u64>(cpu, S_ICOUNT), S_REPEATING);
      return 1;
    }
  }
  return done(cpu);
}
