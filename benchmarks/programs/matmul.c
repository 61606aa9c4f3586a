/* Single-precision matrix product with SSE2 intrinsics: packed multiply, add and shuffle. */
#include <emmintrin.h>
#include <string.h>
#include "bench.h"

#define N 192
static float a[N][N] __attribute__((aligned(16))), b[N][N] __attribute__((aligned(16))), c[N][N] __attribute__((aligned(16)));

static void bench_setup(void) {
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) {
      a[i][j] = (float)(bench_random() % 1000) / 512.0f;
      b[i][j] = (float)(bench_random() % 1000) / 512.0f;
    }
}

static void multiply(void) {
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j += 16) {
      __m128 s0 = _mm_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
      for (int k = 0; k < N; k++) {
        __m128 x = _mm_set1_ps(a[i][k]);
        s0 = _mm_add_ps(s0, _mm_mul_ps(x, _mm_load_ps(&b[k][j])));
        s1 = _mm_add_ps(s1, _mm_mul_ps(x, _mm_load_ps(&b[k][j + 4])));
        s2 = _mm_add_ps(s2, _mm_mul_ps(x, _mm_load_ps(&b[k][j + 8])));
        s3 = _mm_add_ps(s3, _mm_mul_ps(x, _mm_load_ps(&b[k][j + 12])));
      }
      _mm_store_ps(&c[i][j], s0);
      _mm_store_ps(&c[i][j + 4], s1);
      _mm_store_ps(&c[i][j + 8], s2);
      _mm_store_ps(&c[i][j + 12], s3);
    }
}

static uint64_t bench_round(unsigned index) {
  uint64_t sum = 0;
  for (int pass = 0; pass < 8; pass++) {
    a[index % N][pass] += 1;
    multiply();
    for (int i = 0; i < N; i++) {
      uint32_t bits;
      memcpy(&bits, &c[i][(i * 7) % N], 4);
      sum = sum * 31 + bits;
    }
  }
  return sum;
}
