// FXSAVE, FXRSTOR, XSAVE*, XRSTOR: images of x87, SSE and AVX state (SDM vol. 1, 10.5.1 and 13).
import {
  S_CODE_SIZE, S_EXC, S_GPR, S_X87, S_X87_CW, S_X87_FDP, S_X87_FIP, S_X87_FOP, S_X87_SW, S_X87_TAGS, S_X87_TOP, S_XCR0,
  S_XMM, S_XSAVE_AREA, S_YMM_HIGH,
} from "../src/layout";
import { GP, raise } from "./cpu";
import { load128, load8, probeWrite, store128 } from "./memory";
import { mxcsrSaved, restoreMxcsr, visibleMxcsr } from "./mxcsr";
import { summarize } from "./x87-core";

const X87: u32 = 1;
const SSE: u32 = 2;
const AVX: u32 = 4;
const MXCSR_MASK: u32 = 0xffff;
const MXCSR_INIT: u32 = 0x1f80;
/** Where MXCSR is in an image. */
const MXCSR_AT: u32 = 24;
const FXSAVE_SIZE: u32 = 512;
/** Processors look at the last byte of an image first, at XCOMP_BV when they restore: page faults show that address. */
const HEADER: u32 = 512;
const AVX_AT: u32 = 576;
const AVX_SIZE: u32 = 256;
const COMPACTED: u64 = 1 << 63;

/** FXSAVE without REX.W stores 32-bit pointers with selectors, which read as 0 here. */
function putX87(cpu: u32, image: u32, wide: bool): void {
  store<u16>(image, load<u16>(cpu, S_X87_CW));
  const top = load<u32>(cpu, S_X87_TOP) & 7;
  store<u16>(image, <u16>((load<u32>(cpu, S_X87_SW) & 0xc7ff) | (top << 11)), 2);
  store<u16>(image, load<u8>(cpu, S_X87_TAGS), 4);
  store<u16>(image, load<u16>(cpu, S_X87_FOP), 6);
  const fip = load<u64>(cpu, S_X87_FIP), fdp = load<u64>(cpu, S_X87_FDP);
  store<u64>(image, wide ? fip : fip & 0xffff_ffff, 8);
  store<u64>(image, wide ? fdp : fdp & 0xffff_ffff, 16);
  for (let i: u32 = 0; i < 8; i++) {
    const register = cpu + S_X87 + ((top + i & 7) << 4);
    store<u64>(image + (i << 4), load<u64>(register), 32);
    store<u64>(image + (i << 4), load<u16>(register, 8), 40);
  }
}

function getX87(cpu: u32, image: u32, wide: bool): void {
  // As the CPU does: reserved bits of the control word are dropped, ES and B follow from the rest.
  store<u32>(cpu, load<u16>(image) & 0x1f3f | 0x40, S_X87_CW);
  const status = load<u16>(image, 2);
  const top = status >> 11 & 7;
  store<u32>(cpu, status & 0xc7ff, S_X87_SW);
  store<u32>(cpu, top, S_X87_TOP);
  store<u32>(cpu, load<u8>(image, 4), S_X87_TAGS);
  store<u32>(cpu, load<u16>(image, 6) & 0x7ff, S_X87_FOP);
  const mask: u64 = wide ? -1 : 0xffff_ffff;
  store<u64>(cpu, load<u64>(image, 8) & mask, S_X87_FIP);
  store<u64>(cpu, load<u64>(image, 16) & mask, S_X87_FDP);
  for (let i: u32 = 0; i < 8; i++) {
    const register = cpu + S_X87 + ((top + i & 7) << 4);
    store<u64>(register, load<u64>(image + (i << 4), 32));
    store<u64>(register, load<u16>(image + (i << 4), 40), 8);
  }
  summarize(cpu);
}

