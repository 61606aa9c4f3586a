# The instruction forms whose results sse-vectors.c records. Conventions: xmm1 destination, xmm2 source, xmm0 implicit,
# (%rdi) memory, eax/rax integer destination, ecx/rcx integer source, mm1 and mm2 likewise.

# One row of the form table: code, its end, text, pool of inputs, MXCSR, cases.
.macro form pool, mxcsr, cases, text:vararg
  .pushsection .snippets, "ax"
771: \text
772: ret
  .popsection
  .pushsection .rodata
773: .asciz "\text"
  .popsection
  .pushsection form_table, "a"
  .quad 771b, 772b, 773b
  .long \pool, \mxcsr, \cases, 0
  .popsection
.endm

.set INTS, 0
.set SINGLES, 1
.set DOUBLES, 2
.set STRINGS, 3
.set DEFAULT, 0x1f80

# Register and memory form of a two-operand instruction.
.macro two pool, cases, ops:vararg
  .irp op, \ops
    form \pool, DEFAULT, \cases, \op %xmm2, %xmm1
    form \pool, DEFAULT, \cases, \op (%rdi), %xmm1
  .endr
.endm
# The same with an immediate.
.macro three pool, cases, op, imms:vararg
  .irp imm, \imms
    form \pool, DEFAULT, \cases, \op $\imm, %xmm2, %xmm1
    form \pool, DEFAULT, \cases, \op $\imm, (%rdi), %xmm1
  .endr
.endm

# ------------------------------------------------------------------ moves
two INTS 4 movaps, movapd, movdqa, movups, movupd, movdqu, movddup, movshdup, movsldup
.irp op, movaps, movapd, movdqa, movups, movupd, movdqu, movntps, movntpd, movntdq, movss, movsd, movlps, movhps, movlpd, movhpd, movq, movd
  form INTS, DEFAULT, 4, \op %xmm1, (%rdi)
.endr
.irp op, lddqu, movntdqa, movlps, movhps, movlpd, movhpd, movd
  form INTS, DEFAULT, 4, \op (%rdi), %xmm1
.endr
two INTS 6 movss, movsd, movq
.irp op, movlhps, movhlps
  form INTS, DEFAULT, 4, \op %xmm2, %xmm1
.endr
# The store encodings between registers.
.irp op, movaps, movups, movapd, movupd, movdqa, movdqu, movss, movsd, movq
  form INTS, DEFAULT, 4, \op\().s %xmm2, %xmm1
.endr
form INTS, DEFAULT, 4, movd %ecx, %xmm1
form INTS, DEFAULT, 4, movq %rcx, %xmm1
form INTS, DEFAULT, 4, movd %xmm1, %eax
form INTS, DEFAULT, 4, movq %xmm1, %rax
.irp op, movmskps, movmskpd, pmovmskb
  form INTS, DEFAULT, 12, \op %xmm1, %eax
.endr
form INTS, DEFAULT, 12, maskmovdqu %xmm2, %xmm1

# ------------------------------------------------------------------ floating point
two SINGLES 64 addps, subps, mulps, divps, minps, maxps, addss, subss, mulss, divss, minss, maxss
two DOUBLES 64 addpd, subpd, mulpd, divpd, minpd, maxpd, addsd, subsd, mulsd, divsd, minsd, maxsd
two SINGLES 32 sqrtps, sqrtss, haddps, hsubps, addsubps, unpcklps, unpckhps
two DOUBLES 32 sqrtpd, sqrtsd, haddpd, hsubpd, addsubpd, unpcklpd, unpckhpd
two SINGLES 32 rcpps, rcpss, rsqrtps, rsqrtss
two SINGLES 8 andps, andnps, orps, xorps
two DOUBLES 8 andpd, andnpd, orpd, xorpd
two SINGLES 64 comiss, ucomiss
two DOUBLES 64 comisd, ucomisd
three SINGLES 24 cmpps 0, 1, 2, 3, 4, 5, 6, 7
three SINGLES 12 cmpss 0, 1, 2, 3, 4, 5, 6, 7
three DOUBLES 24 cmppd 0, 1, 2, 3, 4, 5, 6, 7
three DOUBLES 12 cmpsd 0, 1, 2, 3, 4, 5, 6, 7
three SINGLES 48 dpps 0xff, 0x31, 0x7f, 0x9c, 0x00, 0xf0
three DOUBLES 48 dppd 0x33, 0x31, 0x12, 0x23, 0x00, 0xff

