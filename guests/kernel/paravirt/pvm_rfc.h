/* The PVM guest ABI, revision rfc-v1: its own MSRs and PVCS, the head of the per-CPU page. */
#pragma once
#include "paravirt/pvm.h"

#define MSR_PVM_SUPERVISOR_RSP 0x4b564df2
#define MSR_PVM_SUPERVISOR_REDZONE 0x4b564df3
#define MSR_PVM_RETS_RIP 0x4b564df6
#define MSR_PVM_SWITCH_CR3 0x4b564df7

#define RFC_PVCS_EVENT_ERRCODE 8
#define RFC_PVCS_EVENT_VECTOR 12
#define RFC_PVCS_CR2 16
#define RFC_PVCS_USER_GSBASE 80
#define RFC_PVCS_EFLAGS 88
#define RFC_PVCS_RIP 96
#define RFC_PVCS_RSP 104
#define RFC_PVCS_RCX 112
#define RFC_PVCS_R11 120

/* Offsets from EVENT_ENTRY of the entries for exceptions and for interrupts from supervisor mode. */
#define RFC_SUPERVISOR_EXCEPTION_ENTRY 256
#define RFC_SUPERVISOR_INTERRUPT_ENTRY 512

#ifndef __ASSEMBLER__
struct pvcs_rfc {
	u64 event_flags;
	u32 event_errcode;
	u32 event_vector;
	u64 cr2;
	u64 reserved0[5];
	u16 user_cs, user_ss;
	u32 reserved1;
	u64 reserved2;
	u64 user_gsbase;
	u32 eflags;
	u32 pkru;
	u64 rip, rsp, rcx, r11;
};
_Static_assert(sizeof(struct pvcs_rfc) == PVCS_SIZE, "PVCS layout");
_Static_assert(offsetof(struct pvcs_rfc, event_vector) == RFC_PVCS_EVENT_VECTOR, "PVCS layout");
_Static_assert(offsetof(struct pvcs_rfc, user_gsbase) == RFC_PVCS_USER_GSBASE, "PVCS layout");
_Static_assert(offsetof(struct pvcs_rfc, rip) == RFC_PVCS_RIP, "PVCS layout");
_Static_assert(offsetof(struct pvcs_rfc, r11) == RFC_PVCS_R11, "PVCS layout");
#endif
