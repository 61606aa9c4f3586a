/** Numbers of the PVM guest ABI, revision rfc-v1 (the RFC series of 2024). */
export * from '../abi/constants.ts';

// ---------------------------------------------------------------- PVCS, byte offsets
export const PVCS_EVENT_ERRCODE = 8;
export const PVCS_EVENT_VECTOR = 12;
export const PVCS_CR2 = 16;
export const PVCS_USER_GSBASE = 80;
export const PVCS_EFLAGS = 88;
export const PVCS_PKRU = 92;
export const PVCS_RIP = 96;
export const PVCS_RSP = 104;
export const PVCS_RCX = 112;
export const PVCS_R11 = 120;

/** Exceptions and NMIs from smod go to EVENT_ENTRY + the first, interrupts to EVENT_ENTRY + the second. */
export const EVENT_ENTRY_SMOD_EXCEPTION = 256;
export const EVENT_ENTRY_SMOD_INTERRUPT = 512;
/** Vectors from here on are interrupts. */
export const FIRST_INTERRUPT = 32;

// ---------------------------------------------------------------- MSRs that only this revision has
export const MSR_PVM_SUPERVISOR_RSP = 0x4b56_4df2;
export const MSR_PVM_SUPERVISOR_REDZONE = 0x4b56_4df3;
export const MSR_PVM_RETS_RIP = 0x4b56_4df6;
export const MSR_PVM_SWITCH_CR3 = 0x4b56_4df7;

/** The frame of an exception from smod, and of ERETS: offsets of its 8-byte words from RSP. */
export const FRAME_ERRCODE_VECTOR = 0;
export const FRAME_RIP = 8;
export const FRAME_CS = 16;
export const FRAME_RFLAGS = 24;
export const FRAME_RSP = 32;
export const FRAME_SS = 40;
export const FRAME_RCX = 48;
export const FRAME_R11 = 56;
export const FRAME_SIZE = 64;
