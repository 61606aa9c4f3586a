# Self-checking guest: a boot in real mode, through protected mode, into long mode, and there everything that events and privilege do.
# Loaded at 0x8000, entered in real mode at 0:0x8000. Each check that passes writes its number to port 0xe9; the last writes 'K' to port 0xf4,
# a failure writes 'F'. Built by tests/guests/build.sh.
    .set PORT_STEP, 0xe9
    .set PORT_END, 0xf4
    .set TABLES, 0x20000
    .set TSS, 0x30000
    .set STACK, 0x40000
    .set IST1, 0x44000
    .set USTACK, 0x48000

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

    .text
    .globl _start
    .code16
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %ss
    movw $0x7000, %sp
    # An interrupt in real mode.
    movw $real_handler, 0x21*4
    movw %cs, 0x21*4+2
    movw $0x1234, %bx
    int $0x21
    cmpw $0x1235, %bx
    jne fail16
    cmpw $0x7000, %sp
    jne fail16
    movb $1, %al
    outb %al, $PORT_STEP
    # A segment with a base; string instructions.
    movw $0x1500, %ax
    movw %ax, %es
    xorw %di, %di
    movw $0x5a5a, %ax
    movw $8, %cx
    cld
    rep stosw
    cmpw $0x5a5a, %es:14
    jne fail16
    movw $0x1400, %ax
    movw %ax, %fs
    cmpw $0x5a5a, %fs:0x100e
    jne fail16
    # A word at offset FFFF raises #GP (vector 13): the handler skips the instruction.
    movw $real_gp, 13*4
    movw %cs, 13*4+2
    movw $0xffff, %si
    xorw %dx, %dx
    .byte 0x8b, 0x04            # mov (%si), %ax
    cmpw $1, %dx
    jne fail16
    movb $2, %al
    outb %al, $PORT_STEP
    # Far call and return.
    lcall $0x800, $(far16 - 0x8000)
    cmpw $0x77, %dx
    jne fail16
    lgdt gdt_pointer
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmp $0x08, $protected
real_handler:
    incw %bx
    iret
real_gp:
    movw $1, %dx
    pushw %bp
    movw %sp, %bp
    addw $2, 2(%bp)
    popw %bp
    iret
far16:
    movw $0x77, %dx
    lret
fail16:
    movb $'F', %al
    outb %al, $PORT_END
    hlt

    .code32
protected:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $STACK, %esp
    movb $3, %al
    outb %al, $PORT_STEP
    # 32-bit IDT: #GP beyond a limit, int, ret from handlers.
    lidt idt32_pointer
    movl $13, %eax
    movl $gp32, %ebx
    call gate32
    movl $0x40, %eax
    movl $int32, %ebx
    call gate32
    movl $12, %eax
    movl $ss32, %ebx
    call gate32
    movl $11, %eax
    movl $np32, %ebx
    call gate32
    int $0x40
    cmpl $0x4040, %edx
    jne fail32
    movw $0x20, %ax             # data, limit 0xfff
    movw %ax, %fs
    movl $0xffc, %ebx
    movl %fs:(%ebx), %ecx
    xorl %edx, %edx
    incl %ebx
    .byte 0x64, 0x8b, 0x0b      # mov %fs:(%ebx), %ecx
    cmpl $13, %edx
    jne fail32
    # Expand-down data: limit 0xfff, so 0x1000 upwards is valid.
    movw $0x28, %ax
    movw %ax, %gs
    movl $0x1000, %ebx
    movl %gs:(%ebx), %ecx
    xorl %edx, %edx
    movl $0xffc, %ebx
    .byte 0x65, 0x8b, 0x0b
    cmpl $13, %edx
    jne fail32
    # Read-only data.
    movw $0x30, %ax
    movw %ax, %gs
    movl $0x5000, %ebx
    .byte 0x65, 0x8b, 0x0b
    xorl %edx, %edx
    .byte 0x65, 0x89, 0x0b      # mov %ecx, %gs:(%ebx)
    cmpl $13, %edx
    jne fail32
    # A segment that is not present, and a null one.
    movw $0x38, %ax
    xorl %edx, %edx
    .byte 0x8e, 0xe8            # mov %ax, %gs
    cmpl $11, %edx
    jne fail32
    xorl %eax, %eax
    movw %ax, %gs
    xorl %edx, %edx
    .byte 0x65, 0x8b, 0x0b
    cmpl $13, %edx
    jne fail32
    movb $4, %al
    outb %al, $PORT_STEP
    # 16-bit protected mode and back.
    ljmp $0x40, $(prot16 - 0x8000)
    .code16
