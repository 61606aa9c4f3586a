#include "timekeeping.h"
#include "console.h"
#include "cpu.h"

#define NS_PER_SECOND 1000000000ull
#define CPUID_HYPERVISOR 0x40000000
#define CPUID_TSC_FREQUENCY 0x40000010
/* TSC and crystal clock: EBX / EAX is their ratio, ECX the crystal's rate in Hz (SDM 2A, CPUID). */
#define CPUID_TSC_RATIO 0x15

static u64 tsc_at_boot, tsc_khz, wall_clock_at_boot;

void time_init(void)
{
	u32 leaf[4];
	static u64 wall_clock __attribute__((aligned(8)));

	cpuid(CPUID_HYPERVISOR, leaf);
	if (leaf[0] >= CPUID_TSC_FREQUENCY && leaf[0] < CPUID_HYPERVISOR + 0x10000) {
		cpuid(CPUID_TSC_FREQUENCY, leaf);
		tsc_khz = leaf[0];
	}
	cpuid(0, leaf);
	if (!tsc_khz && leaf[0] >= CPUID_TSC_RATIO) {
		cpuid(CPUID_TSC_RATIO, leaf);
		if (leaf[0])
			tsc_khz = (u64)leaf[2] * leaf[1] / leaf[0] / 1000;
	}
	if (!tsc_khz)
		tsc_khz = 1000000;
	tsc_at_boot = read_tsc();
	if (host_request(HOST_WALL_CLOCK, &wall_clock, sizeof(wall_clock), 0) >= 0)
		wall_clock_at_boot = wall_clock;
}

u64 time_since_boot(void)
{
	u64 ticks = read_tsc() - tsc_at_boot;
	/* Quotient and remainder apart: the product of a long uptime would not fit 64 bits. */
	return tsc_khz == 1000000 ? ticks : ticks / tsc_khz * 1000000 + ticks % tsc_khz * 1000000 / tsc_khz;
}

struct timespec time_now(int clock)
{
	u64 ns = time_since_boot();

	if (clock == CLOCK_REALTIME || clock == 5 || clock == CLOCK_LAST)
		ns += wall_clock_at_boot;
	return (struct timespec){ (s64)(ns / NS_PER_SECOND), (s64)(ns % NS_PER_SECOND) };
}

void time_sleep(u64 nanoseconds)
{
	u64 start = time_since_boot();

	if (host_request(HOST_SLEEP, NULL, nanoseconds, 0) < 0)
		while (time_since_boot() - start < nanoseconds)
			asm volatile("pause");
}
