/*
 * First process of a stock Linux kernel: operations on processes and memory as LMbench measures them, each between marks that the host
 * counts by. Arguments, from the kernel's command line after "--": ROW:N, run row ROW N times in each of its intervals. As "hello" and as "sh" it is what the rows
 * exec and sh start.
 */
#include "../lib/guest.h"
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/if.h>
#include <linux/in.h>
#include <linux/mman.h>
#include <linux/reboot.h>
#include <linux/socket.h>

enum {
	MIB = 0x100000,
	PAGE = 4096,
	MARK_PORT = 0x508,
	MARK_OPERATIONS_BITS = 24,
	/* Descriptors of the select rows, and the size of the file that is mapped. */
	SELECT_FDS = 100,
	FILE_BYTES = 4 * MIB,
	FILE_PAGES = FILE_BYTES / PAGE,
	SIGUSR1 = 10,
	SIGSEGV = 11,
	AF_INET_FAMILY = 2,
	STREAM = 1,
	GET_INTERFACE_FLAGS = 0x8913,
	SET_INTERFACE_FLAGS = 0x8914,
	CHARACTER_DEVICE = 0020000,
};

static const char FILE_NAME[] = "/file";
static const char SELF[] = "/init";

static s64 syscall2(s64 number, s64 a, s64 b)
{
	return syscall3(number, a, b, 0);
}

/* What must work; a failure ends the machine and says what it was. */
static s64 must(const char *what, s64 result)
{
	if (result < 0 && result > -4096) {
		print("lmbench: ");
		print(what);
		print(" failed with error ");
		print_number((u64)-result, 0);
		print("\n");
		syscall3(__NR_reboot, (s64)LINUX_REBOOT_MAGIC1, (s64)LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF);
	}
	return result;
}

static void mark(u32 id, u64 operations)
{
	u32 value = id << MARK_OPERATIONS_BITS | (u32)operations;
	asm volatile("outl %0, %w1" : : "a"(value), "d"(MARK_PORT) : "memory");
}

/* -------------------------------------------------------------- files */
static s64 zero_fd, null_fd;
static char byte;

static void getpid_call(void)
{
	syscall0(SYS_getpid);
}

static void null_io(void)
{
	syscall3(__NR_read, zero_fd, (s64)&byte, 1);
	syscall3(SYS_write, null_fd, (s64)&byte, 1);
}

static void stat_file(void)
{
	u8 buffer[256];
	syscall2(__NR_stat, (s64)FILE_NAME, (s64)buffer);
}

static void open_close(void)
{
	s64 fd = syscall3(__NR_open, (s64)FILE_NAME, O_RDONLY, 0);
	syscall2(__NR_close, fd, 0);
}

/* -------------------------------------------------------------- select */
struct fd_bits {
	u64 words[16];
};
static struct fd_bits file_fds, tcp_fds;
static s64 highest_fd;

static void add_copies(struct fd_bits *set, s64 fd)
{
	for (int i = 0; i < SELECT_FDS; i++) {
		s64 copy = must("dup", syscall2(__NR_dup, fd, 0));
		set->words[copy / 64] |= 1ul << (copy % 64);
		if (copy > highest_fd)
			highest_fd = copy;
	}
}

static void select_set(const struct fd_bits *set)
{
	struct fd_bits read = *set;
	s64 timeout[2] = { 0, 0 };
	syscall6(__NR_select, highest_fd + 1, (s64)&read, 0, 0, (s64)timeout, 0);
}

static void select_files(void)
{
	select_set(&file_fds);
}

static void select_tcp(void)
{
	select_set(&tcp_fds);
}

/* A connection to ourselves over the loopback interface. */
static s64 tcp_connection(void)
{
	struct ifreq lo = { .ifr_name = "lo" };
	struct sockaddr_in address = { .sin_family = AF_INET_FAMILY, .sin_port = 0x3412, .sin_addr = { 0x0100007f } };
	s64 listener = must("socket", syscall3(__NR_socket, AF_INET_FAMILY, STREAM, 0));
	s64 client = must("socket", syscall3(__NR_socket, AF_INET_FAMILY, STREAM, 0));

	must("loopback", syscall3(__NR_ioctl, listener, GET_INTERFACE_FLAGS, (s64)&lo));
	lo.ifr_flags |= IFF_UP;
	must("loopback", syscall3(__NR_ioctl, listener, SET_INTERFACE_FLAGS, (s64)&lo));
	must("bind", syscall3(__NR_bind, listener, (s64)&address, sizeof(address)));
	must("listen", syscall2(__NR_listen, listener, 1));
	must("connect", syscall3(__NR_connect, client, (s64)&address, sizeof(address)));
	must("accept", syscall3(__NR_accept, listener, 0, 0));
	return client;
}