function initX87(cpu: u32): void {
  store<u32>(cpu, 0x37f, S_X87_CW);
  store<u32>(cpu, 0, S_X87_SW);
  store<u32>(cpu, 0, S_X87_TOP);
  store<u32>(cpu, 0, S_X87_TAGS);
  store<u32>(cpu, 0, S_X87_FOP);
  store<u64>(cpu, 0, S_X87_FIP);
  store<u64>(cpu, 0, S_X87_FDP);
  memory.fill(cpu + S_X87, 0, 128);
}

/** Bytes of XMM (or YMM) registers that this mode has. */
@inline
function vectorBytes(cpu: u32): u32 {
  return load<u32>(cpu, S_CODE_SIZE) == 64 ? 256 : 128;
}

function copyOut(cpu: u32, va: u64, from: u32, bytes: u32): void {
  for (let i: u32 = 0; i < bytes; i += 16) store128(cpu, va + i, v128.load(from + i));
}

/** False with S_EXC set when the image cannot be read. */
function copyIn(cpu: u32, to: u32, va: u64, bytes: u32): bool {
  for (let i: u32 = 0; i < bytes; i += 16) {
    v128.store(to + i, load128(cpu, va + i));
    if (load<u32>(cpu, S_EXC)) return false;
  }
  return true;
}

/** False with S_EXC set when the byte at `va` cannot be read. */
function readable(cpu: u32, va: u64): bool {
  load8(cpu, va);
  return load<u32>(cpu, S_EXC) == 0;
}

/** #GP unless `va` is aligned to `to`. */
function aligned(cpu: u32, va: u64, to: u32): bool {
  if (!(<u32>va & (to - 1))) return true;
  raise(cpu, GP, 0);
  return false;
}

export function fxsave(cpu: u32, va: u64, rexw: u32): void {
  const bytes = 160 + vectorBytes(cpu);
  if (!aligned(cpu, va, 16) || !probeWrite(cpu, va + FXSAVE_SIZE - 1, 1) || !probeWrite(cpu, va, bytes)) return;
  const image = cpu + S_XSAVE_AREA;
  putX87(cpu, image, rexw != 0);
  store<u32>(image, visibleMxcsr(cpu), MXCSR_AT);
  store<u32>(image, MXCSR_MASK, 28);
  memory.copy(image + 160, cpu + S_XMM, vectorBytes(cpu));
  copyOut(cpu, va, image, bytes);
  mxcsrSaved(cpu, va + MXCSR_AT);
}

export function fxrstor(cpu: u32, va: u64, rexw: u32): void {
  const image = cpu + S_XSAVE_AREA;
  const bytes = 160 + vectorBytes(cpu);
  if (!aligned(cpu, va, 16) || !readable(cpu, va + FXSAVE_SIZE - 1) || !copyIn(cpu, image, va, bytes)) return;
  const mxcsr = load<u32>(image, MXCSR_AT);
  if (mxcsr & ~MXCSR_MASK) return raise(cpu, GP, 0);
  restoreMxcsr(cpu, mxcsr, va + MXCSR_AT);
  getX87(cpu, image, rexw != 0);
  memory.copy(cpu + S_XMM, image + 160, vectorBytes(cpu));
}

/** Components of XCR0 that EDX:EAX asks for. */
@inline
function requested(cpu: u32): u32 {
  return load<u32>(cpu, S_XCR0) & load<u32>(cpu, S_GPR);
}

/** Components not in their initial state. x87 and SSE are taken to be in use always. */
function inUse(cpu: u32): u32 {
  const high = cpu + S_YMM_HIGH;
  for (let i: u32 = 0; i < AVX_SIZE; i += 8) if (load<u64>(high + i)) return X87 | SSE | AVX;
  return X87 | SSE;
}

