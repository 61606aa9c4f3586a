/*
 * What the kernel needs from the layer below it: one table of operations and one file of entry code (*_entry.S)
 * per layer. The rest of the kernel knows no hypervisor by name.
 */
#pragma once
#include "types.h"

struct regs;

/* A KVM hypercall that no hypervisor knows: answered with -1000, the cheapest round trip there is. */
#define KVM_HC_NONE 0x7fff

/* Which layer applies; boot_relocate() finds out. */
enum layer {
	/* Privilege level 0: a real CPU, or a hypervisor that looks like one. */
	LAYER_NATIVE,
	LAYER_PVM_V2,
	LAYER_PVM_RFC,
};

struct paravirt_ops {
	/* Per-CPU setup: entry points, event state, kernel GS. Runs at the final virtual address. */
	void (*cpu_init)(void);
	/* Leave the boot stack for good and start the program. */
	NORETURN void (*enter_user)(struct regs *regs);
	/* Write an entry of a page table that may be in use. The caller flushes. */
	void (*set_entry)(u64 *entry, u64 value);
	void (*flush_page)(u64 address);
	void (*flush_all)(void);
	/* The program's GS base; its live GS base is the kernel's while the kernel runs. */
	u64 (*user_gs_base)(void);
	void (*set_user_gs_base)(u64 base);
	/* An interrupted kernel context is about to continue: apply its interrupt flag (bit 9). */
	void (*resume_kernel)(u64 rflags);
	/* The cheapest call into the hypervisor, for benchmarks. */
	s64 (*null_hypercall)(void);
};

extern const struct paravirt_ops native_ops, pvm_v2_ops, pvm_rfc_ops;
/* The one in use. */
extern const struct paravirt_ops *pv;
