/* Signals: the process can only raise them itself, by kill() or by faulting. */
#include "console.h"
#include "fpstate.h"
#include "cpu.h"
#include "panic.h"
#include "percpu.h"
#include "process.h"
#include "regs.h"
#include "string.h"
#include "syscall.h"
#include "uaccess.h"

#define MASK_OF(signal) (1ull << ((signal) - 1))
#define UNBLOCKABLE (MASK_OF(SIGKILL) | MASK_OF(SIGSTOP))
#define RED_ZONE 128
/* CF PF AF ZF SF TF DF OF AC: what rt_sigreturn may change. */
#define RFLAGS_USER 0x40dd5ull
#define RFLAGS_TF 0x100ull
#define RFLAGS_DF 0x400ull

static struct {
	struct kernel_sigaction actions[SIGNAL_COUNT + 1];
	u64 blocked, pending;
	struct siginfo info[SIGNAL_COUNT + 1];
	struct stack stack;
} signals = { .stack = { .flags = SS_DISABLE } };

/* The frame on the user stack, as the x86-64 ABI of Linux defines it. */
struct rt_sigframe {
	uaddr_t return_address;
	struct ucontext context;
	struct siginfo info;
};

static const char *signal_name(int signal)
{
	static const char *const names[] = {
		[SIGHUP] = "Hangup", [SIGINT] = "Interrupt", [SIGQUIT] = "Quit", [SIGILL] = "Illegal instruction",
		[SIGTRAP] = "Trace/breakpoint trap", [SIGABRT] = "Aborted", [SIGBUS] = "Bus error",
		[SIGFPE] = "Floating point exception", [SIGKILL] = "Killed", [SIGSEGV] = "Segmentation fault",
		[SIGPIPE] = "Broken pipe", [SIGTERM] = "Terminated",
	};
	return (u32)signal < ARRAY_SIZE(names) && names[signal] ? names[signal] : "Killed by a signal";
}

static NORETURN void die(const struct regs *r, int signal)
{
	char line[256];
	const struct siginfo *info = &signals.info[signal];

	/* Faults have an address, kill() has not. The kernel itself kills only for want of memory. */
	if (signal == SIGKILL && info->code == SI_KERNEL)
		format(line, sizeof(line), "%s: Killed (signal 9): the machine's memory is exhausted\n", process_name);
	else if (info->code > SI_USER)
		format(line, sizeof(line), "%s: %s (signal %d) at rip 0x%lx address 0x%lx\n", process_name,
		       signal_name(signal), signal, r->rip, info->address);
	else
		format(line, sizeof(line), "%s: %s (signal %d)\n", process_name, signal_name(signal), signal);
	console_message(line);
	process_exit(128 + signal, signal);
}

static bool ignored_by_default(int signal)
{
	return signal == SIGCHLD || signal == SIGCONT || signal == SIGURG || signal == SIGWINCH;
}

static void update_work(void)
{
	if (signals.pending & ~signals.blocked)
		cpu0.work |= WORK_SIGNAL;
	else
		cpu0.work &= ~(u32)WORK_SIGNAL;
}

static bool on_alternate_stack(u64 rsp)
{
	return !(signals.stack.flags & SS_DISABLE) && rsp - signals.stack.sp < signals.stack.size;
}

static void fill_context(struct sigcontext *c, const struct regs *r, uaddr_t fpstate, u32 vector, u32 error, u64 cr2)
{
	*c = (struct sigcontext){
		.r8 = r->r8, .r9 = r->r9, .r10 = r->r10, .r11 = r->r11, .r12 = r->r12, .r13 = r->r13,
		.r14 = r->r14, .r15 = r->r15, .rdi = r->rdi, .rsi = r->rsi, .rbp = r->rbp, .rbx = r->rbx,
		.rdx = r->rdx, .rax = r->rax, .rcx = r->rcx, .rsp = r->rsp, .rip = r->rip,
		.eflags = (u32)r->rflags, .cs = USER_CS, .ss = USER_DS, .err = error,
		.trapno = vector, .oldmask = signals.blocked, .fpstate = fpstate, .cr2 = cr2,
	};
}

