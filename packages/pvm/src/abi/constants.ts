/** Numbers of the PVM guest ABI that its revisions share; the rest is in abi-v2/ and abi-rfc-v1/. Flat constants: the switcher is assembled from them too. */

// ---------------------------------------------------------------- PVCS, byte offsets
export const PVCS_EVENT_FLAGS = 0;
export const PVCS_USER_CS = 64;
export const PVCS_USER_SS = 66;
export const PVCS_SIZE = 128;

/** PVCS.event_flags: the virtual interrupt flag, and "an interrupt waits". */
export const EVENT_FLAG_IF = 1 << 9;
export const EVENT_FLAG_IP = 1 << 8;

// ---------------------------------------------------------------- selectors and flags
/** Selectors that smod and umod code see: `__USER_CS`, `__USER_DS`, `__USER32_CS` of Linux. */
export const USER_CS = 0x33;
export const USER_DS = 0x2b;
export const USER32_CS = 0x23;
/** PVCS user_cs and user_ss as one u32. */
export const USER_CS_SS = 0x002b_0033;
/** First GDT entry for thread-local storage, and how many (GDT_ENTRY_TLS_MIN of Linux). */
export const GDT_TLS_FIRST = 12;
export const GDT_TLS_COUNT = 3;

/** What the CPU gives a #DB as its error code when the instruction has not run: an instruction breakpoint, or general detect. */
export const DEBUG_FAULT = 1;
/** DR6: single-step (SDM vol. 3, 18.2.3). */
export const DR6_BS = 1 << 14;

export const RFLAGS_TF = 1 << 8;
export const RFLAGS_IF = 1 << 9;
export const RFLAGS_RF = 1 << 16;
/** CF, PF, AF, ZF, SF, OF; and everything else. */
export const RFLAGS_STATUS = 0x8d5;
export const RFLAGS_NOT_STATUS = ~RFLAGS_STATUS;
/** RFLAGS on entry to smod: the underlying IF and the bit that is always 1. */
export const RFLAGS_SMOD = 0x202;
/** Bits ERETU takes from PVCS.eflags: the status flags, TF, DF, NT, RF, AC, ID. */
export const RFLAGS_ERETU = RFLAGS_STATUS | RFLAGS_TF | (1 << 10) | (1 << 14) | (1 << 16) | (1 << 18) | (1 << 21);

// ---------------------------------------------------------------- MSRs
export const MSR_PVM_LINEAR_ADDRESS_RANGE = 0x4b56_4df0;
export const MSR_PVM_VCPU_STRUCT = 0x4b56_4df1;
export const MSR_PVM_EVENT_ENTRY = 0x4b56_4df4;
export const MSR_PVM_RETU_RIP = 0x4b56_4df5;

/** Where events go, from EVENT_ENTRY on: from umod, and two more entry points for those from smod. */
export const EVENT_ENTRIES = [0, 256, 512] as const;

// ---------------------------------------------------------------- hypercalls
export const HC_LOAD_PGTBL = 0x1708_8200;
export const HC_IRQ_WIN = 0x1708_8201;
export const HC_IRQ_HALT = 0x1708_8202;
export const HC_TLB_FLUSH = 0x1708_8203;
export const HC_TLB_FLUSH_CURRENT = 0x1708_8204;
export const HC_TLB_INVLPG = 0x1708_8205;
export const HC_LOAD_GS = 0x1708_8206;
export const HC_RDMSR = 0x1708_8207;
export const HC_WRMSR = 0x1708_8208;
export const HC_LOAD_TLS = 0x1708_8209;

/** LOAD_PGTBL flags. */
export const LOAD_PGTBL_FLUSH = 1 << 0;
export const LOAD_PGTBL_LA57 = 1 << 1;

// KVM's own hypercalls (Linux Documentation/virt/kvm/x86/hypercalls.rst).
export const KVM_HC_VAPIC_POLL_IRQ = 1;
export const KVM_HC_KICK_CPU = 5;
export const KVM_HC_CLOCK_PAIRING = 9;
export const KVM_HC_SEND_IPI = 10;
export const KVM_HC_SCHED_YIELD = 11;
export const KVM_ENOSYS = 1000;

// ---------------------------------------------------------------- exception vectors (SDM vol. 3, table 6-1)
export const VECTOR_DB = 1;
export const VECTOR_NMI = 2;
export const VECTOR_BP = 3;
export const VECTOR_OF = 4;
export const VECTOR_UD = 6;
export const VECTOR_GP = 13;
export const VECTOR_PF = 14;
export const VECTOR_MC = 18;
