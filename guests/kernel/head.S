/*
 * The first instructions: 64-bit mode, as a PVM supervisor or at privilege level 0, identity map, RSI = boot_params, at the load address.
 * boot_relocate() builds the kernel's page tables; the second half continues at the linked address.
 */
#include "layout.h"
#include "paravirt/pvm.h"

	.section .text.head, "ax"
	.globl _start
_start:
	cld
	leaq boot_stack_top(%rip), %rsp
	movq %rsi, %rdi
	call boot_relocate
	/* RAX = root of the new tables, which still map this page one to one. */
	movl %cs, %ecx
	testb $3, %cl
	jnz 1f
	movq %rax, %cr3
	jmp 2f
	/* One table for kernel and programs; v2 ignores the third argument. */
1:	movq %rax, %r10
	movq %rax, %rdx
	movl $PVM_HC_LOAD_PGTBL, %eax
	movl $PVM_LOAD_PGTBL_FLUSH, %ebx
	syscall
2:	movabsq $3f, %rax
	jmp *%rax
3:	leaq boot_stack_top(%rip), %rsp
	call kernel_main
	ud2

	.section .bss
	.balign 16
	.skip 32768
	.globl boot_stack_top
boot_stack_top:
	.section .note.GNU-stack, "", @progbits
