/* System calls about the process and the machine. */
#include "console.h"
#include "cpu.h"
#include "mm.h"
#include "paravirt/paravirt.h"
#include "process.h"
#include "string.h"
#include "syscall.h"
#include "timekeeping.h"
#include "uaccess.h"

#define ARCH_SET_GS 0x1001
#define ARCH_SET_FS 0x1002
#define ARCH_GET_FS 0x1003
#define ARCH_GET_GS 0x1004

result_t sys_zero(void)
{
	return 0;
}

result_t sys_getpid(void)
{
	return PROCESS_ID;
}

result_t sys_uname(uaddr_t to)
{
	/* sysname, nodename, release, version, machine, domainname. glibc wants a release it knows. */
	static const char names[6][65] = { "Linux", "pvm", "6.12.0-pvm", "#1 PVM guest kernel", "x86_64", "(none)" };
	return PUT_USER(to, names);
}

result_t sys_arch_prctl(u64 code, u64 address)
{
	u64 base;

	switch (code) {
	case ARCH_SET_FS:
		if (address >= TASK_SIZE)
			return -EPERM;
		if (cpu_has_fsgsbase)
			asm volatile("wrfsbase %0" : : "r"(address));
		else
			write_msr(MSR_FS_BASE, address);
		return 0;
	case ARCH_SET_GS:
		if (address >= TASK_SIZE)
			return -EPERM;
		pv->set_user_gs_base(address);
		return 0;
	case ARCH_GET_FS:
		if (cpu_has_fsgsbase)
			asm volatile("rdfsbase %0" : "=r"(base));
		else
			base = read_msr(MSR_FS_BASE);
		return PUT_USER(address, base);
	case ARCH_GET_GS:
		base = pv->user_gs_base();
		return PUT_USER(address, base);
	default:
		return -EINVAL;
	}
}

result_t sys_set_tid_address(uaddr_t address UNUSED)
{
	return PROCESS_ID;
}

#define RLIMIT_STACK 3
#define RLIMIT_NOFILE 7
#define RLIMIT_COUNT 16

result_t sys_prlimit64(u64 pid, u64 resource, uaddr_t new_limit UNUSED, uaddr_t old_limit)
{
	u64 limit = resource == RLIMIT_STACK ? STACK_LIMIT : resource == RLIMIT_NOFILE ? 256 : ~0ull;
	u64 pair[2] = { limit, resource == RLIMIT_STACK ? ~0ull : limit };

	if (resource >= RLIMIT_COUNT)
		return -EINVAL;
	if (pid && pid != PROCESS_ID)
		return -ESRCH;
	return old_limit ? PUT_USER(old_limit, pair) : 0;
}

result_t sys_getrlimit(u64 resource, uaddr_t to)
{
	return sys_prlimit64(0, resource, 0, to);
}

result_t sys_getrandom(uaddr_t to, u64 n, u64 flags UNUSED)
{
	u8 chunk[256];

	n = min_u64(n, 1 << 20);
	for (u64 done = 0; done < n; done += sizeof(chunk)) {
		u64 length = min_u64(n - done, sizeof(chunk));
		host_random(chunk, length);
		if (copy_to_user(to + done, chunk, length))
			return -EFAULT;
	}
	return (result_t)n;
}

struct sysinfo {
	u64 uptime, loads[3], total, free, shared, buffer, total_swap, free_swap;
	u16 processes, pad;
	u64 total_high, free_high;
	u32 unit;
};
_Static_assert(sizeof(struct sysinfo) == 112, "struct sysinfo");

result_t sys_sysinfo(uaddr_t to)
{
	struct sysinfo s = {
		.uptime = time_since_boot() / 1000000000,
		.total = pages_total_count() * PAGE_SIZE,
		.free = pages_free_count() * PAGE_SIZE,
		.processes = 1,
		.unit = 1,
	};
	return PUT_USER(to, s);
}

result_t sys_umask(u64 mask UNUSED)
{
	return 022;
}

/* One thread: a waiter whose value still matches would wait forever, so only its timeout can end it. */
result_t sys_futex(uaddr_t address, u64 operation, u64 value, uaddr_t timeout)
{
	u32 current;
	struct timespec t;
	enum { FUTEX_WAIT = 0, FUTEX_WAKE = 1, FUTEX_WAIT_BITSET = 9, FUTEX_WAKE_BITSET = 10, FUTEX_CMD_MASK = 0x7f };
	u64 command = operation & FUTEX_CMD_MASK;

	if (command == FUTEX_WAKE || command == FUTEX_WAKE_BITSET)
		return 0;
	if (command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET)
		return -ENOSYS;
	if (GET_USER(current, address))
		return -EFAULT;
	if (current != (u32)value)
		return -EAGAIN;
	if (!timeout)
		return -EDEADLK;
	if (GET_USER(t, timeout))
		return -EFAULT;
	if (command == FUTEX_WAIT)
		time_sleep((u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec);
	return -ETIMEDOUT;
}

result_t sys_sched_getaffinity(u64 pid UNUSED, u64 n, uaddr_t to)
{
	u64 mask = 1;

	if (n < sizeof(mask))
		return -EINVAL;
	return PUT_USER(to, mask) ? -EFAULT : (result_t)sizeof(mask);
}

result_t sys_getrusage(u64 who UNUSED, uaddr_t to)
{
	u64 now = time_since_boot() / 1000;
	u64 usage[18] = { now / 1000000, now % 1000000 };

	return PUT_USER(to, usage);
}

result_t sys_getgroups(void)
{
	return 0;
}

#define PR_SET_NAME 15

result_t sys_prctl(u64 option, u64 argument UNUSED)
{
	return option == PR_SET_NAME ? 0 : -EINVAL;
}

void process_exit(int code, int signal)
{
	report_unknown_syscalls();
	host_poweroff(code, signal);
}

result_t sys_exit(u64 code)
{
	process_exit((int)(code & 0xff), 0);
}