/** `kind` 0 XSAVE, 1 XSAVEOPT, 2 XSAVEC. AVX is the only extended component, so both formats put it at the same place. */
export function xsave(cpu: u32, va: u64, rexw: u32, kind: u32): void {
  const want = requested(cpu);
  const used = inUse(cpu);
  const save = kind ? want & used : want;
  const bytes = want & AVX ? AVX_AT + AVX_SIZE : AVX_AT;
  if (!aligned(cpu, va, 64) || !probeWrite(cpu, va + bytes - 1, 1) || !probeWrite(cpu, va, bytes)) return;
  const image = cpu + S_XSAVE_AREA;
  if (save & X87) {
    putX87(cpu, image, rexw != 0);
    copyOut(cpu, va, image, 16);
    copyOut(cpu, va + 32, image + 32, 128);
  }
  if (want & (SSE | AVX) || save & X87) {
    // FDP and MXCSR share these 16 bytes; what is not asked for keeps its old value.
    const old = load128(cpu, va + 16);
    v128.store(cpu + S_XSAVE_AREA + HEADER, old);
    if (!(save & X87)) store<u64>(image, load<u64>(image, HEADER), 16);
    store<u32>(image, want & (SSE | AVX) ? visibleMxcsr(cpu) : load<u32>(image, HEADER + 8), MXCSR_AT);
    store<u32>(image, want & (SSE | AVX) ? MXCSR_MASK : load<u32>(image, HEADER + 12), 28);
    copyOut(cpu, va + 16, image + 16, 16);
    if (want & (SSE | AVX)) mxcsrSaved(cpu, va + MXCSR_AT);
  }
  if (save & SSE) copyOut(cpu, va + 160, cpu + S_XMM, vectorBytes(cpu));
  if (save & AVX) copyOut(cpu, va + AVX_AT, cpu + S_YMM_HIGH, vectorBytes(cpu));
  const header = load128(cpu, va + HEADER);
  v128.store(image + HEADER, header);
  if (kind == 2) {
    store<u64>(image, save, HEADER);
    store<u64>(image, COMPACTED | want, HEADER + 8);
  } else {
    store<u64>(image, (load<u64>(image, HEADER) & ~<u64>want) | (want & used), HEADER);
  }
  copyOut(cpu, va + HEADER, image + HEADER, 16);
}

export function xrstor(cpu: u32, va: u64, rexw: u32): void {
  const want = requested(cpu);
  const image = cpu + S_XSAVE_AREA;
  if (!aligned(cpu, va, 64) || !readable(cpu, va + HEADER + 8) || !copyIn(cpu, image, va, AVX_AT)) return;
  const state = load<u64>(image, HEADER);
  const compaction = load<u64>(image, HEADER + 8);
  const compacted = (compaction & COMPACTED) != 0;
  const enabled = load<u64>(cpu, S_XCR0);
  const components = compaction & ~COMPACTED;
  let reserved = load<u64>(image, HEADER + 16);
  if (compacted) for (let i: u32 = 24; i < 64; i += 8) reserved |= load<u64>(image + i, HEADER);
  const bad = compacted ? (components & ~enabled) | (state & ~components) : compaction;
  if ((state & ~enabled) | bad | reserved) return raise(cpu, GP, 0);
  if (want & <u32>state & AVX && !copyIn(cpu, image + AVX_AT, va + AVX_AT, vectorBytes(cpu))) return;
  if (want & (compacted ? SSE : SSE | AVX)) {
    const mxcsr = compacted && !(state & SSE) ? MXCSR_INIT : load<u32>(image, MXCSR_AT);
    if (mxcsr & ~MXCSR_MASK) return raise(cpu, GP, 0);
    restoreMxcsr(cpu, mxcsr, va + MXCSR_AT);
  }
  if (want & X87) {
    if (state & X87) getX87(cpu, image, rexw != 0);
    else initX87(cpu);
  }
  if (want & SSE) {
    if (state & SSE) memory.copy(cpu + S_XMM, image + 160, vectorBytes(cpu));
    else memory.fill(cpu + S_XMM, 0, vectorBytes(cpu));
  }
  if (want & AVX) {
    if (state & AVX) memory.copy(cpu + S_YMM_HIGH, image + AVX_AT, vectorBytes(cpu));
    else memory.fill(cpu + S_YMM_HIGH, 0, vectorBytes(cpu));
  }
}
