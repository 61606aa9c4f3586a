/*
 * Entry points for PVM v2: system calls, events from user and from supervisor mode, and the way back.
 *
 * On every entry the hypervisor (or its switcher) has saved RIP, RFLAGS, RCX and R11 in the PVCS, set
 * R11 = 0x202, RCX = RIP = the entry point and loaded GS with the per-CPU page. The PVCS has room for
 * one event, so it is copied to the stack before anything that may fault. Virtual interrupts are off
 * in the whole kernel: it waits for nothing but the host channel, which is synchronous.
 */
#include "entry.h"

	.section .text.entry, "ax"

/*
 * The hot path: no call to the hypervisor. A system call may change RCX and R11, so what the PVCS holds of
 * them is good enough on the way back.
 */
	.balign 64
	.globl pvm_v2_syscall_entry
pvm_v2_syscall_entry:
	movq %rsp, %gs:PERCPU_USER_RSP
	movq %gs:PERCPU_KERNEL_STACK, %rsp
	pushq %gs:PERCPU_USER_RSP
	pushq %gs:PVCS_EFLAGS
	pushq %gs:PVCS_RIP
	PUSH_ARGUMENT_REGS
	SYSTEM_CALL full=pvm_v2_return_to_user
pvm_v2_return_from_syscall:
	POP_ARGUMENT_REGS
	popq %gs:PVCS_RIP
	popq %r11
	movl %r11d, %gs:PVCS_EFLAGS
	movq (%rsp), %rsp
	/* fall through */

/* ERETU: the SYSCALL at this very address returns to user mode. */
	.globl pvm_v2_retu_rip
pvm_v2_retu_rip:
	syscall
	ud2

/* EVENT_ENTRY: an exception, interrupt or INT 0x80 in the program. */
	.balign 64
	.globl pvm_v2_event_entry
pvm_v2_event_entry:
	movq %rsp, %gs:PERCPU_USER_RSP
	movq %gs:PERCPU_KERNEL_STACK, %rsp
	pushq %gs:PERCPU_USER_RSP
	pushq %gs:PVCS_EFLAGS
	pushq %gs:PVCS_RIP
	PUSH_ARGUMENT_REGS
	pushq %gs:PVCS_USER_CS
	PUSH_LAZY_REGS rcx=%gs:PVCS_RCX, r11=%gs:PVCS_R11
	movq %rsp, %rdi
	movq %gs:PVCS_CR2, %rsi
	movw $0, %gs:PVCS_EVENT_VECTOR
	call trap_from_user
	jmp pvm_v2_return_to_user

/* pvm_v2_enter_user(regs) */
	.globl pvm_v2_enter_user
pvm_v2_enter_user:
	movq %rdi, %rsp
	/* fall through */

/* RSP = the frame. Restores all registers from it. */
pvm_v2_return_to_user:
	POP_PRESERVED_REGS
	popq %gs:PVCS_R11
	popq %gs:PVCS_RCX
	popq %rax
	addq $8, %rsp
	jmp pvm_v2_return_from_syscall

/*
 * EVENT_ENTRY + 512: an event in the kernel itself. RSP is the interrupted one. The slot above RFLAGS
 * becomes the return address, so that POPF; RET restores everything.
 */
	.org pvm_v2_event_entry + PVM_SUPERVISOR_ENTRY
pvm_v2_supervisor_event_entry:
	pushq %rsp
	pushq %gs:PVCS_EFLAGS
	pushq %gs:PVCS_RIP
	PUSH_ARGUMENT_REGS
	pushq %gs:PVCS_USER_CS
	PUSH_LAZY_REGS rcx=%gs:PVCS_RCX, r11=%gs:PVCS_R11
	movq %rsp, %rdi
	movq %gs:PVCS_CR2, %rsi
	/* Another event may be taken from here on. */
	movw $0, %gs:PVCS_EVENT_VECTOR
	movq %rsp, %rbx
	andq $-16, %rsp
	call trap_from_kernel
	movq %rbx, %rsp
	movq REGS_RIP(%rsp), %rcx
	movq %rcx, REGS_RSP(%rsp)
	movl REGS_RFLAGS(%rsp), %ecx
	movq %rcx, REGS_RFLAGS(%rsp)
	POP_PRESERVED_REGS
	popq %r11
	popq %rcx
	popq %rax
	addq $8, %rsp
	POP_ARGUMENT_REGS
	addq $8, %rsp
	popfq
	ret

	.section .note.GNU-stack, "", @progbits
