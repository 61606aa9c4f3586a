/* Load, xor, rotate, add, store, compare, branch over 16 KiB: the loop of the first speed goal. */
#include "bench.h"

#define WORDS 4096
static uint32_t words[WORDS];

static void bench_setup(void) {
  for (unsigned i = 0; i < WORDS; i++) words[i] = (uint32_t)bench_random();
}

static uint64_t bench_round(unsigned index) {
  uint32_t key = index * 2654435761u + 1, sum = 0;
  for (unsigned pass = 0; pass < 4000; pass++) {
    for (unsigned i = 0; i < WORDS; i++) {
      uint32_t v = words[i] ^ key;
      v = (v << 7 | v >> 25) + key;
      __asm__("" : "+r"(v)); /* one word at a time: the compiler may not make it packed */
      words[i] = v;
    }
    key += words[pass % WORDS];
  }
  for (unsigned i = 0; i < WORDS; i++) sum = sum * 33 + words[i];
  return sum;
}
