/* Entry of the boot CPU, and the way of the others from real mode to C. */
#include "layout.h"

	.code64
	.globl start
start:
	lea	boot_stack_end(%rip), %rsp
	lgdt	gdt_register(%rip)
	mov	$DATA_SELECTOR, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	pushq	$CODE_SELECTOR
	lea	1f(%rip), %rax
	push	%rax
	lretq
1:	call	boot_main
	ud2

/* Copied to TRAMPOLINE. A start-up IPI begins here, CS = TRAMPOLINE >> 4. */
	.code16
	.globl trampoline, trampoline_end
trampoline:
	cli
	mov	%cs, %ax
	mov	%ax, %ds
	lgdtl	trampoline_gdt - trampoline
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$CODE32_SELECTOR, $(TRAMPOLINE + protected - trampoline)
	.align 8
trampoline_gdt:
	.word	gdt_end - gdt - 1
	.long	gdt
	.code32
protected:
	mov	$DATA_SELECTOR, %eax
	mov	%eax, %ds
	mov	%eax, %ss
	mov	$CR4_PAE, %eax
	mov	%eax, %cr4
	mov	$page_tables, %eax
	mov	%eax, %cr3
	mov	$MSR_EFER, %ecx
	rdmsr
	or	$EFER_LME, %eax
	wrmsr
	mov	%cr0, %eax
	or	$CR0_PG, %eax
	mov	%eax, %cr0
	ljmpl	$CODE_SELECTOR, $(TRAMPOLINE + long_mode - trampoline)
	.code64
long_mode:
	mov	$1, %eax
	cpuid
	shr	$24, %ebx
	mov	%ebx, %edi
	inc	%ebx
	shl	$STACK_SHIFT, %ebx
	mov	$stacks, %rsp
	add	%rbx, %rsp
	mov	$secondary_main, %rax
	call	*%rax
	ud2
trampoline_end:

	.section .data
	.align 16
	.globl gdt
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff	/* CODE32_SELECTOR */
	.quad	0x00af9b000000ffff	/* CODE_SELECTOR */
	.quad	0x00cf93000000ffff	/* DATA_SELECTOR */
gdt_end:
gdt_register:
	.word	gdt_end - gdt - 1
	.quad	gdt

	.section .bss
	.align 16
	.skip	16384
boot_stack_end:
