# Self-checking guest for the rest of the privileged architecture: SYSENTER, call gates, LDT, I/O permission bitmap, string I/O, SMEP, SMAP,
# NX, PCID, INVPCID, NMI, debug registers, stack faults, compatibility-mode system calls. Loaded at 0x8000, entered in real mode at 0:0x8000.
# Ports as in long-mode.S; a write to 0xec raises an NMI.
    .set PORT_STEP, 0xe9
    .set PORT_END, 0xf4
    .set PORT_NMI, 0xec
    .set TABLES, 0x20000
    .set TSS, 0x30000
    .set STACK, 0x40000
    .set USTACK, 0x48000
    .set USER_PAGE, 0x200000     # 2 MiB, user
    .set KERNEL_PAGE, 0x400000   # 2 MiB, supervisor, global
    .set LDT, 0x60000

    .macro step n
    pushq %rax
    movb $\n, %al
    outb %al, $PORT_STEP
    popq %rax
    .endm
    .macro expect a, b
    cmpq \b, \a
    jne fail
    .endm
    # Run one instruction that must fault with `vector` and `code`.
    .macro faults vector, code, insn:vararg
    movq $-1, error
    xorl %r15d, %r15d
    leaq 9f(%rip), %r14
    \insn
9:  expect %r15, $\vector
    expect error, $\code
    .endm
    .macro passes insn:vararg
    xorl %r15d, %r15d
    leaq 9f(%rip), %r14
    \insn
9:  expect %r15, $0
    .endm

    .text
    .globl _start
    .code16
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7000, %sp
    lgdt gdt_pointer
    # Straight to long mode: tables first, with 32-bit operands in real mode.
    movl $TABLES >> 4, %eax
    movw %ax, %es
    xorl %edi, %edi
    xorl %eax, %eax
    movl $0xc00, %ecx
    rep stosl
    movl $(TABLES + 0x1007), %es:0
    movl $(TABLES + 0x2007), %es:0x1000
    movl $0x2000, %edi
    movl $0x83, %eax
    movl $512, %ecx
1:  movl %eax, %es:(%di)
    addl $0x200000, %eax
    addl $8, %edi
    decl %ecx
    jnz 1b
    movl $(USER_PAGE + 0x87), %es:0x2008
    movl $(KERNEL_PAGE + 0x183), %es:0x2010
    movl $0x20, %eax
    movl %eax, %cr4
    movl $TABLES, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    movl $0x901, %eax
    xorl %edx, %edx
    wrmsr
    movl $0x80010001, %eax
    movl %eax, %cr0
    ljmpl $0x48, $long

    .code64
long:
    movw $0x50, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movq $STACK, %rsp
    movq $STACK, TSS + 4
    movw $0x68, TSS + 102
    movw $0x70, %ax
    ltr %ax
    lidt idt64_pointer
    xorl %ecx, %ecx
3:  movq %rcx, %rbx
    shlq $4, %rbx
    addq $stubs, %rbx
    call gate64
    incl %ecx
    cmpl $256, %ecx
    jne 3b
    movb $0xee, idt64 + 0x80*16 + 5
    # A TSS loaded twice is busy.
    movw $0x70, %ax
    faults 13, 0x70, ltr %ax
    step 1

    # LDT with one data segment (index 0, base 0x5000, limit 0xff) and a call gate at GDT 0x80.
    movabsq $0x0040f20050000000 + 0xff, %rax
    movq %rax, LDT
    movw $0x90, %ax
    lldt %ax
    movw $0x07, %ax
    movw %ax, %gs
    movl $0x11223344, 0x5010
    movl %gs:0x10, %eax
    expect %rax, $0x11223344
    sldt %eax
    expect %rax, $0x90
    faults 13, 0x0c, movw wrong_ldt(%rip), %fs
    step 2

    # Supervisor mode and user pages: SMEP, SMAP, NX, WP.
    movb $0xc3, USER_PAGE
    movq $USER_PAGE, %rbx
    movq $KERNEL_PAGE, %rbp
    passes call *%rbx
    passes movq (%rbx), %rax
    movq %cr4, %rax
    orq $0x300080, %rax                     # SMEP, SMAP, PGE
    movq %rax, %cr4
    xorl %r15d, %r15d
    leaq 9f(%rip), %r14
    movq %rsp, %r13
    call *%rbx
9:  movq %r13, %rsp
    expect %r15, $14
    expect error, $0x11
    faults 14, 0x1, movq (%rbx), %rax
    faults 14, 0x3, movq %rax, 8(%rbx)
    stac
    passes movq (%rbx), %rax
    passes movq %rax, 8(%rbx)
    clac
    faults 14, 0x1, movq (%rbx), %rax
    # An implicit supervisor access ignores AC: a GDT in a user page.
    movq %cr4, %rax
    andq $~0x300000, %rax
    movq %rax, %cr4
    # NX.
    movl $0x80000000, TABLES + 0x2000 + 12
    invlpg USER_PAGE
    xorl %r15d, %r15d
    leaq 9f(%rip), %r14
    movq %rsp, %r13
    call *%rbx
