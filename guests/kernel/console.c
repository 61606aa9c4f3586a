#include "console.h"
#include "abi.h"
#include "mm.h"
#include "port.h"
#include "string.h"
#include "uaccess.h"

#define CHANNEL_PORT 0x500

struct request {
	u32 command;
	volatile s32 result;
	u64 buffer, length, argument;
} __attribute__((aligned(32)));

static struct request request;
static u8 bounce[CONSOLE_CHUNK] __attribute__((aligned(PAGE_SIZE)));

result_t host_request(enum host_command command, const volatile void *buffer, u64 length, u64 argument)
{
	request.command = command;
	request.buffer = buffer ? virt_to_phys(buffer) : 0;
	request.length = length;
	request.argument = argument;
	asm volatile("" : : : "memory");
	out32(CHANNEL_PORT, (u32)virt_to_phys(&request));
	asm volatile("" : : : "memory");
	return request.result;
}

void host_poweroff(int exit_code, int signal)
{
	for (;;)
		host_request(HOST_POWEROFF, NULL, (u64)exit_code, (u64)signal);
}

void host_random(void *buffer, u64 length)
{
	u8 *to = buffer;

	while (length) {
		u64 n = min_u64(length, sizeof(bounce));
		host_request(HOST_RANDOM, bounce, n, 0);
		memcpy(to, bounce, n);
		to += n;
		length -= n;
	}
}

result_t console_write(int fd, uaddr_t from, u64 length)
{
	u64 done = 0;

	while (done < length) {
		u64 n = min_u64(length - done, sizeof(bounce));
		if (copy_from_user(bounce, from + done, n))
			return done ? (result_t)done : -EFAULT;
		result_t r = host_request(fd == 2 ? HOST_WRITE_STDERR : HOST_WRITE_STDOUT, bounce, n, 0);
		if (r < 0)
			return done ? (result_t)done : r;
		done += n;
	}
	return (result_t)done;
}

result_t console_read(uaddr_t to, u64 length)
{
	result_t n = host_request(HOST_READ_STDIN, bounce, min_u64(length, sizeof(bounce)), 0);

	if (n > 0 && copy_to_user(to, bounce, (u64)n))
		return -EFAULT;
	return n;
}

u32 console_terminals(void)
{
	result_t mask = host_request(HOST_TTY, NULL, 0, 0);
	return mask < 0 ? 0 : (u32)mask;
}

/* Goes through the bounce buffer: string literals need not be physically contiguous with anything. */
void console_message(const char *text)
{
	u64 n = min_u64(strlen(text), sizeof(bounce));
	memcpy(bounce, text, n);
	host_request(HOST_WRITE_STDERR, bounce, n, 0);
}
