#include "machine.h"

#define COM1 0x3f8
#define PM1_CONTROL 0x604
#define S5_SLEEP_ENABLE 0x3400
#define APIC_BASE_X2APIC 0xc00
#define SVR_ENABLE 0x100
#define SPURIOUS_VECTOR 0xff
#define GATE_INTERRUPT 0x8e

#define PTE_RW 3ul
#define PTE_LARGE 0x83ul

u64 page_tables[512] __attribute__((aligned(4096)));
static u64 pointers[512] __attribute__((aligned(4096)));
static u64 identity[512] __attribute__((aligned(4096)));
static u64 test_directory[512] __attribute__((aligned(4096)));
static u64 test_table[512] __attribute__((aligned(4096)));
u8 stacks[MAX_CPUS][1 << STACK_SHIFT] __attribute__((aligned(16)));

struct gate {
	u16 offset_low, selector;
	u8 ist, type;
	u16 offset_middle;
	u32 offset_high, reserved;
};
static struct gate idt[256] __attribute__((aligned(16)));

void print(const char *text)
{
	while (*text)
		outb(COM1, (u8)*text++);
}

void print_number(u64 n)
{
	if (n > 9)
		print_number(n / 10);
	outb(COM1, (u8)('0' + n % 10));
}

void power_off(void)
{
	outw(PM1_CONTROL, S5_SLEEP_ENABLE);
	for (;;)
		asm volatile("cli; hlt");
}

u32 cpu_count(void)
{
	u32 count = cpuid(0xb, 1).ebx & 0xffff;
	return count ? count : 1;
}

u32 cpu_index(void)
{
	return cpuid(1, 0).ebx >> 24;
}

/* Called first by the boot CPU: the tables are the same for all. */
void machine_init(void)
{
	struct {
		u16 limit;
		struct gate *base;
	} __attribute__((packed)) idtr = { sizeof(idt) - 1, idt };

	if (!page_tables[0]) {
		for (u64 i = 0; i < 512; i++)
			identity[i] = i << 21 | PTE_LARGE;
		test_directory[0] = (u64)test_table | PTE_RW;
		pointers[0] = (u64)identity | PTE_RW;
		pointers[1] = (u64)test_directory | PTE_RW;
		page_tables[0] = (u64)pointers | PTE_RW;
		asm volatile("mov %0, %%cr3" ::"r"(page_tables) : "memory");
		u8 *to = (u8 *)TRAMPOLINE;
		for (const u8 *from = trampoline; from < trampoline_end; from++)
			*to++ = *from;
	}
	asm volatile("lidt %0" ::"m"(idtr));
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2APIC);
	wrmsr(X2APIC_SVR, SVR_ENABLE | SPURIOUS_VECTOR);
}

void set_gate(u8 vector, void *handler)
{
	u64 offset = (u64)handler;
	idt[vector] = (struct gate){ (u16)offset, CODE_SELECTOR, 0, GATE_INTERRUPT, (u16)(offset >> 16), (u32)(offset >> 32), 0 };
}

void send_ipi(u32 destination, u32 command)
{
	wrmsr(X2APIC_ICR, (u64)destination << 32 | command);
}

void map_test_page(const void *frame)
{
	test_table[0] = (u64)frame | PTE_RW;
}
