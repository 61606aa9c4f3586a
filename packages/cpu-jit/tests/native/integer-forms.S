# The instruction forms whose results integer-vectors.c records. Conventions: rax destination, rcx source and count, rbx and
# rdx further operands, rsi, rdi, rsp and rbp pointers into 64 bytes of memory.

# One row of the form table: code, its end, text, cases. The code returns to r15, since rsp may be anywhere.
.macro form cases, text
  .pushsection .snippets, "ax"
771: \text
772: jmp *%r15
  .popsection
  .pushsection .rodata
773: .asciz "\text"
  .popsection
  .pushsection form_table, "a"
  .quad 771b, 772b, 773b
  .quad \cases
  .popsection
.endm

# Every operand shape of a two-operand arithmetic instruction.
.macro two op
  form 24, "\op\()b %cl,%al"
  form 8, "\op\()b %ah,%cl"
  form 8, "\op\()b %bl,%dh"
  form 24, "\op\()w %cx,%ax"
  form 24, "\op\()l %ecx,%eax"
  form 24, "\op\()q %rcx,%rax"
  form 6, "\op\()l %eax,%eax"
  form 12, "\op\()b (%rdi),%al"
  form 12, "\op\()w (%rdi),%ax"
  form 12, "\op\()l (%rdi),%eax"
  form 12, "\op\()q (%rdi),%rax"
  twoToMemory 12, \op
  form 8, "\op\()b $0x7f,%al"
  form 8, "\op\()b $-5,(%rdi)"
  form 8, "\op\()w $0x1234,%ax"
  form 8, "\op\()w $-3,%cx"
  form 8, "\op\()l $0x12345678,%eax"
  form 8, "\op\()l $-100,(%rdi)"
  form 8, "\op\()q $-0x12345678,%rax"
  form 8, "\op\()q $-100,(%rdi)"
.endm
.macro twoToMemory cases, op
  form \cases, "\op\()b %cl,(%rdi)"
  form \cases, "\op\()w %cx,(%rdi)"
  form \cases, "\op\()l %ecx,(%rdi)"
  form \cases, "\op\()q %rcx,(%rdi)"
.endm
.macro locked op
  form 6, "lock \op\()b %cl,(%rdi)"
  form 6, "lock \op\()q %rcx,(%rdi)"
.endm
.macro one cases, op
  form \cases, "\op\()b %al"
  form \cases, "\op\()b %ah"
  form \cases, "\op\()w %ax"
  form \cases, "\op\()l %eax"
  form \cases, "\op\()q %rax"
  form \cases, "\op\()b (%rdi)"
  form \cases, "\op\()w (%rdi)"
  form \cases, "\op\()l (%rdi)"
  form \cases, "\op\()q (%rdi)"
.endm

.irp op, add, or, adc, sbb, and, sub, xor, cmp
  two \op
.endr
.irp op, test
  form 12, "\op\()b %cl,%al"
  form 12, "\op\()w %cx,%ax"
  form 12, "\op\()l %ecx,%eax"
  form 12, "\op\()q %rcx,(%rdi)"
  form 6, "\op\()b $0x81,%al"
  form 6, "\op\()l $0x80000001,(%rdi)"
  form 6, "\op\()q $-2,%rax"
.endr
.irp op, add, or, adc, sbb, and, sub, xor, xadd
  locked \op
.endr
.irp op, inc, dec, neg, not
  one 12, \op
.endr
form 6, "lock incl (%rdi)"
form 6, "lock negq (%rdi)"
form 12, "add %rcx,%rax; adc %rbx,%rdx"
form 12, "sub %ecx,%eax; sbb %ebx,%edx; sbb %rsi,%rsi"
form 8, "add %cl,%al; inc %ah; adc $0,%bl"

