/*
 * Checks a machine with several CPUs by itself and says so on COM1: a line for each check that passed, one that begins with FAIL for the first that did not.
 * The boot CPU leads: it gives all CPUs the same job and waits until all are done.
 */
#include "kvm.h"

#define VECTOR_PING 0x40
#define VECTOR_PONG 0x41
#define VECTOR_FLUSH 0x42
#define VECTOR_TIMER 0x43
#define VECTOR_WAKE 0x44
#define VECTOR_NMI 2
#define ROUNDS 200

static u32 cpus;
static volatile u32 started;
static job *volatile current_job;
static volatile u32 job_number, jobs_done;
static volatile u32 pings[MAX_CPUS], pongs, flushes, timers[MAX_CPUS], wakes[MAX_CPUS], nmis[MAX_CPUS];

struct frame;
#define HANDLER(name) static __attribute__((interrupt)) void name(__attribute__((unused)) struct frame *frame)

static void fail(const char *what, u64 got, u64 expected)
{
	print("FAIL ");
	print(what);
	print(": got ");
	print_number(got);
	print(", expected ");
	print_number(expected);
	print("\n");
	power_off();
}

void expect(const char *what, u64 got, u64 expected)
{
	if (got != expected)
		fail(what, got, expected);
}

void passed(const char *what)
{
	print("ok ");
	print(what);
	print("\n");
}

HANDLER(on_ping)
{
	pings[cpu_index()]++;
	end_of_interrupt();
	send_ipi(0, VECTOR_PONG);
}
HANDLER(on_pong)
{
	pongs++;
	end_of_interrupt();
}
HANDLER(on_flush)
{
	invlpg(TEST_PAGE);
	__atomic_add_fetch(&flushes, 1, __ATOMIC_SEQ_CST);
	end_of_interrupt();
}
HANDLER(on_timer)
{
	timers[cpu_index()]++;
	end_of_interrupt();
}
HANDLER(on_wake)
{
	u32 cpu = cpu_index();
	wakes[cpu]++;
	kvm_end_of_interrupt(cpu);
}
HANDLER(on_nmi)
{
	nmis[cpu_index()]++;
}

void begin(job *what)
{
	current_job = what;
	jobs_done = 0;
	__atomic_add_fetch(&job_number, 1, __ATOMIC_SEQ_CST);
}

void finish(void)
{
	while (jobs_done != cpus - 1)
		pause();
}

/* The boot CPU comes back when all are done. */
void together(job *what)
{
	begin(what);
	what(0);
	finish();
}

void secondary_main(u32 cpu)
{
	machine_init();
	u32 seen = job_number;
	__atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
	interrupts_on();
	for (;;) {
		while (job_number == seen)
			pause();
		seen = job_number;
		current_job(cpu);
		__atomic_add_fetch(&jobs_done, 1, __ATOMIC_SEQ_CST);
	}
}

static void start_cpu(u32 cpu)
{
	u32 before = started;
	send_ipi(cpu, ICR_INIT | ICR_ASSERT);
	send_ipi(cpu, ICR_STARTUP | ICR_ASSERT | TRAMPOLINE >> 12);
	send_ipi(cpu, ICR_STARTUP | ICR_ASSERT | TRAMPOLINE >> 12);
	while (started == before)
		pause();
}

static void check_identity(u32 cpu)
{
	expect("x2APIC ID", rdmsr(X2APIC_ID), cpu);
	expect("x2APIC ID of CPUID leaf 0xb", cpuid(0xb, 0).edx, cpu);
	expect("logical destination", rdmsr(X2APIC_LDR), 1ul << cpu);
	expect("boot CPU flag", rdmsr(MSR_APIC_BASE) >> 8 & 1, cpu == 0);
	expect("logical processors of CPUID leaf 1", cpuid(1, 0).ebx >> 16 & 0xff, cpus);
	/* Memory types are the same everywhere (SDM vol. 3, 12.11.8). */
	expect("MTRR default type", rdmsr(0x2ff), 0x806);
	expect("PAT", rdmsr(0x277), 0x0007040600070406);
}