/* Build the frame and point the registers at the handler. False: the user stack is unusable. */
static bool push_frame(struct regs *r, int signal, u32 vector, u32 error)
{
	static struct fpstate fpstate;
	static struct rt_sigframe frame;
	struct kernel_sigaction *action = &signals.actions[signal];
	u64 rsp = r->rsp - RED_ZONE;

	if ((action->flags & SA_ONSTACK) && !(signals.stack.flags & SS_DISABLE) && !on_alternate_stack(r->rsp))
		rsp = signals.stack.sp + signals.stack.size;
	u64 fp_size = fpstate_save(&fpstate);
	uaddr_t fp = ALIGN_DOWN(rsp - fp_size, 64);
	/* At the handler's entry RSP + 8 is 16-byte aligned, as after a CALL. */
	uaddr_t at = ALIGN_DOWN(fp - sizeof(frame), 16) - 8;

	memset(&frame, 0, sizeof(frame));
	frame.return_address = action->restorer;
	frame.context.flags = fp_size > FXSAVE_SIZE ? UC_FP_XSTATE : 0;
	frame.context.stack = signals.stack;
	frame.context.sigmask = signals.blocked;
	fill_context(&frame.context.context, r, fp, vector, error, signals.info[signal].address);
	frame.info = signals.info[signal];
	if (!(action->flags & SA_RESTORER) || copy_to_user(fp, &fpstate, fp_size) || PUT_USER(at, frame))
		return false;
	r->rip = action->handler;
	r->rsp = at;
	r->rax = 0;
	r->rdi = (u64)signal;
	r->rsi = at + offsetof(struct rt_sigframe, info);
	r->rdx = at + offsetof(struct rt_sigframe, context);
	r->rflags &= ~(RFLAGS_TF | RFLAGS_DF);
	signals.blocked |= action->mask & ~UNBLOCKABLE;
	if (!(action->flags & SA_NODEFER))
		signals.blocked |= MASK_OF(signal);
	if (action->flags & SA_RESETHAND)
		action->handler = SIG_DFL;
	return true;
}

static void deliver(struct regs *r, int signal, u32 vector, u32 error)
{
	uaddr_t handler = signals.actions[signal].handler;

	signals.pending &= ~MASK_OF(signal);
	if (handler == SIG_IGN || (handler == SIG_DFL && ignored_by_default(signal)))
		return;
	if (handler == SIG_DFL)
		die(r, signal);
	if (!push_frame(r, signal, vector, error)) {
		signals.info[SIGSEGV] = (struct siginfo){ .signo = SIGSEGV, .code = SI_KERNEL, .address = r->rsp };
		die(r, SIGSEGV);
	}
}

void signal_fault(struct regs *r, int signal, int code, u64 address, u32 vector, u32 error)
{
	signals.info[signal] = (struct siginfo){ .signo = signal, .code = code, .address = address };
	/* A blocked or ignored fault cannot be postponed: it kills. */
	if ((signals.blocked & MASK_OF(signal)) || signals.actions[signal].handler == SIG_IGN)
		signals.actions[signal].handler = SIG_DFL;
	deliver(r, signal, vector, error);
	update_work();
}

void signal_deliver_pending(struct regs *r)
{
	for (int signal = 1; signal <= SIGNAL_COUNT; signal++)
		if (signals.pending & ~signals.blocked & MASK_OF(signal))
			deliver(r, signal, 0, 0);
	update_work();
}

