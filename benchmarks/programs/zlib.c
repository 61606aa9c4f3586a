/* Debian's zlib: deflate and inflate of text-like data. */
#include <string.h>
#include <zlib.h>
#include "bench.h"

#define SIZE (1u << 18)
static uint8_t input[SIZE], packed[SIZE * 2], output[SIZE];

static void bench_setup(void) {
  static const char *const words[] = {"page ", "table ", "walk ", "of the ", "guest, ", "shadow ", "entry ", "0x1000 ", "fault\n", "switch "};
  for (unsigned at = 0; at < SIZE;) {
    const char *w = words[bench_random() % 10];
    while (*w && at < SIZE) input[at++] = (uint8_t)*w++;
    if (bench_random() % 7 == 0 && at < SIZE) input[at++] = (uint8_t)bench_random();
  }
}

static uint64_t bench_round(unsigned index) {
  uLongf packed_size = sizeof packed, output_size = sizeof output;
  input[index % SIZE] ^= 1;
  if (compress2(packed, &packed_size, input, SIZE, 6) != Z_OK || uncompress(output, &output_size, packed, packed_size) != Z_OK ||
      output_size != SIZE || memcmp(input, output, SIZE)) {
    fprintf(stderr, "zlib: what was inflated is not what was deflated\n");
    exit(1);
  }
  return packed_size * 31 + crc32(0, packed, (uInt)packed_size);
}
