/*
 * Self-modifying code, each way a program can change what it executes. Every case must see its change at
 * once, or after the jump that the architecture asks for. Prints "ok <case>".
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int function(void);

#define PAGE 4096

static function *as_function(void *code)
{
	function *f;
	memcpy(&f, &code, sizeof(f));
	return f;
}

/* mov $value, %eax; ret */
static void write_return(unsigned char *at, int value)
{
	at[0] = 0xb8;
	memcpy(at + 1, &value, 4);
	at[5] = 0xc3;
}

static void expect(int got, int wanted, const char *what)
{
	if (got != wanted) {
		printf("FAILED %s: %d, expected %d\n", what, got, wanted);
		exit(1);
	}
}

static unsigned char *map(size_t size, int prot, int flags, int fd)
{
	unsigned char *p = mmap(NULL, size, prot, flags, fd, 0);
	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

int main(void)
{
	const int rwx = PROT_READ | PROT_WRITE | PROT_EXEC;
	unsigned char *code = map(4 * PAGE, rwx, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	int sum = 0;

	for (int i = 0; i < 2000; i++) {
		write_return(code, i);
		expect(as_function(code)(), i, "rewritten function");
	}
	puts("ok rewrite");

	/* Hot first, then changed: compiled code must be thrown away. */
	write_return(code, 7);
	for (int i = 0; i < 300000; i++)
		sum += as_function(code)();
	expect(sum, 7 * 300000, "hot function");
	code[1] = 9;
	expect(as_function(code)(), 9, "hot function, one byte changed");
	puts("ok hot");

	/* The instruction straddles two pages; either part changes. */
	write_return(code + PAGE - 3, 0x01020304);
	expect(as_function(code + PAGE - 3)(), 0x01020304, "straddling instruction");
	code[PAGE - 1] = 0x99;
	expect(as_function(code + PAGE - 3)(), 0x01029904, "its first page changed");
	code[PAGE] = 0x77;
	expect(as_function(code + PAGE - 3)(), 0x01779904, "its second page changed");
	puts("ok straddle");

	/* A loop that changes its own next instruction: mov $imm overwritten before it is reached. */
	static const unsigned char self[] = {
		0x31, 0xc0,                               /* xor %eax, %eax */
		0xb9, 0x64, 0x00, 0x00, 0x00,             /* mov $100, %ecx */
		0x88, 0x0d, 0x01, 0x00, 0x00, 0x00,       /* loop: mov %cl, 1(%rip): the immediate below */
		0xba, 0x00, 0x00, 0x00, 0x00,             /* mov $0, %edx */
		0x01, 0xd0,                               /* add %edx, %eax */
		0xff, 0xc9,                               /* dec %ecx */
		0x75, 0xef,                               /* jnz loop */
		0xc3,
	};
	memcpy(code + 2 * PAGE, self, sizeof(self));
	expect(as_function(code + 2 * PAGE)(), 5050, "an instruction changed by the one before it");
	puts("ok self");

	/* Written through another mapping of the same page. */
	int fd = open("/tmp/smc-test", O_RDWR | O_CREAT | O_TRUNC, 0700);
	if (ftruncate(fd, PAGE))
		return 1;
	unsigned char *writer = map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	unsigned char *runner = map(PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd);
	for (int i = 0; i < 200; i++) {
		write_return(writer + 64, i);
		expect(as_function(runner + 64)(), i, "alias");
	}
	puts("ok alias");

	/* Written by the kernel. */
	unsigned char bytes[6];
	for (int i = 0; i < 50; i++) {
		write_return(bytes, i * 3);
		if (pwrite(fd, bytes, 6, 64) != 6)
			return 1;
		expect(as_function(runner + 64)(), i * 3, "file write under a mapping");
		if (pread(fd, code + 3 * PAGE, 6, 64) != 6)
			return 1;
		expect(as_function(code + 3 * PAGE)(), i * 3, "read() into code");
	}
	puts("ok kernel");

	/* The page goes away and another comes in its place. */
	for (int i = 0; i < 100; i++) {
		unsigned char *p = map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		write_return(p, i);
		mprotect(p, PAGE, PROT_READ | PROT_EXEC);
		expect(as_function(p)(), i, "fresh page");
		munmap(p, PAGE);
	}
	puts("ok remap");

	/* Large memory operations over code. */
	for (int i = 0; i < 20; i++) {
		static unsigned char image[2 * PAGE];
		memset(image, 0x90, sizeof(image));
		write_return(image + sizeof(image) - 6, i);
		memcpy(code, image, sizeof(image));
		expect(as_function(code)(), i, "memcpy over code");
	}
	puts("ok bulk");
	unlink("/tmp/smc-test");
	puts("ok all");
	return 0;
}
