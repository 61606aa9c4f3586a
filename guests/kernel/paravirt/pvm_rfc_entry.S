/*
 * Entry points for PVM rfc-v1. As in v2, but that the hypervisor (or its switcher) exchanges RSP with the
 * kernel's and saves the program's in the PVCS, and that exceptions in the kernel have their frame on the
 * stack, from which ERETS returns.
 */
#include "entry.h"

	.section .text.entry, "ax"

	.balign 64
	.globl pvm_rfc_syscall_entry
pvm_rfc_syscall_entry:
	pushq %gs:RFC_PVCS_RSP
	pushq %gs:RFC_PVCS_EFLAGS
	pushq %gs:RFC_PVCS_RIP
	PUSH_ARGUMENT_REGS
	SYSTEM_CALL full=pvm_rfc_return_to_user
pvm_rfc_return_from_syscall:
	POP_ARGUMENT_REGS
	popq %gs:RFC_PVCS_RIP
	popq %r11
	movl %r11d, %gs:RFC_PVCS_EFLAGS
	popq %gs:RFC_PVCS_RSP
	/* fall through: RSP is where the next entry finds it */

/* ERETU: the SYSCALL at this very address returns to user mode. */
	.globl pvm_rfc_retu_rip
pvm_rfc_retu_rip:
	syscall
	ud2

/* regs.origin: the vector from bit 48, the error code from bit 32. */
.macro PUSH_ORIGIN error:req, vector:req
	movzwl \error, %edi
	movl \vector, %esi
	shlq $16, %rsi
	orq %rsi, %rdi
	shlq $32, %rdi
	pushq %rdi
.endm

/* EVENT_ENTRY: an exception, interrupt or INT 0x80 in the program. */
	.balign 64
	.globl pvm_rfc_event_entry
pvm_rfc_event_entry:
	pushq %gs:RFC_PVCS_RSP
	pushq %gs:RFC_PVCS_EFLAGS
	pushq %gs:RFC_PVCS_RIP
	PUSH_ARGUMENT_REGS
	PUSH_ORIGIN error=%gs:RFC_PVCS_EVENT_ERRCODE, vector=%gs:RFC_PVCS_EVENT_VECTOR
	PUSH_LAZY_REGS rcx=%gs:RFC_PVCS_RCX, r11=%gs:RFC_PVCS_R11
	movq %rsp, %rdi
	movq %gs:RFC_PVCS_CR2, %rsi
	call trap_from_user
	jmp pvm_rfc_return_to_user

/* pvm_rfc_enter_user(regs) */
	.globl pvm_rfc_enter_user
pvm_rfc_enter_user:
	movq %rdi, %rsp
	/* fall through */

/* RSP = the frame. Restores all registers from it. */
pvm_rfc_return_to_user:
	POP_PRESERVED_REGS
	popq %gs:RFC_PVCS_R11
	popq %gs:RFC_PVCS_RCX
	popq %rax
	addq $8, %rsp
	jmp pvm_rfc_return_from_syscall

#define FRAME_ERRCODE 0
#define FRAME_VECTOR 4
#define FRAME_RIP 8
#define FRAME_RFLAGS 24
#define FRAME_RSP 32
#define FRAME_RCX 48
#define FRAME_R11 56
/* How far the frame is from RSP when RSP, RFLAGS, RIP and the argument registers have been pushed. */
#define PUSHED 72

/* EVENT_ENTRY + 256: an exception in the kernel itself. RSP is at its frame. */
	.org pvm_rfc_event_entry + RFC_SUPERVISOR_EXCEPTION_ENTRY
	pushq FRAME_RSP(%rsp)
	pushq 8 + FRAME_RFLAGS(%rsp)
	pushq 16 + FRAME_RIP(%rsp)
	PUSH_ARGUMENT_REGS
	PUSH_ORIGIN error=PUSHED+FRAME_ERRCODE(%rsp), vector=PUSHED+FRAME_VECTOR(%rsp)
	PUSH_LAZY_REGS rcx=PUSHED+16+FRAME_RCX(%rsp), r11=PUSHED+24+FRAME_R11(%rsp)
	movq %rsp, %rdi
	movq %gs:RFC_PVCS_CR2, %rsi
	movq %rsp, %rbx
	andq $-16, %rsp
	call trap_from_kernel
	movq %rbx, %rsp
	/* C code may have chosen another place to continue. */
	movq REGS_RIP(%rsp), %rax
	movq %rax, REGS_SIZE + FRAME_RIP(%rsp)
	POP_PRESERVED_REGS
	addq $16, %rsp
	popq %rax
	addq $8, %rsp
	POP_ARGUMENT_REGS
	addq $24, %rsp

/* ERETS: the SYSCALL at this very address returns within the kernel, from the frame at RSP. */
	.globl pvm_rfc_rets_rip
pvm_rfc_rets_rip:
	syscall
	ud2

/* EVENT_ENTRY + 512: an interrupt in the kernel itself, which never lets one in. */
	.org pvm_rfc_event_entry + RFC_SUPERVISOR_INTERRUPT_ENTRY
	ud2

	.section .note.GNU-stack, "", @progbits
