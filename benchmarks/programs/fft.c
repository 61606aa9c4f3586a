/* Radix-2 complex FFT in double precision, forth and back. */
#include <math.h>
#include "bench.h"

#define LOG 14
#define N (1 << LOG)
static double re[N], im[N], cosines[N / 2], sines[N / 2];

static void bench_setup(void) {
  for (int i = 0; i < N / 2; i++) {
    cosines[i] = (float)cos(2 * M_PI * i / N); /* rounded: the C library picks its version by CPU */
    sines[i] = (float)sin(2 * M_PI * i / N);
  }
}

static void fft(double sign) {
  for (unsigned i = 1, j = 0; i < N; i++) {
    unsigned bit = N >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      double t = re[i];
      re[i] = re[j];
      re[j] = t;
      t = im[i];
      im[i] = im[j];
      im[j] = t;
    }
  }
  for (int size = 2; size <= N; size *= 2)
    for (int i = 0; i < N; i += size)
      for (int j = 0; j < size / 2; j++) {
        double c = cosines[j * (N / size)], s = sign * sines[j * (N / size)];
        double *r0 = &re[i + j], *r1 = &re[i + j + size / 2], *i0 = &im[i + j], *i1 = &im[i + j + size / 2];
        double tr = *r1 * c - *i1 * s, ti = *r1 * s + *i1 * c;
        *r1 = *r0 - tr;
        *i1 = *i0 - ti;
        *r0 += tr;
        *i0 += ti;
      }
}

static uint64_t bench_round(unsigned index) {
  double error = 0;
  for (int pass = 0; pass < 15; pass++) {
    for (int i = 0; i < N; i++) {
      re[i] = (double)((i * 37 + (int)index) % 101);
      im[i] = 0;
    }
    fft(1);
    fft(-1);
    for (int i = 0; i < N; i++) error += fabs(re[i] / N - (double)((i * 37 + (int)index) % 101)) + fabs(im[i]);
  }
  return (uint64_t)(error * 1e15);
}
