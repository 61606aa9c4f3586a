/*
 * The paravirtual layer that is none: privilege level 0 of a real CPU or of a hypervisor that looks like one. The
 * CPU delivers events through the IDT, walks the page tables and honours their user bit.
 */
#include "paravirt/native.h"
#include "boot.h"
#include "cpu.h"
#include "mm.h"
#include "paravirt/paravirt.h"
#include "percpu.h"

#define CR0_MP (1ull << 1)
#define CR0_EM (1ull << 2)
#define CR0_TS (1ull << 3)
#define CR0_NE (1ull << 5)
#define CR0_WP (1ull << 16)
#define CR0_AM (1ull << 18)
#define CR4_FSGSBASE (1ull << 16)
#define CR4_SMEP (1ull << 20)
#define CPUID_7_EBX_FSGSBASE (1u << 0)
#define CPUID_7_EBX_SMEP (1u << 7)

/* SYSCALL loads CS from bits 32-47 of MSR_STAR and SS behind it; SYSRET SS and CS from bits 48-63 plus 8 and 16. */
#define KERNEL_CS 0x10
#define KERNEL_DS 0x18
#define USER32_CS 0x23
#define TSS_SELECTOR 0x40

/* Descriptors (SDM 3A, 3.4.5): flat, accessed, present. */
#define DESCRIPTOR_KERNEL_CODE 0x00af9b000000ffffull
#define DESCRIPTOR_KERNEL_DATA 0x00cf93000000ffffull
#define DESCRIPTOR_USER_CODE32 0x00cffb000000ffffull
#define DESCRIPTOR_USER_DATA 0x00cff3000000ffffull
#define DESCRIPTOR_USER_CODE64 0x00affb000000ffffull
#define DESCRIPTOR_TSS (0x89ull << 40)

/* Interrupt gates (SDM 3A, 6.14.1). */
#define GATE_KERNEL 0x8e
#define GATE_USER 0xee

#define VECTOR_NMI 2
#define VECTOR_BP 3
#define VECTOR_OF 4
#define VECTOR_DF 8
#define VECTOR_MC 18
#define VECTOR_INT80 0x80

#define ENTRY_STACK_SIZE 256
#define IST_STACK_SIZE 4096

struct gate {
	u16 offset_low, selector;
	u8 ist, type;
	u16 offset_middle;
	u32 offset_high, reserved;
};

struct tss {
	u32 reserved0;
	u64 rsp[3];
	u64 reserved1;
	u64 ist[7];
	u64 reserved2;
	u16 reserved3, io_bitmap;
} PACKED;

struct table_register {
	u16 limit;
	u64 base;
} PACKED;

extern const char native_syscall_entry[], native_vectors[];
NORETURN void native_enter_user(struct regs *regs);

/* On all events from the program the CPU switches to this stack; the entry code goes on to the kernel's. */
static u8 entry_stack[ENTRY_STACK_SIZE] __attribute__((aligned(16)));
/* Events that may come at any place, and one that means the kernel's stack is bad, have stacks of their own. */
static u8 ist_stacks[3][IST_STACK_SIZE] __attribute__((aligned(16)));
static struct tss tss;
static u64 gdt[10];
static struct gate idt[256];

static void set_gate(u32 vector, u8 type, u8 ist)
{
	u64 entry = (u64)native_vectors + vector * NATIVE_VECTOR_SIZE;

	idt[vector] = (struct gate){
		.offset_low = (u16)entry, .selector = KERNEL_CS, .ist = ist, .type = type,
		.offset_middle = (u16)(entry >> 16), .offset_high = (u32)(entry >> 32),
	};
}

