#include "panic.h"
#include "console.h"
#include "regs.h"
#include "string.h"

void panic(const char *reason)
{
	console_message("guest kernel panic: ");
	console_message(reason);
	console_message("\n");
	host_poweroff(PANIC_EXIT_CODE, 0);
}

void panic_regs(const char *reason, const struct regs *r, u32 vector, u32 error, u64 address)
{
	char line[512];

	format(line, sizeof(line),
	       "vector %u error 0x%x address 0x%lx\n"
	       "rip 0x%lx rsp 0x%lx rflags 0x%x\n"
	       "rax 0x%lx rbx 0x%lx rcx 0x%lx rdx 0x%lx rsi 0x%lx rdi 0x%lx rbp 0x%lx\n",
	       vector, error, address, r->rip, r->rsp, (u32)r->rflags,
	       r->rax, r->rbx, r->rcx, r->rdx, r->rsi, r->rdi, r->rbp);
	console_message(line);
	panic(reason);
}
