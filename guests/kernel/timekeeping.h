/* Time from the TSC. */
#pragma once
#include "abi.h"

#define CLOCK_REALTIME 0
#define CLOCK_MONOTONIC 1
#define CLOCK_PROCESS_CPUTIME_ID 2
#define CLOCK_THREAD_CPUTIME_ID 3
#define CLOCK_LAST 11

void time_init(void);
/* Nanoseconds since boot, and the time of a Linux clock. */
u64 time_since_boot(void);
struct timespec time_now(int clock);
/* Let at least that many nanoseconds pass. */
void time_sleep(u64 nanoseconds);
