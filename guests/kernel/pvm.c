/* The PVM implementation of the paravirtual layer (guest ABI revision v2). */
#include "pvm.h"
#include "layout.h"
#include "mm.h"
#include "paravirt.h"
#include "percpu.h"

extern const char event_entry[], syscall_entry[], retu_rip[];

struct percpu cpu0;

const char *pvm_detect(void)
{
	u64 rflags;
	u16 cs;
	u32 leaf[4];

	asm volatile("pushfq; popq %0" : "=r"(rflags));
	asm volatile("movw %%cs, %0" : "=r"(cs));
	if (!(rflags & (1 << 9)))
		return "interrupts are off: not started by a PVM hypervisor";
	if ((cs & 3) != 3)
		return "not at privilege level 3: not started by a PVM hypervisor";
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
	u64 range = pvm_hypercall2(PVM_HC_RDMSR, MSR_PVM_LINEAR_ADDRESS_RANGE, 0);
	u64 first = range & 0x1ff, end = (range >> 16) & 0x1ff;
	u64 slot = (address >> 39) & 0x1ff;

	return first <= slot && slot < end;
}

static void pvm_write_msr(u32 index, u64 value)
{
	pvm_hypercall2(PVM_HC_WRMSR, index, value);
}

/* MSR_STAR is left alone: the hypervisor sets it when it converts the CPU to PVM mode. */
static void pvm_cpu_init(void)
{
	cpu0.pvcs.user_cs = PVM_USER_CS;
	cpu0.pvcs.user_ss = PVM_USER_DS;
	pvm_write_msr(MSR_GS_BASE, (u64)&cpu0);
	pvm_write_msr(MSR_KERNEL_GS_BASE, (u64)&cpu0);
	pvm_write_msr(MSR_LSTAR, (u64)syscall_entry);
	pvm_write_msr(MSR_PVM_EVENT_ENTRY, (u64)event_entry);
	pvm_write_msr(MSR_PVM_RETU_RIP, (u64)retu_rip);
	pvm_write_msr(MSR_PVM_VCPU_STRUCT, virt_to_phys(&cpu0));
}

static void pvm_load_page_table(u64 root)
{
	pvm_hypercall2(PVM_HC_LOAD_PGTBL, PVM_LOAD_PGTBL_FLUSH, root);
}

static void pvm_set_entry(u64 *entry, u64 value)
{
	*(volatile u64 *)entry = value;
}

static void pvm_flush_page(u64 address)
{
	pvm_hypercall2(PVM_HC_TLB_INVLPG, address, 0);
}

static void pvm_flush_all(void)
{
	pvm_hypercall2(PVM_HC_TLB_FLUSH_CURRENT, 0, 0);
}

static u64 pvm_user_gs_base(void)
{
	return cpu0.pvcs.user_gsbase;
}

static void pvm_set_user_gs_base(u64 base)
{
	cpu0.pvcs.user_gsbase = base;
}

static void pvm_resume_kernel(u64 rflags)
{
	/* The event left kernel values here, which the fast return of a system call would show the program. */
	cpu0.pvcs.rcx = cpu0.pvcs.r11 = 0;
	if (!(rflags & PVCS_EVENT_FLAG_IF))
		return;
	cpu0.pvcs.event_flags |= PVCS_EVENT_FLAG_IF;
	if (cpu0.pvcs.event_flags & PVCS_EVENT_FLAG_IP)
		pvm_hypercall2(PVM_HC_IRQ_WIN, 0, 0);
}

static s64 pvm_null_hypercall(void)
{
	return pvm_hypercall2(KVM_HC_NONE, 0, 0);
}

const struct paravirt_ops pvm_ops = {
	.name = "pvm",
	.cpu_init = pvm_cpu_init,
	.load_page_table = pvm_load_page_table,
	.set_entry = pvm_set_entry,
	.flush_page = pvm_flush_page,
	.flush_all = pvm_flush_all,
	.user_gs_base = pvm_user_gs_base,
	.set_user_gs_base = pvm_set_user_gs_base,
	.resume_kernel = pvm_resume_kernel,
	.null_hypercall = pvm_null_hypercall,
};