# ------------------------------------------------------------------ shifts
.macro shift op
  .irp n, 0, 1, 3, 7, 8, 9, 16, 17, 31
    form 6, "\op\()b $\n,%al"
    form 6, "\op\()w $\n,%ax"
    form 6, "\op\()l $\n,%eax"
  .endr
  .irp n, 0, 1, 2, 31, 32, 33, 63, 64
    form 6, "\op\()q $\n,%rax"
  .endr
  form 40, "\op\()b %cl,%al"
  form 40, "\op\()w %cl,%ax"
  form 40, "\op\()l %cl,%eax"
  form 40, "\op\()q %cl,%rax"
  form 12, "\op\()b %cl,%ah"
  form 6, "\op\()b $1,(%rdi)"
  form 6, "\op\()w $5,(%rdi)"
  form 6, "\op\()l $9,(%rdi)"
  form 12, "\op\()b %cl,(%rdi)"
  form 12, "\op\()w %cl,(%rdi)"
  form 12, "\op\()l %cl,(%rdi)"
  form 12, "\op\()q %cl,(%rdi)"
  form 8, "\op\()b %cl,%cl"
.endm
.irp op, rol, ror, rcl, rcr, shl, shr, sar
  shift \op
.endr
.irp op, shld, shrd
  .irp n, 0, 1, 4, 15, 16, 17, 20, 31
    form 6, "\op\()w $\n,%bx,%ax"
    form 6, "\op\()l $\n,%ebx,%eax"
    form 6, "\op\()q $\n,%rbx,%rax"
  .endr
  form 40, "\op\()w %cl,%bx,%ax"
  form 40, "\op\()l %cl,%ebx,%eax"
  form 40, "\op\()q %cl,%rbx,%rax"
  form 12, "\op\()w %cl,%bx,(%rdi)"
  form 12, "\op\()l %cl,%ebx,(%rdi)"
  form 12, "\op\()q %cl,%rbx,(%rdi)"
.endr

# ------------------------------------------------------------------ multiplication, division
.irp op, mul, imul, div, idiv
  form 40, "\op\()b %cl"
  form 40, "\op\()w %cx"
  form 40, "\op\()l %ecx"
  form 40, "\op\()q %rcx"
  form 12, "\op\()b %ah"
  form 12, "\op\()b (%rdi)"
  form 12, "\op\()w (%rdi)"
  form 12, "\op\()l (%rdi)"
  form 12, "\op\()q (%rdi)"
.endr
.irp op, div, idiv
  form 24, "cwd; \op\()w %cx"
  form 24, "cdq; \op\()l %ecx"
  form 24, "cqo; \op\()q %rcx"
  form 24, "xor %edx,%edx; \op\()q %rcx"
  form 24, "movsbq %dl,%rdx; movslq %ecx,%rcx; \op\()q %rcx"
.endr
form 24, "imul %cx,%ax"
form 24, "imul %ecx,%eax"
form 24, "imul %rcx,%rax"
form 12, "imul (%rdi),%rax"
form 12, "imul $-5,%ecx,%eax"
form 12, "imul $0x12345,%rcx,%rax"
form 12, "imul $7,%cx,%ax"
form 6, "imul $0,(%rdi),%eax"
form 12, "mulx %rcx,%rbx,%rax"
form 12, "mulx %ecx,%ebx,%eax"
form 6, "mulx (%rdi),%rax,%rax"

# ------------------------------------------------------------------ moves
form 6, "mov %cl,%ah"
form 6, "mov %ax,%cx"
form 6, "mov %ecx,%eax"
form 6, "mov %rcx,(%rdi)"
form 6, "mov (%rdi),%bh"
form 6, "movb $0x80,(%rdi)"
form 6, "movq $-2,(%rdi)"
form 6, "movabs $0x123456789abcdef0,%rax"
form 6, "mov $0x89abcdef,%eax"
form 6, "mov $-1,%rax"
.irp op, movz, movs
  form 8, "\op\()bw %cl,%ax"
  form 8, "\op\()bl %ch,%eax"
  form 8, "\op\()bq %cl,%rax"
  form 8, "\op\()wl %cx,%eax"
  form 8, "\op\()wq (%rdi),%rax"
