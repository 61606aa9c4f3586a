import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { RAX, VECTOR } from './common.ts';

/** Decimal adjustment: instructions of 16- and 32-bit modes only. */

const AH_AL = 2;

/** DAA and DAS: +-6 when the low digit overflowed, +-60h when the high one did. */
function packedAdjust(sign: 1 | -1): Semantics {
  return (e) => {
    const al = e.reg(RAX, 1);
    const cf = e.let(e.flag('c'));
    const af = e.let(e.or(e.flag('a'), e.gtU(e.and(al, e.i32(15)), e.i32(9))));
    const high = e.let(e.or(cf, e.gtU(al, e.i32(0x99))));
    const adjusted = e.add(e.add(al, e.mul(af, e.i32(sign * 6))), e.mul(high, e.i32(sign * 0x60)));
    const r = e.let(e.trunc(adjusted, 1));
    // DAS also reports the borrow of its low digit out of AL.
    const borrow = sign === -1 ? e.and(af, e.ltU(al, e.i32(6))) : e.i32(0);
    const carry = e.let(e.or(high, borrow));
    e.setReg(RAX, 1, r);
    e.setFlagsExplicit({ cf: carry, af, result: r, size: 1 });
  };
}

/** AAA and AAS: AX +-106h when the digit overflowed; AL keeps its low digit. */
function unpackedAdjust(sign: 1 | -1): Semantics {
  return (e) => {
    const ax = e.reg(RAX, AH_AL);
    const carry = e.let(e.or(e.flag('a'), e.gtU(e.and(ax, e.i32(15)), e.i32(9))));
    const adjusted = e.add(ax, e.mul(carry, e.i32(sign * 0x106)));
    const r = e.let(e.and(adjusted, e.i32(0xff0f)));
    e.setReg(RAX, AH_AL, r);
    e.setFlagsExplicit({ cf: carry, af: carry, result: e.trunc(r, 1), size: 1 });
  };
}

function aam(e: Emitter): void {
  const base = e.imm(1);
  e.if(e.eqz(base), () => e.raise(VECTOR.DE));
  const al = e.reg(RAX, 1);
  const digit = (op: string): Val => e.let(e.op(`i32.${op}`, 'i32', al, base));
  const low = digit('rem_u');
  e.setReg(RAX, AH_AL, e.let(e.or(e.shl(digit('div_u'), e.i32(8)), low)));
  e.setFlagsExplicit({ result: low, size: 1 });
}
function aad(e: Emitter): void {
  const ax = e.reg(RAX, AH_AL);
  const al = e.let(e.and(ax, e.i32(0xff)));
  const product = e.let(e.trunc(e.mul(e.shrU(ax, e.i32(8)), e.imm(1)), 1));
  const r = e.let(e.trunc(e.add(al, product), 1));
  e.setReg(RAX, AH_AL, r);
  // OF, AF and CF, which the manual leaves undefined, are the addition's on Intel's processors.
  e.setFlags('add', 1, r, product, al);
}

/** Decimal arithmetic (SDM vol. 2, by mnemonic). SALC, undocumented, sets AL to CF in all bits. */
export const decimal: Record<string, Semantics> = {
  daa: packedAdjust(1),
  das: packedAdjust(-1),
  aaa: unpackedAdjust(1),
  aas: unpackedAdjust(-1),
  aam,
  aad,
  salc: (e) => e.setReg(RAX, 1, e.let(e.and(e.sub(e.i32(0), e.flag('c')), e.i32(0xff)))),
};
