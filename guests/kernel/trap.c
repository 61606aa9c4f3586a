/* Exceptions and interrupts, from the program and from the kernel itself. */
#include "abi.h"
#include "bench.h"
#include "mm.h"
#include "panic.h"
#include "paravirt/paravirt.h"
#include "percpu.h"
#include "process.h"
#include "regs.h"

/* Exception vectors (Intel SDM 3A, 6.3.1). */
enum {
	VECTOR_DE = 0, VECTOR_DB = 1, VECTOR_BP = 3, VECTOR_OF = 4, VECTOR_BR = 5, VECTOR_UD = 6, VECTOR_NP = 11,
	VECTOR_SS = 12, VECTOR_GP = 13, VECTOR_PF = 14, VECTOR_MF = 16, VECTOR_AC = 17, VECTOR_XM = 19,
	EXCEPTION_COUNT = 32, VECTOR_INT80 = 0x80,
};

#define PF_PRESENT 1

extern const char uaccess_begin[], uaccess_end[], uaccess_fault[];
extern const char native_vmcall[];


/* `origin`, as the entry code made it. */
static u32 frame_error(const struct regs *r)
{
	return (u16)(r->origin >> 32);
}

static u32 frame_vector(const struct regs *r)
{
	return (u8)(r->origin >> 48);
}

static void user_page_fault(struct regs *r, u64 address, u32 error)
{
	int signal = address < TASK_SIZE ? handle_fault(address, error) : SIGSEGV;

	if (signal == SIGSEGV)
		signal_fault(r, signal, vma_find(address) && vma_find(address)->start <= address ?
			     SEGV_ACCERR : SEGV_MAPERR, address, VECTOR_PF, error);
	else if (signal)
		signal_fault(r, signal, signal == SIGBUS ? BUS_ADRERR : SI_KERNEL, address, VECTOR_PF, error);
}

void trap_from_user(struct regs *r, u64 cr2)
{
	u32 vector = frame_vector(r), error = frame_error(r);

	switch (vector) {
	case VECTOR_PF:
		user_page_fault(r, cr2, error);
		break;
	case VECTOR_DE:
		signal_fault(r, SIGFPE, FPE_INTDIV, r->rip, vector, error);
		break;
	case VECTOR_MF:
	case VECTOR_XM:
		signal_fault(r, SIGFPE, SI_KERNEL, r->rip, vector, error);
		break;
	case VECTOR_UD:
		signal_fault(r, SIGILL, ILL_ILLOPN, r->rip, vector, error);
		break;
	case VECTOR_DB:
	case VECTOR_BP:
		signal_fault(r, SIGTRAP, TRAP_BRKPT, r->rip, vector, error);
		break;
	case VECTOR_AC:
		signal_fault(r, SIGBUS, SI_KERNEL, 0, vector, error);
		break;
	case VECTOR_INT80:
		/* The 32-bit system call interface does not exist here. */
		r->rax = (u64)-ENOSYS;
		break;
	default:
		if (vector < EXCEPTION_COUNT)
			signal_fault(r, SIGSEGV, SI_KERNEL, 0, vector, error);
		/* No device of this kernel uses interrupts: ignore a spurious one. */
		break;
	}
	if (cpu0.work)
		user_work(r);
}

void user_work(struct regs *r)
{
	cpu0.work &= ~(u32)WORK_FULL_RESTORE;
	if (cpu0.work & WORK_SIGNAL)
		signal_deliver_pending(r);
}

void trap_from_kernel(struct regs *r, u64 cr2)
{
	u32 vector = frame_vector(r), error = frame_error(r);

	if (vector == VECTOR_PF && cr2 < TASK_SIZE) {
		bool user_copy = r->rip >= (u64)uaccess_begin && r->rip < (u64)uaccess_end;
		if (!user_copy)
			panic_regs("page fault at a user address", r, vector, error, cr2);
		if (handle_fault(cr2, error))
			r->rip = (u64)uaccess_fault;
	} else if (vector == VECTOR_UD && r->rip == (u64)bench_ud2) {
		r->rip += 2;
	} else if (vector == VECTOR_UD && r->rip == (u64)native_vmcall) {
		r->rip += 3;
	} else if (vector < EXCEPTION_COUNT) {
		panic_regs("unexpected exception in the kernel", r, vector, error, cr2);
	}
	pv->resume_kernel(r->rflags);
}
