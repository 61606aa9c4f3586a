/* What both revisions of the PVM guest ABI share. */
#include "paravirt/paravirt.h"
#include "paravirt/pvm.h"

#define RFLAGS_IF (1 << 9)

const char *pvm_detect(void)
{
	u64 rflags;
	u32 leaf[4];

	asm volatile("pushfq; popq %0" : "=r"(rflags));
	if (!(rflags & RFLAGS_IF))
		return "interrupts are off: not started by a PVM hypervisor";
	pvm_cpuid(0x40000000, 0, leaf);
	if (leaf[0] < PVM_CPUID_VENDOR_FEATURES)
		return "the hypervisor has no PVM CPUID leaf";
	pvm_cpuid(PVM_CPUID_VENDOR_FEATURES, 0, leaf);
	if (leaf[1] != PVM_SIGNATURE_EBX)
		return "the hypervisor's PVM CPUID leaf has another signature";
	return NULL;
}

bool pvm_address_is_legal(u64 address)
{
	if (!(address >> 47))
		return true;
	u64 range = pvm_read_msr(MSR_PVM_LINEAR_ADDRESS_RANGE);
	u64 first = range & 0x1ff, end = (range >> 16) & 0x1ff;
	u64 slot = (address >> 39) & 0x1ff;

	return first <= slot && slot < end;
}

void pvm_set_entry(u64 *entry, u64 value)
{
	*(volatile u64 *)entry = value;
}

void pvm_flush_page(u64 address)
{
	pvm_hypercall2(PVM_HC_TLB_INVLPG, address, 0);
}

void pvm_flush_all(void)
{
	pvm_hypercall2(PVM_HC_TLB_FLUSH_CURRENT, 0, 0);
}

s64 pvm_null_hypercall(void)
{
	return pvm_hypercall2(KVM_HC_NONE, 0, 0);
}
