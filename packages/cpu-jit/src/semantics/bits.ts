import type { Emitter, Semantics } from '../emit/emitter.ts';
import type { Val } from '../emit/val.ts';
import { amount, at, bit, CF, mergeFlags, OF, signBit, update } from './common.ts';

// ---------------------------------------------------------------- BT, BTS, BTR, BTC

type BitChange = 'test' | 'set' | 'reset' | 'complement';

/**
 * Bit tests change CF only. A register offset into memory reaches beyond the operand: the signed offset selects
 * another operand-sized unit around the address.
 */
function bitTest(change: BitChange): Semantics {
  return (e) => {
    const size = e.size(0);
    const offset = e.read(1);
    const position = e.let(e.and(offset, e.k(size, size * 8 - 1)));
    const address = e.isMem(0) && e.form.operands[1]?.kind === 'gpr' ? bitAddress(e, offset, size) : undefined;
    const old = change === 'test' ? readUnit(e, address, size) : update(e, 0, (a) => ({ a, stored: e.let(changed(e, a, position, size, change)) }), address).a;
    mergeFlags(e, CF, bit(e, e.shrU(old, position), 0));
  };
}
function bitAddress(e: Emitter, offset: Val, size: number): Val {
  const log2Bits = Math.log2(size * 8);
  const unit = e.shrS(e.sext64(offset, size), e.i64(log2Bits));
  const address = e.add(e.address(0), e.shl(unit, e.i64(Math.log2(size))));
  return e.let(e.codeSize === 64 ? address : e.zext64(e.wrap(address)));
}
function readUnit(e: Emitter, address: Val | undefined, size: number): Val {
  return address === undefined ? e.read(0) : e.load(address, size);
}
function changed(e: Emitter, a: Val, position: Val, size: number, change: BitChange): Val {
  const mask = e.shl(e.k(size, 1), position);
  if (change === 'set') return e.or(a, mask);
  if (change === 'reset') return e.and(a, e.not(mask));
  return e.xor(a, mask);
}

// ---------------------------------------------------------------- scans and counts

/**
 * BSF and BSR of zero set ZF and leave the destination alone, all 64 bits of it. The SDM leaves the other flags
 * undefined; Intel's cores clear them but PF, which is that of the index (1 for zero).
 */
function scan(forward: boolean): Semantics {
  return (e) => {
    const size = e.size(1);
    const v = e.read(1);
    const t = v.type;
    const found = forward ? e.op(`${t}.ctz`, t, v) : e.sub(t === 'i64' ? e.i64(63) : e.i32(31), e.op(`${t}.clz`, t, v));
    const index = e.let(found);
    const nonZero = e.let(e.ne(v, e.k(size, 0)));
    e.if(nonZero, () => e.write(0, index));
    // A bit above the parity byte keeps the result from being zero when the index is.
    const result = e.later('i64', [nonZero, index], () => e.select(nonZero, e.or(e.zext64(index), e.i64(0x100)), e.i64(0)));
    e.setFlagsExplicit({ result, size: 8 });
  };
}

/** POPCNT: ZF by the source, all others cleared. */
function popcnt(e: Emitter): void {
  const v = e.read(1);
  const n = e.let(e.op(`${v.type}.popcnt`, v.type, v));
  e.write(0, n);
  e.setFlagsExplicit({ zf: e.later('i32', [v], () => e.eqz(v)) });
}

/** LZCNT and TZCNT: CF when the source is zero, ZF when the count is; the others, undefined in the SDM, are cleared. */
function countZeros(leading: boolean): Semantics {
  return (e) => {
    const size = e.size(1);
    const v = e.read(1);
    const t = v.type;
    // A 16-bit source gets a stop bit above it, or 16 leading zeros taken off.
    const counted = leading ? e.op(`${t}.clz`, t, v) : e.op(`${t}.ctz`, t, size === 2 ? e.or(v, e.i32(0x10000)) : v);
    const n = e.let(leading && size === 2 ? e.sub(counted, e.i32(16)) : counted);
    e.write(0, n);
    e.setFlagsExplicit({ cf: e.later('i32', [v], () => e.eqz(v)), zf: e.later('i32', [n], () => e.eqz(n)) });
  };
}

// ---------------------------------------------------------------- BMI1, BMI2

/** Flags of the BMI instructions: OF = 0; AF and PF, undefined in the SDM, are cleared by Intel's cores. */
function setBmiFlags(e: Emitter, size: number, r: Val, cf?: Val): void {
  const [zf, sf] = [e.later('i32', [r], () => e.eqz(r)), e.later('i32', [r], () => signBit(e, r, size))];
  e.setFlagsExplicit({ zf, sf, ...(cf === undefined ? {} : { cf }) });
}

function andn(e: Emitter): void {
  const r = e.let(e.and(e.not(e.read(1)), e.read(2)));
  e.write(0, r);
  setBmiFlags(e, e.size(0), r);
}

