/* Loops in supervisor mode whose iterations cost one exit (or none) each. */
#pragma once
#include "types.h"

enum bench_kind {
	BENCH_HYPERCALL,
	BENCH_EXCEPTION,
	BENCH_MSR_READ,
	BENCH_MSR_WRITE,
	BENCH_CPUID,
	BENCH_CPUID_SYNTHETIC,
	BENCH_PIO_IN,
	BENCH_PIO_OUT,
};

/* The UD2 instruction that the kernel's exception handler steps over. */
extern const char bench_ud2[];
