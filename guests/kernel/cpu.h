/* Instructions C has no word for. */
#pragma once
#include "types.h"

/* EAX, EBX, ECX, EDX of a leaf, subleaf 0. Not trapped: a virtual CPU answers directly. */
static inline void cpuid(u32 leaf, u32 out[4])
{
	asm volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "0"(leaf), "2"(0));
}

static inline u64 read_tsc(void)
{
	u32 low, high;
	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return low | (u64)high << 32;
}
