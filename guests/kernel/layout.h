/*
 * The virtual address space. PML4 slots 416..479 are the range a PVM hypervisor hands out by default
 * (MSR LINEAR_ADDRESS_RANGE: s4 = 0x1a0, e4 = 0x1e0); everything of the kernel lies inside it.
 *
 *   slot   0..255  0x0000_0000_0000_0000  the program
 *   slot 416       0xffff_d000_0000_0000  direct map: all of RAM, physical 0 first
 *   slot 479       0xffff_ef80_0000_0000  kernel image: physical 1 MiB at + 1 MiB
 *
 * The build for the native test host overrides the two bases with lower-half addresses.
 */
#pragma once

#ifndef DIRECT_BASE
#define DIRECT_BASE 0xffffd00000000000
#endif
#ifndef KERNEL_BASE
#define KERNEL_BASE 0xffffef8000000000
#endif

#define KERNEL_PHYS 0x100000
/* The kernel image must end below this physical address (two page tables of 4 KiB pages). */
#define KERNEL_PHYS_LIMIT 0x400000

#define TASK_SIZE 0x7ffffffff000
/* Nothing is mapped below, so that null pointers fault. */
#define TASK_START 0x10000
#define STACK_TOP 0x7fffffffe000
#define STACK_LIMIT 0x800000
/* mmap allocates downwards from here: below the largest stack and a guard gap. */
#define MMAP_TOP 0x7ffff7000000
/* Load address of a static-pie program. */
#define PIE_BASE 0x555555554000
