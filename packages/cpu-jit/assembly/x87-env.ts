/**
 * FNSTENV, FLDENV, FNSAVE, FRSTOR: the x87 environment and state images of SDM vol. 1, 8.1.10. Segment selectors are
 * stored as zero, as processors that deprecate them do. A fault leaves the unit, and for loads all of it, as it was.
 */
import {
  CS, S_CODE_SIZE, S_CR0, S_EXC, S_RFLAGS, S_SEG, S_X87, S_X87_CW, S_X87_FDP, S_X87_FIP, S_X87_FOP, S_X87_SW, S_X87_TAGS, S_X87_TOP,
  SEG_BASE, SEG_STRIDE,
} from '../src/layout';
import { linear } from './cpu';
import { load16, load32, probeExec, probeWrite, store16, store32 } from './memory';
import { at, INTEGER_BIT, mOf, put, sOf, summarize, topOf } from './x87-core';

const RFLAGS_VM: u32 = 1 << 17;

/** Whether images have the real-address form, with linear instruction and operand pointers. */
@inline function isReal(cpu: u32): bool { return (load<u32>(cpu, S_CR0) & 1) == 0 || (load<u32>(cpu, S_RFLAGS) & RFLAGS_VM) != 0; }

/** The full tag word: 00 valid, 01 zero, 10 special, 11 empty, by physical register. */
export function tagWord(cpu: u32): u32 {
  const used = load<u32>(cpu, S_X87_TAGS);
  let word: u32 = 0;
  for (let n: u32 = 0; n < 8; n++) {
    let tag: u32 = 3;
    if ((used >> n) & 1) {
      const s = load<u16>(cpu + (n << 4), S_X87 + 8) & 0x7fff, m = load<u64>(cpu + (n << 4), S_X87);
      tag = s == 0 && m == 0 ? 1 : s != 0 && s != 0x7fff && (m & INTEGER_BIT) != 0 ? 0 : 2;
    }
    word |= tag << (n << 1);
  }
  return word;
}

/** Field `index` (0..6) of the image at `va`: words in the 16-bit form, doublewords in the 32-bit form. */
function storeField(cpu: u32, va: u64, wide: u32, index: u32, value: u32): void {
  if (load<u32>(cpu, S_EXC)) return;
  if (wide) store32(cpu, linear(cpu, va + (index << 2)), value);
  else store16(cpu, linear(cpu, va + (index << 1)), value & 0xffff);
}
function loadField(cpu: u32, va: u64, wide: u32, index: u32): u32 {
  if (load<u32>(cpu, S_EXC)) return 0;
  return wide ? load32(cpu, linear(cpu, va + (index << 2))) : load16(cpu, linear(cpu, va + (index << 1)));
}

function storeEnvironment(cpu: u32, va: u64, wide: u32): void {
  const fip = load<u32>(cpu, S_X87_FIP), fdp = load<u32>(cpu, S_X87_FDP), fop = load<u32>(cpu, S_X87_FOP) & 0x7ff;
  const ones: u32 = wide ? 0xffff_0000 : 0;
  storeField(cpu, va, wide, 0, load<u32>(cpu, S_X87_CW) | ones);
  storeField(cpu, va, wide, 1, load<u32>(cpu, S_X87_SW) | (topOf(cpu) << 11) | ones);
  storeField(cpu, va, wide, 2, tagWord(cpu) | ones);
  if (isReal(cpu)) {
    storeField(cpu, va, wide, 3, (fip & 0xffff) | ones);
    storeField(cpu, va, wide, 4, ((fip >> 16) << 12) | fop);
    storeField(cpu, va, wide, 5, (fdp & 0xffff) | ones);
    storeField(cpu, va, wide, 6, (fdp >> 16) << 12);
  } else {
    storeField(cpu, va, wide, 3, fip);
    storeField(cpu, va, wide, 4, wide ? fop << 16 : 0);
    storeField(cpu, va, wide, 5, fdp);
    storeField(cpu, va, wide, 6, ones);
  }
}

// The environment just read, before it replaces anything.
let newCw: u32 = 0, newSw: u32 = 0, newTags: u32 = 0, newFip: u32 = 0, newFdp: u32 = 0, newFop: u32 = 0;

