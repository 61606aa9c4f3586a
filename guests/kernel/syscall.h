/*
 * System calls by subject. Arguments arrive as the program's registers; each function takes as many as
 * it needs. Results are >= 0 or -errno.
 */
#pragma once
#include "abi.h"
#include "types.h"

struct regs;

/* Private calls, for benchmarks only. */
#define PVM_SYS_BENCH 510
#define PVM_SYS_MARK 511

#define SYSCALL_LIMIT 512

/* The frame of the system call being served. */
struct regs *current_regs(void);
/* Numbers called that this kernel does not have, for the host's report. */
void report_unknown_syscalls(void);

/* mmap.c */
result_t sys_mmap(u64 address, u64 length, u64 prot, u64 flags, u64 fd, u64 offset);
result_t sys_munmap(u64 address, u64 length);
result_t sys_mprotect(u64 address, u64 length, u64 prot);
result_t sys_brk(u64 address);
result_t sys_mremap(u64 address, u64 old_length, u64 new_length, u64 flags, u64 new_address);
result_t sys_madvise(u64 address, u64 length, u64 advice);

/* file.c, sys_io.c */
result_t sys_close(u64 fd);
result_t sys_dup(u64 fd);
result_t sys_dup2(u64 old, u64 new);
result_t sys_dup3(u64 old, u64 new, u64 flags);
result_t sys_fcntl(u64 fd, u64 command, u64 argument);
result_t sys_read(u64 fd, uaddr_t to, u64 n);
result_t sys_write(u64 fd, uaddr_t from, u64 n);
result_t sys_pread64(u64 fd, uaddr_t to, u64 n, u64 position);
result_t sys_pwrite64(u64 fd, uaddr_t from, u64 n, u64 position);
result_t sys_readv(u64 fd, uaddr_t vector, u64 count);
result_t sys_writev(u64 fd, uaddr_t vector, u64 count);
result_t sys_lseek(u64 fd, u64 offset, u64 whence);
result_t sys_ioctl(u64 fd, u64 request, uaddr_t argument);
result_t sys_poll(uaddr_t fds, u64 count, u64 timeout_ms);
result_t sys_ppoll(uaddr_t fds, u64 count, uaddr_t timeout);
result_t sys_select(u64 count, uaddr_t in, uaddr_t out, uaddr_t except, uaddr_t timeout);

/* Resolve a user path relative to a directory descriptor or AT_FDCWD (sys_fs.c). 0 or -errno. */
struct lookup;
struct inode;
result_t user_lookup(u64 dirfd, uaddr_t user_path, bool follow, struct lookup *l);
/* The same for a path that must exist. */
result_t user_inode(u64 dirfd, uaddr_t path, bool follow, struct inode **inode);

/* sys_fs.c, sys_stat.c */
result_t sys_open(uaddr_t path, u64 flags, u64 mode);
result_t sys_openat(u64 dirfd, uaddr_t path, u64 flags, u64 mode);
result_t sys_creat(uaddr_t path, u64 mode);
result_t sys_stat(uaddr_t path, uaddr_t to);
result_t sys_lstat(uaddr_t path, uaddr_t to);
result_t sys_fstat(u64 fd, uaddr_t to);
result_t sys_newfstatat(u64 dirfd, uaddr_t path, uaddr_t to, u64 flags);
result_t sys_statfs(uaddr_t path, uaddr_t to);
result_t sys_fstatfs(u64 fd, uaddr_t to);
result_t sys_access(uaddr_t path, u64 mode);
result_t sys_faccessat(u64 dirfd, uaddr_t path, u64 mode);
result_t sys_readlink(uaddr_t path, uaddr_t to, u64 n);
result_t sys_readlinkat(u64 dirfd, uaddr_t path, uaddr_t to, u64 n);
result_t sys_getcwd(uaddr_t to, u64 n);
result_t sys_chdir(uaddr_t path);
result_t sys_fchdir(u64 fd);
result_t sys_getdents64(u64 fd, uaddr_t to, u64 n);
result_t sys_unlink(uaddr_t path);
result_t sys_unlinkat(u64 dirfd, uaddr_t path, u64 flags);
result_t sys_rmdir(uaddr_t path);
result_t sys_mkdir(uaddr_t path, u64 mode);
result_t sys_mkdirat(u64 dirfd, uaddr_t path, u64 mode);
result_t sys_rename(uaddr_t from, uaddr_t to);
result_t sys_renameat(u64 from_fd, uaddr_t from, u64 to_fd, uaddr_t to);
result_t sys_symlink(uaddr_t target, uaddr_t path);
result_t sys_truncate(uaddr_t path, u64 size);
result_t sys_ftruncate(u64 fd, u64 size);
result_t sys_chmod(uaddr_t path, u64 mode);
result_t sys_fchmod(u64 fd, u64 mode);
result_t sys_fchmodat(u64 dirfd, uaddr_t path, u64 mode);
result_t sys_utimensat(u64 dirfd, uaddr_t path, uaddr_t times, u64 flags);

/* sys_process.c */
result_t sys_zero(void);
result_t sys_getpid(void);
result_t sys_uname(uaddr_t to);
result_t sys_arch_prctl(u64 code, u64 address);
result_t sys_set_tid_address(uaddr_t address);
result_t sys_prlimit64(u64 pid, u64 resource, uaddr_t new_limit, uaddr_t old_limit);
result_t sys_getrlimit(u64 resource, uaddr_t to);
result_t sys_getrandom(uaddr_t to, u64 n, u64 flags);
result_t sys_sysinfo(uaddr_t to);
result_t sys_umask(u64 mask);
result_t sys_futex(uaddr_t address, u64 operation, u64 value, uaddr_t timeout);
result_t sys_sched_getaffinity(u64 pid, u64 n, uaddr_t to);
result_t sys_getrusage(u64 who, uaddr_t to);
result_t sys_getgroups(void);
result_t sys_prctl(u64 option, u64 argument);
result_t sys_exit(u64 code);

/* sys_time.c */
result_t sys_clock_gettime(u64 clock, uaddr_t to);
result_t sys_clock_getres(u64 clock, uaddr_t to);
result_t sys_gettimeofday(uaddr_t to, uaddr_t zone);
result_t sys_time(uaddr_t to);
result_t sys_times(uaddr_t to);
result_t sys_nanosleep(uaddr_t request, uaddr_t remaining);
result_t sys_clock_nanosleep(u64 clock, u64 flags, uaddr_t request, uaddr_t remaining);

/* signal.c */
result_t sys_rt_sigaction(u64 signal, uaddr_t new_action, uaddr_t old_action, u64 size);
result_t sys_rt_sigprocmask(u64 how, uaddr_t new_mask, uaddr_t old_mask, u64 size);
result_t sys_rt_sigpending(uaddr_t to, u64 size);
result_t sys_sigaltstack(uaddr_t new_stack, uaddr_t old_stack);
result_t sys_rt_sigreturn(void);
result_t sys_kill(u64 pid, u64 signal);
result_t sys_tkill(u64 tid, u64 signal);
result_t sys_tgkill(u64 pid, u64 tid, u64 signal);

/* bench.c */
/* n rounds of an enum bench_kind; `marked` tells the host where the loop begins and ends. */
result_t sys_pvm_bench(u64 kind, u64 n, u64 marked);
/* An interval of so many operations begins; 0: it ends. */
result_t sys_pvm_mark(u64 operations, u64 id);
