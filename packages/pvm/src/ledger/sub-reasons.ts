/** What a page fault turned out to be: sub-reasons of `#PF`, and of the exits that hardware designs have instead. */
export const PAGE_FAULT = {
  /** The guest's own tables forbid the access: it gets the exception. */
  guest: 'guest',
  /** Only the shadow lacked the translation. */
  shadow: 'shadow',
  /** A shadow page that had been let go out of step was brought in step again. */
  resync: 'unsync resync',
  /** A store to a guest page table that is kept in step: emulated. */
  tableWrite: 'table write',
  /** The second-level table lacked the translation. */
  secondLevel: 'EPT violation',
  /** Memory that no RAM is behind: a device. */
  mmio: 'mmio',
  /** Nothing was missing any more. */
  spurious: 'spurious',
} as const;

const PAGE_FAULT_KINDS: ReadonlySet<string> = new Set(Object.values(PAGE_FAULT));

/**
 * What a chart calls an exit: the reason, and for page faults what they turned out to be. An exception is called the same whether it leaves a guest of PVM or, as
 * EXCEPTION_NMI, one of VMX.
 */
export function exitClass(reason: string, sub: string): string {
  if (reason === 'EXCEPTION_NMI' && sub.startsWith('#')) return sub;
  return PAGE_FAULT_KINDS.has(sub) ? `${reason} ${sub}` : reason;
}

const VECTOR_PF = 14;
/** Exceptions whose error code names a selector (SDM vol. 3, 7.13): #TS, #NP, #SS, #GP. */
const SELECTOR_VECTORS: ReadonlySet<number> = new Set([10, 11, 12, 13]);

/** Class of an exception's error code: for #PF what its bits say (SDM vol. 3, 5.7), for others the table that a selector is of. */
export function errorClass(vector: number, error: number): string {
  if (vector === VECTOR_PF) {
    const kind = (error & 16) !== 0 ? 'fetch' : (error & 2) !== 0 ? 'write' : 'read';
    const cause = (error & 32) !== 0 ? 'protection key' : (error & 8) !== 0 ? 'reserved bit' : (error & 1) !== 0 ? 'protection' : 'not present';
    return `${kind}, ${cause}, ${(error & 4) !== 0 ? 'user' : 'kernel'}`;
  }
  if (error === 0 || !SELECTOR_VECTORS.has(vector)) return '';
  return `${(error & 2) !== 0 ? 'IDT' : (error & 4) !== 0 ? 'LDT' : 'GDT'} selector${(error & 1) !== 0 ? ', external' : ''}`;
}
