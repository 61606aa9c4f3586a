/* snprintf, strtod, strtol and sscanf of the C library: large, branchy code that nobody tuned for us. */
#include <string.h>
#include "bench.h"

static void bench_setup(void) {}

static uint64_t bench_round(unsigned index) {
  char line[128];
  uint64_t sum = 0;
  for (unsigned i = 0; i < 8000; i++) {
    double v = (double)(i * 7919u % 100003u) / (double)(1 + i % 97) * (i & 1 ? 1e-3 : 1e4);
    int n = snprintf(line, sizeof line, "%d %s %.6f %g %08x %-12ld|", (int)(i - 4000 + index), i & 1 ? "odd" : "even", v, v, i * 2654435761u, (long)i * i);
    char *end;
    long first = strtol(line, &end, 10);
    double back = strtod(end + (i & 1 ? 4 : 5), &end);
    unsigned hex = 0;
    double g = 0;
    sscanf(end, " %lf %x", &g, &hex);
    sum = sum * 31 + (uint64_t)n + (uint64_t)first + (uint64_t)(back * 1000) + hex + (uint64_t)(g * 100);
  }
  return sum;
}
