/* Checks of KVM's paravirtual interface, where the machine offers it. */
#include "kvm.h"

#define CPUID_SIGNATURE 0x40000000
#define CPUID_FEATURES 0x40000001
#define SIGNATURE_EBX 0x4b4d564b
/* Linux Documentation/virt/kvm/x86: cpuid.rst, msr.rst, hypercalls.rst. */
#define FEATURE_CLOCKSOURCE2 (1u << 3)
#define FEATURE_PV_EOI (1u << 6)
#define FEATURE_PV_UNHALT (1u << 7)
#define FEATURE_PV_SEND_IPI (1u << 11)
#define FEATURE_STABLE (1u << 24)
#define FEATURES (FEATURE_CLOCKSOURCE2 | FEATURE_PV_EOI | FEATURE_PV_UNHALT | FEATURE_PV_SEND_IPI | FEATURE_STABLE)
#define MSR_SYSTEM_TIME_NEW 0x4b564d01
#define MSR_STEAL_TIME 0x4b564d03
#define MSR_PV_EOI_EN 0x4b564d04
#define HC_KICK_CPU 5
#define HC_SEND_IPI 10
#define HC_SCHED_YIELD 11
#define ENOSYS 1000
#define ENABLE 1

struct time_info {
	volatile u32 version;
	u32 padding;
	volatile u64 tsc, system_time;
	volatile u32 mul;
	volatile signed char shift;
	volatile u8 flags;
	u8 more[2];
} __attribute__((aligned(64)));
struct steal_time {
	volatile u64 steal;
	volatile u32 version, flags;
	volatile u8 preempted;
	u8 more[47];
} __attribute__((aligned(64)));

static struct time_info times[MAX_CPUS];
static struct steal_time steals[MAX_CPUS];
static volatile u32 end_of_interrupt_flags[MAX_CPUS];
static volatile u64 latest_time;
static volatile u32 backwards, in_hlt, kicked;
static u32 cpus;

static u64 hypercall(u64 number, u64 a, u64 b, u64 c, u64 d)
{
	u64 result;
	asm volatile("vmcall" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return result;
}

int has_kvm(void)
{
	return cpuid(CPUID_SIGNATURE, 0).ebx == SIGNATURE_EBX && (cpuid(CPUID_FEATURES, 0).eax & FEATURES) == FEATURES;
}

/* An interrupt whose end costs nothing when the hypervisor has offered it. */
void kvm_end_of_interrupt(u32 cpu)
{
	u8 was;
	asm volatile("btrl $0, %0; setc %1" : "+m"(end_of_interrupt_flags[cpu]), "=q"(was)::"memory");
	if (!was)
		end_of_interrupt();
}

static u64 read_time(const struct time_info *info)
{
	u32 version;
	u64 time;
	do {
		version = info->version;
		u64 delta = rdtsc() - info->tsc;
		delta = info->shift < 0 ? delta >> -info->shift : delta << info->shift;
		time = info->system_time + (u64)((unsigned __int128)delta * info->mul >> 32);
	} while ((version & 1) || version != info->version);
	return time;
}

void kvm_enable(u32 cpu)
{
	wrmsr(MSR_SYSTEM_TIME_NEW, (u64)&times[cpu] | ENABLE);
	wrmsr(MSR_STEAL_TIME, (u64)&steals[cpu] | ENABLE);
	wrmsr(MSR_PV_EOI_EN, (u64)&end_of_interrupt_flags[cpu] | ENABLE);
}

static void read_times(u32 cpu)
{
	for (u32 i = 0; i < 5000; i++) {
		u64 before = latest_time;
		u64 now = read_time(&times[cpu]);
		if (now < before)
			backwards++;
		__atomic_compare_exchange_n(&latest_time, &before, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
}

/* HLT with interrupts off, as a lock's waiters do: only a kick ends it. */
static void halt_until_kicked(u32 cpu)
{
	if (cpu == 0)
		return;
	interrupts_off();
	__atomic_add_fetch(&in_hlt, 1, __ATOMIC_SEQ_CST);
	asm volatile("hlt" ::: "memory");
	__atomic_add_fetch(&kicked, 1, __ATOMIC_SEQ_CST);
	interrupts_on();
}

void check_kvm(u32 count, u8 wake_vector)
{
	cpus = count;
	together(kvm_enable);
	expect("stable flag of the clock", times[0].flags & 1, 1);
	together(read_times);
	expect("clock readings that went back", backwards, 0);
	passed("the paravirtual clock is the same on all CPUs");

	u32 before = wake_count();
	expect("CPUs that SEND_IPI reached", hypercall(HC_SEND_IPI, (1ul << cpus) - 1, 0, 0, wake_vector), cpus);
	while (wake_count() != before + cpus)
		pause();
	expect("CPUs that SEND_IPI reached from the second map", hypercall(HC_SEND_IPI, 1, 0, cpus - 1, wake_vector), 1);
	while (wake_count() != before + cpus + 1)
		pause();
	passed("paravirtual IPIs");

	begin(halt_until_kicked);
	while (in_hlt != cpus - 1)
		pause();
	for (u32 cpu = 1; cpu < cpus; cpu++) {
		expect("KICK_CPU", hypercall(HC_KICK_CPU, 0, cpu, 0, 0), 0);
		expect("SCHED_YIELD", hypercall(HC_SCHED_YIELD, cpu, 0, 0, 0), 0);
		while (kicked != cpu)
			pause();
	}
	finish();
	expect("an unknown hypercall", hypercall(9999, 0, 0, 0, 0), (u64)-ENOSYS);
	passed("kicks");

	for (u32 cpu = 0; cpu < cpus; cpu++) {
		expect("version of the steal time, odd", steals[cpu].version & 1, 0);
		expect("steal time of a CPU that shared a thread is above 0", steals[cpu].steal > 0, 1);
	}
	expect("preempted flag of the CPU that runs", steals[0].preempted, 0);
	expect("preempted flag of one that does not", steals[1].preempted & 1, 1);
	passed("steal time");
}