static void load_gdt(void)
{
	struct table_register gdtr = { sizeof(gdt) - 1, (u64)gdt };
	u64 base = (u64)&tss;

	gdt[KERNEL_CS / 8] = DESCRIPTOR_KERNEL_CODE;
	gdt[KERNEL_DS / 8] = DESCRIPTOR_KERNEL_DATA;
	gdt[USER32_CS / 8] = DESCRIPTOR_USER_CODE32;
	gdt[USER_DS / 8] = DESCRIPTOR_USER_DATA;
	gdt[USER_CS / 8] = DESCRIPTOR_USER_CODE64;
	gdt[TSS_SELECTOR / 8] = DESCRIPTOR_TSS | (sizeof(tss) - 1) |
		(base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
	gdt[TSS_SELECTOR / 8 + 1] = base >> 32;
	tss.rsp[0] = (u64)entry_stack + sizeof(entry_stack);
	for (u32 i = 0; i < ARRAY_SIZE(ist_stacks); i++)
		tss.ist[i] = (u64)ist_stacks[i] + IST_STACK_SIZE;
	tss.io_bitmap = sizeof(tss);
	asm volatile("lgdt %0\n\t"
		     "pushq %1\n\t"
		     "leaq 1f(%%rip), %%rax\n\t"
		     "pushq %%rax\n\t"
		     "lretq\n"
		     "1:\tmovl %2, %%ss\n\t"
		     "movl %3, %%ds\n\t"
		     "movl %3, %%es\n\t"
		     "movl %3, %%fs\n\t"
		     "movl %3, %%gs\n\t"
		     "ltr %w4"
		     : : "m"(gdtr), "i"(KERNEL_CS), "r"(KERNEL_DS), "r"(0), "r"(TSS_SELECTOR) : "rax", "memory");
}

static void load_idt(void)
{
	struct table_register idtr = { sizeof(idt) - 1, (u64)idt };

	for (u32 vector = 0; vector < ARRAY_SIZE(idt); vector++)
		set_gate(vector, GATE_KERNEL, 0);
	set_gate(VECTOR_BP, GATE_USER, 0);
	set_gate(VECTOR_OF, GATE_USER, 0);
	set_gate(VECTOR_INT80, GATE_USER, 0);
	set_gate(VECTOR_NMI, GATE_KERNEL, 1);
	set_gate(VECTOR_DF, GATE_KERNEL, 2);
	set_gate(VECTOR_MC, GATE_KERNEL, 3);
	asm volatile("lidt %0" : : "m"(idtr));
}

static void native_cpu_init(void)
{
	u32 leaf[4];
	u64 cr0, cr4;

	asm volatile("movq %%cr0, %0" : "=r"(cr0));
	cr0 = (cr0 | CR0_MP | CR0_NE | CR0_WP | CR0_AM) & ~(CR0_EM | CR0_TS);
	asm volatile("movq %0, %%cr0" : : "r"(cr0));
	asm volatile("movq %%cr4, %0" : "=r"(cr4));
	cpuid(7, leaf);
	if (leaf[1] & CPUID_7_EBX_FSGSBASE)
		cr4 |= CR4_FSGSBASE;
	if (leaf[1] & CPUID_7_EBX_SMEP)
		cr4 |= CR4_SMEP;
	asm volatile("movq %0, %%cr4" : : "r"(cr4));
	load_gdt();
	load_idt();
	write_msr(MSR_GS_BASE, (u64)&cpu0);
	write_msr(MSR_KERNEL_GS_BASE, 0);
	write_msr(MSR_STAR, (u64)USER32_CS << 48 | (u64)KERNEL_CS << 32);
	write_msr(MSR_LSTAR, (u64)native_syscall_entry);
	write_msr(MSR_SYSCALL_MASK, NATIVE_SYSCALL_MASK);
	write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_SCE);
}

static void native_set_entry(u64 *entry, u64 value)
{
	*(volatile u64 *)entry = value;
}

static void native_flush_page(u64 address)
{
	asm volatile("invlpg (%0)" : : "r"(address) : "memory");
}

static void native_flush_all(void)
{
	asm volatile("movq %0, %%cr3" : : "r"(boot_info.root) : "memory");
}

static u64 native_user_gs_base(void)
{
	return read_msr(MSR_KERNEL_GS_BASE);
}

static void native_set_user_gs_base(u64 base)
{
	write_msr(MSR_KERNEL_GS_BASE, base);
}

/* IRETQ restores the interrupt flag. */
static void native_resume_kernel(u64 rflags UNUSED)
{
}

/*
 * A KVM hypercall that no hypervisor knows. Without a hypervisor VMCALL is an undefined instruction, which
 * trap_from_kernel() steps over: RAX keeps the number.
 */
static s64 __attribute__((noinline, noclone)) vmcall(s64 number)
{
	s64 result;

	asm volatile(".globl native_vmcall\nnative_vmcall: vmcall" : "=a"(result) : "0"(number) : "memory");
	return result;
}

static s64 native_null_hypercall(void)
{
	static bool absent;
	s64 result = absent ? 0 : vmcall(KVM_HC_NONE);

	absent |= result == KVM_HC_NONE;
	return result;
}

const struct paravirt_ops native_ops = {
	.cpu_init = native_cpu_init,
	.enter_user = native_enter_user,
	.set_entry = native_set_entry,
	.flush_page = native_flush_page,
	.flush_all = native_flush_all,
	.user_gs_base = native_user_gs_base,
	.set_user_gs_base = native_set_user_gs_base,
	.resume_kernel = native_resume_kernel,
	.null_hypercall = native_null_hypercall,
};
