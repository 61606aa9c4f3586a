/** An independent page walker, written for clarity: the oracle of the runtime's walker. SDM vol. 3, chapter 5. */

export interface PlainWalkInput {
  /** u64 at a physical address, undefined outside RAM. */
  read(address: bigint): bigint | undefined;
  cr0: number;
  cr3: bigint;
  cr4: number;
  efer: number;
  ac: boolean;
  pkru: number;
  user: boolean;
  access: 'read' | 'write' | 'exec';
  maxPhysical: number;
}
export type PlainWalkResult = { gpa: bigint; leaf: bigint; path: bigint[] } | { fault: number } | 'gp';

const bit = (v: number | bigint, n: number) => ((BigInt(v) >> BigInt(n)) & 1n) === 1n;

/** Long-mode walk of `va`. `path`: physical addresses of the entries used, leaf last. Changes nothing. */
export function plainWalk(va: bigint, w: PlainWalkInput): PlainWalkResult {
  const levels = bit(w.cr4, 12) ? 5 : 4;
  if (BigInt.asUintN(64, BigInt.asIntN(12 + 9 * levels, va)) !== va) return 'gp';
  const nxe = bit(w.efer, 11);
  const base = (w.access === 'write' ? 2 : 0) | (w.user ? 4 : 0) | (w.access === 'exec' && (nxe || bit(w.cr4, 20)) ? 16 : 0);
  let table = w.cr3 & 0x000f_ffff_ffff_f000n;
  let writable = true;
  let user = true;
  let noExecute = false;
  const path: bigint[] = [];
  for (let level = levels; ; level--) {
    const shift = 12 + 9 * (level - 1);
    const at = table + ((va >> BigInt(shift)) & 511n) * 8n;
    const entry = w.read(at);
    if (entry === undefined) return { fault: base | 9 };
    if (!bit(entry, 0)) return { fault: base };
    let reserved = false;
    for (let n = w.maxPhysical; n < 52; n++) reserved ||= bit(entry, n);
    if (!nxe) reserved ||= bit(entry, 63);
    const large = level > 1 && bit(entry, 7);
    if (large && level > 3) reserved = true;
    if (large && level <= 3) for (let n = 13; n < shift; n++) reserved ||= bit(entry, n);
    if (reserved) return { fault: base | 9 };
    writable &&= bit(entry, 1);
    user &&= bit(entry, 2);
    noExecute ||= bit(entry, 63);
    path.push(at);
    if (level > 1 && !large) {
      table = entry & 0x000f_ffff_ffff_f000n;
      continue;
    }
    let allowed: boolean;
    let key = 0;
    const wp = bit(w.cr0, 16);
    if (w.access === 'exec') {
      allowed = !noExecute && (w.user ? user : !(user && bit(w.cr4, 20)));
    } else {
      allowed = w.user ? user : !(user && bit(w.cr4, 21) && !w.ac);
      if (w.access === 'write') allowed &&= writable || (!w.user && !wp);
      if (user && bit(w.cr4, 22)) {
        const rights = (w.pkru >>> (2 * Number((entry >> 59n) & 15n))) & 3;
        if (rights & 1 || (w.access === 'write' && rights & 2 && (w.user || wp))) key = 32;
      }
    }
    if (!allowed || key) return { fault: base | 1 | key };
    const offset = (1n << BigInt(shift)) - 1n;
    return { gpa: (entry & 0x000f_ffff_ffff_f000n & ~offset) | (va & offset), leaf: entry, path };
  }
}
