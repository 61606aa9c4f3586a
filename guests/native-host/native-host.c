/*
 * Runs the guest kernel on the real CPU: a small PVM hypervisor (ABI v2) over ptrace, for testing the
 * kernel without trusting anything else of this project. Privileged instructions fault, system calls are
 * intercepted with PTRACE_SYSEMU, and the "shadow page table" is the child's own address space, filled page by
 * page from a memfd. The kernel must be built for lower-half addresses (see run.sh).
 *
 * usage: native-host kernel.elf memory-MiB initrd.cpio
 */
#define _GNU_SOURCE
#include "cpu.h"
#include "layout.h"
#include "paravirt/paravirt.h"
#include "paravirt/pvm_v2.h"
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* One page of the child for system calls of our own, where neither the program nor the kernel has anything. */
#define STUB 0x4f0000000000ull
#define LOWEST 0x10000ull
#define COMMAND_LINE 0x20000
#define BOOT_PARAMS 0x30000
#define PTRACE_SYSEMU_REQUEST 31
#define RSEQ_FLAG_UNREGISTER 1

static u8 *ram;
static u64 ram_size;
static int ram_fd;
static pid_t child;
static struct user_regs_struct regs;
static bool supervisor = true;
static u64 cr3, vcpu_struct, event_entry, retu_rip, lstar, kernel_gs_base;
static struct { const char *name; u64 count; } exits[] = {
	{ "SYSCALL" , 0 }, { "ERETU", 0 }, { "HYPERCALL", 0 }, { "PRIVILEGED", 0 }, { "EVENT", 0 }, { "FILL", 0 },
};
enum { X_SYSCALL, X_ERETU, X_HYPERCALL, X_PRIVILEGED, X_EVENT, X_FILL };

static struct { u64 va; u64 entry; } mapped[1 << 20];
static u32 mapped_count;

static void die(const char *what)
{
	fprintf(stderr, "native-host: %s (rip %llx rsp %llx smod %d errno %s)\n", what, regs.rip, regs.rsp, supervisor,
		strerror(errno));
	if (child)
		kill(child, SIGKILL);
	exit(70);
}

static struct pvcs_v2 *pvcs(void)
{
	return (struct pvcs_v2 *)(ram + vcpu_struct);
}

static void set_regs(void)
{
	regs.orig_rax = (u64)-1;
	if (ptrace(PTRACE_SETREGS, child, 0, &regs))
		die("SETREGS");
}

/* Run one system call inside the child, at the stub. */
static s64 inject(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	struct user_regs_struct r = regs;
	int status;

	r.rip = STUB;
	r.rax = nr, r.rdi = a, r.rsi = b, r.rdx = c, r.r10 = d, r.r8 = e, r.r9 = f;
	r.orig_rax = (u64)-1;
	/* Leaving an intercepted system call reports one trap before the stub runs. */
	for (int i = 0; i < 3; i++) {
		struct user_regs_struct after;
		ptrace(PTRACE_SETREGS, child, 0, &r);
		ptrace(PTRACE_SINGLESTEP, child, 0, 0);
		waitpid(child, &status, 0);
		ptrace(PTRACE_GETREGS, child, 0, &after);
		if (after.rip == STUB + 2)
			return (s64)after.rax;
	}
	die("cannot inject a system call");
	return 0;
}

/* Walk the guest's tables. The leaf entry with `flags` the AND of all levels' W and U; 0 when absent. */
static u64 walk(u64 va, u64 *flags)
{
	u64 table = cr3 & PAGE_MASK & ~(1ull << 63);

	*flags = 6;
	if (!cr3)
		return (va & PAGE_MASK) | 3;
	for (int level = 4; level >= 1; level--) {
		u64 e = *(u64 *)(ram + table + ((va >> (12 + 9 * (level - 1))) & 511) * 8);
		if (!(e & 1))
			return 0;
		*flags &= e;
		table = e & 0x000ffffffffff000;
		if (level == 1)
			return e;
		if (level == 2 && (e & 0x80))
			return ((table & ~0x1fffffull) | (va & 0x1ff000)) | (e & 0x8000000000000067);
	}
	return 0;
}

static void unmap_page(u32 index)
{
	inject(SYS_munmap, mapped[index].va, PAGE_SIZE, 0, 0, 0, 0);
	mapped[index] = mapped[--mapped_count];
}

