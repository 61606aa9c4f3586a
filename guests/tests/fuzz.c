/*
 * Random system calls with arguments that are often almost right: fuzz <seed> <count>. Nothing may bring
 * the kernel down. The exit code is 42; memory, files and descriptors are in any state by then.
 */
#include "../lib/guest.h"

enum {
	SYS_read = 0, SYS_poll = 7, SYS_mprotect = 10, SYS_brk = 12, SYS_readv = 19, SYS_select = 23, SYS_mremap = 25,
	SYS_madvise = 28, SYS_nanosleep = 35, SYS_exit = 60, SYS_kill = 62, SYS_getcwd = 79, SYS_arch_prctl = 158,
	SYS_tkill = 200, SYS_futex = 202, SYS_clock_nanosleep = 230, SYS_tgkill = 234, SYS_pselect6 = 270,
	SYS_ppoll = 271, SYS_getrandom = 318,
};

#define PAGE 4096
/* Where the program's own memory is not. */
#define ARENA 0x10000000
#define ARENA_PAGES 64

static u64 state;
static char buffer[65536];

static u64 random_word(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * 0x2545f4914f6cdd1d;
}

static u64 below(u64 n)
{
	return random_word() % n;
}

static s64 arena_address(void)
{
	return ARENA + (s64)below(ARENA_PAGES) * PAGE;
}

static s64 argument(void)
{
	switch (below(13)) {
	case 0: return 0;
	case 1: return (s64)below(8);
	case 2: return (s64)(buffer + below(sizeof(buffer) - 100));
	case 3: return (s64)random_word();
	case 4: return -1 - (s64)below(16);
	case 5: return 0x7ffffffff000 - (s64)below(64);
	case 6: return (s64)below(PAGE);
	case 7: return (s64)"/tmp/a";
	case 8: return (s64)"/tmp/directory/b";
	case 9: return arena_address() + (s64)below(64);
	case 10: return (s64)(0xffffd00000000000 + below(0x1000000));
	case 11: return (s64)(1ull << below(64));
	default: return (s64)below(300);
	}
}

/* Calls that would end, block or strand this program. */
static int avoided(s64 number)
{
	static const u16 list[] = {
		SYS_read, SYS_poll, SYS_mmap, SYS_mprotect, SYS_munmap, SYS_brk, SYS_rt_sigreturn, SYS_readv, SYS_select, SYS_mremap,
		SYS_madvise, SYS_nanosleep, SYS_exit, SYS_kill, SYS_arch_prctl, SYS_tkill, SYS_futex, SYS_clock_nanosleep,
		SYS_exit_group, SYS_tgkill, SYS_pselect6, SYS_ppoll, SYS_pvm_bench, SYS_pvm_mark,
	};

	for (u32 i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		if (list[i] == number)
			return 1;
	/* Writing to the standard descriptors is only noise. */
	return number == SYS_write;
}

static void change_memory(void)
{
	static const u16 calls[] = { SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise };
	s64 number = calls[below(sizeof(calls) / sizeof(calls[0]))];
	s64 address = arena_address(), size = (s64)below(20) * PAGE;

	if (number == SYS_mmap) {
		s64 flags = (below(2) ? 0x10 : 0) | (below(2) ? 0x22 : 2) | (below(4) == 0);
		s64 p = syscall6(number, address, size, (s64)below(8), flags, below(2) ? (s64)below(10) : -1, (s64)below(4) * PAGE);
		/* The kernel's copies fault the pages in, or fail. */
		if (p > 0 && below(2)) {
			syscall3(SYS_getcwd, p, PAGE, 0);
			syscall3(SYS_getrandom, p, (s64)below(9000), 0);
		}
	} else if (number == SYS_mremap) {
		syscall6(number, address, size, (s64)below(30) * PAGE, (s64)below(4), arena_address(), 0);
	} else {
		syscall3(number, address, size, (s64)below(8));
	}
}

int main(int argc, char **argv)
{
	u64 seed = argc > 1 ? parse(argv[1]) : 1, count = argc > 2 ? parse(argv[2]) : 5000;

	state = seed * 0x9e3779b97f4a7c15 | 1;
	while (count--) {
		s64 number = (s64)below(540);
		if (below(4) == 0)
			change_memory();
		else if (!avoided(number))
			syscall6(number, argument(), argument(), argument(), argument(), argument(), argument());
	}
	/* Descriptor 1 may be anything now; the exit code says as much. */
	return 42;
}