/** Reads an image; false when a load faulted. */
function loadEnvironment(cpu: u32, va: u64, wide: u32): bool {
  newCw = loadField(cpu, va, wide, 0);
  newSw = loadField(cpu, va, wide, 1);
  newTags = loadField(cpu, va, wide, 2);
  const f3 = loadField(cpu, va, wide, 3), f4 = loadField(cpu, va, wide, 4);
  const f5 = loadField(cpu, va, wide, 5), f6 = loadField(cpu, va, wide, 6);
  if (isReal(cpu)) {
    newFip = (f3 & 0xffff) | ((f4 >> 12) << 16);
    newFop = f4 & 0x7ff;
    newFdp = (f5 & 0xffff) | ((f6 >> 12) << 16);
  } else {
    newFip = f3;
    newFop = wide ? (f4 >> 16) & 0x7ff : load<u32>(cpu, S_X87_FOP);
    newFdp = f5;
  }
  return load<u32>(cpu, S_EXC) == 0;
}
function takeEnvironment(cpu: u32): void {
  let used: u32 = 0;
  for (let n: u32 = 0; n < 8; n++) if (((newTags >> (n << 1)) & 3) != 3) used |= 1 << n;
  store<u32>(cpu, (newCw & 0x1f3f) | 0x40, S_X87_CW);
  store<u32>(cpu, newSw & 0x47ff, S_X87_SW);
  store<u32>(cpu, (newSw >> 11) & 7, S_X87_TOP);
  store<u32>(cpu, used, S_X87_TAGS);
  store<u64>(cpu, newFip, S_X87_FIP);
  store<u64>(cpu, newFdp, S_X87_FDP);
  store<u32>(cpu, newFop, S_X87_FOP);
  summarize(cpu);
}

@inline function environmentSize(wide: u32): u32 { return wide ? 28 : 14; }

/** FNSTENV: 28 bytes (`wide` 1) or 14; then all exceptions are masked. */
export function fx_stenv(cpu: u32, va: u64, wide: u32): void {
  if (!probeWrite(cpu, va, environmentSize(wide))) return;
  storeEnvironment(cpu, va, wide);
  if (load<u32>(cpu, S_EXC)) return;
  store<u32>(cpu, load<u32>(cpu, S_X87_CW) | 0x3f, S_X87_CW);
  summarize(cpu);
}
/** FLDENV. */
export function fx_ldenv(cpu: u32, va: u64, wide: u32): void {
  if (loadEnvironment(cpu, va, wide)) takeEnvironment(cpu);
}
/** FNSAVE: the environment, then ST(0) to ST(7), 10 bytes each. The caller initialises the unit when nothing faulted. */
export function fx_save(cpu: u32, va: u64, wide: u32): void {
  const size = environmentSize(wide);
  if (!probeWrite(cpu, va, size + 80)) return;
  storeEnvironment(cpu, va, wide);
  for (let i: u32 = 0; i < 8; i++) {
    const register = at(cpu, i), to = va + size + i * 10;
    // Words, since alignment checking asks for no more here.
    for (let w: u32 = 0; w < 8 && !load<u32>(cpu, S_EXC); w += 2) store16(cpu, linear(cpu, to + w), <u32>(mOf(register) >> (w << 3)) & 0xffff);
    if (load<u32>(cpu, S_EXC)) return;
    store16(cpu, linear(cpu, to + 8), sOf(register));
  }
}
/** FRSTOR. */
export function fx_rstor(cpu: u32, va: u64, wide: u32): void {
  const from = va + environmentSize(wide);
  if (!loadEnvironment(cpu, va, wide)) return;
  // The registers lie in one or two pages: touch the last byte so that no later load can fault.
  load16(cpu, linear(cpu, from + 78));
  for (let i: u32 = 0; i < 8 && !load<u32>(cpu, S_EXC); i++) {
    let m: u64 = 0;
    for (let w: u32 = 0; w < 8 && !load<u32>(cpu, S_EXC); w += 2) m |= <u64>load16(cpu, linear(cpu, from + i * 10 + w)) << (w << 3);
    if (load<u32>(cpu, S_EXC)) return;
    const s = load16(cpu, linear(cpu, from + i * 10 + 8));
    if (load<u32>(cpu, S_EXC)) return;
    put(cpu + ((((newSw >> 11) + i) & 7) << 4), s, m);
  }
  if (!load<u32>(cpu, S_EXC)) takeEnvironment(cpu);
}

/** Longest instruction, SDM vol. 2, 2.3.11. */
const MAX_LENGTH: u64 = 15;

/** FOP: the opcode of the instruction at FIP, from its bytes, which have just been executed. */
export function fx_opcode(cpu: u32): void {
  const long = load<u32>(cpu, S_CODE_SIZE) == 64;
  let va = load<u64>(cpu, S_X87_FIP);
  if (!long) va = (va + load<u64>(cpu, S_SEG + CS * SEG_STRIDE + SEG_BASE)) & 0xffff_ffff;
  // No prefix is among the escapes D8..DF.
  for (let end = va + MAX_LENGTH; va < end; va++) {
    const hpa = probeExec(cpu, va);
    if (!hpa) return;
    const escape = load<u8>(hpa);
    if ((escape & 0xf8) != 0xd8) continue;
    const modrm = probeExec(cpu, va + 1);
    if (modrm) store<u32>(cpu, (<u32>(escape & 7) << 8) | <u32>load<u8>(modrm), S_X87_FOP);
    return;
  }
}
