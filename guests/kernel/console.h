/* The channel to the host: the pvm-console device. */
#pragma once
#include "types.h"

/* Bytes the bounce buffer holds: the most that one transfer moves. */
#define CONSOLE_CHUNK 65536

enum host_command {
	HOST_WRITE_STDOUT = 1,
	HOST_WRITE_STDERR = 2,
	HOST_READ_STDIN = 3,
	HOST_POWEROFF = 4,
	HOST_REPORT = 5,
	HOST_WALL_CLOCK = 6,
	HOST_RANDOM = 7,
	HOST_TTY = 8,
	HOST_MARK = 16,
	HOST_SLEEP = 17,
};

/* One request, one exit. `buffer` must be physically contiguous kernel memory. */
result_t host_request(enum host_command command, const volatile void *buffer, u64 length, u64 argument);
NORETURN void host_poweroff(int exit_code, int signal);
void host_random(void *buffer, u64 length);

/* Program output and input; user addresses. fd 1 or 2. */
result_t console_write(int fd, uaddr_t from, u64 length);
result_t console_read(uaddr_t to, u64 length);
/* Bit fd set: the host's file descriptor is a terminal. */
u32 console_terminals(void);

/* Kernel messages on the host's standard error. */
void console_message(const char *text);
