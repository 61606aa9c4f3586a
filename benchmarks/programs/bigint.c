/* Multi-precision arithmetic with carry chains (adc, mul): factorials and Fibonacci numbers. */
#include <string.h>
#include <x86intrin.h>
#include "bench.h"

#define LIMBS 512
typedef unsigned long long limb;
static limb x[LIMBS], y[LIMBS], t[LIMBS * 2];

static void bench_setup(void) {}

static void add(limb *r, const limb *a, const limb *b) {
  unsigned char carry = 0;
  for (int i = 0; i < LIMBS; i += 4) {
    carry = _addcarry_u64(carry, a[i], b[i], &r[i]);
    carry = _addcarry_u64(carry, a[i + 1], b[i + 1], &r[i + 1]);
    carry = _addcarry_u64(carry, a[i + 2], b[i + 2], &r[i + 2]);
    carry = _addcarry_u64(carry, a[i + 3], b[i + 3], &r[i + 3]);
  }
}

static void multiply(limb *r, const limb *a, const limb *b, int n) {
  memset(r, 0, sizeof(limb) * 2 * (size_t)n);
  for (int i = 0; i < n; i++) {
    limb carry = 0;
    for (int j = 0; j < n; j++) {
      unsigned __int128 p = (unsigned __int128)a[i] * b[j] + r[i + j] + carry;
      r[i + j] = (limb)p;
      carry = (limb)(p >> 64);
    }
    r[i + n] = carry;
  }
}

static uint64_t bench_round(unsigned index) {
  memset(x, 0, sizeof x);
  memset(y, 0, sizeof y);
  x[0] = index + 1;
  y[0] = 1;
  for (int i = 0; i < 20000; i++) {
    add(x, x, y);
    add(y, y, x);
  }
  for (int i = 0; i < 40; i++) {
    multiply(t, x, y, 320);
    memcpy(x, t + 100, sizeof(limb) * 320);
  }
  /* Division by a small number, as printing in decimal does. */
  uint64_t rest = 0, sum = 0;
  for (int pass = 0; pass < 30; pass++) {
    rest = 0;
    for (int i = 319; i >= 0; i--) {
      uint64_t low = x[i], q;
      __asm__("divq %4" : "=a"(q), "=d"(rest) : "0"(low), "1"(rest), "r"(10000000000000000000ull) : "cc");
      x[i] = q;
    }
    sum = sum * 31 + rest;
  }
  return sum;
}
