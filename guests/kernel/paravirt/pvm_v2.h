/* The PVCS of the PVM guest ABI, revision v2: the page shared with the hypervisor, the head of the per-CPU page. */
#pragma once
#include "paravirt/pvm.h"

#define PVCS_EVENT_FLAGS 0
#define PVCS_CR2 8
#define PVCS_USER_CS 64
#define PVCS_EVENT_VECTOR 70
#define PVCS_USER_GSBASE 72
#define PVCS_EFLAGS 80
#define PVCS_RIP 88
#define PVCS_RCX 96
#define PVCS_R11 104

/* Offset of the entry for events from supervisor mode from EVENT_ENTRY. */
#define PVM_SUPERVISOR_ENTRY 512

#ifndef __ASSEMBLER__
struct pvcs_v2 {
	u64 event_flags;
	u64 cr2;
	u64 reserved0[6];
	u16 user_cs, user_ss;
	u16 event_errcode;
	u16 event_vector;
	u64 user_gsbase;
	u32 eflags;
	u32 pkru;
	u64 rip, rcx, r11;
	u64 reserved1[2];
};
_Static_assert(sizeof(struct pvcs_v2) == PVCS_SIZE, "PVCS layout");
_Static_assert(offsetof(struct pvcs_v2, event_vector) == PVCS_EVENT_VECTOR, "PVCS layout");
_Static_assert(offsetof(struct pvcs_v2, user_gsbase) == PVCS_USER_GSBASE, "PVCS layout");
_Static_assert(offsetof(struct pvcs_v2, rip) == PVCS_RIP, "PVCS layout");
_Static_assert(offsetof(struct pvcs_v2, r11) == PVCS_R11, "PVCS layout");
#endif
