/* The PVM guest ABI, revision v2: numbers of the paravirtual MSRs, hypercalls and the PVCS page. */
#pragma once
#include "types.h"

#define MSR_PVM_LINEAR_ADDRESS_RANGE 0x4b564df0
#define MSR_PVM_VCPU_STRUCT 0x4b564df1
#define MSR_PVM_EVENT_ENTRY 0x4b564df4
#define MSR_PVM_RETU_RIP 0x4b564df5

#define MSR_EFER 0xc0000080
#define MSR_LSTAR 0xc0000082
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX 0xc0000103
#define EFER_NXE (1 << 11)

/* Hypercalls: number in RAX, arguments in RBX, R10, RDX, RSI. */
#define PVM_HC_LOAD_PGTBL 0x17088200
#define PVM_HC_IRQ_WIN 0x17088201
#define PVM_HC_IRQ_HALT 0x17088202
#define PVM_HC_TLB_FLUSH 0x17088203
#define PVM_HC_TLB_FLUSH_CURRENT 0x17088204
#define PVM_HC_TLB_INVLPG 0x17088205
#define PVM_HC_LOAD_GS 0x17088206
#define PVM_HC_RDMSR 0x17088207
#define PVM_HC_WRMSR 0x17088208
/* A KVM hypercall that no hypervisor knows: answered with -1000, the cheapest round trip there is. */
#define KVM_HC_NONE 0x7fff

#define PVM_LOAD_PGTBL_FLUSH 1

/* EBX of the synthetic CPUID leaf 0x40000002 ("PVM\0"). */
#define PVM_CPUID_VENDOR_FEATURES 0x40000002
#define PVM_SIGNATURE_EBX 0x4d5650

/* PVCS: the page shared with the hypervisor; this kernel keeps its per-CPU data behind it. */
#define PVCS_EVENT_FLAGS 0
#define PVCS_CR2 8
#define PVCS_USER_CS 64
#define PVCS_EVENT_VECTOR 70
#define PVCS_USER_GSBASE 72
#define PVCS_EFLAGS 80
#define PVCS_RIP 88
#define PVCS_RCX 96
#define PVCS_R11 104
#define PVCS_SIZE 128

#define PVCS_EVENT_FLAG_IP (1 << 8)
#define PVCS_EVENT_FLAG_IF (1 << 9)

/* Offset of the entry for events from supervisor mode from EVENT_ENTRY. */
#define PVM_SUPERVISOR_ENTRY 512

#define PVM_USER_CS 0x33
#define PVM_USER_DS 0x2b

#ifndef __ASSEMBLER__
struct pvcs {
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
_Static_assert(sizeof(struct pvcs) == PVCS_SIZE, "PVCS layout");
_Static_assert(offsetof(struct pvcs, event_vector) == PVCS_EVENT_VECTOR, "PVCS layout");
_Static_assert(offsetof(struct pvcs, user_gsbase) == PVCS_USER_GSBASE, "PVCS layout");
_Static_assert(offsetof(struct pvcs, rip) == PVCS_RIP, "PVCS layout");
_Static_assert(offsetof(struct pvcs, r11) == PVCS_R11, "PVCS layout");

/* SYSCALL anywhere but at RETU_RIP is a hypercall; it clobbers RCX and R11 like any SYSCALL. */
static inline s64 pvm_hypercall2(u64 number, u64 a0, u64 a1)
{
	s64 result;
	register u64 r10 asm("r10") = a1;
	asm volatile("syscall" : "=a"(result) : "0"(number), "b"(a0), "r"(r10) : "rcx", "r11", "memory");
	return result;
}

/* CPUID as the hypervisor sees it: the prefix makes it trap where a bare CPUID would not. */
static inline void pvm_cpuid(u32 leaf, u32 subleaf, u32 out[4])
{
	asm volatile(".byte 0x0f, 0x01, 0x3c, 0x25, 0x50, 0x56, 0x4d, 0xff, 0x0f, 0xa2"
		     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
		     : "0"(leaf), "2"(subleaf) : "memory");
}

/* Returns NULL when the CPU is a PVM guest in supervisor mode, else what speaks against it. */
const char *pvm_detect(void);
/* True when the hypervisor lets this guest use a canonical address. */
bool pvm_address_is_legal(u64 address);
#endif