/** The low `n` bits of `v`; `n` is an i32 0..255, all bits from the width on. */
function lowBits(e: Emitter, v: Val, n: Val, size: number): Val {
  const mask = e.sub(e.shl(e.k(size, 1), amount(e, size, n)), e.k(size, 1));
  return e.select(e.ltU(n, e.i32(size * 8)), e.and(v, mask), v);
}

/** BEXTR: start in bits 0..7 and length in bits 8..15 of the last operand. SF is cleared (undefined in the SDM). */
function bextr(e: Emitter): void {
  const size = e.size(0);
  const v = e.read(1);
  const control = e.let(e.wrap(e.read(2)));
  const start = e.let(e.and(control, e.i32(0xff)));
  const length = e.let(e.and(e.shrU(control, e.i32(8)), e.i32(0xff)));
  const shifted = e.let(e.select(e.ltU(start, e.i32(size * 8)), e.shrU(v, amount(e, size, start)), e.k(size, 0)));
  const r = e.let(lowBits(e, shifted, length, size));
  e.write(0, r);
  e.setFlagsExplicit({ zf: e.eqz(r) });
}

function bzhi(e: Emitter): void {
  const size = e.size(0);
  const v = e.read(1);
  const n = e.let(e.and(e.wrap(e.read(2)), e.i32(0xff)));
  const r = e.let(lowBits(e, v, n, size));
  e.write(0, r);
  setBmiFlags(e, size, r, e.geU(n, e.i32(size * 8)));
}

/** BLSI, BLSR, BLSMSK: CF by whether the source is zero (inverted for BLSI). */
function lowestBit(compute: (e: Emitter, v: Val, size: number) => Val, carryWhenZero: boolean): Semantics {
  return (e) => {
    const size = e.size(0);
    const v = e.read(1);
    const r = e.let(compute(e, v, size));
    e.write(0, r);
    setBmiFlags(e, size, r, carryWhenZero ? e.eqz(v) : e.ne(v, e.k(size, 0)));
  };
}

/** PDEP and PEXT: helpers on 64 bits; a 32-bit operation is one whose operands end there. */
function depositExtract(name: 'pdep' | 'pext'): Semantics {
  return (e) => {
    const r = e.call(name, 'i64', [e.zext64(e.read(1)), e.zext64(e.read(2))], { pure: true });
    e.write(0, e.size(0) === 8 ? r : e.wrap(r));
  };
}

function rorx(e: Emitter): void {
  const v = e.read(1);
  e.write(0, e.let(e.rotr(v, amount(e, e.size(0), e.imm(1)))));
}
/** SARX, SHLX, SHRX: Wasm masks the count as x86 does; no flags. */
function shiftx(op: 'shl' | 'shrU' | 'shrS'): Semantics {
  return (e) => e.write(0, e.let(e[op](e.read(1), e.read(2))));
}

/** ADCX and ADOX: a carry chain in CF or OF alone. */
function addThrough(flag: 'c' | 'o'): Semantics {
  return (e) => {
    const size = e.size(0);
    const a = e.read(0);
    const b = e.read(1);
    const c = amount(e, size, e.flag(flag));
    const r = e.let(e.add(e.add(a, b), c));
    const carry = signBit(e, e.or(e.and(a, b), e.and(e.or(a, b), e.not(r))), size);
    const mask = flag === 'c' ? CF : OF;
    const bits = e.let(at(e, mask, carry));
    e.write(0, r);
    mergeFlags(e, mask, bits);
  };
}

/** CRC32 accumulates the Castagnoli polynomial over 1, 2, 4 or 8 bytes. */
function crc32(e: Emitter): void {
  const crc = e.wrap(e.read(0));
  const r = e.call('crc32c', 'i32', [e.let(crc), e.let(e.zext64(e.read(1))), e.i32(e.size(1))], { pure: true });
  e.write(0, e.size(0) === 8 ? e.let(e.zext64(r)) : r);
}

/** Bit manipulation (SDM vol. 2, by mnemonic). */
export const bits: Record<string, Semantics> = {
  bt: bitTest('test'),
  bts: bitTest('set'),
  btr: bitTest('reset'),
  btc: bitTest('complement'),
  bsf: scan(true),
  bsr: scan(false),
  popcnt,
  lzcnt: countZeros(true),
  tzcnt: countZeros(false),
  andn,
  bextr,
  bzhi,
  blsi: lowestBit((e, v, size) => e.and(e.sub(e.k(size, 0), v), v), false),
  blsr: lowestBit((e, v, size) => e.and(e.sub(v, e.k(size, 1)), v), true),
  blsmsk: lowestBit((e, v, size) => e.xor(e.sub(v, e.k(size, 1)), v), true),
  pdep: depositExtract('pdep'),
  pext: depositExtract('pext'),
  rorx,
  shlx: shiftx('shl'),
  shrx: shiftx('shrU'),
  sarx: shiftx('shrS'),
  adcx: addThrough('c'),
  adox: addThrough('o'),
  crc32,
};
