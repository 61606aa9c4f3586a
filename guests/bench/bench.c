/*
 * Microbenchmarks of what leaves a virtual machine: bench <kind> <n>. Prints "<kind> <n> <nanoseconds>".
 * The whole loop runs once to warm up, then again between the host channel's MARK commands, so that the host can
 * difference its counters.
 */
#include "../lib/guest.h"

#define MIB 0x100000
#define PAGE 4096

/* Loops in supervisor mode: indices are the kernel's enum bench_kind. */
static const char *const supervisor_kinds[] = {
	"hypercall", "exception", "msr-read", "msr-write", "cpuid", "cpuid-synthetic", "pio-in", "pio-out",
};
enum { SUPERVISOR_KINDS = sizeof(supervisor_kinds) / sizeof(supervisor_kinds[0]) };

/* 0 operations end the interval. */
static void mark(u64 operations, int id)
{
	syscall3(SYS_pvm_mark, (s64)operations, id, 0);
}

static void getpid_loop(u64 n)
{
	while (n--)
		syscall0(SYS_getpid);
}

/* The paper's page-fault loop: allocate 1 MiB, touch every page, release, until n MiB are done. */
static void fault_loop(u64 n)
{
	while (n--) {
		volatile u8 *memory = allocate(MIB);
		for (u32 i = 0; i < MIB; i += PAGE)
			memory[i] = 1;
		release((void *)memory, MIB);
	}
}

/* The same amount in one piece. */
static void touch_loop(u64 n)
{
	volatile u8 *memory = allocate(n * MIB);

	for (u64 i = 0; i < n * MIB; i += PAGE)
		memory[i] = 1;
	release((void *)memory, n * MIB);
}

/* UD2 and a handler that steps over it: the signal path of the guest kernel is part of the cost. */
struct action {
	void (*handler)(int signal, void *info, void *context);
	u64 flags;
	void (*restorer)(void);
	u64 mask;
};

static void skip_instruction(int signal, void *info, void *context)
{
	enum { SIGCONTEXT_OFFSET = 40, RIP_INDEX = 16 };
	u64 *registers = (u64 *)((u8 *)context + SIGCONTEXT_OFFSET);

	(void)signal;
	(void)info;
	registers[RIP_INDEX] += 2;
}

void restore_from_signal(void);
asm("restore_from_signal:\n"
    "	movl $15, %eax\n"
    "	syscall\n");

static void exception_loop(u64 n)
{
	enum { SIGILL = 4, SA_SIGINFO = 4, SA_RESTORER = 0x04000000 };
	struct action action = { skip_instruction, SA_SIGINFO | SA_RESTORER, restore_from_signal, 0 };

	syscall6(SYS_rt_sigaction, SIGILL, (s64)&action, 0, 8, 0, 0);
	while (n--)
		asm volatile("ud2" : : : "memory");
}

static const struct {
	const char *kind;
	void (*loop)(u64 n);
	/* Operations in one round of the loop. */
	u64 operations;
} user_kinds[] = {
	{ "getpid", getpid_loop, 1 },
	{ "fault", fault_loop, MIB / PAGE },
	{ "touch", touch_loop, MIB / PAGE },
	{ "exception-user", exception_loop, 1 },
};
enum { USER_KINDS = sizeof(user_kinds) / sizeof(user_kinds[0]), USER_MARK_BASE = 100 };

static int report(const char *kind, u64 n, u64 start)
{
	u64 ns = now_ns() - start;

	print(kind);
	print(" ");
	print_number(n, 0);
	print(" ");
	print_number(ns, 0);
	print("\n");
	return 0;
}

int main(int argc, char **argv)
{
	u64 n = argc > 2 ? parse(argv[2]) : 0;

	for (int i = 0; n && i < SUPERVISOR_KINDS; i++) {
		if (!equal(argv[1], supervisor_kinds[i]))
			continue;
		syscall3(SYS_pvm_bench, i, (s64)n, 0);
		u64 start = now_ns();
		if (syscall3(SYS_pvm_bench, i, (s64)n, 1) < 0) {
			print("this kernel has no benchmark of that kind\n");
			return 1;
		}
		return report(argv[1], n, start);
	}
	for (int i = 0; n && i < USER_KINDS; i++) {
		if (!equal(argv[1], user_kinds[i].kind))
			continue;
		user_kinds[i].loop(n);
		mark(n * user_kinds[i].operations, USER_MARK_BASE + i);
		u64 start = now_ns();
		user_kinds[i].loop(n);
		mark(0, USER_MARK_BASE + i);
		return report(argv[1], n, start);
	}
	print("usage: bench <kind> <n>\nkinds:");
	for (int i = 0; i < SUPERVISOR_KINDS; i++) {
		print(" ");
		print(supervisor_kinds[i]);
	}
	for (int i = 0; i < USER_KINDS; i++) {
		print(" ");
		print(user_kinds[i].kind);
	}
	print("\n");
	return 2;
}