.endr
form 8, "movslq %ecx,%rax"
form 4, ".byte 0x63,0xc1"
form 6, "lea 5(%rax,%rcx,8),%rbx"
form 6, "lea 5(%eax,%ecx,4),%rbx"
form 6, "lea -0x12345(%rax),%ebx"
form 6, "lea (%rax,%rcx,2),%bx"
form 6, "xchg %al,%ah"
form 6, "xchg %ecx,%eax"
form 6, "xchg %rcx,(%rdi)"
form 6, "xchg %bl,(%rdi)"
form 6, "bswap %eax"
form 6, "bswap %rax"
form 6, "movbe (%rdi),%ax"
form 6, "movbe (%rdi),%eax"
form 6, "movbe %rax,(%rdi)"
form 6, "movnti %rax,(%rdi)"
form 8, "cbw"
form 8, "cwde"
form 8, "cdqe"
form 8, "cwd"
form 8, "cdq"
form 8, "cqo"
form 8, "lahf"
form 8, "sahf"
form 4, "clc"
form 4, "stc"
form 4, "cmc"
form 6, "push %rax"
form 6, "push %rsp"
form 6, "pushw %cx"
form 6, "push (%rdi)"
form 6, "push $-2"
form 6, "push $0x12345678"
form 6, "pop %rax"
form 6, "pop %rsp"
form 6, "popw %cx"
form 6, "pop (%rdi)"
form 6, "pop 8(%rsp)"
form 4, "leave"
form 4, "push %rbp; mov %rsp,%rbp; leave"
form 4, "enter $8,$0"
form 4, "mov %rdi,%rbx; and $15,%eax; xlat"
form 8, "push %rax; andl $0x8d5,(%rsp); popf"
.irp cc, o, no, b, ae, z, nz, be, a, s, ns, p, np, l, ge, le, g
  form 8, "cmov\cc %ecx,%eax"
  form 8, "cmov\cc (%rdi),%rax"
  form 8, "set\cc %ah"
  form 8, "j\cc 1f; inc %rbx; 1: nop"
.endr
.irp op, add, sub, and, inc, dec, neg
  .irp cc, o, b, be, l, le, s, p
    .ifc \op,inc
      form 8, "incb %cl; set\cc %al; set\cc (%rdi)"
    .else
    .ifc \op,dec
      form 8, "decw %cx; set\cc %al"
    .else
    .ifc \op,neg
      form 8, "negl %ecx; set\cc %al"
    .else
      form 8, "\op %bl,%cl; set\cc %al; j\cc 1f; inc %rdx; 1: nop"
      form 8, "\op %rbx,%rcx; set\cc %al; cmov\cc %rbx,%rdx"
    .endif
    .endif
    .endif
  .endr
.endr
form 4, "mov $3,%ecx; 1: add %rcx,%rax; loop 1b"
form 6, "and $3,%ecx; or $1,%ecx; 1: add $3,%eax; test $8,%al; loope 1b"
form 6, "and $3,%ecx; or $1,%ecx; 1: add $3,%eax; test $8,%al; loopne 1b"
form 6, "and $1,%ecx; jrcxz 1f; inc %rax; 1: nop"
form 6, "shl $32,%rcx; jecxz 1f; inc %rax; 1: nop"

# ------------------------------------------------------------------ bits
.irp op, bt, bts, btr, btc
  form 12, "\op %cx,%ax"
  form 12, "\op %ecx,%eax"
  form 12, "\op %rcx,%rax"
  form 6, "\op\()w $17,%ax"
  form 6, "\op\()l $31,(%rdi)"
  form 6, "\op\()q $40,(%rdi)"
  form 12, "movsbw %cl,%cx; \op %cx,(%rdi)"
  form 12, "movsbl %cl,%ecx; \op %ecx,(%rdi)"
  form 12, "movsbq %cl,%rcx; \op %rcx,(%rdi)"
.endr
.irp op, bsf, bsr, popcnt, lzcnt, tzcnt
  form 24, "\op %cx,%ax"
  form 24, "\op %ecx,%eax"
  form 24, "\op %rcx,%rax"
  form 6, "\op (%rdi),%eax"
.endr
.irp op, andn
  form 12, "\op %rcx,%rbx,%rax"
  form 12, "\op %ecx,%ebx,%eax"
.endr
.irp op, pdep, pext
  form 12, "\op %rcx,%rbx,%rax"
  form 12, "\op %ecx,%ebx,%eax"