prot16:
    pushw $0x1122
    popw %dx
    .byte 0x66, 0xea
    .long back32
    .word 0x08
    .code32
back32:
    cmpw $0x1122, %dx
    jne fail32
    # LAR, LSL, VERR, VERW.
    movw $0x20, %ax
    lsl %ax, %ecx
    jnz fail32
    cmpl $0xfff, %ecx
    jne fail32
    movw $0x30, %ax
    verr %ax
    jnz fail32
    verw %ax
    jz fail32
    movw $0x3f8, %ax
    lar %ax, %ecx
    jz fail32
    movb $5, %al
    outb %al, $PORT_STEP

    # Page tables: 1 GiB one to one in 2 MiB pages, user page at 2 MiB.., then long mode.
    movl $TABLES, %edi
    xorl %eax, %eax
    movl $0x3000, %ecx
    rep stosl
    movl $(TABLES + 0x1007), TABLES
    movl $(TABLES + 0x2007), TABLES + 0x1000
    movl $TABLES + 0x2000, %edi
    movl $0x87, %eax
    movl $512, %ecx
1:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    decl %ecx
    jnz 1b
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $TABLES, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x101, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80010000, %eax
    movl %eax, %cr0
    # Compatibility mode now.
    ljmp $0x48, $long
gate32:
    movw %bx, idt32(,%eax,8)
    movw $0x08, idt32+2(,%eax,8)
    movw $0x8e00, idt32+4(,%eax,8)
    shrl $16, %ebx
    movw %bx, idt32+6(,%eax,8)
    ret
gp32:
    movl $13, %edx
    jmp skip32
np32:
    movl $11, %edx
    jmp skip32
ss32:
    movl $12, %edx
skip32:
    # The faulting instructions are 2 or 3 bytes long: those with a segment prefix 3.
    addl $4, %esp
    pushl %eax
    movl 4(%esp), %eax
    cmpb $0x8e, (%eax)
    je 2f
    incl %eax
2:  addl $2, %eax
    movl %eax, 4(%esp)
    popl %eax
    iret
int32:
    movl $0x4040, %edx
    iret
fail32:
    movb $'F', %al
    outb %al, $PORT_END
    hlt

    .code64
long:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    movq $STACK, %rsp
    step 6
    # TSS: RSP0 and IST1.
    movq $STACK, TSS + 4
    movq $IST1, TSS + 36
    movw $0x68, TSS + 102
    movw $0x70, %ax
    ltr %ax
    # IDT.
    lidt idt64_pointer
    xorl %ecx, %ecx
3:  movq %rcx, %rbx
    shlq $4, %rbx
    addq $stubs, %rbx
    call gate64
    incl %ecx
    cmpl $256, %ecx
    jne 3b
    movb $1, idt64 + 14*16 + 4          # #PF on IST1
    movb $0xee, idt64 + 0x80*16 + 5     # INT 80 from user
    movb $0xee, idt64 + 3*16 + 5
    # INT n.
    xorl %r15d, %r15d
    movq %rsp, %r13
    int $0x33
    expect %r15, $0x33
    expect %rsp, %r13
    # #PF with its address, on IST1.
    movq $0x4000000000, %rbx
    leaq 4f(%rip), %r14
    movq (%rbx), %rax
4:  expect %r15, $14
    movq %cr2, %rax
    expect %rax, %rbx
    expect error(%rip), $0
    movq saved_rsp(%rip), %rax
    expect %rax, $(IST1 - 48)
    # #GP for a non-canonical address, #SS for a stack one.
    movq $1, %rbx
    shlq $63, %rbx
    leaq 4f(%rip), %r14
    movq (%rbx), %rax
