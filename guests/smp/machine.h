/* The PC as far as the tests need it: ports, MSRs, local APIC in x2APIC mode, IDT, page tables. */
#ifndef MACHINE_H
#define MACHINE_H

#include "layout.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define MAX_CPUS 8

/* x2APIC registers (SDM vol. 3, table 11-6) and other MSRs. */
#define MSR_TSC 0x10
#define MSR_APIC_BASE 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define X2APIC_ID 0x802
#define X2APIC_EOI 0x80b
#define X2APIC_LDR 0x80d
#define X2APIC_SVR 0x80f
#define X2APIC_ICR 0x830
#define X2APIC_LVT_TIMER 0x832
#define X2APIC_SELF_IPI 0x83f

/* Interrupt command (SDM vol. 3, 11.6.1). */
#define ICR_LOWEST (1u << 8)
#define ICR_NMI (4u << 8)
#define ICR_INIT (5u << 8)
#define ICR_STARTUP (6u << 8)
#define ICR_LOGICAL (1u << 11)
#define ICR_ASSERT (1u << 14)
#define ICR_ALL (2u << 18)
#define ICR_OTHERS (3u << 18)

#define LVT_TSC_DEADLINE (2u << 17)

static inline void outb(u16 port, u8 value) { asm volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outw(u16 port, u16 value) { asm volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static inline u64 rdmsr(u32 msr)
{
	u32 low, high;
	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return (u64)high << 32 | low;
}
static inline void wrmsr(u32 msr, u64 value) { asm volatile("wrmsr" ::"c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory"); }
static inline u64 rdtsc(void)
{
	u32 low, high;
	asm volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
	return (u64)high << 32 | low;
}
struct cpuid_answer {
	u32 eax, ebx, ecx, edx;
};
static inline struct cpuid_answer cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid_answer a;
	asm volatile("cpuid" : "=a"(a.eax), "=b"(a.ebx), "=c"(a.ecx), "=d"(a.edx) : "a"(leaf), "c"(subleaf) : "memory");
	return a;
}
static inline void pause(void) { asm volatile("pause" ::: "memory"); }
static inline void invlpg(const volatile void *address) { asm volatile("invlpg (%0)" ::"r"(address) : "memory"); }
static inline void interrupts_on(void) { asm volatile("sti" ::: "memory"); }
static inline void interrupts_off(void) { asm volatile("cli" ::: "memory"); }
/* STI takes effect after HLT: what arrives between a check and this is not slept through. */
static inline void wait_for_interrupt(void) { asm volatile("sti; hlt; cli" ::: "memory"); }

/* Prints to COM1. */
void print(const char *text);
void print_number(u64 n);
void __attribute__((noreturn)) power_off(void);

/* Number of CPUs by CPUID leaf 0xb, 1 without it. */
u32 cpu_count(void);
u32 cpu_index(void);

/* Per CPU: its own IDT register and APIC. */
void machine_init(void);
void set_gate(u8 vector, void *handler);
void send_ipi(u32 destination, u32 command);
static inline void end_of_interrupt(void) { wrmsr(X2APIC_EOI, 0); }

/* A page at TEST_PAGE whose frame can be changed. */
#define TEST_PAGE ((volatile u64 *)0x40000000)
void map_test_page(const void *frame);

extern u64 page_tables[512];
extern const u8 trampoline[], trampoline_end[];

#endif
