/* The paravirtual layer for the PVM guest ABI, revision v2. */
#include "paravirt/pvm_v2.h"
#include "cpu.h"
#include "mm.h"
#include "paravirt/paravirt.h"
#include "percpu.h"

extern const char pvm_v2_event_entry[], pvm_v2_syscall_entry[], pvm_v2_retu_rip[];
NORETURN void pvm_v2_enter_user(struct regs *regs);

/* MSR_STAR is left alone: the hypervisor sets it when it converts the CPU to PVM mode. */
static void pvm_v2_cpu_init(void)
{
	cpu0.pvcs_v2.user_cs = USER_CS;
	cpu0.pvcs_v2.user_ss = USER_DS;
	pvm_write_msr(MSR_GS_BASE, (u64)&cpu0);
	pvm_write_msr(MSR_KERNEL_GS_BASE, (u64)&cpu0);
	pvm_write_msr(MSR_LSTAR, (u64)pvm_v2_syscall_entry);
	pvm_write_msr(MSR_PVM_EVENT_ENTRY, (u64)pvm_v2_event_entry);
	pvm_write_msr(MSR_PVM_RETU_RIP, (u64)pvm_v2_retu_rip);
	pvm_write_msr(MSR_PVM_VCPU_STRUCT, virt_to_phys(&cpu0));
}

static u64 pvm_v2_user_gs_base(void)
{
	return cpu0.pvcs_v2.user_gsbase;
}

static void pvm_v2_set_user_gs_base(u64 base)
{
	cpu0.pvcs_v2.user_gsbase = base;
}

static void pvm_v2_resume_kernel(u64 rflags)
{
	/* The event left kernel values here, which the fast return of a system call would show the program. */
	cpu0.pvcs_v2.rcx = cpu0.pvcs_v2.r11 = 0;
	if (!(rflags & PVCS_EVENT_FLAG_IF))
		return;
	cpu0.pvcs_v2.event_flags |= PVCS_EVENT_FLAG_IF;
	if (cpu0.pvcs_v2.event_flags & PVCS_EVENT_FLAG_IP)
		pvm_hypercall2(PVM_HC_IRQ_WIN, 0, 0);
}

const struct paravirt_ops pvm_v2_ops = {
	.cpu_init = pvm_v2_cpu_init,
	.enter_user = pvm_v2_enter_user,
	.set_entry = pvm_set_entry,
	.flush_page = pvm_flush_page,
	.flush_all = pvm_flush_all,
	.user_gs_base = pvm_v2_user_gs_base,
	.set_user_gs_base = pvm_v2_set_user_gs_base,
	.resume_kernel = pvm_v2_resume_kernel,
	.null_hypercall = pvm_null_hypercall,
};
