/*
 * The frame of every benchmark program: `prog [rounds [live]]` runs that many rounds of equal work and prints
 *   checksum <hex>     of all rounds, to compare with the same program run natively
 *   total_ns <n>       all rounds, so warming up included
 *   steady_ns <n>      the median round of the second half
 *   rounds <n>
 * and with a second argument `round <index> <ns>` as soon as each is done.
 */
#ifndef BENCH_H
#define BENCH_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifndef BENCH_MAX_ROUNDS
#define BENCH_MAX_ROUNDS 1000
#endif

static inline uint64_t bench_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A small generator (xorshift64*), so that every libc gives the same numbers. */
static uint64_t bench_seed = 0x9e3779b97f4a7c15u;
static inline uint64_t bench_random(void) {
  bench_seed ^= bench_seed >> 12;
  bench_seed ^= bench_seed << 25;
  bench_seed ^= bench_seed >> 27;
  return bench_seed * 0x2545f4914f6cdd1du;
}

/* Implemented by each program. `bench_round` returns a checksum of the round's results. */
static void bench_setup(void);
static uint64_t bench_round(unsigned index);

int main(int argc, char **argv) {
  static uint64_t ns[BENCH_MAX_ROUNDS];
  unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 20;
  if (rounds < 2 || rounds > BENCH_MAX_ROUNDS) {
    fprintf(stderr, "usage: %s [rounds, 2 to %d]\n", argv[0], BENCH_MAX_ROUNDS);
    return 2;
  }
  bench_setup();
  uint64_t checksum = 0, total = 0;
  for (unsigned i = 0; i < rounds; i++) {
    uint64_t start = bench_now_ns();
    checksum = checksum * 31 + bench_round(i);
    ns[i] = bench_now_ns() - start;
    total += ns[i];
    if (argc > 2) {
      printf("round %u %llu\n", i, (unsigned long long)ns[i]);
      fflush(stdout);
    }
  }
  uint64_t *half = ns + rounds / 2;
  unsigned n = rounds - rounds / 2;
  for (unsigned i = 1; i < n; i++)
    for (unsigned j = i; j > 0 && half[j] < half[j - 1]; j--) {
      uint64_t t = half[j];
      half[j] = half[j - 1];
      half[j - 1] = t;
    }
  printf("checksum %016llx\ntotal_ns %llu\nsteady_ns %llu\nrounds %u\n", (unsigned long long)checksum, (unsigned long long)total,
         (unsigned long long)half[n / 2], rounds);
  return 0;
}
#endif