9:  movq %r13, %rsp
    expect %r15, $14
    expect error, $0x11
    movl $0, TABLES + 0x2000 + 12
    invlpg USER_PAGE
    # Reserved bit.
    movl $0x00080000, TABLES + 0x2000 + 12
    invlpg USER_PAGE
    faults 14, 0x9, movq (%rbx), %rax
    movl $0, TABLES + 0x2000 + 12
    invlpg USER_PAGE
    step 3

    # Global pages survive a load of CR3 and not a toggle of CR4.PGE or INVLPG.
    movq (%rbp), %rax
    movq (%rbx), %rax
    movl $0, TABLES + 0x2000 + 16           # not present, still cached
    movq %cr3, %rax
    movq %rax, %cr3
    passes movq (%rbp), %rax
    invlpg KERNEL_PAGE
    faults 14, 0, movq (%rbp), %rax
    movl $(KERNEL_PAGE + 0x183), TABLES + 0x2000 + 16
    passes movq (%rbp), %rax
    movl $0, TABLES + 0x2000 + 16
    movq %cr4, %rax
    xorq $0x80, %rax
    movq %rax, %cr4
    faults 14, 0, movq (%rbp), %rcx
    xorq $0x80, %rax
    movq %rax, %cr4
    movl $(KERNEL_PAGE + 0x183), TABLES + 0x2000 + 16
    # PCID: two address spaces with the same tables keep their entries apart.
    orq $0x20000, %rax
    movq %rax, %cr4
    movq (%rbx), %rax
    movq $TABLES + 5, %rax
    movq %rax, %cr3
    movq (%rbx), %rax
    movl $0, TABLES + 0x2000 + 8
    movq $TABLES, %rax
    btsq $63, %rax
    movq %rax, %cr3                         # PCID 0, nothing flushed
    passes movq (%rbx), %rcx
    btrq $63, %rax
    movq %rax, %cr3                         # PCID 0, flushed
    faults 14, 0, movq (%rbx), %rcx
    movq $TABLES + 5, %rax
    btsq $63, %rax
    movq %rax, %cr3
    passes movq (%rbx), %rcx
    # INVPCID of one address in PCID 5.
    movq $5, invpcid_descriptor
    movq %rbx, invpcid_descriptor + 8
    xorl %ecx, %ecx
    invpcid invpcid_descriptor, %rcx
    faults 14, 0, movq (%rbx), %rcx
    movl $(USER_PAGE + 0x87), TABLES + 0x2000 + 8
    movl $7, %ecx
    faults 13, 0, invpcid invpcid_descriptor, %rcx
    movq $TABLES, %rax
    movq %rax, %cr3
    movq %cr4, %rax
    btrq $17, %rax
    movq %rax, %cr4
    step 4

    # Debug registers.
    movl $0x12345678, %eax
    movq %rax, %dr0
    movq %dr0, %rcx
    expect %rax, %rcx
    movq %dr6, %rax
    cmpl $0xffff0ff0, %eax
    jne fail
    movq $1, %rax
    shlq $40, %rax
    faults 13, 0, movq %rax, %dr7
    movq %cr4, %rax
    orq $8, %rax
    movq %rax, %cr4
    .macro dr4
    .byte 0x0f, 0x21, 0xe0
    .endm
    faults 6, -1, dr4
    # NMI: not nested until IRET.
    xorl %r15d, %r15d
    outb %al, $PORT_NMI
    nop
    expect %r15, $2
    # String I/O: port 0xed reads its own low byte; OUTS to the step port.
    leaq buffer(%rip), %rdi
    movl $3, %ecx
    movw $0xed, %dx
    cld
    rep insb
    expect %rcx, $0
    cmpw $0xeded, buffer
    jne fail
    leaq buffer + 3(%rip), %rax
    expect %rax, %rdi
    movb $5, buffer
    leaq buffer(%rip), %rsi
    movl $1, %ecx
    movw $PORT_STEP, %dx
    rep outsb

    # User mode: SYSENTER and SYSEXIT, call gate, I/O bitmap.
    movl $0x174, %ecx
    movl $0x98, %eax
    xorl %edx, %edx
    wrmsr
    movl $0x175, %ecx
    movl $STACK, %eax
    wrmsr
    movl $0x176, %ecx
    leaq sysenter_entry(%rip), %rax
    wrmsr
    # Ports 0..3f, e9 and f4 are allowed; user code may use page 0.
    movq $-1, TSS + 0x70
    movq $-1, TSS + 0x78
    movq $-1, TSS + 0x80
    movb $0xfd, TSS + 0x68 + 0x1d
    movb $0xef, TSS + 0x68 + 0x1e
    orl $4, TABLES + 0x2000
    invlpg 0
    pushq $0x63
    pushq $USTACK
    pushq $0x2
    pushq $0x6b
    leaq user(%rip), %rax
    pushq %rax
    iretq
