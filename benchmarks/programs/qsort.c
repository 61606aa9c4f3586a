/* The C library's qsort of integers: a comparison through a pointer for every step. */
#include <string.h>
#include "bench.h"

#define COUNT 150000
static int32_t source[COUNT], sorted[COUNT];

static int compare(const void *x, const void *y) {
  int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;
  return (a > b) - (a < b);
}

static void bench_setup(void) {
  for (int i = 0; i < COUNT; i++) source[i] = (int32_t)bench_random();
}

static uint64_t bench_round(unsigned index) {
  memcpy(sorted, source, sizeof sorted);
  for (int i = 0; i < COUNT; i += 1000) sorted[i] ^= (int32_t)index;
  qsort(sorted, COUNT, sizeof sorted[0], compare);
  uint64_t sum = 0;
  for (int i = 0; i < COUNT; i++) sum += (uint64_t)(uint32_t)sorted[i] * (uint64_t)i;
  return sum;
}
