/* Series and continued fractions in long double: the x87 unit. */
#include <string.h>
#include "bench.h"

static void bench_setup(void) {}

static uint64_t bench_round(unsigned index) {
  long double pi = 0, e = 1, term = 1, root = 1, x = 2 + (long double)index / 7, log2 = 0;
  for (int i = 0; i < 1200000; i++) pi += (i & 1 ? -4.0L : 4.0L) / (2 * i + 1);
  for (int pass = 0; pass < 40000; pass++) {
    term = 1;
    for (int i = 1; i < 25; i++) e += term /= i;
    for (int i = 0; i < 8; i++) root = (root + x / root) / 2;
    log2 += 1.0L / (pass + 1) * (pass & 1 ? -1 : 1);
  }
  long double all = pi + e * 3 + root * 5 + log2;
  uint64_t bits;
  memcpy(&bits, &all, 8);
  return bits;
}
