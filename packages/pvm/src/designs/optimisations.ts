/** Switches that designs may have (`--opt`); each really changes the mechanism. */
export const OPTIMISATIONS = {
  'direct-switch': 'the switcher serves syscalls and returns without an exit',
  prefault: 'the shadow of a faulting page is filled when the guest returns from its fault handler',
  'large-pages': 'the hypervisor maps 2 MiB and 1 GiB at once where RAM allows',
  'pcid-map': 'translations are kept across changes of mode and address space, by tags, instead of flushed',
  'inject-direct': "the switcher injects page faults that are the guest's own without an exit",
  kpti: 'a stock kernel isolates its page tables (pti=on): it loads CR3 at each entry from user mode and at each return',
  unsync: 'last-level guest page tables are written without an exit until the guest flushes',
} as const;

export type Optimisation = keyof typeof OPTIMISATIONS;
