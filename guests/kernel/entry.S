/*
 * PVM entry points: system calls, events from user and from supervisor mode, and the way back.
 *
 * On every entry the hypervisor (or its switcher) has saved RIP, RFLAGS, RCX and R11 in the PVCS, set
 * R11 = 0x202, RCX = RIP = the entry point and loaded GS with the per-CPU page. The PVCS has room for
 * one event, so it is copied to the stack before anything that may fault. Virtual interrupts are off
 * in the whole kernel: it waits for nothing but the host channel, which is synchronous.
 */
#include "percpu.h"
#include "regs.h"

	.section .text.entry, "ax"

.macro PUSH_LAZY_REGS
	pushq %rax
	pushq %gs:PVCS_RCX
	pushq %gs:PVCS_R11
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
.endm

.macro PUSH_ARGUMENT_REGS
	pushq %rdi
	pushq %rsi
	pushq %rdx
	pushq %r10
	pushq %r8
	pushq %r9
.endm

.macro POP_ARGUMENT_REGS
	popq %r9
	popq %r8
	popq %r10
	popq %rdx
	popq %rsi
	popq %rdi
.endm

/*
 * The hot path: no call to the hypervisor, no register saved that C code preserves. A system call may
 * change RCX and R11, so what the PVCS holds of them is good enough on the way back.
 */
	.balign 64
	.globl syscall_entry
syscall_entry:
	movq %rsp, %gs:PERCPU_USER_RSP
	movq %gs:PERCPU_KERNEL_STACK, %rsp
	pushq %gs:PERCPU_USER_RSP
	pushq %gs:PVCS_EFLAGS
	pushq %gs:PVCS_RIP
	PUSH_ARGUMENT_REGS
	pushq %rax
	subq $REGS_LAZY_SIZE, %rsp
	cmpq $511, %rax
	ja unknown_syscall
	movq %r10, %rcx
	leaq syscall_table(%rip), %r11
	call *(%r11, %rax, 8)
syscall_return:
	cmpl $0, %gs:PERCPU_WORK
	jne syscall_work
	addq $REGS_LAZY_SIZE + 8, %rsp
return_from_syscall:
	POP_ARGUMENT_REGS
	popq %gs:PVCS_RIP
	popq %r11
	movl %r11d, %gs:PVCS_EFLAGS
	movq (%rsp), %rsp
	/* fall through */

/* ERETU: the SYSCALL at this very address returns to user mode. */
	.globl retu_rip
retu_rip:
	syscall
	ud2

unknown_syscall:
	call sys_unknown
	jmp syscall_return

/* Something to do before the program continues: complete the frame and let C look at it. */
syscall_work:
	testl $WORK_FULL_RESTORE, %gs:PERCPU_WORK
	jnz 1f
	movq %rax, REGS_RAX(%rsp)
	movq REGS_RIP(%rsp), %rcx
	movq %rcx, REGS_RCX(%rsp)
	movl REGS_RFLAGS(%rsp), %ecx
	movq %rcx, REGS_R11(%rsp)
	movq %rbx, REGS_RBX(%rsp)
	movq %rbp, REGS_RBX-8(%rsp)
	movq %r12, REGS_RBX-16(%rsp)
	movq %r13, REGS_RBX-24(%rsp)
	movq %r14, REGS_RBX-32(%rsp)
	movq %r15, REGS_RBX-40(%rsp)
1:	movq %rsp, %rdi
	call user_work
	jmp return_to_user

/* EVENT_ENTRY: an exception, interrupt or INT 0x80 in the program. */
	.balign 64
	.globl event_entry
event_entry:
	movq %rsp, %gs:PERCPU_USER_RSP
	movq %gs:PERCPU_KERNEL_STACK, %rsp
	pushq %gs:PERCPU_USER_RSP
	pushq %gs:PVCS_EFLAGS
	pushq %gs:PVCS_RIP
	PUSH_ARGUMENT_REGS
	pushq %gs:PVCS_USER_CS
	PUSH_LAZY_REGS
	movq %rsp, %rdi
	movq %gs:PVCS_CR2, %rsi
	movw $0, %gs:PVCS_EVENT_VECTOR
	call trap_from_user
	/* fall through */

/* RSP = the frame. Restores all registers from it. */
	.globl return_to_user
return_to_user:
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	popq %gs:PVCS_R11
	popq %gs:PVCS_RCX
	popq %rax
	addq $8, %rsp
	jmp return_from_syscall

/*
 * EVENT_ENTRY + 512: an event in the kernel itself. RSP is the interrupted one. The slot above RFLAGS
 * becomes the return address, so that POPF; RET restores everything.
 */
	.org event_entry + PVM_SUPERVISOR_ENTRY
supervisor_event_entry:
	pushq %rsp
	pushq %gs:PVCS_EFLAGS
	pushq %gs:PVCS_RIP
	PUSH_ARGUMENT_REGS
	pushq %gs:PVCS_USER_CS
	PUSH_LAZY_REGS
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
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	popq %r11
	popq %rcx
	popq %rax
	addq $8, %rsp
	POP_ARGUMENT_REGS
	addq $8, %rsp
	popfq
	ret

	.section .note.GNU-stack, "", @progbits
