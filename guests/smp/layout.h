/* Numbers that C and assembly share. */
#ifndef LAYOUT_H
#define LAYOUT_H

#define TRAMPOLINE 0x8000
#define CODE32_SELECTOR 0x08
#define CODE_SELECTOR 0x10
#define DATA_SELECTOR 0x18
#define STACK_SHIFT 13

/* SDM vol. 3, 2.5 and vol. 4. */
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100

#endif
