/* Clocks. They read the TSC: no exit. */
#include "string.h"
#include "syscall.h"
#include "timekeeping.h"
#include "uaccess.h"

#define TIMER_ABSTIME 1
#define CLOCK_TICKS 100

result_t sys_clock_gettime(u64 clock, uaddr_t to)
{
	if (clock > CLOCK_LAST)
		return -EINVAL;
	struct timespec now = time_now((int)clock);
	return PUT_USER(to, now);
}

result_t sys_clock_getres(u64 clock, uaddr_t to)
{
	struct timespec resolution = { 0, 1 };

	if (clock > CLOCK_LAST)
		return -EINVAL;
	return to ? PUT_USER(to, resolution) : 0;
}

result_t sys_gettimeofday(uaddr_t to, uaddr_t zone)
{
	struct timespec now = time_now(CLOCK_REALTIME);

	now.tv_nsec /= 1000;
	if (to && PUT_USER(to, now))
		return -EFAULT;
	return zone && clear_user(zone, 8) ? -EFAULT : 0;
}

result_t sys_time(uaddr_t to)
{
	s64 now = time_now(CLOCK_REALTIME).tv_sec;
	return to && PUT_USER(to, now) ? -EFAULT : now;
}

result_t sys_times(uaddr_t to)
{
	u64 ticks = time_since_boot() / (1000000000 / CLOCK_TICKS);
	u64 tms[4] = { ticks, 0, 0, 0 };

	return to && PUT_USER(to, tms) ? -EFAULT : (result_t)ticks;
}

static result_t get_interval(uaddr_t request, u64 *nanoseconds)
{
	struct timespec t;

	if (GET_USER(t, request))
		return -EFAULT;
	if (t.tv_sec < 0 || t.tv_nsec < 0 || t.tv_nsec >= 1000000000)
		return -EINVAL;
	*nanoseconds = (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
	return 0;
}

result_t sys_nanosleep(uaddr_t request, uaddr_t remaining UNUSED)
{
	u64 nanoseconds;
	result_t r = get_interval(request, &nanoseconds);

	if (!r)
		time_sleep(nanoseconds);
	return r;
}

result_t sys_clock_nanosleep(u64 clock, u64 flags, uaddr_t request, uaddr_t remaining UNUSED)
{
	u64 nanoseconds;
	result_t r = get_interval(request, &nanoseconds);

	if (r)
		return r;
	if (clock > CLOCK_LAST)
		return -EINVAL;
	if (flags & TIMER_ABSTIME) {
		struct timespec now = time_now((int)clock);
		u64 n = (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
		nanoseconds -= min_u64(nanoseconds, n);
	}
	time_sleep(nanoseconds);
	return 0;
}
