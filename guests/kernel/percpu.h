/* Per-CPU data: the page GS points at in supervisor mode. Its head is the PVCS, if there is one. */
#pragma once
#include "paravirt/pvm_rfc.h"
#include "paravirt/pvm_v2.h"

#define PERCPU_USER_RSP 128
#define PERCPU_KERNEL_STACK 136
#define PERCPU_WORK 144
#define PERCPU_SCRATCH 152

/* Bits of `work`: reasons not to return to the program on the fast path. */
#define WORK_SIGNAL 1
/* The frame was replaced as a whole (rt_sigreturn): restore every register from it. */
#define WORK_FULL_RESTORE 2

#ifndef __ASSEMBLER__
struct percpu {
	union {
		struct pvcs_v2 pvcs_v2;
		struct pvcs_rfc pvcs_rfc;
	};
	u64 user_rsp;
	u64 kernel_stack;
	u32 work;
	/* For entry code that has no register left. */
	u64 scratch;
} __attribute__((aligned(PAGE_SIZE)));
_Static_assert(offsetof(struct percpu, user_rsp) == PERCPU_USER_RSP, "percpu layout");
_Static_assert(offsetof(struct percpu, kernel_stack) == PERCPU_KERNEL_STACK, "percpu layout");
_Static_assert(offsetof(struct percpu, scratch) == PERCPU_SCRATCH, "percpu layout");
_Static_assert(offsetof(struct percpu, work) == PERCPU_WORK, "percpu layout");

extern struct percpu cpu0;
#endif