static void flush(u64 va, bool all)
{
	for (u32 i = mapped_count; i-- > 0;)
		if (all ? mapped[i].va < DIRECT_BASE || mapped[i].va >= 0x500000000000 : mapped[i].va == (va & PAGE_MASK))
			unmap_page(i);
}

static void event(u32 vector, u32 error, u64 cr2)
{
	struct pvcs_v2 *p = pvcs();

	exits[X_EVENT].count++;
	if (!vcpu_struct)
		die("event before the PVCS was set");
	if (supervisor && (p->event_vector & 0xff00))
		die("triple fault");
	if (!supervisor) {
		p->user_cs = (u16)regs.cs;
		p->user_ss = (u16)regs.ss;
		p->user_gsbase = regs.gs_base;
	}
	p->eflags = (u32)(regs.eflags & ~0x200ull) | (supervisor ? p->event_flags & 0x200 : 0x200);
	p->rip = regs.rip;
	p->rcx = regs.rcx;
	p->r11 = regs.r11;
	p->event_vector = (u16)(vector | (supervisor ? 0x100 : 0));
	p->event_errcode = (u16)error;
	if (vector == 14)
		p->cr2 = cr2;
	if (supervisor)
		p->event_flags &= ~0x200ull;
	regs.r11 = 0x202;
	regs.eflags = 0x202;
	regs.rip = regs.rcx = event_entry + (supervisor ? PVM_SUPERVISOR_ENTRY : 0);
	if (!supervisor)
		regs.gs_base = kernel_gs_base;
	supervisor = true;
}

static void page_fault(u64 va)
{
	u64 flags, entry = walk(va, &flags);
	u64 address = va;
	/* The fault of a fetch names the instruction, or the page it continues on. */
	bool fetch = va == regs.rip || (va > regs.rip && va < regs.rip + 15 && !(va & ~PAGE_MASK));
	u32 user = supervisor ? 0 : 4;

	va &= PAGE_MASK;
	if (!entry || (!supervisor && !(flags & 4))) {
		event(14, user | (entry ? 1 : 0) | (fetch ? 16 : 0), address);
		return;
	}
	entry = (entry & ~6ull) | flags;
	for (u32 i = 0; i < mapped_count; i++) {
		if (mapped[i].va != va)
			continue;
		if (mapped[i].entry == entry) {
			/* The translation is as the guest wants it, so this was a forbidden write or fetch. */
			event(14, user | 1 | (fetch ? 16 : 2), address);
			return;
		}
		unmap_page(i);
		break;
	}
	exits[X_FILL].count++;
	int prot = PROT_READ | (flags & 2 ? PROT_WRITE : 0) | (entry >> 63 ? 0 : PROT_EXEC);
	u64 pa = entry & 0x000ffffffffff000;
	if (pa >= ram_size)
		die("translation outside RAM");
	if (inject(SYS_mmap, va, PAGE_SIZE, (u64)prot, MAP_SHARED | MAP_FIXED, (u64)ram_fd, pa) != (s64)va)
		die("mmap");
	mapped[mapped_count].va = va;
	mapped[mapped_count++].entry = entry;
}

static s64 wrmsr(u32 index, u64 value)
{
	switch (index) {
	case MSR_PVM_VCPU_STRUCT: vcpu_struct = value; return 0;
	case MSR_PVM_EVENT_ENTRY: event_entry = value; return 0;
	case MSR_PVM_RETU_RIP: retu_rip = value; return 0;
	case MSR_LSTAR: lstar = value; return 0;
	case MSR_KERNEL_GS_BASE: kernel_gs_base = value; return 0;
	case MSR_GS_BASE: regs.gs_base = value; return 0;
	default: return -EIO;
	}
}

static s64 hypercall(u64 number, u64 a0, u64 a1)
{
	switch (number) {
	case PVM_HC_LOAD_PGTBL:
		cr3 = a1;
		return 0;
	case PVM_HC_TLB_FLUSH:
	case PVM_HC_TLB_FLUSH_CURRENT:
		flush(0, true);
		return 0;
	case PVM_HC_TLB_INVLPG:
		flush(a0, false);
		return 0;
	case PVM_HC_RDMSR:
		return a0 == MSR_PVM_LINEAR_ADDRESS_RANGE ? (s64)0xffffffffffe0ffa0 : 0;
	case PVM_HC_WRMSR:
		return wrmsr((u32)a0, a1);
	default:
		return -1000;
	}
}

