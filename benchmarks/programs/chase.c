/* Dependent loads in random order over 64 MiB: caches and TLB, real and emulated. */
#include "bench.h"

#define SLOTS (64u << 20 >> 6)
struct line {
  uint32_t next, pad[15];
};
static struct line lines[SLOTS];

/* One cycle through all lines (Sattolo). */
static void bench_setup(void) {
  for (uint32_t i = 0; i < SLOTS; i++) lines[i].next = i;
  for (uint32_t i = SLOTS - 1; i > 0; i--) {
    uint32_t j = (uint32_t)(bench_random() % i), t = lines[i].next;
    lines[i].next = lines[j].next;
    lines[j].next = t;
  }
}

static uint64_t bench_round(unsigned index) {
  uint32_t at = index;
  for (int i = 0; i < 150000; i++) at = lines[at].next;
  return at;
}
