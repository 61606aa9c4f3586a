/* 640 different functions, all called in turn: code larger than any cache of hot regions likes, each piece run few times. */
#include "bench.h"

static uint32_t table[256];

#define BODY(n)                                                                            \
  __attribute__((noinline)) static uint32_t f##n(uint32_t x, uint32_t y) {                  \
    for (unsigned i = 0; i < (x & 3) + 1; i++) {                                            \
      if ((x ^ (0x##n##u * 77)) & (1u << (0x##n % 13)))                                      \
        y = (y << (0x##n % 7 + 1)) + table[(x + 0x##n) & 255];                               \
      else if (y % (0x##n % 11 + 3) == 1)                                                    \
        y ^= x * (0x##n##u | 1) + table[y & 255];                                            \
      else                                                                                  \
        table[(y >> 8) & 255] += x - 0x##n;                                                  \
      switch ((x >> 3) & 7) {                                                               \
        case 0: x += y >> 3; break;                                                         \
        case 1: x -= y * 0x##n##u; break;                                                    \
        case 3: x = (x << 9 | x >> 23) ^ y; break;                                          \
        case 4: x ^= y / (0x##n##u + 2); break;                                              \
        case 6: x = ~x; break;                                                              \
        default: x = x * 5 + 1;                                                             \
      }                                                                                     \
    }                                                                                       \
    return x ^ y;                                                                           \
  }
#define NAME(n) f##n,
#define EACH16(m, h) m(h##0) m(h##1) m(h##2) m(h##3) m(h##4) m(h##5) m(h##6) m(h##7) m(h##8) m(h##9) m(h##a) m(h##b) m(h##c) m(h##d) m(h##e) m(h##f)
#define EACH128(m, h) EACH16(m, h##0) EACH16(m, h##1) EACH16(m, h##2) EACH16(m, h##3) EACH16(m, h##4) EACH16(m, h##5) EACH16(m, h##6) EACH16(m, h##7)
#define EACH(m) EACH128(m, 1) EACH128(m, 2) EACH128(m, 3) EACH128(m, 4) EACH128(m, 5)

EACH(BODY)

static uint32_t (*const functions[])(uint32_t, uint32_t) = {EACH(NAME)};
#define FUNCTIONS (sizeof functions / sizeof functions[0])

static void bench_setup(void) {
  for (int i = 0; i < 256; i++) table[i] = (uint32_t)bench_random();
}

static uint64_t bench_round(unsigned index) {
  uint32_t x = index, y = 1;
  for (unsigned pass = 0; pass < 150; pass++)
    for (unsigned i = 0; i < FUNCTIONS; i++) {
      uint32_t r = functions[(i * 37 + pass) % FUNCTIONS](x, y);
      x = y + i;
      y = r;
    }
  return (uint64_t)x << 32 | y;
}
