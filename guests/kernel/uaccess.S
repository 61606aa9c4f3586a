/*
 * Copies between kernel and user memory. A fault on a user address inside
 * [uaccess_begin, uaccess_end) that cannot be resolved continues at uaccess_fault.
 */
	.text
	.globl uaccess_begin, uaccess_end, uaccess_fault, raw_copy, raw_clear

uaccess_begin:
/* u64 raw_copy(void *to, const void *from, u64 n): bytes not copied. */
raw_copy:
	movq %rdx, %rcx
	rep movsb
	movq %rcx, %rax
	ret
/* u64 raw_clear(void *to, u64 n): bytes not cleared. */
raw_clear:
	movq %rsi, %rcx
	xorl %eax, %eax
	rep stosb
	movq %rcx, %rax
	ret
uaccess_end:

uaccess_fault:
	movq %rcx, %rax
	ret
	.section .note.GNU-stack, "", @progbits