# ------------------------------------------------------------------ conversions
two SINGLES 64 cvtps2pd, cvtss2sd, cvttps2dq, cvtps2dq
two DOUBLES 64 cvtpd2ps, cvtsd2ss, cvttpd2dq, cvtpd2dq
two INTS 32 cvtdq2ps, cvtdq2pd
.irp rc, 0x1f80, 0x3f80, 0x5f80, 0x7f80
  .irp op, cvtps2dq, cvttps2dq
    form SINGLES, \rc, 16, \op %xmm2, %xmm1
  .endr
  .irp op, cvtpd2dq, cvttpd2dq
    form DOUBLES, \rc, 16, \op %xmm2, %xmm1
  .endr
  .irp op, cvtss2si, cvttss2si
    form SINGLES, \rc, 64, \op %xmm2, %eax
    form SINGLES, \rc, 32, \op (%rdi), %eax
    form SINGLES, \rc, 64, \op %xmm2, %rax
  .endr
  .irp op, cvtsd2si, cvttsd2si
    form DOUBLES, \rc, 64, \op %xmm2, %eax
    form DOUBLES, \rc, 32, \op (%rdi), %eax
    form DOUBLES, \rc, 64, \op %xmm2, %rax
  .endr
  .irp imm, 0, 1, 2, 3, 4, 8, 12
    form SINGLES, \rc, 16, roundps $\imm, %xmm2, %xmm1
    form DOUBLES, \rc, 16, roundpd $\imm, %xmm2, %xmm1
  .endr
  form SINGLES, \rc, 32, cvtps2pi %xmm2, %mm1
  form SINGLES, \rc, 32, cvttps2pi %xmm2, %mm1
  form DOUBLES, \rc, 32, cvtpd2pi %xmm2, %mm1
  form DOUBLES, \rc, 32, cvttpd2pi %xmm2, %mm1
.endr
three SINGLES 16 roundss 0, 1, 2, 3, 4, 12
three DOUBLES 16 roundsd 0, 1, 2, 3, 4, 12
.irp op, cvtsi2ss, cvtsi2sd
  form INTS, DEFAULT, 32, \op %ecx, %xmm1
  form INTS, DEFAULT, 32, \op %rcx, %xmm1
  form INTS, DEFAULT, 16, \op\()l (%rdi), %xmm1
  form INTS, DEFAULT, 16, \op\()q (%rdi), %xmm1
.endr
form INTS, DEFAULT, 16, cvtpi2ps %mm2, %xmm1
form INTS, DEFAULT, 16, cvtpi2pd %mm2, %xmm1
form INTS, DEFAULT, 16, cvtpi2ps (%rdi), %xmm1
form INTS, DEFAULT, 16, cvtpi2pd (%rdi), %xmm1
form INTS, DEFAULT, 4, movq2dq %mm2, %xmm1
form INTS, DEFAULT, 4, movdq2q %xmm2, %mm1

# ------------------------------------------------------------------ MXCSR controls: rounding, FTZ, DAZ, unmasked exceptions
.irp mode, 0x3f80, 0x5f80, 0x7f80, 0x9f80, 0x1fc0, 0xffc0, 0x0000, 0x0f80, 0x9780, 0x1b80, 0x1e80, 0x1d00
  .irp op, addps, subps, mulps, divps, sqrtps, minps, maxps, addss, divss, sqrtss, minss, haddps, hsubps, addsubps
    form SINGLES, \mode, 24, \op %xmm2, %xmm1
  .endr
  .irp op, addpd, subpd, mulpd, divpd, sqrtpd, minpd, maxpd, mulsd, divsd, sqrtsd, subsd, maxsd, haddpd, hsubpd, addsubpd
    form DOUBLES, \mode, 24, \op %xmm2, %xmm1
  .endr
  .irp op, comiss, ucomiss, cvtss2sd, cvtps2pd, cvtps2dq, cvttps2dq
    form SINGLES, \mode, 24, \op %xmm2, %xmm1
  .endr
  .irp op, comisd, ucomisd, cvtsd2ss, cvtpd2ps, cvtpd2dq, cvttpd2dq
    form DOUBLES, \mode, 24, \op %xmm2, %xmm1
  .endr
  .irp op, cvtss2si, cvttss2si
    form SINGLES, \mode, 32, \op %xmm2, %eax
    form SINGLES, \mode, 32, \op %xmm2, %rax
  .endr
  .irp op, cvtsd2si, cvttsd2si
    form DOUBLES, \mode, 32, \op %xmm2, %eax
    form DOUBLES, \mode, 32, \op %xmm2, %rax
  .endr
  .irp op, cvtsi2ss, cvtsi2sd
    form INTS, \mode, 24, \op %ecx, %xmm1
    form INTS, \mode, 24, \op %rcx, %xmm1
  .endr
  form INTS, \mode, 16, cvtdq2ps %xmm2, %xmm1
  form INTS, \mode, 16, cvtdq2pd %xmm2, %xmm1
  form INTS, \mode, 16, cvtpi2ps %mm2, %xmm1
  form SINGLES, \mode, 16, cvtps2pi %xmm2, %mm1
  form DOUBLES, \mode, 16, cvttpd2pi %xmm2, %mm1
  .irp imm, 0, 1, 2, 3, 4, 5, 6, 7
    form SINGLES, \mode, 8, cmpps $\imm, %xmm2, %xmm1
    form DOUBLES, \mode, 8, cmpsd $\imm, %xmm2, %xmm1
  .endr
  .irp imm, 0, 1, 2, 3, 4, 8, 12
    form SINGLES, \mode, 12, roundps $\imm, %xmm2, %xmm1
    form DOUBLES, \mode, 12, roundsd $\imm, %xmm2, %xmm1
  .endr
  form SINGLES, \mode, 24, dpps $0xb7, %xmm2, %xmm1
  form DOUBLES, \mode, 24, dppd $0x33, %xmm2, %xmm1
  form SINGLES, \mode, 8, rcpps %xmm2, %xmm1
  form SINGLES, \mode, 8, rsqrtss %xmm2, %xmm1
