/* Registers and instructions C has no word for. */
#pragma once
#include "types.h"

#define MSR_EFER 0xc0000080
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_SYSCALL_MASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX 0xc0000103
#define EFER_SCE (1 << 0)
#define EFER_NXE (1 << 11)

/* Selectors that programs see, the same under every layer. */
#define USER_CS 0x33
#define USER_DS 0x2b

#ifndef __ASSEMBLER__
/* EAX, EBX, ECX, EDX of a leaf, subleaf 0. Not trapped under PVM: a virtual CPU answers directly. */
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

/* Privileged: under PVM the hypervisor emulates them. */
static inline u64 read_msr(u32 index)
{
	u32 low, high;
	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
	return low | (u64)high << 32;
}

static inline void write_msr(u32 index, u64 value)
{
	asm volatile("wrmsr" : : "a"((u32)value), "d"((u32)(value >> 32)), "c"(index) : "memory");
}

static inline u32 privilege_level(void)
{
	u32 cs;
	asm("movl %%cs, %0" : "=r"(cs));
	return cs & 3;
}

/* RDFSBASE and the like are enabled. */
extern bool cpu_has_fsgsbase;
#endif