user:
    passes outb %al, $0x20
    faults 13, 0, outb %al, $0x80
    movw $0x3f, %dx
    faults 13, 0, outw %ax, %dx
    movw $0x10, %dx
    passes inl %dx, %eax
    faults 13, 0, cli
    faults 13, 0, movq %rax, %cr3
    faults 13, 0, rdmsr
    faults 14, 5, movq KERNEL_PAGE, %rax
    faults 14, 7, movq %rax, KERNEL_PAGE
    movq $KERNEL_PAGE, %rbx
    xorl %r15d, %r15d
    leaq 9f(%rip), %r14
    movq %rsp, %r13
    jmp *%rbx
9:  expect %r15, $14
    expect error, $0x15
    faults 13, 0x48, movw kernel_code(%rip), %fs
    faults 13, 0x50, movw kernel_data(%rip), %ss
    faults 13, 0, movw null_selector(%rip), %ss
    # By the call gate to the kernel and back by RETF.
    movq %rsp, %r13
    lcall *gate_pointer(%rip)
    expect %r12, $0x777
    expect %rsp, %r13
    movl $0x1000, %esi
    movq $0x48000, %rcx
    leaq after_sysenter(%rip), %rdx
    sysenter
after_sysenter:
    expect %rsi, $0x1001
    expect %rsp, $0x48000
    movw %cs, %ax
    cmpw $0xbb, %ax
    jne fail
    # The LDT selector in GS survived; a kernel one would have been nulled.
    int $0x80
    expect %r15, $0x80
    pushq $0x6b
    leaq again(%rip), %rax
    pushq %rax
    lretq
again:
    movl $0, %esi
    sysenter

gate_entry:
    movq $0x777, %r12
    movw %cs, %ax
    cmpw $0x48, %ax
    jne fail
    lretq
sysenter_entry:
    testl %esi, %esi
    jz finish
    incl %esi
    movw %ss, %ax
    cmpw $0xa0, %ax
    jne fail
    sysexitq
finish:
    movb $6, %al
    outb %al, $PORT_STEP
    movb $'K', %al
    outb %al, $PORT_END
    lidt null_pointer
    ud2

fail:
    movb $'F', %al
    outb %al, $PORT_END
    ud2
    hlt

gate64:
    movq %rcx, %rdx
    shlq $4, %rdx
    movw %bx, idt64(%rdx)
    movw $0x48, idt64+2(%rdx)
    movw $0x8e00, idt64+4(%rdx)
    shrq $16, %rbx
    movw %bx, idt64+6(%rdx)
    movq $0, idt64+8(%rdx)
    ret

    .balign 16
stubs:
    .set n, 0
    .rept 256
    .balign 16
    pushq $n
    jmp common
    .set n, n + 1
    .endr
common:
    popq %r15
    cmpq $17, %r15
    je 1f
    cmpq $8, %r15
    je 1f
    cmpq $10, %r15
    jb 2f
    cmpq $14, %r15
    ja 2f
1:  popq error
2:  cmpq $0x20, %r15
    jae 4f
    cmpq $2, %r15
    je 4f
    movq %r14, (%rsp)
4:  iretq

    .balign 8
error: .quad 0
buffer: .quad 0
invpcid_descriptor: .quad 0, 0
wrong_ldt: .word 0x0c
kernel_code: .word 0x48
kernel_data: .word 0x50
null_selector: .word 0
gate_pointer:
    .long 0
    .word 0x83
    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff     # 08 code, 32 bits
    .quad 0x00cf92000000ffff     # 10 data
    .fill 6, 8, 0
    .quad 0x00af9a000000ffff     # 48 code, 64 bits
    .quad 0x00cf92000000ffff     # 50 data
    .quad 0x00cffa000000ffff     # 58 user code, 32 bits
    .quad 0x00cff2000000ffff     # 60 user data
    .quad 0x00affa000000ffff     # 68 user code, 64 bits
    .quad 0x00008903000000a0     # 70 TSS at 30000, with an I/O bitmap
    .quad 0
    .word gate_entry, 0x48, 0xec00, 0    # 80 call gate
    .quad 0
    .quad 0x00008206000000ff     # 90 LDT at 60000; its upper half doubles as SYSENTER's CS, whose descriptor is not read
    .quad 0
    .quad 0x00cf92000000ffff     # a0
    .quad 0
    .quad 0
    .quad 0x00affa000000ffff     # b8 user code, 64 bits, for SYSEXIT
    .quad 0x00cff2000000ffff     # c0 user data
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
    .balign 8
idt64_pointer:
    .word 256 * 16 - 1
    .quad idt64
null_pointer:
    .word 0
    .quad 0
    .balign 16
idt64:
    .fill 256 * 16
