// String instructions. A call does at most one page of each operand (MOVS and STOS: some pages) and leaves the registers in the state block where the
// architecture wants them between iterations, so interrupts can come between calls. Results: 1 complete; 0 execute the
// instruction again (or S_EXC is set).
import {
  ACCESS_WRITE, ES, S_CODE_SIZE, S_EXC, S_EXIT_VALUE, S_GPR, S_RFLAGS, S_SEG, S_STEP, S_WATCH, SEG_BASE, SEG_STRIDE,
} from "../src/layout";
import { RFLAGS_DF, RFLAGS_TF, linear } from "./cpu";
import { compareFlags } from "./flags";
import { within } from "./limits";
import { crosses, loadSized, misaligned, overCode, readPtr, rmwPtr, storeSized } from "./memory";
import { codeBits, unprotect } from "./tlb";

const RAX = S_GPR;
const RCX = S_GPR + 8;
const RSI = S_GPR + 48;
const RDI = S_GPR + 56;
const REPNE: u32 = 2;
/** Below this many bytes a loop beats the engine's bulk operations. */
const BULK: u32 = 64;

/** Register `at` as an address or count of `addrSize` bytes. */
@inline
function get(cpu: u32, at: u32, addrSize: u32): u64 {
  const value = load<u64>(cpu + at);
  return addrSize == 8 ? value : addrSize == 4 ? value & 0xffff_ffff : value & 0xffff;
}

@inline
function set(cpu: u32, at: u32, addrSize: u32, value: u64): void {
  if (addrSize == 8) store<u64>(cpu + at, value);
  else if (addrSize == 4) store<u64>(cpu + at, value & 0xffff_ffff);
  else store<u16>(cpu + at, <u16>value);
}

@inline
function down(cpu: u32): bool {
  return (load<u32>(cpu, S_RFLAGS) & RFLAGS_DF) != 0;
}

/** Linear address of the destination, ES:rDI. */
@inline
function destination(cpu: u32, addrSize: u32): u64 {
  const base = load<u32>(cpu, S_CODE_SIZE) == 64 ? 0 : load<u64>(cpu, S_SEG + ES * SEG_STRIDE + SEG_BASE);
  return linear(cpu, base + get(cpu, RDI, addrSize));
}

@inline
function source(cpu: u32, addrSize: u32, segOffset: u32): u64 {
  return linear(cpu, load<u64>(cpu + segOffset) + get(cpu, RSI, addrSize));
}

/** A single step is one iteration: TF or a breakpoint may have something to say after each. */
@inline
function single(cpu: u32, n: u32): u32 {
  return load<u32>(cpu, S_STEP) && n > 1 && (load<u32>(cpu, S_RFLAGS) & RFLAGS_TF || load<u32>(cpu, S_WATCH)) ? 1 : n;
}

/** Elements from `va` (offset `offset` in its segment) to the end of its page in the direction; 0 when the first one crosses. */
function room(va: u64, offset: u64, size: u32, addrSize: u32, backward: bool): u32 {
  if (crosses(va, size)) return 0;
  const inPage = <u32>va & 0xfff;
  const shift = ctz(size);
  let n = backward ? (inPage >> shift) + 1 : (0x1000 - inPage) >> shift;
  if (addrSize < 8) {
    const limit: u64 = addrSize == 4 ? 0xffff_ffff : 0xffff;
    const wrap = backward ? (offset >> shift) + 1 : (limit - offset >> shift) + 1;
    if (wrap < <u64>n) n = <u32>wrap;
  }
  return n;
}

@inline
function step(cpu: u32, at: u32, addrSize: u32, size: u32, n: u32, backward: bool): void {
  const distance = <u64>(n * size);
  const old = get(cpu, at, addrSize);
  set(cpu, at, addrSize, backward ? old - distance : old + distance);
}

/** Count down rCX by `n`; 1 when it reaches 0 (or there is no REP). */
@inline
function finish(cpu: u32, addrSize: u32, rep: u32, n: u32): u32 {
  if (!rep) return 1;
  const left = get(cpu, RCX, addrSize) - n;
  set(cpu, RCX, addrSize, left);
  return left == 0 ? 1 : 0;
}

/** Iterations wanted, clipped to 32 bits. */
@inline
function wanted(cpu: u32, addrSize: u32, rep: u32): u32 {
  if (!rep) return 1;
  const n = get(cpu, RCX, addrSize);
  return single(cpu, n > 0x7fff_ffff ? 0x7fff_ffff : <u32>n);
}

/** What a REP with 32-bit addresses does first, even when the count is zero or it faults: the upper halves become zero, those of RCX and, for
 *  MOVS and STOS on Intel cores, those of the addresses `from`, `to` (0: none) too. */
