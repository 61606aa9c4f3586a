/*
 * The first instructions: 64-bit supervisor mode, identity map, RSI = boot_params, at the load address.
 * boot_relocate() builds the kernel's page tables; the second half continues at the linked address.
 */
#include "layout.h"
#include "pvm.h"

	.section .text.head, "ax"
	.globl _start
_start:
	cld
	leaq boot_stack_top(%rip), %rsp
	movq %rsi, %rdi
	call boot_relocate
	/* RAX = root of the new tables, which still map this page one to one. */
	movq %rax, %r10
	movl $PVM_HC_LOAD_PGTBL, %eax
	movl $PVM_LOAD_PGTBL_FLUSH, %ebx
	syscall
	movabsq $1f, %rax
	jmp *%rax
1:	leaq boot_stack_top(%rip), %rsp
	call kernel_main
	ud2

/* enter_user(regs): leave the boot stack for good and start the program. */
	.globl enter_user
enter_user:
	movq %rdi, %rsp
	jmp return_to_user

	.section .bss
	.balign 16
	.skip 32768
	.globl boot_stack_top
boot_stack_top:
	.section .note.GNU-stack, "", @progbits
