import { decode, decodeAcrossPages } from '../decoder/index.ts';
import { PROFILE_BASE, PROFILE_COUNT, PROFILE_ENTRIES, PROFILE_ENTRY_SIZE, PROFILE_LIST, PROFILE_SITE } from '../layout.ts';
import type { RegionSource } from './region.ts';

/** A tiny function has no more instructions than this up to its first RET. */
const TINY_INSNS = 16;

/** The part of a `RegionSource` that the bytes in linear memory give. */
export function regionCode(u8: Uint8Array, hpa: number, codeSize: 16 | 32 | 64): Pick<RegionSource, 'hpa' | 'codeSize' | 'decode'> {
  return {
    hpa,
    codeSize,
    decode: (at, nextPage) => {
      const insn = decodeAcrossPages(u8, at, codeSize, nextPage);
      if (typeof insn === 'string') return undefined;
      // A 16-bit branch in 32-bit code cuts its target to 16 bits.
      const isCut = codeSize !== 64 && insn.opSize === 2 && insn.operands.some((o) => o.kind === 'rel');
      return isCut ? undefined : insn;
    },
  };
}

/** Does the code at `hpa` come to a RET within a few instructions, without leaving the page? */
export function isTiny(u8: Uint8Array, hpa: number, codeSize: 16 | 32 | 64): boolean {
  let at = hpa;
  for (let n = 0; n < TINY_INSNS; n++) {
    const insn = decode(u8, at, 4096 - (at & 0xfff), codeSize);
    if (typeof insn === 'string') return false;
    if (insn.row.name === 'ret') return true;
    at += insn.length;
    if (at >>> 12 !== hpa >>> 12) return false;
  }
  return false;
}

/** What the interpreter's profile has for the indirect branch at `rip + offset`, as offsets from `rip`. */
export function observedTargets(view: DataView, rip: bigint, offset: number): number[] {
  const site = BigInt.asUintN(64, rip + BigInt(offset));
  const low = Number(site & 0xffff_ffffn);
  const entry = PROFILE_BASE + ((low ^ (low >>> 10)) & (PROFILE_ENTRIES - 1)) * PROFILE_ENTRY_SIZE;
  if (view.getBigUint64(entry + PROFILE_SITE, true) !== site) return [];
  const count = view.getUint32(entry + PROFILE_COUNT, true);
  const found: number[] = [];
  for (let i = 0; i < count; i++) {
    const delta = BigInt.asIntN(64, view.getBigUint64(entry + PROFILE_LIST + i * 8, true) - rip);
    if (delta >= -0x4000_0000n && delta < 0x4000_0000n) found.push(Number(delta));
  }
  return found;
}