@inline
function narrow(cpu: u32, addrSize: u32, rep: u32, from: u32, to: u32): void {
  if (addrSize != 4 || !rep) return;
  set(cpu, RCX, 4, get(cpu, RCX, 4));
  if (from) set(cpu, from, 4, get(cpu, from, 4));
  if (to) set(cpu, to, 4, get(cpu, to, 4));
}

/** Value of `size` bytes in linear memory. */
@inline
function element(at: u32, size: u32): u64 {
  if (size == 1) return load<u8>(at);
  if (size == 8) return load<u64>(at);
  return size == 4 ? load<u32>(at) : load<u16>(at);
}

@inline
function setElement(at: u32, size: u32, value: u64): void {
  if (size == 1) store<u8>(at, <u8>value);
  else if (size == 8) store<u64>(at, value);
  else if (size == 4) store<u32>(at, <u32>value);
  else store<u16>(at, <u16>value);
}

/**
 * HPA of the destination for a run of `n` elements, the first value being in S_EXIT_VALUE; 0: S_EXC set, or that one
 * element was stored by a device or the hypervisor.
 */
function runPtr(cpu: u32, va: u64, size: u32, n: u32, backward: bool): u32 {
  const hpa = rmwPtr(cpu, va, size, ACCESS_WRITE);
  if (!hpa) return 0;
  if (!codeBits(hpa)) {
    unprotect(cpu, va, hpa);
    return hpa;
  }
  const first = backward ? hpa - (n - 1) * size : hpa;
  return overCode(cpu, first, n * size) ? hpa : 0;
}

/** Copies and fills of at most a page each that a call does, so that going in and out is paid for once. An interrupt waits for them: some microseconds. */
const MAX_RUNS: u32 = 16;

/** Was that a run of some elements? After one by itself, as devices take them, a fault or a chunk under observation others must have a look. */
@inline
function goesOn(cpu: u32, before: u64, addrSize: u32): bool {
  return !load<u32>(cpu, S_EXC) && !load<u32>(cpu, S_STEP) && before - get(cpu, RCX, addrSize) > 1;
}

/** MOVS. `segOffset`: state-block offset of the source segment's base. */
export function rep_movs(cpu: u32, size: u32, addrSize: u32, rep: u32, segOffset: u32): u32 {
  for (let i: u32 = 0; i < MAX_RUNS; i++) {
    const before = get(cpu, RCX, addrSize);
    if (moveRun(cpu, size, addrSize, rep, segOffset)) return 1;
    if (!goesOn(cpu, before, addrSize)) break;
  }
  return 0;
}

/** MOVS within a page of each operand. */
function moveRun(cpu: u32, size: u32, addrSize: u32, rep: u32, segOffset: u32): u32 {
  narrow(cpu, addrSize, rep, RSI, RDI);
  let n = wanted(cpu, addrSize, rep);
  if (!n) return 1;
  const backward = down(cpu);
  n = within(cpu, segOffset, get(cpu, RSI, addrSize), size, n, backward, false);
  if (!n) return 0;
  n = within(cpu, S_SEG + ES * SEG_STRIDE, get(cpu, RDI, addrSize), size, n, backward, true);
  if (!n) return 0;
  const from = source(cpu, addrSize, segOffset);
  const to = destination(cpu, addrSize);
  n = min(n, min(room(from, get(cpu, RSI, addrSize), size, addrSize, backward), room(to, get(cpu, RDI, addrSize), size, addrSize, backward)));
  if (misaligned(cpu, from, size) || misaligned(cpu, to, size)) return 0;
  let s: u32 = n ? readPtr(cpu, from, size) : 0;
  if (load<u32>(cpu, S_EXC)) return 0;
  if (!s) {
    // An element across pages, or a device: one at a time.
    const value = n ? element(cpu + S_EXIT_VALUE, size) : loadSized(cpu, from, size);
    if (load<u32>(cpu, S_EXC)) return 0;
    storeSized(cpu, to, size, value);
    if (load<u32>(cpu, S_EXC)) return 0;
    n = 1;
  } else {
    setElement(cpu + S_EXIT_VALUE, size, element(s, size));
    const d = runPtr(cpu, to, size, n, backward);
    if (load<u32>(cpu, S_EXC)) return 0;
    if (d) move(d, s, size, n, backward);
    else n = 1;
  }
  step(cpu, RSI, addrSize, size, n, backward);
  step(cpu, RDI, addrSize, size, n, backward);
  return finish(cpu, addrSize, rep, n);
}

