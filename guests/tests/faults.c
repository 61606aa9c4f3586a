/*
 * Faults and signals, one case per argument: what a handler sees, that execution can go on, and how a
 * program without a handler dies. Prints "ok <case>".
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf escape;
static volatile int seen_signal, seen_code;
static void *volatile seen_address;

static void jump_out(int signal, siginfo_t *info, void *context)
{
	(void)context;
	seen_signal = signal;
	seen_code = info->si_code;
	seen_address = info->si_addr;
	siglongjmp(escape, 1);
}

static void install(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };
	sigaction(signal, &action, NULL);
}

static void expect(int condition, const char *what)
{
	if (!condition) {
		printf("FAILED %s (signal %d code %d address %p)\n", what, seen_signal, seen_code, seen_address);
		exit(1);
	}
}

static void test_handlers(void)
{
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	volatile int zero = 0;

	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		install(signals[i], jump_out, 0);
	page[0] = 7;
	mprotect(page, 4096, PROT_READ);
	if (!sigsetjmp(escape, 1)) {
		page[5] = 1;
		expect(0, "write to a read-only page");
	}
	expect(seen_signal == SIGSEGV && seen_code == SEGV_ACCERR && seen_address == page + 5, "read-only page");
	expect(page[0] == 7, "read-only page keeps its contents");
	munmap(page, 4096);
	if (!sigsetjmp(escape, 1)) {
		seen_code = *(volatile char *)page;
		expect(0, "read of an unmapped page");
	}
	expect(seen_signal == SIGSEGV && seen_code == SEGV_MAPERR, "unmapped page");
	page[4096] = (char)0xc3;
	if (!sigsetjmp(escape, 1)) {
		((void (*)(void))(uintptr_t)(page + 4096))();
		expect(0, "execution of a no-execute page");
	}
	expect(seen_signal == SIGSEGV && seen_address == page + 4096, "no-execute page");
	if (!sigsetjmp(escape, 1)) {
		zero = 1000 / zero;
		expect(0, "division by zero");
	}
	expect(seen_signal == SIGFPE && seen_code == FPE_INTDIV, "division by zero");
	if (!sigsetjmp(escape, 1)) {
		__asm__ volatile("ud2");
		expect(0, "undefined instruction");
	}
	expect(seen_signal == SIGILL, "undefined instruction");
	if (!sigsetjmp(escape, 1)) {
		__asm__ volatile("hlt");
		expect(0, "privileged instruction");
	}
	expect(seen_signal == SIGSEGV, "privileged instruction");
	if (!sigsetjmp(escape, 1)) {
		seen_code = *(volatile char *)0xffffd00000000000;
		expect(0, "kernel memory");
	}
	expect(seen_signal == SIGSEGV, "kernel memory");
	char *volatile bad_buffer = (char *)8;
	expect(write(1, bad_buffer, 4) == -1, "bad buffer");
	puts("ok handlers");
}

/* The handler repairs the cause, or steps over it, and rt_sigreturn restores every register. */
static char *repaired;

static void repair(int signal, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	seen_signal = signal;
	if (signal == SIGILL) {
		u->uc_mcontext.gregs[REG_RIP] += 2;
		u->uc_mcontext.gregs[REG_RBX] = 1234;
	} else {
		mprotect(repaired, 4096, PROT_READ | PROT_WRITE);
	}
	double x = 1.5;
	__asm__ volatile("movsd %0, %%xmm5\n\tfldpi" : : "m"(x) : "xmm5");
	(void)info;
}

static void test_return(void)
{
	static char stack[65536];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	double before = 42.25, after;
	long rbx, r12 = 99;

	sigaltstack(&alternate, NULL);
	install(SIGSEGV, repair, SA_ONSTACK);
	install(SIGILL, repair, SA_ONSTACK);
	repaired = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	repaired[9] = 3;
	expect(repaired[9] == 3, "the faulting store runs again");
	__asm__ volatile("movsd %3, %%xmm5\n\tmovl $5, %%ebx\n\tud2\n\tmovq %%rbx, %1\n\tmovsd %%xmm5, %0"
			 : "=m"(after), "=r"(rbx), "+r"(r12) : "m"(before) : "rbx", "xmm5");
	expect(rbx == 1234, "the handler's register change arrives");
	expect(after == before, "XMM registers are restored");
	expect(r12 == 99, "other registers are restored");
	puts("ok return");
}

static volatile int raised;

static void count(int signal)
{
	raised += signal;
}

static void test_raise(void)
{
	sigset_t set;

	signal(SIGUSR1, count);
	raise(SIGUSR1);
	expect(raised == SIGUSR1, "raise() delivers before it returns");
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	kill(getpid(), SIGUSR1);
	expect(raised == SIGUSR1, "a blocked signal waits");
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	expect(raised == 2 * SIGUSR1, "unblocking delivers it");
	signal(SIGUSR1, SIG_IGN);
	raise(SIGUSR1);
	expect(raised == 2 * SIGUSR1, "an ignored signal is dropped");
	puts("ok raise");
}

static int recurse(int depth)
{
	volatile char frame[4096];

	frame[0] = (char)depth;
	return depth ? recurse(depth - 1) + frame[0] : 0;
}

static void test_memory(void)
{
	expect(recurse(1500) != 1, "the stack grows");
	char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(p, 1, 1 << 20);
	munmap(p + 4096, 8192);
	expect(p[0] == 1 && p[12288] == 1, "a hole leaves its neighbours");
	char *q = mremap(p + 12288, 4096 * 10, 4096 * 2000, MREMAP_MAYMOVE);
	expect(q != MAP_FAILED && q[0] == 1 && q[4096 * 10 - 1] == 1 && q[4096 * 1999] == 0, "mremap moves");
	void *old = sbrk(0);
	expect(sbrk(100000) == old, "brk grows");
	memset(old, 5, 100000);
	sbrk(-100000);
	sbrk(100000);
	expect(*(char *)old == 0 || ((uintptr_t)old & 4095), "memory given back is zero when it returns");
	puts("ok memory");
}

int main(int argc, char **argv)
{
	const char *which = argc > 1 ? argv[1] : "all";

	if (!strcmp(which, "segv"))
		*(volatile int *)0x1234 = 1;
	if (!strcmp(which, "fpe"))
		exit(argc / (argc - 2));
	if (!strcmp(which, "ill"))
		__asm__ volatile("ud2");
	if (!strcmp(which, "abort"))
		abort();
	if (!strcmp(which, "exhaust")) {
		expect(!malloc(1ul << 40), "an allocation larger than the machine fails");
		for (;;)
			memset(malloc(1 << 20), 1, 1 << 20);
	}
	if (!strcmp(which, "overflow"))
		return recurse(1 << 30);
	test_handlers();
	test_return();
	test_raise();
	test_memory();
	puts("ok all");
	return 0;
}
