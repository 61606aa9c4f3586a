/* memcpy, memset, memmove, strlen, memcmp, strchr of the C library over sizes from 8 bytes to 64 KiB. */
#include <string.h>
#include "bench.h"

#define SIZE (64u << 10)
static char from[SIZE + 64], to[SIZE + 64];

static void bench_setup(void) {
  for (unsigned i = 0; i < sizeof from; i++) from[i] = (char)(bench_random() % 255 + 1);
}

static uint64_t bench_round(unsigned index) {
  uint64_t sum = 0;
  /* Small: many calls; large: many bytes. */
  for (unsigned i = 0; i < 80000; i++) {
    unsigned n = 8 + (i * 37 + index) % 120;
    memcpy(to + i % 32, from + i % 17, n);
    to[i % 32 + n] = 0;
    sum += strlen(to + i % 32) + (unsigned char)to[i % 32 + n / 2];
    memset(to + n, (int)i, n);
  }
  for (unsigned i = 0; i < 700; i++) {
    unsigned n = SIZE - i * 32;
    memcpy(to + i % 16, from, n);
    to[n - 1] = 0;
    sum += strlen(to + i % 16);
    memmove(to, to + 16, n);
    sum += (uint64_t)(memcmp(to, from, n) & 1);
    memset(to, (int)(i | 1), n);
    to[n] = 0;
    char *hit = strchr(to, 0);
    sum += hit ? (uint64_t)(hit - to) : 0;
  }
  for (unsigned i = 0; i < SIZE; i += 61) sum = sum * 31 + (unsigned char)to[i];
  return sum;
}