4:  expect %r15, $13
    # #UD, #DE.
    leaq 4f(%rip), %r14
    ud2
4:  expect %r15, $6
    xorl %ecx, %ecx
    leaq 4f(%rip), %r14
    divl %ecx
4:  expect %r15, $0
    # Reserved bits of CR4, bad CR0, bad EFER.
    movl $0x80000000, %eax
    leaq 4f(%rip), %r14
    movq %rax, %cr4
4:  expect %r15, $13
    movl $0x80000000, %eax
    xorl %r15d, %r15d
    leaq 4f(%rip), %r14
    movq %rax, %cr0
4:  expect %r15, $13
    step 7
    # WP: a read-only page at 0x200000 can be written without it.
    andq $~2, TABLES + 0x2000 + 8
    invlpg 0x200000
    leaq 4f(%rip), %r14
    movq %rax, 0x200000
4:  expect %r15, $14
    expect error(%rip), $3
    movq %cr0, %rax
    andq $~0x10000, %rax
    movq %rax, %cr0
    xorl %r15d, %r15d
    movq %rax, 0x200000
    expect %r15, $0
    orq $0x10000, %rax
    movq %rax, %cr0
    orq $2, TABLES + 0x2000 + 8
    invlpg 0x200000
    step 8
    # SYSCALL set-up: STAR, LSTAR, SFMASK.
    movl $0xc0000081, %ecx
    xorl %eax, %eax
    movl $0x00580048, %edx
    wrmsr
    movl $0xc0000082, %ecx
    leaq syscall_entry(%rip), %rax
    xorl %edx, %edx
    wrmsr
    movl $0xc0000084, %ecx
    movl $0x700, %eax
    wrmsr
    movl $0xc0000101, %ecx
    movl $0x1111, %eax
    wrmsr
    movl $0xc0000102, %ecx
    movl $0x2222, %eax
    wrmsr
    # To user mode by IRETQ.
    pushq $0x63
    pushq $USTACK
    pushq $0x3202                        # IF, IOPL 3
    pushq $0x6b
    leaq user(%rip), %rax
    pushq %rax
    iretq
user:
    movl $0x2a, %edi
    xorl %r15d, %r15d
    syscall
    expect %rax, $0x2b
    movq %cs, %rax
    expect %rax, $0x6b
    movq %ss, %rax
    expect %rax, $0x63
    expect %rsp, $USTACK
    step 9
    int $0x80
    expect %r15, $0x80
    # A privileged instruction, and an interrupt gate of privilege 0.
    leaq 4f(%rip), %r14
    hlt
4:  expect %r15, $13
    expect error(%rip), $0
    leaq 4f(%rip), %r14
    int $0x33
4:  expect %r15, $13
    expect error(%rip), $(0x33 * 8 + 2)
    # IOPL 3 stays from IRET; POPF may not change it.
    pushfq
    popq %rax
    andl $0x3200, %eax
    expect %rax, $0x3200
    # Compatibility mode and back by far returns.
    movq %rsp, %r12
    subq $8, %rsp
    movl $0x5b, 4(%rsp)
    movl $compat, (%rsp)
    lretl
    .code32
compat:
    movl $1, %eax
    incl %eax                    # 0x40: a REX prefix in 64-bit code
    cmpl $2, %eax
    jne fail
    pushl $0x12345678
    popl %ebx
    cmpl $0x12345678, %ebx
    jne fail
    int $0x80
    ljmp $0x6b, $user64
    .code64
user64:
    expect %r15, $0x80
    movq %r12, %rsp
    step 10
    # Single step.
    xorl %r15d, %r15d
    movq $0, traps(%rip)
    pushfq
    orq $0x100, (%rsp)
    popfq
    nop
    nop
    pushfq
    andq $~0x100, (%rsp)
    popfq
    movq traps(%rip), %rax
    expect %rax, $5
    # Back to the kernel for good.
    movl $0x99, %edi
    syscall