result_t sys_rt_sigreturn(void)
{
	static struct fpstate fpstate;
	static struct ucontext u;
	struct regs *r = current_regs();
	const struct sigcontext *c = &u.context;
	u64 fp_size = 0;

	/* The handler's RET has popped the return address. */
	bool readable = !GET_USER(u, r->rsp);
	if (readable && c->fpstate) {
		readable = !copy_from_user(&fpstate, c->fpstate, FXSAVE_SIZE);
		fp_size = readable ? fpstate_frame_size(&fpstate) : 0;
		readable = readable && !copy_from_user(&fpstate, c->fpstate, fp_size);
	}
	if (!readable) {
		signals.info[SIGSEGV] = (struct siginfo){ .signo = SIGSEGV, .code = SI_KERNEL, .address = r->rsp };
		die(r, SIGSEGV);
	}
	if (c->fpstate)
		fpstate_restore(&fpstate, fp_size);
	*r = (struct regs){
		.r8 = c->r8, .r9 = c->r9, .r10 = c->r10, .r11 = c->r11, .r12 = c->r12, .r13 = c->r13,
		.r14 = c->r14, .r15 = c->r15, .rdi = c->rdi, .rsi = c->rsi, .rbp = c->rbp, .rbx = c->rbx,
		.rdx = c->rdx, .rax = c->rax, .rcx = c->rcx, .rsp = c->rsp, .rip = c->rip,
		.rflags = (r->rflags & ~RFLAGS_USER) | (c->eflags & RFLAGS_USER),
	};
	signals.blocked = u.sigmask & ~UNBLOCKABLE;
	signals.stack = u.stack;
	update_work();
	cpu0.work |= WORK_FULL_RESTORE;
	return 0;
}

result_t sys_rt_sigaction(u64 signal, uaddr_t new_action, uaddr_t old_action, u64 size)
{
	if (size != 8 || signal < 1 || signal > SIGNAL_COUNT)
		return -EINVAL;
	struct kernel_sigaction *action = &signals.actions[signal], new;
	if (new_action && (MASK_OF(signal) & UNBLOCKABLE))
		return -EINVAL;
	if (new_action && GET_USER(new, new_action))
		return -EFAULT;
	if (old_action && PUT_USER(old_action, *action))
		return -EFAULT;
	if (new_action)
		*action = new;
	return 0;
}

result_t sys_rt_sigprocmask(u64 how, uaddr_t new_mask, uaddr_t old_mask, u64 size)
{
	u64 mask = 0, old = signals.blocked;

	if (size != 8)
		return -EINVAL;
	if (new_mask) {
		if (GET_USER(mask, new_mask))
			return -EFAULT;
		if (how == SIG_BLOCK)
			mask |= old;
		else if (how == SIG_UNBLOCK)
			mask = old & ~mask;
		else if (how != SIG_SETMASK)
			return -EINVAL;
		signals.blocked = mask & ~UNBLOCKABLE;
		update_work();
	}
	return old_mask ? PUT_USER(old_mask, old) : 0;
}

result_t sys_rt_sigpending(uaddr_t to, u64 size)
{
	u64 pending = signals.pending & signals.blocked;
	return size != 8 ? -EINVAL : PUT_USER(to, pending);
}

result_t sys_sigaltstack(uaddr_t new_stack, uaddr_t old_stack)
{
	struct stack new, old = signals.stack;

	if (on_alternate_stack(current_regs()->rsp))
		old.flags |= SS_ONSTACK;
	if (new_stack) {
		if (GET_USER(new, new_stack))
			return -EFAULT;
		if (old.flags & SS_ONSTACK)
			return -EPERM;
		if (!(new.flags & SS_DISABLE) && new.size < 2048)
			return -ENOMEM;
		signals.stack = new;
	}
	return old_stack ? PUT_USER(old_stack, old) : 0;
}

static result_t raise(u64 signal, s32 code)
{
	if (signal > SIGNAL_COUNT)
		return -EINVAL;
	if (signal) {
		signals.info[signal] = (struct siginfo){ .signo = (s32)signal, .code = code, .address = PROCESS_ID };
		signals.pending |= MASK_OF(signal);
		update_work();
	}
	return 0;
}

result_t sys_kill(u64 pid, u64 signal)
{
	s32 p = (s32)pid;
	return p == PROCESS_ID || p == 0 || p == -1 || p == -PROCESS_ID ? raise(signal, SI_USER) : -ESRCH;
}

result_t sys_tkill(u64 tid, u64 signal)
{
	return tid == PROCESS_ID ? raise(signal, SI_TKILL) : -ESRCH;
}

result_t sys_tgkill(u64 pid, u64 tid, u64 signal)
{
	return pid == PROCESS_ID ? sys_tkill(tid, signal) : -ESRCH;
}
