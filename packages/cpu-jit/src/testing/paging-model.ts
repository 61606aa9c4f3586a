/**
 * What page tables permit, written from SDM vol. 3, chapter 4 (4.6 access rights, 4.7 page-fault exceptions, 4.8 accessed and dirty flags)
 * and sharing nothing with the walker it is compared with. Entries are flags, not bits: whoever encodes them knows the paging mode.
 */

export interface PagingEntry {
  readonly present: boolean;
  readonly writable: boolean;
  readonly user: boolean;
  readonly noExecute: boolean;
  /** Some bit is set that this entry must not have in its mode (XD apart: see `nxe`). */
  readonly reserved: boolean;
}

export interface PagingControls {
  /** CR0.WP, CR4.SMEP, CR4.SMAP, CR4.PKE, IA32_EFER.NXE, RFLAGS.AC. */
  readonly wp: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
  readonly pke: boolean;
  readonly nxe: boolean;
  readonly ac: boolean;
  /** PKRU's access-disable and write-disable bits for the key of the page. */
  readonly accessDisable: boolean;
  readonly writeDisable: boolean;
  readonly mode: '32-bit' | 'PAE' | 'long';
}

export interface PagingAccess {
  readonly kind: 'read' | 'write' | 'fetch';
  readonly cpl: 0 | 1 | 2 | 3;
  /** Made by the processor as supervisor whatever CPL is: descriptor tables, task state. */
  readonly implicit: boolean;
}

/** The access may be made; or the error code of the page fault. */
export type PagingOutcome = 'allowed' | number;

const PRESENT = 1;
const WRITE = 2;
const USER = 4;
const RESERVED = 8;
const FETCH = 16;
const KEY = 32;

/** @param path entries from the root to the one that maps the page */
export function pagingModel(path: readonly PagingEntry[], c: PagingControls, a: PagingAccess): PagingOutcome {
  const isUserMode = a.cpl === 3 && !a.implicit;
  // I/D is reported when SMEP is on, or NX can be used.
  const reportsFetch = c.smep || (c.mode !== '32-bit' && c.nxe);
  const error = (bits: number): number => bits | (a.kind === 'write' ? WRITE : 0) | (isUserMode ? USER : 0) | (a.kind === 'fetch' && reportsFetch ? FETCH : 0);
  for (const entry of path) {
    if (!entry.present) return error(0);
    const usesReservedNx = entry.noExecute && c.mode !== '32-bit' && !c.nxe;
    if (entry.reserved || usesReservedNx) return error(PRESENT | RESERVED);
  }
  const isUserAddress = path.every((e) => e.user);
  const isWritable = path.every((e) => e.writable);
  const forbidsExecution = c.mode !== '32-bit' && path.some((e) => e.noExecute);

  let allowed: boolean;
  if (isUserMode) {
    if (!isUserAddress) allowed = false;
    else if (a.kind === 'read') allowed = true;
    else if (a.kind === 'write') allowed = isWritable;
    else allowed = !forbidsExecution;
  } else if (a.kind === 'fetch') {
    allowed = !forbidsExecution && !(isUserAddress && c.smep);
  } else {
    const smapForbids = isUserAddress && c.smap && (a.implicit || !c.ac);
    const isReadOnly = a.kind === 'write' && c.wp && !isWritable;
    allowed = !smapForbids && !isReadOnly;
  }

  const keysApply = c.mode === 'long' && c.pke && isUserAddress && a.kind !== 'fetch';
  const keyForbids = keysApply && (c.accessDisable || (a.kind === 'write' && c.writeDisable && (isUserMode || c.wp)));
  if (allowed && !keyForbids) return 'allowed';
  return error(PRESENT | (keyForbids ? KEY : 0));
}