/** Element by element as far as that can be told: an overlapping destination repeats what was just written. */
function move(d: u32, s: u32, size: u32, n: u32, backward: bool): void {
  const bytes = n * size;
  if (backward) {
    for (let i: u32 = 0; i < n; i++, d -= size, s -= size) setElement(d, size, element(s, size));
  } else if (d - s >= bytes && bytes >= BULK) {
    memory.copy(d, s, bytes);
  } else if (d - s >= bytes && size < 8) {
    const end = s + bytes;
    for (; s + 8 <= end; s += 8, d += 8) store<u64>(d, load<u64>(s));
    for (; s < end; s += size, d += size) setElement(d, size, element(s, size));
  } else {
    for (let i: u32 = 0; i < n; i++, d += size, s += size) setElement(d, size, element(s, size));
  }
}

/** STOS of AL, AX, EAX or RAX. */
export function rep_stos(cpu: u32, size: u32, addrSize: u32, rep: u32, _: u32): u32 {
  for (let i: u32 = 0; i < MAX_RUNS; i++) {
    const before = get(cpu, RCX, addrSize);
    if (storeRun(cpu, size, addrSize, rep)) return 1;
    if (!goesOn(cpu, before, addrSize)) break;
  }
  return 0;
}

/** STOS within a page. */
function storeRun(cpu: u32, size: u32, addrSize: u32, rep: u32): u32 {
  narrow(cpu, addrSize, rep, 0, RDI);
  let n = wanted(cpu, addrSize, rep);
  if (!n) return 1;
  const backward = down(cpu);
  n = within(cpu, S_SEG + ES * SEG_STRIDE, get(cpu, RDI, addrSize), size, n, backward, true);
  if (!n) return 0;
  const to = destination(cpu, addrSize);
  const value = load<u64>(cpu, RAX);
  if (misaligned(cpu, to, size)) return 0;
  n = min(n, room(to, get(cpu, RDI, addrSize), size, addrSize, backward));
  if (!n) {
    storeSized(cpu, to, size, value);
    if (load<u32>(cpu, S_EXC)) return 0;
    n = 1;
  } else {
    store<u64>(cpu, value, S_EXIT_VALUE);
    const d = runPtr(cpu, to, size, n, backward);
    if (load<u32>(cpu, S_EXC)) return 0;
    if (d) fillRun(backward ? d - (n - 1) * size : d, size, n, value);
    else n = 1;
  }
  step(cpu, RDI, addrSize, size, n, backward);
  return finish(cpu, addrSize, rep, n);
}

function fillRun(d: u32, size: u32, n: u32, value: u64): void {
  if (n == 1) return setElement(d, size, value);
  if (size == 1) value = (value & 0xff) * 0x0101_0101_0101_0101;
  else if (size == 2) value = (value & 0xffff) * 0x0001_0001_0001_0001;
  else if (size == 4) value = (value & 0xffff_ffff) * 0x0000_0001_0000_0001;
  const bytes = n * size;
  if (bytes >= BULK && value == (value & 0xff) * 0x0101_0101_0101_0101) {
    memory.fill(d, <u8>value, bytes);
    return;
  }
  const end = d + bytes;
  for (; d + 8 <= end; d += 8) store<u64>(d, value);
  for (; d < end; d += size) setElement(d, size, value);
}

/** LODS to AL, AX, EAX or RAX. */
export function rep_lods(cpu: u32, size: u32, addrSize: u32, rep: u32, segOffset: u32): u32 {
  narrow(cpu, addrSize, rep, 0, 0);
  let n = wanted(cpu, addrSize, rep);
  if (!n) return 1;
  const backward = down(cpu);
  n = within(cpu, segOffset, get(cpu, RSI, addrSize), size, n, backward, false);
  if (!n) return 0;
  const from = source(cpu, addrSize, segOffset);
  n = min(n, room(from, get(cpu, RSI, addrSize), size, addrSize, backward));
  let value: u64;
  if (misaligned(cpu, from, size)) return 0;
  const s: u32 = n ? readPtr(cpu, from, size) : 0;
  if (load<u32>(cpu, S_EXC)) return 0;
  if (s) {
    value = element(backward ? s - (n - 1) * size : s + (n - 1) * size, size);
  } else {
    value = n ? element(cpu + S_EXIT_VALUE, size) : loadSized(cpu, from, size);
    if (load<u32>(cpu, S_EXC)) return 0;
    n = 1;
  }
  if (size == 4) store<u64>(cpu, value, RAX);
  else setElement(cpu + RAX, size, value);
  step(cpu, RSI, addrSize, size, n, backward);
  return finish(cpu, addrSize, rep, n);
}

