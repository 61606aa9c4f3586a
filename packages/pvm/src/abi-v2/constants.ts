/** Numbers of the PVM guest ABI, revision v2 (the 2025 tree). */
export * from '../abi/constants.ts';

// ---------------------------------------------------------------- PVCS, byte offsets
export const PVCS_CR2 = 8;
export const PVCS_EVENT_ERRCODE = 68;
export const PVCS_EVENT_VECTOR = 70;
export const PVCS_USER_GSBASE = 72;
export const PVCS_EFLAGS = 80;
export const PVCS_PKRU = 84;
export const PVCS_RIP = 88;
export const PVCS_RCX = 96;
export const PVCS_R11 = 104;

/** PVCS.event_vector, high byte: a synchronous event is live, an NMI or machine check came meanwhile. */
export const EVENT_VECTOR_STD = 1 << 8;
export const EVENT_VECTOR_NMI = 1 << 9;
export const EVENT_VECTOR_MCE = 1 << 10;

/** Events from smod go to EVENT_ENTRY + this. */
export const EVENT_ENTRY_SMOD_OFFSET = 512;
