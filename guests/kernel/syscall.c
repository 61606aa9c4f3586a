/* The system call table, and the count of calls it does not have. */
#include "syscall.h"
#include "console.h"
#include "percpu.h"
#include "regs.h"

typedef result_t syscall_function(void);

#define CALL(name) [__NR_##name] = (syscall_function *)sys_##name
#define SAME(name, function) [__NR_##name] = (syscall_function *)function

static result_t sys_unknown_listed(void);

static result_t sys_absent(void)
{
	return -ENOSYS;
}

/* Every number has an entry, so that the entry code need not test for one. */
#pragma GCC diagnostic ignored "-Woverride-init"
syscall_function *const syscall_table[SYSCALL_LIMIT] = {
	[0 ... SYSCALL_LIMIT - 1] = sys_unknown_listed,

	CALL(mmap), CALL(munmap), CALL(mprotect), CALL(brk), CALL(mremap), CALL(madvise),

	CALL(read), CALL(write), CALL(pread64), CALL(pwrite64), CALL(readv), CALL(writev), CALL(lseek),
	CALL(close), CALL(dup), CALL(dup2), CALL(dup3), CALL(fcntl), CALL(ioctl),
	CALL(poll), CALL(ppoll), CALL(select), SAME(pselect6, sys_select),
	SAME(fsync, sys_zero), SAME(fdatasync, sys_zero), SAME(sync, sys_zero), SAME(fadvise64, sys_zero),
	SAME(flock, sys_zero),

	CALL(open), CALL(openat), CALL(creat), CALL(stat), CALL(lstat), CALL(fstat), CALL(newfstatat),
	CALL(statfs), CALL(fstatfs), CALL(access), CALL(faccessat), SAME(faccessat2, sys_faccessat),
	CALL(readlink), CALL(readlinkat), CALL(getcwd), CALL(chdir), CALL(fchdir), CALL(getdents64),
	CALL(unlink), CALL(unlinkat), CALL(rmdir), CALL(mkdir), CALL(mkdirat), CALL(rename), CALL(renameat),
	SAME(renameat2, sys_renameat), CALL(symlink), CALL(truncate), CALL(ftruncate),
	CALL(chmod), CALL(fchmod), CALL(fchmodat), CALL(utimensat),
	SAME(chown, sys_zero), SAME(fchown, sys_zero), SAME(lchown, sys_zero), SAME(fchownat, sys_zero),

	CALL(getpid), SAME(gettid, sys_getpid), SAME(getpgrp, sys_getpid), SAME(getpgid, sys_getpid),
	SAME(getsid, sys_getpid), SAME(setsid, sys_getpid), SAME(setpgid, sys_zero),
	SAME(getppid, sys_zero), SAME(getuid, sys_zero), SAME(geteuid, sys_zero), SAME(getgid, sys_zero),
	SAME(getegid, sys_zero), SAME(setuid, sys_zero), SAME(setgid, sys_zero), CALL(getgroups),
	CALL(uname), CALL(arch_prctl), CALL(set_tid_address), SAME(set_robust_list, sys_zero),
	CALL(prlimit64), CALL(getrlimit), SAME(setrlimit, sys_zero), CALL(getrandom), CALL(sysinfo),
	CALL(umask), CALL(futex), CALL(sched_getaffinity), SAME(sched_yield, sys_zero), CALL(getrusage),
	CALL(prctl), CALL(exit), SAME(exit_group, sys_exit), SAME(alarm, sys_zero),

	CALL(clock_gettime), CALL(clock_getres), CALL(gettimeofday), CALL(time), CALL(times), CALL(nanosleep),
	CALL(clock_nanosleep),

	CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigpending), CALL(sigaltstack), CALL(rt_sigreturn),
	CALL(kill), CALL(tkill), CALL(tgkill),

	/* Programs try these first and have a way around them, so they are not worth a report. */
	SAME(rseq, sys_absent), SAME(statx, sys_absent), SAME(sendfile, sys_absent),

	[PVM_SYS_BENCH] = (syscall_function *)sys_pvm_bench,
	[PVM_SYS_MARK] = (syscall_function *)sys_pvm_mark,
};

/* What HOST_REPORT takes. */
static struct {
	u32 number, count;
} unknown[64];
static u32 unknown_used;

struct regs *current_regs(void)
{
	return (struct regs *)cpu0.kernel_stack - 1;
}

/* Called from entry code as well, for numbers beyond the table. */
result_t sys_unknown(void);
result_t sys_unknown(void)
{
	u32 number = (u32)current_regs()->origin, i = 0;

	while (i < unknown_used && unknown[i].number != number)
		i++;
	if (i < ARRAY_SIZE(unknown)) {
		unknown[i].number = number;
		unknown[i].count++;
		if (i == unknown_used)
			unknown_used++;
	}
	return -ENOSYS;
}

static result_t sys_unknown_listed(void)
{
	return sys_unknown();
}

void report_unknown_syscalls(void)
{
	if (unknown_used)
		host_request(HOST_REPORT, unknown, unknown_used * sizeof(unknown[0]), 0);
}