kernel_again:
    movw $0x10, %ax
    movw %ax, %ss
    movq $STACK, %rsp
    step 11
    # Interrupt window: the host raises vector 0x55 when port 0xea is written; it waits for STI and one more instruction.
    cli
    xorl %r15d, %r15d
    xorl %r11d, %r11d
    outb %al, $0xea
    nop
    nop
    expect %r15, $0
    sti
    incl %r11d
    incl %r11d
    cli
    expect %r15, $0x55
    movq saved_r11(%rip), %rax
    expect %rax, $1
    # STI; HLT wakes up.
    xorl %r15d, %r15d
    outb %al, $0xea
    sti
    hlt
    cli
    expect %r15, $0x55
    # A loop with interrupts on is interrupted.
    xorl %r15d, %r15d
    sti
    outb %al, $0xeb                      # pending after 1000 instructions
5:  testl %r15d, %r15d
    jz 5b
    cli
    step 12
    # Hot loop with system instructions in it, to have it compiled.
    movl $2000, %ebp
6:  cli
    pushfq
    sti
    popfq
    movq %cr3, %rax
    movq %rax, %cr3
    movl $0xc0000101, %ecx
    rdmsr
    expect %rax, $0x1111
    swapgs
    rdmsr
    expect %rax, $0x2222
    swapgs
    int $0x44
    expect %r15, $0x44
    movw $0x10, %ax
    movw %ax, %ss
    decl %ebp
    jnz 6b
    step 13
    # IST used twice: #PF in a #PF handler is a double fault, which comes here.
    leaq double(%rip), %rbx
    movl $8, %ecx
    call gate64
    movq $0, idt64 + 14*16               # #PF: not present
    movq $0x4000000000, %rbx
    movq (%rbx), %rax
    jmp fail
double:
    popq %rax
    expect %rax, $0
    movq $STACK, %rsp
    step 14
    movb $'K', %al
    outb %al, $PORT_END
    # Then a triple fault.
    lidt null_pointer
    ud2
    jmp fail

syscall_entry:
    cmpl $0x99, %edi
    je kernel_again
    swapgs
    swapgs
    leal 1(%rdi), %eax
    sysretq

fail:
    movb $'F', %al
    outb %al, $PORT_END
    ud2
    hlt

# Make gate %ecx of the 64-bit IDT point to %rbx.
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

# Every handler: vector in %r15, error code in `error`. Faults go on at %r14; interrupts return.
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
    movq %rsp, saved_rsp(%rip)
    addq $8, saved_rsp(%rip)
    movq %r11, saved_r11(%rip)
    popq %r15
    cmpq $17, %r15
    je 1f
    cmpq $8, %r15
    je 1f
    cmpq $10, %r15
    jb 2f
    cmpq $14, %r15
    ja 2f
1:  popq error(%rip)
2:  cmpq $1, %r15
    jne 3f
    incq traps(%rip)
    iretq
3:  cmpq $0x20, %r15
    jae 4f
    movq %r14, (%rsp)
4:  iretq

    .balign 8
error: .quad 0
traps: .quad 0
saved_rsp: .quad 0
saved_r11: .quad 0
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff     # 08 code, 32 bits
    .quad 0x00cf92000000ffff     # 10 data
    .quad 0
    .quad 0x0040920000000fff     # 20 data, limit fff
    .quad 0x0040960000000fff     # 28 expand-down data, limit fff
    .quad 0x00cf90000000ffff     # 30 read-only data
    .quad 0x00cf12000000ffff     # 38 not present
    .quad 0x00009a008000ffff     # 40 code, 16 bits, base 8000
    .quad 0x00af9a000000ffff     # 48 code, 64 bits
    .quad 0x00cf92000000ffff     # 50 data
    .quad 0x00cffa000000ffff     # 58 user code, 32 bits
    .quad 0x00cff2000000ffff     # 60 user data
    .quad 0x00affa000000ffff     # 68 user code, 64 bits
    .quad 0x0000890300000067     # 70 TSS at 30000
    .quad 0
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
idt32_pointer:
    .word 0x41 * 8 - 1
    .long idt32
    .balign 8
idt64_pointer:
    .word 256 * 16 - 1
    .quad idt64
null_pointer:
    .word 0
    .quad 0
    .balign 16
idt32:
    .fill 0x41 * 8
    .balign 16
idt64:
    .fill 256 * 16
