#include "bench.h"
#include "console.h"
#include "cpu.h"
#include "paravirt/paravirt.h"
#include "port.h"
#include "paravirt/pvm.h"
#include "syscall.h"

/* Line status register of the first UART, and the port BIOS programs use as a delay. */
#define PORT_UART_LSR 0x3fd
#define PORT_DELAY 0x80

/* An MSR whose value this single CPU does not use. */
#define BENCH_MSR MSR_TSC_AUX

static void __attribute__((noinline, noclone)) undefined_instruction(void)
{
	asm volatile(".globl bench_ud2\nbench_ud2: ud2" : : : "memory");
}

static void read_msr_once(void)
{
	u32 low, high;
	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(BENCH_MSR));
}

static void write_msr_once(void)
{
	asm volatile("wrmsr" : : "a"(0), "d"(0), "c"(BENCH_MSR));
}

static void cpuid_once(void)
{
	u32 leaf[4];
	cpuid(0, leaf);
}

static void synthetic_cpuid_once(void)
{
	u32 leaf[4];
	pvm_cpuid(0, 0, leaf);
}

static void bench_once(enum bench_kind kind)
{
	switch (kind) {
	case BENCH_HYPERCALL:
		pv->null_hypercall();
		break;
	case BENCH_EXCEPTION:
		undefined_instruction();
		break;
	case BENCH_MSR_READ:
		read_msr_once();
		break;
	case BENCH_MSR_WRITE:
		write_msr_once();
		break;
	case BENCH_CPUID:
		cpuid_once();
		break;
	case BENCH_CPUID_SYNTHETIC:
		synthetic_cpuid_once();
		break;
	case BENCH_PIO_IN:
		in8(PORT_UART_LSR);
		break;
	case BENCH_PIO_OUT:
		out8(PORT_DELAY, 0);
		break;
	}
}

static void bench_loop(enum bench_kind kind, u64 n)
{
	while (n--)
		bench_once(kind);
}

result_t sys_pvm_bench(u64 kind, u64 n, u64 marked)
{
	if (kind > BENCH_PIO_OUT)
		return -EINVAL;
	if (marked)
		host_request(HOST_MARK, NULL, n, kind);
	bench_loop((enum bench_kind)kind, n);
	if (marked)
		host_request(HOST_MARK, NULL, 0, kind);
	return 0;
}

result_t sys_pvm_mark(u64 operations, u64 id)
{
	host_request(HOST_MARK, NULL, operations, id);
	return 0;
}