/* -------------------------------------------------------------- signals */
struct action {
	void (*handler)(int signal, void *info, void *context);
	u64 flags;
	void (*restorer)(void);
	u64 mask;
};

void restore_from_signal(void);
asm("restore_from_signal:\n"
    "	movl $15, %eax\n"
    "	syscall\n");

static void nothing(int signal, void *info, void *context)
{
	(void)signal, (void)info, (void)context;
}

static void handle(int signal, void (*handler)(int, void *, void *))
{
	enum { SA_SIGINFO = 4, SA_RESTORER = 0x04000000 };
	struct action action = { handler, SA_SIGINFO | SA_RESTORER, restore_from_signal, 0 };
	syscall6(SYS_rt_sigaction, signal, (s64)&action, 0, 8, 0, 0);
}

static s64 own_pid;

static void signal_install(void)
{
	handle(SIGUSR1, nothing);
}

static void signal_handle(void)
{
	syscall2(__NR_kill, own_pid, SIGUSR1);
}

/* A store of three bytes to a page that may only be read, and a handler that steps over it. */
static u8 *read_only;

static void skip_store(int signal, void *info, void *context)
{
	enum { SIGCONTEXT_OFFSET = 40, RIP_INDEX = 16, STORE_BYTES = 3 };
	u64 *registers = (u64 *)((u8 *)context + SIGCONTEXT_OFFSET);

	(void)signal, (void)info;
	registers[RIP_INDEX] += STORE_BYTES;
}

static void protection_fault(void)
{
	asm volatile("movb $1, (%0)" : : "a"(read_only) : "memory");
}

/* -------------------------------------------------------------- processes */
static void wait_for(s64 child)
{
	syscall6(__NR_wait4, must("fork", child), 0, 0, 0, 0, 0);
}

static void exit_now(int code)
{
	for (;;)
		syscall3(SYS_exit_group, code, 0, 0);
}

static void fork_exit(void)
{
	s64 child = syscall0(__NR_fork);
	if (child == 0)
		exit_now(0);
	wait_for(child);
}

static void start(const char *name, const char *argument)
{
	const char *const arguments[] = { name, argument, 0 };
	const char *const environment[] = { "PATH=/", 0 };
	s64 child = syscall0(__NR_fork);

	if (child == 0) {
		syscall3(__NR_execve, (s64)SELF, (s64)arguments, (s64)environment);
		exit_now(127);
	}
	wait_for(child);
}

static void fork_exec(void)
{
	start("hello", 0);
}

static void shell(void)
{
	start("sh", "hello");
}

/* -------------------------------------------------------------- memory */
static s64 file_fd;

static volatile u8 *map_file(void)
{
	s64 at = syscall6(SYS_mmap, 0, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file_fd, 0);
	return (volatile u8 *)must("mmap", at);
}

static void map_touch_unmap(void)
{
	volatile u8 *memory = map_file();
	for (u32 page = 0; page < FILE_PAGES; page++)
		memory[(u64)page * PAGE] = 1;
	release((void *)memory, FILE_BYTES);
}

/* Every page of a mapped file, far from the one before. 389 is prime to the number of pages. */
static void page_faults(void)
{
	volatile u8 *memory = map_file();
	for (u32 i = 0; i < FILE_PAGES; i++)
		(void)memory[(u64)(i * 389 % FILE_PAGES) * PAGE];
	release((void *)memory, FILE_BYTES);
}

/* The paper's loop: allocate 1 MiB, touch each page, release. */
static void allocate_touch_release(void)
{
	volatile u8 *memory = allocate(MIB);
	for (u32 at = 0; at < MIB; at += PAGE)
		memory[at] = 1;
	release((void *)memory, MIB);
}

