/*
 * Entry points at privilege level 0: SYSCALL, the 256 vectors of the IDT, and the way back by SYSRET or IRETQ.
 * Interrupts are off in the whole kernel: it waits for nothing but the host channel, which is synchronous.
 * In the kernel GS is the per-CPU page and MSR_KERNEL_GS_BASE the program's base.
 */
#include "entry.h"
#include "cpu.h"
#include "paravirt/native.h"

	.section .text.entry, "ax"

	.balign 64
	.globl native_syscall_entry
native_syscall_entry:
	swapgs
	movq %rsp, %gs:PERCPU_USER_RSP
	movq %gs:PERCPU_KERNEL_STACK, %rsp
	pushq %gs:PERCPU_USER_RSP
	pushq %r11
	pushq %rcx
	PUSH_ARGUMENT_REGS
	SYSTEM_CALL full=native_return_to_user
	POP_ARGUMENT_REGS
	/* RCX is canonical: no program can have code in the last page below TASK_SIZE's end (layout.h). */
	popq %rcx
	popq %r11
	popq %rsp
	swapgs
	sysretq

/* 16 bytes a vector. The stack has the vector over the error code over what the CPU pushed. */
	.balign 16
	.globl native_vectors
native_vectors:
	vector = 0
	.rept 256
	.balign NATIVE_VECTOR_SIZE
	/* #DF #TS #NP #SS #GP #PF #AC #CP #VC #SX push an error code (SDM 3A, table 6-1; APM 2, table 8-1). */
	.if (vector > 31) || !((0x60227d00 >> (vector & 31)) & 1)
	pushq $0
	.endif
	pushq $vector
	jmp native_event
	vector = vector + 1
	.endr

#define FRAME_VECTOR 0
#define FRAME_ERROR 8
#define FRAME_RIP 16
#define FRAME_CS 24
#define FRAME_RFLAGS 32
#define FRAME_RSP 40

/* regs.origin from the vector and error code at \offset(\base): the vector from bit 48, the error code from bit 32. */
.macro PUSH_ORIGIN base:req, offset:req
	movq \offset + FRAME_VECTOR(\base), %rdi
	movzwl \offset + FRAME_ERROR(\base), %esi
	shlq $16, %rdi
	orq %rsi, %rdi
	shlq $32, %rdi
	pushq %rdi
.endm

native_event:
	cld
	testb $3, FRAME_CS(%rsp)
	jz native_kernel_event
	swapgs
	movq %rax, %gs:PERCPU_SCRATCH
/* An event of the program. GS is the kernel's, RAX in the scratch word. */
native_user_event:
	movq %rsp, %rax
	movq %gs:PERCPU_KERNEL_STACK, %rsp
	pushq FRAME_RSP(%rax)
	pushq FRAME_RFLAGS(%rax)
	pushq FRAME_RIP(%rax)
	PUSH_ARGUMENT_REGS
	PUSH_ORIGIN base=%rax, offset=0
	movq %gs:PERCPU_SCRATCH, %rax
	PUSH_LAZY_REGS rcx=%rcx, r11=%r11
	movq %rsp, %rdi
	movq %cr2, %rsi
	call trap_from_user
	jmp native_return_to_user

/* native_enter_user(regs) */
	.globl native_enter_user
native_enter_user:
	movq %rdi, %rsp
	/* fall through */

/* RSP = the frame. Restores all registers from it. */
native_return_to_user:
	POP_PRESERVED_REGS
	popq %r11
	popq %rcx
	popq %rax
	addq $8, %rsp
	POP_ARGUMENT_REGS
	/* RIP, RFLAGS and RSP of the frame remain; IRETQ wants CS and SS as well. */
	andq $NATIVE_RFLAGS_USER, 8(%rsp)
	orq $NATIVE_RFLAGS_SET, 8(%rsp)
	pushq $USER_DS
	pushq 24(%rsp)
	pushq 24(%rsp)
	pushq $USER_CS
	pushq 32(%rsp)
	swapgs
native_iretq:
	iretq

/* An event in the kernel itself, on the kernel's stack or one of the TSS's. */
native_kernel_event:
	pushq %rax
	leaq native_iretq(%rip), %rax
	cmpq %rax, 8 + FRAME_RIP(%rsp)
	popq %rax
	je native_bad_return
	pushq FRAME_RSP(%rsp)
	pushq 8 + FRAME_RFLAGS(%rsp)
	pushq 16 + FRAME_RIP(%rsp)
	PUSH_ARGUMENT_REGS
	PUSH_ORIGIN base=%rsp, offset=72
	PUSH_LAZY_REGS rcx=%rcx, r11=%r11
	movq %rsp, %rdi
	movq %cr2, %rsi
	movq %rsp, %rbx
	andq $-16, %rsp
	call trap_from_kernel
	movq %rbx, %rsp
	/* C code may have chosen another place to continue. */
	movq REGS_RIP(%rsp), %rax
	movq %rax, REGS_SIZE + FRAME_RIP(%rsp)
	POP_PRESERVED_REGS
	popq %r11
	popq %rcx
	popq %rax
	addq $8, %rsp
	POP_ARGUMENT_REGS
	addq $24 + 16, %rsp
	iretq

/*
 * The program's RIP was not canonical, so IRETQ itself faulted, with all registers but GS restored. The fault is
 * the program's: put what IRETQ would have loaded where an event of the program has it.
 */
native_bad_return:
	swapgs
	movq %rax, %gs:PERCPU_SCRATCH
	movq FRAME_RSP(%rsp), %rax
	pushq 0(%rax)
	popq FRAME_RIP(%rsp)
	pushq 16(%rax)
	popq FRAME_RFLAGS(%rsp)
	pushq 24(%rax)
	popq FRAME_RSP(%rsp)
	jmp native_user_event

	.section .note.GNU-stack, "", @progbits
