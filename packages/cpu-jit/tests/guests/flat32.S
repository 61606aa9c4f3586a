# 32-bit flat protected mode, hot enough to be compiled: stack, calls, strings, segment bases, partial registers. Writes a checksum to port 0xe9,
# then 'K' to port 0xf4. Loaded at 0x8000, entered in real mode at 0:0x8000.
    .text
    .globl _start
    .code16
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    lgdt gdt_pointer
    movl $1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $start32
    .code32
start32:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x18, %ax
    movw %ax, %gs
    movw $0x20, %ax
    movw %ax, %fs
    movl $0x40000, %esp
    xorl %edi, %edi
    movl $0x12345678, %esi
    movl $3000, %ecx
outer:
    pushl %ecx
    call work
    popl %ecx
    # Another loop, with a jump table.
    movl %ecx, %eax
    andl $3, %eax
    jmp *table(,%eax,4)
c0: addl $7, %esi
    jmp done
c1: rorl $3, %esi
    jmp done
c2: xorl %ecx, %esi
    jmp done
c3: bswapl %esi
done:
    # DS limited for a while: compiled code must not run.
    testl $0xff, %ecx
    jnz 1f
    movw $0x20, %ax
    movw %ax, %ds
    movl counter - 0x8000, %eax
    call limited
    movw $0x10, %ax
    movw %ax, %ds
1:  decl %ecx
    jnz outer
    movl $4, %ecx
2:  movl %esi, %eax
    outb %al, $0xe9
    roll $8, %esi
    loop 2b
    movl %edi, %eax
    outb %al, $0xe9
    movb $'K', %al
    outb %al, $0xf4
    lidt null_pointer
    ud2
limited:
    addl %eax, %esi
    ret
work:
    enter $16, $0
    movl %esi, -4(%ebp)
    addl -4(%ebp), %edi
    movw %di, -6(%ebp)
    movb -5(%ebp), %al
    addb %al, %ah
    movzwl -6(%ebp), %edx
    addl %edx, %esi
    movl %gs:4, %eax               # base 0x50000
    leal 3(%eax,%edx,2), %eax
    movl %eax, %gs:4
    pushal
    movl $0x60000, %edi
    movl $0x50000, %esi
    movl $8, %ecx
    cld
    rep movsl
    popal
    addl 0x60004, %esi
    pushfl
    popl %eax
    andl $0x8d5, %eax
    addl %eax, %esi
    movl %esi, %eax
    xorl %edx, %edx
    movl $10007, %ecx
    divl %ecx
    addl %edx, %edi
    incl counter
    movswl %ax, %eax
    imull $77, %eax, %eax
    subl %eax, %esi
    .byte 0x67
    leal 5(%bx,%si), %eax          # 16-bit addressing
    addl %eax, %edi
    adcl $0, %esi
    leave
    ret
    .balign 8
counter: .long 0
table: .long c0, c1, c2, c3
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff     # 08 code
    .quad 0x00cf92000000ffff     # 10 data
    .quad 0x00cf92050000ffff     # 18 data, base 50000
    .quad 0x0040920080000fff     # 20 data, base 8000, limit fff
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
null_pointer:
    .word 0
    .long 0
