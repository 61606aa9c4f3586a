/* The paravirtual layer for the PVM guest ABI, revision rfc-v1. */
#include "paravirt/pvm_rfc.h"
#include "boot.h"
#include "cpu.h"
#include "mm.h"
#include "paravirt/paravirt.h"
#include "percpu.h"

/*
 * Programs run on the kernel's own table. The bit makes the value another one than the kernel's, without which the
 * switcher would not change between the two.
 */
#define USER_CR3_MARK 1
#define PROBE_RED_ZONE 128

extern const char pvm_rfc_event_entry[], pvm_rfc_syscall_entry[], pvm_rfc_retu_rip[], pvm_rfc_rets_rip[];
NORETURN void pvm_rfc_enter_user(struct regs *regs);

bool pvm_is_rfc(void)
{
	/* The one MSR of rfc-v1 that a hypervisor which speaks both does not take as the guest's choice. */
	pvm_write_msr(MSR_PVM_SUPERVISOR_REDZONE, PROBE_RED_ZONE);
	return pvm_read_msr(MSR_PVM_SUPERVISOR_REDZONE) == PROBE_RED_ZONE;
}

/* MSR_STAR is left alone: the hypervisor sets it when it converts the CPU to PVM mode. */
static void pvm_rfc_cpu_init(void)
{
	cpu0.pvcs_rfc.user_cs = USER_CS;
	cpu0.pvcs_rfc.user_ss = USER_DS;
	pvm_write_msr(MSR_GS_BASE, (u64)&cpu0);
	pvm_write_msr(MSR_KERNEL_GS_BASE, (u64)&cpu0);
	pvm_write_msr(MSR_LSTAR, (u64)pvm_rfc_syscall_entry);
	pvm_write_msr(MSR_PVM_EVENT_ENTRY, (u64)pvm_rfc_event_entry);
	pvm_write_msr(MSR_PVM_RETU_RIP, (u64)pvm_rfc_retu_rip);
	pvm_write_msr(MSR_PVM_RETS_RIP, (u64)pvm_rfc_rets_rip);
	/* The kernel keeps nothing below its stack pointer. */
	pvm_write_msr(MSR_PVM_SUPERVISOR_REDZONE, 0);
	pvm_write_msr(MSR_PVM_SUPERVISOR_RSP, cpu0.kernel_stack);
	pvm_write_msr(MSR_PVM_SWITCH_CR3, boot_info.root | USER_CR3_MARK);
	pvm_write_msr(MSR_PVM_VCPU_STRUCT, virt_to_phys(&cpu0));
}

static u64 pvm_rfc_user_gs_base(void)
{
	return cpu0.pvcs_rfc.user_gsbase;
}

static void pvm_rfc_set_user_gs_base(u64 base)
{
	cpu0.pvcs_rfc.user_gsbase = base;
}

/* ERETS restores the interrupt flag. */
static void pvm_rfc_resume_kernel(u64 rflags UNUSED)
{
}

const struct paravirt_ops pvm_rfc_ops = {
	.cpu_init = pvm_rfc_cpu_init,
	.enter_user = pvm_rfc_enter_user,
	.set_entry = pvm_set_entry,
	.flush_page = pvm_flush_page,
	.flush_all = pvm_flush_all,
	.user_gs_base = pvm_rfc_user_gs_base,
	.set_user_gs_base = pvm_rfc_set_user_gs_base,
	.resume_kernel = pvm_rfc_resume_kernel,
	.null_hypercall = pvm_null_hypercall,
};
