/* The frame every entry builds on the kernel stack, and its offsets for assembly. */
#pragma once
#include "types.h"

#define REGS_RBX 40
#define REGS_R11 48
#define REGS_RCX 56
#define REGS_RAX 64
#define REGS_RIP 128
#define REGS_RFLAGS 136
#define REGS_RSP 144
#define REGS_SIZE 152
/* Bytes of the part that the syscall fast path leaves unfilled: R15 ... RAX. */
#define REGS_LAZY_SIZE 72

#ifndef __ASSEMBLER__
struct regs {
	u64 r15, r14, r13, r12, rbp, rbx;
	u64 r11, rcx, rax;
	/* Syscall number, or for events the error code in bits 32 to 47 and the vector in bits 48 to 55. */
	u64 origin;
	u64 r9, r8, r10, rdx, rsi, rdi;
	u64 rip;
	/* Low 32 bits RFLAGS; the high half is noise (PVCS.pkru). */
	u64 rflags;
	u64 rsp;
};
_Static_assert(offsetof(struct regs, rbx) == REGS_RBX, "frame layout");
_Static_assert(offsetof(struct regs, r11) == REGS_R11, "frame layout");
_Static_assert(offsetof(struct regs, rip) == REGS_RIP, "frame layout");
_Static_assert(offsetof(struct regs, rsp) == REGS_RSP, "frame layout");
_Static_assert(sizeof(struct regs) == REGS_SIZE, "frame layout");
#endif