.endr
.irp op, bextr, bzhi, shlx, shrx, sarx
  form 24, "\op %rcx,%rbx,%rax"
  form 24, "\op %ecx,%ebx,%eax"
  form 6, "\op %rcx,(%rdi),%rax"
.endr
form 24, "movzwl %cx,%ecx; and $0x3f3f,%ecx; bextr %rcx,%rbx,%rax"
.irp op, blsi, blsr, blsmsk
  form 24, "\op %rcx,%rax"
  form 24, "\op %ecx,%eax"
.endr
form 6, "rorx $7,%rcx,%rax"
form 6, "rorx $39,%ecx,%eax"
form 12, "adcx %rcx,%rax; adox %rbx,%rax"
form 12, "adcx %ecx,%eax"
form 12, "adox (%rdi),%eax"
form 6, "crc32b %cl,%eax"
form 6, "crc32w %cx,%eax"
form 6, "crc32l %ecx,%eax"
form 6, "crc32q (%rdi),%rax"

# ------------------------------------------------------------------ exchange and compare
form 8, "xadd %cl,%al"
form 8, "xadd %ecx,%eax"
form 8, "xadd %eax,%eax"
form 8, "xadd %rcx,(%rdi)"
form 8, "cmpxchg %cl,%bl"
form 8, "cmpxchg %ecx,%ebx"
form 8, "mov %eax,%ebx; cmpxchg %ecx,%ebx"
form 8, "cmpxchg %rcx,(%rdi)"
form 8, "mov (%rdi),%rax; cmpxchg %rcx,(%rdi)"
form 8, "mov (%rdi),%eax; lock cmpxchg %ecx,(%rdi)"
form 4, "cmpxchg8b (%rdi)"
form 4, "mov (%rdi),%eax; mov 4(%rdi),%edx; lock cmpxchg8b (%rdi)"
form 4, "cmpxchg16b (%rdi)"
form 4, "mov (%rdi),%rax; mov 8(%rdi),%rdx; lock cmpxchg16b (%rdi)"

# ------------------------------------------------------------------ strings
.irp s, b, w, l, q
  form 2, "movs\s"
  form 2, "std; movs\s; cld"
  form 2, "stos\s"
  form 2, "lods\s"
  form 4, "cmps\s"
  form 4, "scas\s"
  form 2, "mov $2,%ecx; rep movs\s"
  form 2, "xor %ecx,%ecx; rep movs\s"
  form 2, "mov $2,%ecx; rep stos\s"
  form 2, "mov $2,%ecx; std; rep stos\s; cld"
  form 2, "mov $3,%ecx; rep lods\s"
  form 4, "mov $3,%ecx; repe cmps\s"
  form 4, "mov $3,%ecx; repne cmps\s"
  form 4, "mov $3,%ecx; repne scas\s"
  form 4, "mov $2,%ecx; std; repe scas\s; cld"
  form 2, "xor %ecx,%ecx; repe cmps\s"
.endr
form 2, "lea 1(%rdi),%rsi; xchg %rsi,%rdi; mov $7,%ecx; rep movsb"
form 2, "addr32 movsb"
form 2, "addr32 lodsl"

# ------------------------------------------------------------------ run_form(struct state *)
.text
.globl run_form
run_form:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rdi, %r14
  mov %rsp, %r13
  pushq 72(%r14)
  popfq
  mov 0(%r14), %rax
  mov 8(%r14), %rcx
  mov 16(%r14), %rdx
  mov 24(%r14), %rbx
  mov 32(%r14), %rsp
  mov 40(%r14), %rbp
  mov 48(%r14), %rsi
  mov 56(%r14), %rdi
  mov 64(%r14), %r8
  lea form_done(%rip), %r15
  jmp *80(%r14)
.globl form_done
form_done:
  mov %rax, 0(%r14)
  mov %rcx, 8(%r14)
  mov %rdx, 16(%r14)
  mov %rbx, 24(%r14)
  mov %rsp, 32(%r14)
  mov %rbp, 40(%r14)
  mov %rsi, 48(%r14)
  mov %rdi, 56(%r14)
  mov %r8, 64(%r14)
  mov %r13, %rsp
  pushfq
  popq 72(%r14)
  cld
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
.section .note.GNU-stack,"",@progbits
