#include "guest.h"

asm(".globl _start\n"
    "_start:\n"
    "	xorl %ebp, %ebp\n"
    "	movq (%rsp), %rdi\n"
    "	leaq 8(%rsp), %rsi\n"
    "	andq $-16, %rsp\n"
    "	call start\n");

static char output[4096];
static u32 output_used;

__attribute__((noreturn)) void start(int argc, char **argv);
void start(int argc, char **argv)
{
	int code = main(argc, argv);
	flush_output();
	for (;;)
		syscall3(SYS_exit_group, code, 0, 0);
}

/* The compiler may call these for structure copies and loops it recognises. */
void *memcpy(void *to, const void *from, size_t n);
void *memcpy(void *to, const void *from, size_t n)
{
	void *result = to;
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return result;
}

void *memset(void *to, int value, size_t n);
void *memset(void *to, int value, size_t n)
{
	void *result = to;
	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
	return result;
}

u64 now_ns(void)
{
	struct { s64 seconds, nanoseconds; } t;
	syscall3(SYS_clock_gettime, 1, (s64)&t, 0);
	return (u64)(t.seconds * 1000000000 + t.nanoseconds);
}

void *allocate(size_t n)
{
	enum { PROT_READ = 1, PROT_WRITE = 2, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20 };
	s64 address = syscall6(SYS_mmap, 0, (s64)n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (address < 0 && address > -4096) {
		print("out of memory\n");
		syscall3(SYS_exit_group, 1, 0, 0);
	}
	return (void *)address;
}

void release(void *memory, size_t n)
{
	syscall3(SYS_munmap, (s64)memory, (s64)n, 0);
}

size_t length(const char *s)
{
	size_t n = 0;
	while (s[n])
		n++;
	return n;
}

int equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

u64 parse(const char *digits)
{
	u64 value = 0;
	while (*digits >= '0' && *digits <= '9')
		value = value * 10 + (u64)(*digits++ - '0');
	return value;
}

void flush_output(void)
{
	if (output_used)
		syscall3(SYS_write, 1, (s64)output, output_used);
	output_used = 0;
}

static void put(char c)
{
	output[output_used++] = c;
	if (c == '\n' || output_used == sizeof(output))
		flush_output();
}

void print(const char *text)
{
	while (*text)
		put(*text++);
}

void print_padded(const char *text, u32 width)
{
	print(text);
	for (size_t n = length(text); n < width; n++)
		put(' ');
}

void print_fixed(u64 value, u32 decimals, u32 width)
{
	char digits[24];
	u32 n = 0;

	do {
		digits[n++] = (char)('0' + value % 10);
		value /= 10;
		if (n == decimals)
			digits[n++] = '.';
	} while (value || (decimals && n < decimals + 2));
	for (u32 i = n; i < width; i++)
		put(' ');
	while (n)
		put(digits[--n]);
}

void print_number(u64 value, u32 width)
{
	print_fixed(value, 0, width);
}
