/**
 * What the guest's tables say, by a second and deliberately plain walker that shares no code with the shadow MMU (64-bit integers, one entry at a time).
 */
import { MODE_LA57, MODE_NX, MODE_SMEP } from '../api.ts';

export type Verdict = { kind: 'ram'; hpa: number; marked: boolean } | { kind: 'mmio'; gpa: number } | { kind: 'fault'; code: number };

export interface OracleMachine {
  view: DataView;
  gpaToHpa: (gpa: number) => number;
  physicalAddressBits: number;
  isLegal: (vaLow: number, vaHigh: number, levels: number) => boolean;
}

export type Kind = 'read' | 'write' | 'exec';

/** `marked`: every accessed bit on the way, and for a write the dirty bit, is set. */
export function oracle(machine: OracleMachine, cr3: number, mode: number, user: boolean, va: bigint, kind: Kind): Verdict {
  const nx = (mode & MODE_NX) !== 0;
  const levels = (mode & MODE_LA57) !== 0 ? 5 : 4;
  const code = (kind === 'write' ? 2 : 0) | (user ? 4 : 0) | (kind === 'exec' && nx ? 16 : 0);
  if (!machine.isLegal(Number(va & 0xffff_ffffn) | 0, Number((va >> 32n) & 0xffff_ffffn) | 0, levels)) return { kind: 'fault', code };
  let table = machine.gpaToHpa(cr3);
  let writable = true;
  let userPage = true;
  let executable = true;
  let marked = true;
  for (let level = levels; level >= 1; level--) {
    if (table < 0) return { kind: 'fault', code: code | 9 };
    const shift = BigInt(12 + 9 * (level - 1));
    const entry = machine.view.getBigUint64(table + Number((va >> shift) & 511n) * 8, true);
    if ((entry & 1n) === 0n) return { kind: 'fault', code };
    const large = level > 1 && (entry & 0x80n) !== 0n;
    let reserved = ((1n << 52n) - 1n) & ~((1n << BigInt(machine.physicalAddressBits)) - 1n);
    if (!nx) reserved |= 1n << 63n;
    if (level > 3) reserved |= 0x80n;
    if (large && level <= 3) reserved |= ((1n << shift) - 1n) & ~0x1fffn;
    if ((entry & reserved) !== 0n) return { kind: 'fault', code: code | 9 };
    writable &&= (entry & 2n) !== 0n;
    userPage &&= (entry & 4n) !== 0n;
    executable &&= (entry & (1n << 63n)) === 0n;
    marked &&= (entry & 0x20n) !== 0n;
    const address = entry & 0x000f_ffff_ffff_f000n;
    if (level > 1 && !large) {
      table = machine.gpaToHpa(Number(address));
      continue;
    }
    const allowed =
      (!user || userPage) && (kind !== 'write' || writable) && (kind !== 'exec' || (executable && !(!user && userPage && nx && (mode & MODE_SMEP) !== 0)));
    if (!allowed) return { kind: 'fault', code: code | 1 };
    if (kind === 'write') marked &&= (entry & 0x40n) !== 0n;
    const offsetMask = (1n << shift) - 1n;
    const gpa = Number((address & ~offsetMask) | (va & offsetMask));
    const hpa = machine.gpaToHpa(gpa);
    return hpa < 0 ? { kind: 'mmio', gpa } : { kind: 'ram', hpa, marked };
  }
  throw new Error('unreachable: level 1 always decides');
}
