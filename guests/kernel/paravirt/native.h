/* The layer for privilege level 0: what its C code and its entry code share. */
#pragma once

/* Bytes of code per IDT vector. */
#define NATIVE_VECTOR_SIZE 16
/* RFLAGS that a program may have beside the status flags (TF DF NT RF AC ID), and what is always set (IF, bit 1). */
#define NATIVE_RFLAGS_USER 0x254dd5
#define NATIVE_RFLAGS_SET 0x202
/* Cleared by SYSCALL: everything that may be cleared. */
#define NATIVE_SYSCALL_MASK 0x257fd5
