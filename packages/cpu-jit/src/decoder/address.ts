import type { Reader } from './reader.ts';
import type { AddrSize, MemOperand } from './types.ts';

const RSP = 4;
const RBP = 5;
const SS = 2;
const DS = 3;
/** `MemOperand.base` of RIP-relative addresses. */
export const RIP = 16;

/** Base and index of 16-bit addresses by ModRM.rm (SDM vol. 2, table 2-1): BX 3, BP 5, SI 6, DI 7. */
const BASES_16 = [3, 3, 5, 5, 6, 7, 5, 3] as const;
const INDEXES_16 = [6, 7, 6, 7, -1, -1, -1, -1] as const;

function address16(reader: Reader, mod: number, rm: number, override: number): MemOperand {
  const absolute = mod === 0 && rm === 6;
  const base = absolute ? -1 : (BASES_16[rm] ?? -1);
  const index = INDEXES_16[rm] ?? -1;
  const disp = absolute || mod === 2 ? reader.s16() : mod === 1 ? reader.s8() : 0;
  const seg = override >= 0 ? override : base === RBP ? SS : DS;
  return { base, index, scale: 0, disp, seg };
}

/**
 * Memory operand of a ModRM byte with mod != 3, reading SIB and displacement.
 *
 * @param rexB REX.B << 3; @param rexX REX.X << 3
 * @param override segment register of a prefix in effect, -1: none
 * @param long 64-bit mode (mod 0, rm 5 is RIP-relative)
 * @param vector the index is a vector register, of which 4 is as good as any; without SIB there is none (`index` -1), which is #UD
 */
export function readAddress(
  reader: Reader,
  modrm: number,
  addrSize: AddrSize,
  rexB: number,
  rexX: number,
  override: number,
  long: boolean,
  vector = false,
): MemOperand {
  const mod = modrm >> 6;
  const rm = modrm & 7;
  if (addrSize === 2) {
    const mem = address16(reader, mod, rm, override);
    return vector ? { ...mem, index: -1 } : mem;
  }
  let base = rm | rexB;
  let index = -1;
  let scale = 0;
  let wide = mod === 2;
  if (rm === RSP) {
    const sib = reader.u8();
    base = (sib & 7) | rexB;
    index = ((sib >> 3) & 7) | rexX;
    scale = sib >> 6;
    if (index === RSP && !vector) {
      index = -1;
      scale = 0;
    }
    if (mod === 0 && (sib & 7) === RBP) {
      base = -1;
      wide = true;
    }
  } else if (mod === 0 && rm === RBP) {
    base = long ? RIP : -1;
    wide = true;
  }
  const disp = wide ? reader.s32() : mod === 1 ? reader.s8() : 0;
  const seg = override >= 0 ? override : base === RSP || base === RBP ? SS : DS;
  return { base, index, scale, disp, seg };
}
