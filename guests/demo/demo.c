/*
 * The program that runs when nothing else is asked for: a picture, some arithmetic with known answers,
 * page faults and system calls, each with the time it took.
 */
#include "../lib/guest.h"
#include "sha256.h"

#define MIB 0x100000
#define PAGE 4096

/* ---- the Mandelbrot set, in doubles, averaged over 4 x 4 samples a character ---- */

enum { COLUMNS = 76, ROWS = 26, SAMPLES = 4, MAX_ITERATIONS = 400 };

static u32 iterations(double cx, double cy)
{
	double x = 0, y = 0;
	u32 n = 0;

	while (n < MAX_ITERATIONS && x * x + y * y < 4) {
		double t = x * x - y * y + cx;
		y = 2 * x * y + cy;
		x = t;
		n++;
	}
	return n;
}

static u64 mandelbrot(void)
{
	static const char shades[] = " .,:;i1tfLCG08@#";
	u64 total = 0;

	for (u32 row = 0; row < ROWS; row++) {
		char line[COLUMNS + 2];
		for (u32 column = 0; column < COLUMNS; column++) {
			u32 sum = 0;
			for (u32 s = 0; s < SAMPLES * SAMPLES; s++) {
				double x = column + (double)(s % SAMPLES) / SAMPLES;
				double y = row + (double)(s / SAMPLES) / SAMPLES;
				u32 n = iterations(x * (3.1 / COLUMNS) - 2.15, y * (2.4 / ROWS) - 1.2);
				total += n;
				/* A logarithmic scale spreads the shades over the interesting border. */
				u32 level = 0;
				for (u32 v = n; v > 1; v = v * 2 / 3)
					level++;
				sum += level;
			}
			line[column] = shades[sum / (SAMPLES * SAMPLES) % 16];
		}
		line[COLUMNS] = '\n';
		line[COLUMNS + 1] = 0;
		print(line);
	}
	return total;
}

/* ---- primes below a limit: one byte a number, odd numbers only crossed out ---- */

static u64 count_primes(u32 limit)
{
	u8 *composite = allocate(limit);
	u64 count = 1;

	for (u32 i = 3; i < limit; i += 2) {
		if (composite[i])
			continue;
		count++;
		for (u64 multiple = (u64)i * i; multiple < limit; multiple += 2 * i)
			composite[multiple] = 1;
	}
	release(composite, limit);
	return count;
}

/* ---- sorting: heapsort of pseudo-random words ---- */

static void sift(u32 *a, u32 root, u32 end)
{
	u32 value = a[root];

	for (u32 child; (child = 2 * root + 1) < end; root = child) {
		if (child + 1 < end && a[child] < a[child + 1])
			child++;
		if (value >= a[child])
			break;
		a[root] = a[child];
	}
	a[root] = value;
}

static int sort_words(u32 n)
{
	u32 *a = allocate(n * sizeof(u32));
	u32 seed = 1;
	int sorted = 1;

	for (u32 i = 0; i < n; i++)
		a[i] = seed = seed * 1664525 + 1013904223;
	for (u32 i = n / 2; i-- > 0;)
		sift(a, i, n);
	for (u32 end = n; end-- > 1;) {
		u32 top = a[0];
		a[0] = a[end];
		a[end] = top;
		sift(a, 0, end);
	}
	for (u32 i = 1; i < n; i++)
		sorted &= a[i - 1] <= a[i];
	release(a, n * sizeof(u32));
	return sorted;
}

/* ---- what virtualisation costs ---- */

static void touch_pages(u32 mebibytes)
{
	while (mebibytes--) {
		volatile u8 *memory = allocate(MIB);
		for (u32 i = 0; i < MIB; i += PAGE)
			memory[i] = 1;
		release((void *)memory, MIB);
	}
}

static void call_kernel(u32 times)
{
	while (times--)
		syscall0(SYS_getpid);
}

/* ---- report ---- */

static u64 phase_start;

static void begin(const char *title)
{
	print_padded(title, 44);
	phase_start = now_ns();
}

/* Ends the line of a phase; with a count, also the time of one operation. */
static void end(const char *result, u64 count, const char *operation)
{
	u64 ns = now_ns() - phase_start;

	print_fixed(ns / 100000, 1, 8);
	print(" ms");
	if (count) {
		print_fixed(ns * 10 / count, 1, 10);
		print(" ns per ");
		print(operation);
	}
	if (result) {
		print("   ");
		print(result);
	}
	print("\n");
}

int main(int argc, char **argv)
{
	enum { PRIME_LIMIT = 8000000, PRIMES = 539777, SORT_WORDS = 400000, SHA_MIB = 6, FAULT_MIB = 24, CALLS = 1000000 };
	int good;

	(void)argc;
	(void)argv;

	phase_start = now_ns();
	u64 total = mandelbrot();
	print_padded("Mandelbrot set, SSE2 doubles", 44);
	end(NULL, total, "iteration");

	begin("primes below 8 000 000, byte sieve");
	good = count_primes(PRIME_LIMIT) == PRIMES;
	end(good ? "539777 primes" : "WRONG", 0, NULL);

	begin("heapsort of 400 000 words");
	good = sort_words(SORT_WORDS);
	end(good ? "sorted" : "WRONG", 0, NULL);

	begin("SHA-256 of 6 MiB of zeroes");
	u8 *zeroes = allocate(SHA_MIB * MIB);
	char digest[65];
	sha256_hex(zeroes, SHA_MIB * MIB, digest);
	digest[16] = 0;
	end(equal(digest, DEMO_DIGEST) ? digest : "WRONG", SHA_MIB * MIB, "byte");
	release(zeroes, SHA_MIB * MIB);

	begin("page faults: map, touch, unmap 24 x 1 MiB");
	touch_pages(FAULT_MIB);
	end(NULL, FAULT_MIB * (MIB / PAGE), "page");

	begin("system calls: 1 000 000 x getpid");
	call_kernel(CALLS);
	end(NULL, CALLS, "call");

	print("\n");
	return 0;
}