.endr

# ------------------------------------------------------------------ packed integers
two INTS 16 paddb, paddw, paddd, paddq, psubb, psubw, psubd, psubq
two INTS 24 paddsb, paddsw, paddusb, paddusw, psubsb, psubsw, psubusb, psubusw, pavgb, pavgw
two INTS 16 pminub, pmaxub, pminsw, pmaxsw, pminsb, pmaxsb, pminuw, pmaxuw, pminsd, pmaxsd, pminud, pmaxud
two INTS 16 pcmpeqb, pcmpeqw, pcmpeqd, pcmpeqq, pcmpgtb, pcmpgtw, pcmpgtd, pcmpgtq
two INTS 6 pand, pandn, por, pxor
two INTS 24 pmullw, pmulhw, pmulhuw, pmaddwd, pmuludq, pmuldq, pmulld, pmulhrsw, pmaddubsw, psadbw
two INTS 16 phaddw, phaddd, phaddsw, phsubw, phsubd, phsubsw, psignb, psignw, psignd, pabsb, pabsw, pabsd
two INTS 16 punpcklbw, punpcklwd, punpckldq, punpcklqdq, punpckhbw, punpckhwd, punpckhdq, punpckhqdq
two INTS 24 packsswb, packssdw, packuswb, packusdw, pshufb, phminposuw
two INTS 12 pmovsxbw, pmovsxbd, pmovsxbq, pmovsxwd, pmovsxwq, pmovsxdq, pmovzxbw, pmovzxbd, pmovzxbq, pmovzxwd, pmovzxwq, pmovzxdq
two INTS 24 ptest
.irp op, pblendvb, blendvps, blendvpd
  form INTS, DEFAULT, 16, \op %xmm0, %xmm2, %xmm1
  form INTS, DEFAULT, 16, \op %xmm0, (%rdi), %xmm1
.endr
two INTS 24 psllw, pslld, psllq, psrlw, psrld, psrlq, psraw, psrad
.irp op, psllw, pslld, psllq, psrlw, psrld, psrlq, psraw, psrad, pslldq, psrldq
  .irp imm, 0, 1, 7, 8, 15, 16, 17, 31, 32, 63, 64, 255
    form INTS, DEFAULT, 4, \op $\imm, %xmm1
  .endr
