/* What the entry code of all layers shares: parts of the frame of regs.h and the system call itself. */
#include "percpu.h"
#include "regs.h"

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

/* The part of the frame that a system call leaves unfilled; RCX and R11 are where the layer finds the program's. */
.macro PUSH_LAZY_REGS rcx:req, r11:req
	pushq %rax
	pushq \rcx
	pushq \r11
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
.endm

.macro POP_PRESERVED_REGS
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
.endm

/*
 * The system call RAX, from a frame filled down to the argument registers. No register is saved that C code
 * preserves. Leaves RSP at the argument registers, or continues at \full with RSP = the whole frame.
 */
.macro SYSTEM_CALL full:req
	pushq %rax
	subq $REGS_LAZY_SIZE, %rsp
	cmpq $511, %rax
	ja .Lunknown\@
	movq %r10, %rcx
	leaq syscall_table(%rip), %r11
	call *(%r11, %rax, 8)
.Lreturn\@:
	cmpl $0, %gs:PERCPU_WORK
	jne .Lwork\@
	addq $REGS_LAZY_SIZE + 8, %rsp
	.subsection 1
.Lunknown\@:
	call sys_unknown
	jmp .Lreturn\@
/* Something to do before the program continues: complete the frame and let C look at it. */
.Lwork\@:
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
	jmp \full
	.previous
.endm