/* -------------------------------------------------------------- rows */
/* In the order of lmbenchRows in ../src/index.ts: the index is the number of the interval. */
static const struct {
	const char *name;
	void (*operation)(void);
	/* Operations in one call. */
	u32 operations;
} rows[] = {
	{ "getpid", getpid_call, 1 },
	{ "null-io", null_io, 2 },
	{ "stat", stat_file, 1 },
	{ "open-close", open_close, 1 },
	{ "select", select_files, 1 },
	{ "select-tcp", select_tcp, 1 },
	{ "signal-install", signal_install, 1 },
	{ "signal-handle", signal_handle, 1 },
	{ "protection-fault", protection_fault, 1 },
	{ "fork", fork_exit, 1 },
	{ "exec", fork_exec, 1 },
	{ "sh", shell, 1 },
	{ "mmap", map_touch_unmap, 1 },
	{ "page-fault", page_faults, FILE_PAGES },
	{ "allocate", allocate_touch_release, MIB / PAGE },
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

/* What a dynamically linked program has of private pages: cat of Debian 12 has 30 of them in 12 mappings. A page without rights keeps ours apart. */
static void grow(void)
{
	enum { MAPPINGS = 12, PAGES = 3 };
	for (int i = 0; i < MAPPINGS; i++) {
		volatile u8 *memory = allocate((PAGES + 1) * PAGE);
		for (int page = 0; page < PAGES; page++)
			memory[page * PAGE] = 1;
		must("mprotect", syscall3(__NR_mprotect, (s64)memory + PAGES * PAGE, PAGE, PROT_NONE));
	}
}

static void set_up(void)
{
	grow();
	own_pid = syscall0(SYS_getpid);
	must("ioperm", syscall3(__NR_ioperm, MARK_PORT, 4, 1));
	syscall2(__NR_mkdir, (s64) "/dev", 0755);
	syscall3(__NR_mknod, (s64) "/dev/null", CHARACTER_DEVICE | 0666, 1 << 8 | 3);
	syscall3(__NR_mknod, (s64) "/dev/zero", CHARACTER_DEVICE | 0666, 1 << 8 | 5);
	null_fd = must("/dev/null", syscall3(__NR_open, (s64) "/dev/null", O_RDWR, 0));
	zero_fd = must("/dev/zero", syscall3(__NR_open, (s64) "/dev/zero", O_RDONLY, 0));
	file_fd = must(FILE_NAME, syscall3(__NR_open, (s64)FILE_NAME, O_RDWR | O_CREAT, 0644));
	must("ftruncate", syscall2(__NR_ftruncate, file_fd, FILE_BYTES));
	read_only = allocate(PAGE);
	read_only[0] = 1;
	must("mprotect", syscall3(__NR_mprotect, (s64)read_only, PAGE, PROT_READ));
	handle(SIGUSR1, nothing);
	handle(SIGSEGV, skip_store);
	/* All pages of the file are in memory from now on. */
	map_touch_unmap();
}

/* Before the first of its intervals the row runs as often as in one of them: its code is compiled, its memory is there. */
static void measure(u32 id, u64 n)
{
	enum { INTERVALS = 4 };
	for (int interval = 0; interval <= INTERVALS; interval++) {
		if (interval)
			mark(id, n * rows[id].operations);
		for (u64 i = 0; i < n; i++)
			rows[id].operation();
		if (interval)
			mark(id, 0);
	}
}

/* "name:n" */
static void run(char *word)
{
	char *colon = word;
	while (*colon && *colon != ':')
		colon++;
	if (!*colon)
		return;
	*colon = 0;
	for (u32 id = 0; id < ROWS; id++) {
		if (!equal(word, rows[id].name))
			continue;
		if (equal(word, "select"))
			add_copies(&file_fds, null_fd);
		if (equal(word, "select-tcp"))
			add_copies(&tcp_fds, tcp_connection());
		measure(id, parse(colon + 1));
		print(word);
		print(" done\n");
		return;
	}
	print("lmbench: no row ");
	print(word);
	print("\n");
}

int main(int argc, char **argv)
{
	if (equal(argv[0], "hello"))
		return 0;
	if (equal(argv[0], "sh")) {
		if (argc > 1)
			start(argv[1], 0);
		return 0;
	}
	/* Not in the first process itself: the kernel reports each of its faults on the console. */
	s64 child = syscall0(__NR_fork);
	if (child == 0) {
		set_up();
		for (int i = 1; i < argc; i++)
			run(argv[i]);
		return 0;
	}
	wait_for(child);
	syscall3(__NR_reboot, (s64)LINUX_REBOOT_MAGIC1, (s64)LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF);
	return 0;
}
