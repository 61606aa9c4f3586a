/* Naive recursion: calls, returns and stack traffic. */
#include "bench.h"

static void bench_setup(void) {}

__attribute__((noinline)) static uint64_t fib(unsigned n) {
  if (n < 2) return n;
  uint64_t a = fib(n - 1);
  __asm__ volatile("" : "+r"(a)); /* keep both calls calls */
  return a + fib(n - 2);
}

static uint64_t bench_round(unsigned index) { return fib(30) + index; }
