/*
 * What the kernel needs from the layer below it. One table per virtualisation design; the rest of the
 * kernel knows no hypervisor by name. Entry code (entry.S) belongs to the design as well.
 */
#pragma once
#include "types.h"

struct paravirt_ops {
	const char *name;
	/* Per-CPU setup: entry points, event state, kernel GS. Runs at the final virtual address. */
	void (*cpu_init)(void);
	/* Load a top-level page table by its physical address and forget all translations. */
	void (*load_page_table)(u64 root);
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

extern const struct paravirt_ops pvm_ops;
extern const struct paravirt_ops *pv;
