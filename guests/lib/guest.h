/*
 * A minimal runtime for the guest programs of this folder: no C library, so that images stay small and
 * every instruction counted is the program's own.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef int64_t s64;
typedef uint64_t u64;

/* Linux x86-64 system call numbers. */
enum {
	SYS_write = 1, SYS_mmap = 9, SYS_munmap = 11, SYS_rt_sigaction = 13, SYS_rt_sigreturn = 15, SYS_getpid = 39,
	SYS_clock_gettime = 228, SYS_exit_group = 231,
	/* Private to the PVM guest kernel; -ENOSYS elsewhere. */
	SYS_pvm_bench = 510, SYS_pvm_mark = 511,
};

static inline s64 syscall6(s64 number, s64 a, s64 b, s64 c, s64 d, s64 e, s64 f)
{
	s64 result;
	register s64 r10 asm("r10") = d;
	register s64 r8 asm("r8") = e;
	register s64 r9 asm("r9") = f;
	asm volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
		     : "rcx", "r11", "memory");
	return result;
}

static inline s64 syscall0(s64 number)
{
	s64 result;
	asm volatile("syscall" : "=a"(result) : "0"(number) : "rcx", "r11", "memory");
	return result;
}

static inline s64 syscall3(s64 number, s64 a, s64 b, s64 c)
{
	return syscall6(number, a, b, c, 0, 0, 0);
}

/* The program. Its result is the exit code. */
int main(int argc, char **argv);

/* Nanoseconds of CLOCK_MONOTONIC. */
u64 now_ns(void);
/* Anonymous memory; ends the program when there is none. */
void *allocate(size_t n);
void release(void *memory, size_t n);

size_t length(const char *s);
int equal(const char *a, const char *b);
u64 parse(const char *digits);

/* Output is collected and written when it ends a line. */
void print(const char *text);
void print_number(u64 value, u32 width);
/* value / 10^decimals with that many decimals. */
void print_fixed(u64 value, u32 decimals, u32 width);
void print_padded(const char *text, u32 width);
void flush_output(void);
