/*
 * The PVM guest ABI, numbers of the paravirtual MSRs and hypercalls. The
 * page shared with the hypervisor (PVCS) is in pvm_v2.h.
 */
#pragma once
#include "types.h"

#define MSR_PVM_LINEAR_ADDRESS_RANGE 0x4b564df0
#define MSR_PVM_VCPU_STRUCT 0x4b564df1
#define MSR_PVM_EVENT_ENTRY 0x4b564df4
#define MSR_PVM_RETU_RIP 0x4b564df5

/* Hypercalls: number in RAX, arguments in RBX, R10, RDX, RSI. */
#define PVM_HC_LOAD_PGTBL 0x17088200
#define PVM_HC_IRQ_WIN 0x17088201
#define PVM_HC_TLB_FLUSH 0x17088203
#define PVM_HC_TLB_FLUSH_CURRENT 0x17088204
#define PVM_HC_TLB_INVLPG 0x17088205
#define PVM_HC_RDMSR 0x17088207
#define PVM_HC_WRMSR 0x17088208
#define PVM_LOAD_PGTBL_FLUSH 1

/* EBX of the synthetic CPUID leaf 0x40000002 ("PVM\0"). */
#define PVM_CPUID_VENDOR_FEATURES 0x40000002
#define PVM_SIGNATURE_EBX 0x4d5650

/* Bits of PVCS.event_flags: the virtual interrupt flag, and "an interrupt waits". */
#define PVCS_EVENT_FLAG_IP (1 << 8)
#define PVCS_EVENT_FLAG_IF (1 << 9)
/* Bytes that the PVCS of either revision takes. */
#define PVCS_SIZE 128

#ifndef __ASSEMBLER__
/* SYSCALL anywhere but at RETU_RIP or RETS_RIP is a hypercall; it clobbers RCX and R11 like any SYSCALL. */
static inline s64 pvm_hypercall3(u64 number, u64 a0, u64 a1, u64 a2)
{
	s64 result;
	register u64 r10 asm("r10") = a1;
	asm volatile("syscall" : "=a"(result) : "0"(number), "b"(a0), "r"(r10), "d"(a2) : "rcx", "r11", "memory");
	return result;
}

static inline s64 pvm_hypercall2(u64 number, u64 a0, u64 a1)
{
	return pvm_hypercall3(number, a0, a1, 0);
}

static inline u64 pvm_read_msr(u32 index)
{
	return (u64)pvm_hypercall2(PVM_HC_RDMSR, index, 0);
}

/* 0, or negative when the hypervisor refuses. */
static inline s64 pvm_write_msr(u32 index, u64 value)
{
	return pvm_hypercall2(PVM_HC_WRMSR, index, value);
}

/*
 * CPUID as the hypervisor sees it: the prefix makes it trap where a bare CPUID would not. On a CPU that is no PVM
 * guest it is an INVLPG of an unused address and a CPUID.
 */
static inline void pvm_cpuid(u32 leaf, u32 subleaf, u32 out[4])
{
	asm volatile(".byte 0x0f, 0x01, 0x3c, 0x25, 0x50, 0x56, 0x4d, 0xff, 0x0f, 0xa2"
		     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
		     : "0"(leaf), "2"(subleaf) : "memory");
}

/* NULL when a CPU at privilege level 3 is a PVM guest in supervisor mode, else what speaks against it. */
const char *pvm_detect(void);
/* Whether the hypervisor speaks revision rfc-v1 (pvm_rfc.c). */
bool pvm_is_rfc(void);
/* True when the hypervisor lets this guest use a canonical address. */
bool pvm_address_is_legal(u64 address);

/* Operations that are the same in both revisions. */
void pvm_set_entry(u64 *entry, u64 value);
void pvm_flush_page(u64 address);
void pvm_flush_all(void);
s64 pvm_null_hypercall(void);
#endif