static void check_ipis(void)
{
	for (u32 i = 0; i < ROUNDS; i++) {
		u32 cpu = 1 + i % (cpus - 1);
		u32 before = pongs;
		send_ipi(cpu, VECTOR_PING);
		while (pongs == before)
			pause();
	}
	u32 sum = 0;
	for (u32 cpu = 1; cpu < cpus; cpu++)
		sum += pings[cpu];
	expect("pings", sum, ROUNDS);
	passed("IPIs go to and fro");
}

u32 wake_count(void)
{
	u32 sum = 0;
	for (u32 cpu = 0; cpu < cpus; cpu++)
		sum += wakes[cpu];
	return sum;
}

static void await_wakes(u32 expected)
{
	u32 sum;
	while ((sum = wake_count()) != expected) {
		if (sum > expected)
			fail("interrupts of a broadcast", sum, expected);
		pause();
	}
}

static void check_destinations(void)
{
	send_ipi(0, ICR_OTHERS | VECTOR_WAKE);
	await_wakes(cpus - 1);
	expect("IPI to the others at the sender", wakes[0], 0);
	send_ipi(0, ICR_ALL | VECTOR_WAKE);
	await_wakes(2 * cpus - 1);
	/* Cluster 0, all members but the sender. */
	send_ipi((1u << cpus) - 2, ICR_LOGICAL | VECTOR_WAKE);
	await_wakes(3 * cpus - 2);
	send_ipi((1u << cpus) - 1, ICR_LOGICAL | ICR_LOWEST | VECTOR_WAKE);
	await_wakes(3 * cpus - 1);
	wrmsr(X2APIC_SELF_IPI, VECTOR_WAKE);
	await_wakes(3 * cpus);
	expect("IPIs to itself", wakes[0] <= 3 && wakes[0] >= 2, 1);
	passed("IPIs by shorthand, logical destination and lowest priority");
	for (u32 cpu = 1; cpu < cpus; cpu++) {
		send_ipi(cpu, ICR_NMI);
		while (nmis[cpu] != 1)
			pause();
	}
	passed("NMIs");
}

static volatile u32 next_ticket, now_serving;
static volatile u64 locked_count, atomic_count, compared_count;

