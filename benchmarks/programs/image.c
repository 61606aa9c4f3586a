/* Filters over 8-bit and 16-bit pixels that the compiler turns into packed integer SSE2 (unpack, multiply, shift, pack, saturate). */
#include "bench.h"
#pragma GCC optimize("O3")

#define W 512
#define H 256
static uint8_t image[H][W], blurred[H][W], result[H][W];
static int16_t gradient[H][W];

static void bench_setup(void) {
  for (int y = 0; y < H; y++)
    for (int x = 0; x < W; x++) image[y][x] = (uint8_t)(bench_random() >> 20);
}

static void blur(void) {
  for (int y = 1; y < H - 1; y++)
    for (int x = 1; x < W - 1; x++)
      blurred[y][x] = (uint8_t)((image[y - 1][x - 1] + 2 * image[y - 1][x] + image[y - 1][x + 1] + 2 * image[y][x - 1] + 4 * image[y][x] + 2 * image[y][x + 1] +
                                 image[y + 1][x - 1] + 2 * image[y + 1][x] + image[y + 1][x + 1]) >> 4);
}

static void edges(void) {
  for (int y = 1; y < H - 1; y++)
    for (int x = 1; x < W - 1; x++) gradient[y][x] = (int16_t)(3 * (blurred[y][x + 1] - blurred[y][x - 1]) + 5 * (blurred[y + 1][x] - blurred[y - 1][x]));
}

static void blend(int alpha) {
  for (int y = 0; y < H; y++)
    for (int x = 0; x < W; x++) {
      int g = gradient[y][x] < 0 ? -gradient[y][x] : gradient[y][x];
      g = g > 255 ? 255 : g;
      result[y][x] = (uint8_t)((image[y][x] * alpha + g * (256 - alpha)) >> 8);
    }
}

static uint64_t bench_round(unsigned index) {
  uint32_t sum = 0;
  for (int pass = 0; pass < 60; pass++) {
    image[pass][index % W]++;
    blur();
    edges();
    blend(64 + pass);
    for (int y = 0; y < H; y++)
      for (int x = 0; x < W; x++) sum += result[y][x];
  }
  return sum;
}
