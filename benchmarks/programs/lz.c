/* An LZ77 compressor with a hash of four bytes and its decompressor, over text-like data. */
#include <string.h>
#include "bench.h"

#define SIZE (1u << 20)
static uint8_t input[SIZE], packed[SIZE * 2], output[SIZE];
static uint32_t heads[1 << 14];

static void bench_setup(void) {
  static const char *const words[] = {"the ", "page ", "table ", "guest ", "kernel ", "switch ", "of ", "a ", "fault ", "shadow ", "memory ", "entry\n", "exits ", "0x1000 "};
  unsigned at = 0;
  while (at < SIZE) {
    const char *w = words[bench_random() % 14];
    while (*w && at < SIZE) input[at++] = (uint8_t)*w++;
    if (bench_random() % 5 == 0 && at < SIZE) input[at++] = (uint8_t)bench_random();
  }
}

static uint32_t read32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return v;
}

/* Token: literal run length (16 bits), match length (16), distance (16), then the literals. */
static unsigned compress(void) {
  unsigned out = 0, literal = 0, at = 0;
  memset(heads, 0, sizeof heads);
  while (at < SIZE - 8) {
    uint32_t h = read32(input + at) * 2654435761u >> 18, candidate = heads[h];
    heads[h] = at;
    if (candidate < at && at - candidate < 65536 && read32(input + candidate) == read32(input + at)) {
      unsigned n = 4;
      while (at + n < SIZE - 8 && n < 65535 && input[candidate + n] == input[at + n]) n++;
      uint16_t token[3] = {(uint16_t)(at - literal), (uint16_t)n, (uint16_t)(at - candidate)};
      memcpy(packed + out, token, 6);
      out += 6;
      for (unsigned i = literal; i < at; i++) packed[out++] = input[i];
      at += n;
      literal = at;
    } else {
      at++;
    }
  }
  uint16_t token[3] = {(uint16_t)(SIZE - literal), 0, 0};
  memcpy(packed + out, token, 6);
  out += 6;
  for (unsigned i = literal; i < SIZE; i++) packed[out++] = input[i];
  return out;
}

static unsigned decompress(unsigned size) {
  unsigned out = 0;
  for (unsigned at = 0; at < size;) {
    uint16_t token[3];
    memcpy(token, packed + at, 6);
    at += 6;
    for (unsigned i = 0; i < token[0]; i++) output[out++] = packed[at++];
    for (unsigned i = 0; i < token[1]; i++, out++) output[out] = output[out - token[2]];
  }
  return out;
}

static uint64_t bench_round(unsigned index) {
  input[index * 4099u % SIZE] ^= (uint8_t)(index + 1);
  unsigned n = compress();
  unsigned size = decompress(n);
  if (size != SIZE || memcmp(input, output, SIZE) != 0) return 0;
  return n;
}