static void count_together(__attribute__((unused)) u32 cpu)
{
	for (u32 i = 0; i < ROUNDS; i++) {
		u32 ticket = __atomic_fetch_add(&next_ticket, 1, __ATOMIC_SEQ_CST);
		while (now_serving != ticket)
			pause();
		u64 n = locked_count;
		asm volatile("" ::: "memory");
		locked_count = n + 1;
		now_serving = ticket + 1;
		__atomic_add_fetch(&atomic_count, 1, __ATOMIC_SEQ_CST);
		u64 old = compared_count;
		while (!__atomic_compare_exchange_n(&compared_count, &old, old + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			;
	}
}

static u64 frames[2][512] __attribute__((aligned(4096)));
static volatile u64 seen_values[MAX_CPUS];

static void read_test_page(u32 cpu)
{
	seen_values[cpu] = *TEST_PAGE;
}

static void check_shootdowns(void)
{
	frames[0][0] = 100;
	frames[1][0] = 101;
	map_test_page(frames[0]);
	for (u32 round = 1; round < ROUNDS; round++) {
		together(read_test_page);
		map_test_page(frames[round & 1]);
		invlpg(TEST_PAGE);
		flushes = 0;
		send_ipi(0, ICR_OTHERS | VECTOR_FLUSH);
		while (flushes != cpus - 1)
			pause();
		together(read_test_page);
		for (u32 cpu = 0; cpu < cpus; cpu++)
			expect("value behind a page that changed", seen_values[cpu], 100 + (round & 1));
	}
	passed("TLB shootdowns");
}

/* mov eax, imm32; ret */
static u8 patched[16] __attribute__((aligned(64))) = { 0xb8, 0, 0, 0, 0, 0xc3 };

static void call_patched(u32 cpu)
{
	u32 (*function)(void) = (u32(*)(void))(u64)patched;
	/* Serialising, as cross-modifying code asks for (SDM vol. 3, 9.1.3). */
	cpuid(0, 0);
	u64 sum = 0;
	for (u32 i = 0; i < ROUNDS; i++)
		sum += function();
	seen_values[cpu] = sum;
}

static void check_patching(void)
{
	for (u32 round = 1; round < 40; round++) {
		/* Each CPU has its turn as the one that writes. */
		*(volatile u32 *)(patched + 1) = round;
		together(call_patched);
		for (u32 cpu = 0; cpu < cpus; cpu++)
			expect("result of code that another CPU changed", seen_values[cpu], (u64)round * ROUNDS);
	}
	passed("cross-modifying code");
}

static void patch_own(u32 cpu)
{
	while (locked_count % cpus != cpu)
		pause();
	*(volatile u32 *)(patched + 1) = 1000 + cpu;
	locked_count++;
	while (locked_count < cpus)
		pause();
	call_patched(cpu);
}

static volatile u64 latest_tsc;
static volatile u32 backwards;

static void read_tsc(__attribute__((unused)) u32 cpu)
{
	for (u32 i = 0; i < 50 * ROUNDS; i++) {
		u64 before = latest_tsc;
		u64 now = rdtsc();
		if (now < before)
			backwards++;
		__atomic_compare_exchange_n(&latest_tsc, &before, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
}

static void sleep_thrice(u32 cpu)
{
	wrmsr(X2APIC_LVT_TIMER, LVT_TSC_DEADLINE | VECTOR_TIMER);
	interrupts_off();
	for (u32 i = 1; i <= 3; i++) {
		u64 until = rdtsc() + 100000 * (1 + cpu);
		wrmsr(MSR_TSC_DEADLINE, until);
		while (timers[cpu] < i)
			wait_for_interrupt();
		if (rdtsc() < until)
			fail("sleep of CPU was too short", cpu, cpu);
	}
	interrupts_on();
}

static volatile u32 asleep;

static void sleep_until_woken(u32 cpu)
{
	if (cpu == 0)
		return;
	interrupts_off();
	u32 before = wakes[cpu];
	__atomic_add_fetch(&asleep, 1, __ATOMIC_SEQ_CST);
	while (wakes[cpu] == before)
		wait_for_interrupt();
	interrupts_on();
}

static void check_wakes(void)
{
	begin(sleep_until_woken);
	while (asleep != cpus - 1)
		pause();
	for (u32 cpu = cpus - 1; cpu > 0; cpu--) {
		send_ipi(cpu, VECTOR_WAKE);
		while (jobs_done != cpus - cpu)
			pause();
	}
	passed("IPIs wake CPUs from HLT");
}

static void check_restart(void)
{
	for (u32 cpu = 1; cpu < cpus; cpu++)
		start_cpu(cpu);
	together(check_identity);
	passed("INIT and start-up of running CPUs");
}

void boot_main(void)
{
	set_gate(VECTOR_PING, on_ping);
	set_gate(VECTOR_PONG, on_pong);
	set_gate(VECTOR_FLUSH, on_flush);
	set_gate(VECTOR_TIMER, on_timer);
	set_gate(VECTOR_WAKE, on_wake);
	set_gate(VECTOR_NMI, on_nmi);
	machine_init();
	cpus = cpu_count();
	interrupts_on();
	for (u32 cpu = 1; cpu < cpus; cpu++)
		start_cpu(cpu);
	print_number(started + 1);
	print(" CPUs\n");
	together(check_identity);
	passed("identity");
	check_ipis();
	check_destinations();
	together(count_together);
	expect("count under a lock", locked_count, (u64)cpus * ROUNDS);
	expect("count by LOCK XADD", atomic_count, (u64)cpus * ROUNDS);
	expect("count by LOCK CMPXCHG", compared_count, (u64)cpus * ROUNDS);
	passed("locks and atomic instructions");
	check_shootdowns();
	check_patching();
	locked_count = 0;
	together(patch_own);
	for (u32 cpu = 0; cpu < cpus; cpu++)
		expect("result of code that all CPUs changed", seen_values[cpu], (u64)(1000 + cpus - 1) * ROUNDS);
	passed("code that each CPU changes");
	together(read_tsc);
	expect("TSC readings that went back", backwards, 0);
	passed("TSCs in step");
	together(sleep_thrice);
	for (u32 cpu = 0; cpu < cpus; cpu++)
		expect("timer interrupts", timers[cpu], 3);
	passed("a timer each");
	check_wakes();
	if (has_kvm())
		check_kvm(cpus, VECTOR_WAKE);
	check_restart();
	print("all passed\n");
	power_off();
}
