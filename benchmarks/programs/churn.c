/* Generates functions, calls each until it is hot, and overwrites it: what a compiler made of one is of no use a moment later. */
/* For 20 minutes and more. */
#define BENCH_MAX_ROUNDS 100000
#include "bench.h"
#include <string.h>
#include <sys/mman.h>

#define SLOTS 64
#define SLOT_BYTES 2048
#define FUNCTIONS 240
#define CALLS 1000

typedef uint64_t (*function)(uint64_t);
static uint8_t *code;
static unsigned next_slot;

static void bench_setup(void) {
  code = mmap(NULL, SLOTS * SLOT_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) {
    perror("mmap");
    exit(1);
  }
}

/* rax = rdi, then a random chain of operations on rax. */
static function generate(uint8_t *at) {
  uint8_t *p = at;
  unsigned operations = 20 + bench_random() % 100;
  memcpy(p, "\x48\x89\xf8", 3);
  p += 3;
  while (operations--) {
    uint64_t r = bench_random();
    uint32_t imm = (uint32_t)(r >> 32);
    switch (r % 6) {
      case 0: memcpy(p, "\x48\x05", 2); memcpy(p + 2, &imm, 4); p += 6; break;     /* add rax, imm */
      case 1: memcpy(p, "\x48\x35", 2); memcpy(p + 2, &imm, 4); p += 6; break;     /* xor rax, imm */
      case 2: memcpy(p, "\x48\x69\xc0", 3); memcpy(p + 3, &imm, 4); p += 7; break; /* imul rax, rax, imm */
      case 3: memcpy(p, "\x48\xc1\xc0", 3); p[3] = imm & 63; p += 4; break;        /* rol rax, imm */
      case 4: memcpy(p, "\x48\xf7\xd0", 3); p += 3; break;                         /* not rax */
      default: memcpy(p, "\x48\x8d\x04\x80", 4); p += 4; break;                    /* lea rax, [rax + rax * 4] */
    }
  }
  *p = 0xc3;
  return (function)(uintptr_t)at;
}

static uint64_t bench_round(unsigned index) {
  uint64_t x = index;
  for (unsigned i = 0; i < FUNCTIONS; i++) {
    function f = generate(code + (next_slot++ % SLOTS) * SLOT_BYTES);
    for (unsigned call = 0; call < CALLS; call++) x = f(x + call);
  }
  return x;
}