static void syscall_stop(void)
{
	u64 at = regs.rip - 2;
	struct pvcs_v2 *p = pvcs();

	regs.rax = regs.orig_rax;
	if (!supervisor) {
		exits[X_SYSCALL].count++;
		p->user_cs = (u16)regs.cs;
		p->user_ss = (u16)regs.ss;
		p->user_gsbase = regs.gs_base;
		p->eflags = (u32)regs.eflags;
		p->rip = regs.rip;
		p->rcx = 0xdead0001;
		p->r11 = 0xdead0002;
		regs.gs_base = kernel_gs_base;
		regs.r11 = 0x202;
		regs.eflags = 0x202;
		regs.rip = regs.rcx = lstar;
		supervisor = true;
	} else if (at == retu_rip) {
		exits[X_ERETU].count++;
		regs.cs = p->user_cs;
		regs.ss = p->user_ss;
		regs.gs_base = p->user_gsbase;
		regs.eflags = (p->eflags & 0x244dd5) | 0x202;
		regs.rip = p->rip;
		regs.rcx = p->rcx;
		regs.r11 = p->r11;
		supervisor = false;
	} else {
		exits[X_HYPERCALL].count++;
		regs.rax = (u64)hypercall(regs.rax, regs.rbx, regs.r10);
	}
}