.endr
three INTS 6 pshufd 0x00, 0x1b, 0xe4, 0x4e, 0xb1, 0xff, 0x39, 0xa7
three INTS 6 pshuflw 0x00, 0x1b, 0xe4, 0x4e, 0xb1, 0xff, 0x39, 0xa7
three INTS 6 pshufhw 0x00, 0x1b, 0xe4, 0x4e, 0xb1, 0xff, 0x39, 0xa7
three INTS 6 shufps 0x00, 0x1b, 0xe4, 0x4e, 0xb1, 0xff, 0x39, 0xa7
three INTS 6 shufpd 0, 1, 2, 3, 0xfc
three INTS 4 palignr 0, 1, 5, 8, 15, 16, 17, 24, 31, 32, 33, 200, 255
three INTS 4 blendps 0, 1, 6, 9, 15, 0xff
three INTS 4 blendpd 0, 1, 2, 3, 0xff
three INTS 4 pblendw 0, 1, 0x55, 0x93, 0xff
three INTS 8 mpsadbw 0, 1, 2, 3, 4, 5, 6, 7, 0xff
three INTS 4 insertps 0x00, 0x40, 0x90, 0xe0, 0xb5, 0x7a, 0x3f, 0xff
.irp imm, 0, 1, 2, 5, 7, 8, 15, 0xff
  form INTS, DEFAULT, 4, pinsrb $\imm, %ecx, %xmm1
  form INTS, DEFAULT, 4, pinsrb $\imm, (%rdi), %xmm1
  form INTS, DEFAULT, 4, pinsrw $\imm, %ecx, %xmm1
  form INTS, DEFAULT, 4, pinsrw $\imm, (%rdi), %xmm1
  form INTS, DEFAULT, 4, pinsrd $\imm, %ecx, %xmm1
  form INTS, DEFAULT, 4, pinsrd $\imm, (%rdi), %xmm1
  form INTS, DEFAULT, 4, pinsrq $\imm, %rcx, %xmm1
  form INTS, DEFAULT, 4, pinsrq $\imm, (%rdi), %xmm1
  form INTS, DEFAULT, 4, pextrb $\imm, %xmm1, %eax
  form INTS, DEFAULT, 4, pextrb $\imm, %xmm1, (%rdi)
  form INTS, DEFAULT, 4, pextrw $\imm, %xmm1, %eax
  form INTS, DEFAULT, 4, pextrw $\imm, %xmm1, (%rdi)
  form INTS, DEFAULT, 4, pextrw.s $\imm, %xmm1, %eax
  form INTS, DEFAULT, 4, pextrd $\imm, %xmm1, %eax
  form INTS, DEFAULT, 4, pextrd $\imm, %xmm1, (%rdi)
  form INTS, DEFAULT, 4, pextrq $\imm, %xmm1, %rax
  form INTS, DEFAULT, 4, pextrq $\imm, %xmm1, (%rdi)
  form INTS, DEFAULT, 4, extractps $\imm, %xmm1, %eax
  form INTS, DEFAULT, 4, extractps $\imm, %xmm1, (%rdi)
.endr

# ------------------------------------------------------------------ SSE4.2 strings
.macro strings imms:vararg
  .irp imm, \imms
    form STRINGS, DEFAULT, 6, pcmpistri $\imm, %xmm2, %xmm1
    form STRINGS, DEFAULT, 6, pcmpistrm $\imm, %xmm2, %xmm1
    form STRINGS, DEFAULT, 6, pcmpestri $\imm, %xmm2, %xmm1
    form STRINGS, DEFAULT, 6, pcmpestrm $\imm, %xmm2, %xmm1
    form STRINGS, DEFAULT, 3, pcmpistri $\imm, (%rdi), %xmm1
    form STRINGS, DEFAULT, 3, rex.w pcmpestrm $\imm, (%rdi), %xmm1
  .endr
.endm
strings 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f
strings 0x10, 0x15, 0x1a, 0x1f, 0x18, 0x1d, 0x30, 0x35, 0x3a, 0x3f, 0x38, 0x3d
strings 0x40, 0x45, 0x4a, 0x4f, 0x48, 0x4c, 0x58, 0x5d, 0x70, 0x75, 0x7a, 0x7f, 0xff

# ------------------------------------------------------------------ cryptography
two INTS 16 aesenc, aesenclast, aesdec, aesdeclast, aesimc
three INTS 6 aeskeygenassist 0x00, 0x01, 0x1b, 0xff
three INTS 8 pclmulqdq 0x00, 0x01, 0x10, 0x11
two INTS 12 sha1nexte, sha1msg1, sha1msg2, sha256rnds2, sha256msg1, sha256msg2
three INTS 8 sha1rnds4 0, 1, 2, 3

# ------------------------------------------------------------------ runner
# void run_form(struct state *): layout in sse-vectors.c.
  .text
  .globl run_form
run_form:
  push %rbx
  push %rbp
  mov %rdi, %rbx
  ldmxcsr 0x98(%rbx)
  movups 0x00(%rbx), %xmm0
  movups 0x10(%rbx), %xmm1
  movups 0x20(%rbx), %xmm2
  movq 0x80(%rbx), %mm1
  movq 0x88(%rbx), %mm2
  mov 0x40(%rbx), %rax
  mov 0x48(%rbx), %rcx
  mov 0x50(%rbx), %rdx
  lea 0x30(%rbx), %rdi
  add 0x60(%rbx), %rdi
  pushq 0x58(%rbx)
  popfq
  call *0x90(%rbx)
  stmxcsr 0x98(%rbx)
  pushfq
  popq 0x58(%rbx)
  cld
  mov %rax, 0x40(%rbx)
  mov %rcx, 0x48(%rbx)
  mov %rdx, 0x50(%rbx)
  movups %xmm0, 0x00(%rbx)
  movups %xmm1, 0x10(%rbx)
  movups %xmm2, 0x20(%rbx)
  movq %mm1, 0x80(%rbx)
  emms
  push $0x1f80
  ldmxcsr (%rsp)
  pop %rax
  pop %rbp
  pop %rbx
  ret

  .section .note.GNU-stack, "", @progbits
