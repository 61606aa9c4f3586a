/* Sieve of Eratosthenes over one byte per number. */
#include <string.h>
#include "bench.h"

#define LIMIT 2000000
static uint8_t composite[LIMIT + 1];

static void bench_setup(void) {}

static uint64_t bench_round(unsigned index) {
  uint64_t sum = 0;
  unsigned limit = LIMIT - index;
  memset(composite, 0, sizeof composite);
  for (unsigned i = 2; i * i <= limit; i++)
    if (!composite[i])
      for (unsigned j = i * i; j <= limit; j += i) composite[j] = 1;
  for (unsigned i = 2; i <= limit; i++)
    if (!composite[i]) sum += i;
  return sum;
}