/** Elements of `a` and `b` from the start that are equal, at most `n`; both upward. */
function equalRun(a: u32, b: u32, size: u32, n: u32): u32 {
  let i: u32 = 0;
  const per = 8 / size;
  while (i + per <= n && load<u64>(a + i * size) == load<u64>(b + i * size)) i += per;
  while (i < n && element(a + i * size, size) == element(b + i * size, size)) i++;
  return i;
}

/** CMPS: flags of [rSI] - [rDI]. They stay as they were until it is complete: a fault must find those (SDM vol. 2, REP). */
export function rep_cmps(cpu: u32, size: u32, addrSize: u32, rep: u32, segOffset: u32): u32 {
  narrow(cpu, addrSize, rep, 0, 0);
  let n = wanted(cpu, addrSize, rep);
  if (!n) return 1;
  const backward = down(cpu);
  n = within(cpu, segOffset, get(cpu, RSI, addrSize), size, n, backward, false);
  if (!n) return 0;
  n = within(cpu, S_SEG + ES * SEG_STRIDE, get(cpu, RDI, addrSize), size, n, backward, false);
  if (!n) return 0;
  const va1 = source(cpu, addrSize, segOffset);
  const va2 = destination(cpu, addrSize);
  n = min(n, min(room(va1, get(cpu, RSI, addrSize), size, addrSize, backward), room(va2, get(cpu, RDI, addrSize), size, addrSize, backward)));
  if (misaligned(cpu, va1, size) || misaligned(cpu, va2, size)) return 0;
  // The destination faults first, as on Intel's processors.
  let p2: u32 = n ? readPtr(cpu, va2, size) : 0;
  if (load<u32>(cpu, S_EXC)) return 0;
  let b = p2 ? element(p2, size) : n ? element(cpu + S_EXIT_VALUE, size) : loadSized(cpu, va2, size);
  if (load<u32>(cpu, S_EXC)) return 0;
  let p1: u32 = n ? readPtr(cpu, va1, size) : 0;
  if (load<u32>(cpu, S_EXC)) return 0;
  let a = p1 ? element(p1, size) : n ? element(cpu + S_EXIT_VALUE, size) : loadSized(cpu, va1, size);
  if (load<u32>(cpu, S_EXC)) return 0;
  // Iterations done; a and b end as the last pair compared.
  let done: u32 = 1;
  if (p1 && p2 && n > 1) {
    const stride = backward ? -size : size;
    if (rep != REPNE && a == b && !backward) {
      done = equalRun(p1, p2, size, n);
      if (done < n) done++;
      a = element(p1 + (done - 1) * size, size);
      b = element(p2 + (done - 1) * size, size);
    } else {
      while (done < n && (a == b) == (rep != REPNE)) {
        p1 += stride;
        p2 += stride;
        a = element(p1, size);
        b = element(p2, size);
        done++;
      }
    }
  }
  step(cpu, RSI, addrSize, size, done, backward);
  step(cpu, RDI, addrSize, size, done, backward);
  const complete = finish(cpu, addrSize, rep, done) | <u32>((a == b) != (rep != REPNE));
  if (complete || load<u32>(cpu, S_STEP)) compareFlags(cpu, size, a, b);
  return complete;
}

/** SCAS: flags of rAX - [rDI], as for CMPS. */
export function rep_scas(cpu: u32, size: u32, addrSize: u32, rep: u32, _: u32): u32 {
  narrow(cpu, addrSize, rep, 0, 0);
  let n = wanted(cpu, addrSize, rep);
  if (!n) return 1;
  const backward = down(cpu);
  n = within(cpu, S_SEG + ES * SEG_STRIDE, get(cpu, RDI, addrSize), size, n, backward, false);
  if (!n) return 0;
  const va = destination(cpu, addrSize);
  n = min(n, room(va, get(cpu, RDI, addrSize), size, addrSize, backward));
  if (misaligned(cpu, va, size)) return 0;
  let p: u32 = n ? readPtr(cpu, va, size) : 0;
  if (load<u32>(cpu, S_EXC)) return 0;
  const a = element(cpu + RAX, size);
  let b = p ? element(p, size) : n ? element(cpu + S_EXIT_VALUE, size) : loadSized(cpu, va, size);
  if (load<u32>(cpu, S_EXC)) return 0;
  let done: u32 = 1;
  if (p) {
    const stride = backward ? -size : size;
    while (done < n && (a == b) == (rep != REPNE)) {
      p += stride;
      b = element(p, size);
      done++;
    }
  }
  step(cpu, RDI, addrSize, size, done, backward);
  const complete = finish(cpu, addrSize, rep, done) | <u32>((a == b) != (rep != REPNE));
  if (complete || load<u32>(cpu, S_STEP)) compareFlags(cpu, size, a, b);
  return complete;
}