static s64 channel_request(u64 gpa)
{
	struct { u32 command; s32 result; u64 buffer, length, argument; } *q = (void *)(ram + gpa);
	struct timespec now;
	s64 r = 0;

	switch (q->command) {
	case 1: case 2:
		r = write((int)q->command, ram + q->buffer, q->length);
		break;
	case 3:
		r = read(0, ram + q->buffer, q->length);
		break;
	case 4:
		kill(child, SIGKILL);
		if (getenv("NATIVE_HOST_STATS"))
			for (u32 i = 0; i < sizeof(exits) / sizeof(exits[0]); i++)
				fprintf(stderr, "%-12s %lu\n", exits[i].name, exits[i].count);
		exit((int)q->length);
	case 5:
		for (u64 i = 0; i < q->length; i += 8)
			fprintf(stderr, "unknown syscall %u: %u times\n", *(u32 *)(ram + q->buffer + i),
				*(u32 *)(ram + q->buffer + i + 4));
		break;
	case 6:
		clock_gettime(CLOCK_REALTIME, &now);
		*(u64 *)(ram + q->buffer) = (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
		break;
	case 7:
		r = getrandom(ram + q->buffer, q->length, 0);
		break;
	case 8:
		r = isatty(0) | isatty(1) << 1 | isatty(2) << 2;
		break;
	case 16:
		break;
	default:
		r = -ENOSYS;
	}
	return q->result = (s32)r;
}

/* Read guest memory at RIP for decoding. */
static void fetch(u8 *to, u64 n)
{
	for (u64 i = 0; i < n; i++) {
		u64 flags, e = walk(regs.rip + i, &flags);
		to[i] = e ? ram[(e & 0x000ffffffffff000) + ((regs.rip + i) & 4095)] : 0;
	}
}

static bool emulate_privileged(void)
{
	u8 b[16];
	u32 a, c, d;

	fetch(b, sizeof(b));
	exits[X_PRIVILEGED].count++;
	if (b[0] == 0xef) {
		if ((u16)regs.rdx == 0x500)
			channel_request((u32)regs.rax);
		regs.rip += 1;
	} else if (b[0] == 0xee) {
		regs.rip += 1;
	} else if (b[0] == 0xe6) {
		regs.rip += 2;
	} else if (b[0] == 0xec) {
		regs.rax = (regs.rax & ~0xffull) | 0x60;
		regs.rip += 1;
	} else if (b[0] == 0x0f && b[1] == 0x20) {
		/* MOV r64, CR4: the kernel only sets bits in what it read. */
		if ((b[2] & 0xf8) != 0xe0 || (b[2] & 7))
			return false;
		regs.rax = 0x10020;
		regs.rip += 3;
	} else if (b[0] == 0x0f && b[1] == 0x22) {
		regs.rip += 3;
	} else if (b[0] == 0x0f && b[1] == 0x01 && b[2] == 0xd1) {
		regs.rip += 3;
	} else if (b[0] == 0x0f && b[1] == 0x32) {
		regs.rax = regs.rdx = 0;
		regs.rip += 2;
	} else if (b[0] == 0x0f && b[1] == 0x30) {
		regs.rip += 2;
	} else if (!memcmp(b, "\x0f\x01\x3c\x25\x50\x56\x4d\xff\x0f\xa2", 10)) {
		u32 ebx = 0;
		a = (u32)regs.rax, c = d = 0;
		if (a == 0x40000000)
			a = 0x40000010, ebx = 0x4b4d564b, c = 0x564b4d56, d = 0x4d;
		else if (a == PVM_CPUID_VENDOR_FEATURES)
			ebx = PVM_SIGNATURE_EBX;
		regs.rax = a, regs.rbx = ebx, regs.rcx = c, regs.rdx = d;
		regs.rip += 10;
	} else {
		return false;
	}
	return true;
}

static void signal_stop(int sig)
{
	siginfo_t info;

	ptrace(PTRACE_GETSIGINFO, child, 0, &info);
	switch (sig) {
	case SIGSEGV:
		if (info.si_code == SI_KERNEL) {
			if (!supervisor || !emulate_privileged())
				event(13, 0, 0);
		} else {
			page_fault((u64)info.si_addr);
		}
		break;
	case SIGILL: event(6, 0, 0); break;
	case SIGFPE: event(info.si_code == FPE_INTDIV ? 0 : 19, 0, 0); break;
	case SIGTRAP: event(3, 0, 0); break;
	case SIGBUS: event(17, 0, 0); break;
	default: die(strsignal(sig));
	}
}

static void *load_file(const char *path, u64 *size)
{
	FILE *f = fopen(path, "rb");
	if (!f)
		die(path);
	fseek(f, 0, SEEK_END);
	*size = (u64)ftell(f);
	rewind(f);
	void *data = malloc(*size + 1);
	if (fread(data, 1, *size, f) != *size)
		die(path);
	fclose(f);
	return data;
}

static void boot(char **argv)
{
	u64 size;
	u8 *image = load_file(argv[1], &size);
	Elf64_Ehdr *h = (Elf64_Ehdr *)image;
	Elf64_Phdr *p = (Elf64_Phdr *)(image + h->e_phoff);

	for (int i = 0; i < h->e_phnum; i++)
		if (p[i].p_type == PT_LOAD)
			memcpy(ram + p[i].p_paddr, image + p[i].p_offset, p[i].p_filesz);
	u8 *bp = ram + BOOT_PARAMS;
	struct { u64 address, size; u32 type; } PACKED region = { 0x100000, ram_size - 0x100000, 1 };
	bp[0x1e8] = 1;
	memcpy(bp + 0x2d0, &region, sizeof(region));
	*(u32 *)(bp + 0x228) = COMMAND_LINE;
	u64 initrd_size;
	void *initrd = load_file(argv[3], &initrd_size);
	u64 at = (ram_size - initrd_size) & PAGE_MASK;
	memcpy(ram + at, initrd, initrd_size);
	*(u32 *)(bp + 0x218) = (u32)at;
	*(u32 *)(bp + 0x21c) = (u32)initrd_size;
	regs.rip = h->e_entry;
	regs.rsi = BOOT_PARAMS;
}

static void start_child(void)
{
	int status;

	child = fork();
	if (!child) {
		syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
		u8 *stub = mmap((void *)STUB, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		memcpy(stub, "\x0f\x05\xcc", 3);
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		_exit(1);
	}
	waitpid(child, &status, 0);
	ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	u64 rip = regs.rip, rsi = regs.rsi;
	ptrace(PTRACE_GETREGS, child, 0, &regs);
	inject(SYS_munmap, LOWEST, STUB - LOWEST, 0, 0, 0, 0);
	inject(SYS_munmap, STUB + PAGE_SIZE, TASK_SIZE - STUB - PAGE_SIZE, 0, 0, 0, 0);
	regs = (struct user_regs_struct){ .rip = rip, .rsi = rsi, .cs = regs.cs, .ss = regs.ss, .eflags = 0x202 };
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: native-host kernel.elf memory-MiB initrd.cpio\n");
		return 2;
	}
	ram_size = strtoull(argv[2], NULL, 0) << 20;
	ram_fd = memfd_create("ram", 0);
	if (ftruncate(ram_fd, (off_t)ram_size))
		die("ftruncate");
	ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
	boot(argv);
	start_child();
	for (;;) {
		int status;
		set_regs();
		ptrace(PTRACE_SYSEMU_REQUEST, child, 0, 0);
		waitpid(child, &status, 0);
		if (!WIFSTOPPED(status))
			die("the child is gone");
		ptrace(PTRACE_GETREGS, child, 0, &regs);
		if (WSTOPSIG(status) == (SIGTRAP | 0x80))
			syscall_stop();
		else
			signal_stop(WSTOPSIG(status));
	}
}
