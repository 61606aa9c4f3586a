/*
 * Captures what this machine's MMX unit does with every MMX instruction form, SSE and SSSE3 additions included.
 *
 *   gcc -O1 -o mmx-vectors mmx-vectors.c && ./mmx-vectors 24 | gzip -9n > ../vectors/mmx.bin.gz
 *
 * Output: records of 80 bytes, see `struct record`. Registers: mm1 destination, mm2 source, rax integer operand, rsi memory.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct __attribute__((packed)) record {
  uint8_t length, code[15];
  uint64_t mm1, mm2, rax, memory;
  uint64_t mm1_after, mm2_after, rax_after, memory_after;
};

static uint64_t seed = 0x9e3779b97f4a7c15ULL;
static uint64_t rnd(void) {
  seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17;
  return seed * 0x2545f4914f6cdd1dULL;
}
static uint64_t operand(void) {
  static const uint64_t special[] = { 0, ~0ULL, 0x8000800080008000ULL, 0x7fff7fff7fff7fffULL, 0x8080808080808080ULL, 0x7f7f7f7f7f7f7f7fULL,
    0x8000000080000000ULL, 0x00ff00ff00ff00ffULL, 1, 15, 16, 31, 32, 63, 64, 0x100000000ULL };
  uint64_t r = rnd();
  if ((r & 7) == 0) return special[rnd() % (sizeof special / sizeof *special)];
  if ((r & 7) == 1) { /* bytes at the limits */
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) { static const uint8_t b[] = { 0, 1, 0x7f, 0x80, 0xff, 0xfe }; v = v << 8 | b[rnd() % 6]; }
    return v;
  }
  return (r & 7) == 2 ? r & 63 : rnd();
}

static uint8_t *page;
static void capture(const uint8_t *code, int length, int cases) {
  for (int i = 0; i < cases; i++) {
    struct record r;
    memset(&r, 0, sizeof r);
    r.length = length;
    memcpy(r.code, code, length);
    r.mm1 = operand(); r.mm2 = operand(); r.rax = rnd(); r.memory = operand();
    memcpy(page, code, length);
    page[length] = 0xc3;
    __builtin___clear_cache((char *)page, (char *)page + 16);
    uint64_t mem = r.memory, rax = r.rax;
    __asm__ volatile("movq %4, %%mm1; movq %5, %%mm2; call *%6; movq %%mm1, %0; movq %%mm2, %1; emms"
      : "=m"(r.mm1_after), "=m"(r.mm2_after), "+m"(mem), "+a"(rax)
      : "m"(r.mm1), "m"(r.mm2), "r"(page), "S"(&mem), "D"(&mem) : "memory", "cc");
    r.rax_after = rax;
    r.memory_after = mem;
    fwrite(&r, sizeof r, 1, stdout);
  }
}
/* 0F op /r with mm1, mm2 and with mm1, [rsi]. */
static void both(int map, int op, int cases) {
  uint8_t reg[6] = { 0x0f }, mem[6] = { 0x0f };
  int n = 1;
  if (map) { reg[n] = mem[n] = map; n++; }
  reg[n] = mem[n] = op;
  reg[n + 1] = 0xca;
  mem[n + 1] = 0x0e;
  capture(reg, n + 2, cases);
  capture(mem, n + 2, cases);
}

int main(int argc, char **argv) {
  int cases = argc > 1 ? atoi(argv[1]) : 24;
  page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) { perror("mmap"); return 1; }
  static const uint8_t ops[] = {
    0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6f, 0x74, 0x75, 0x76,
    0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
    0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe8, 0xe9, 0xea, 0xeb, 0xec, 0xed, 0xee, 0xef,
    0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe };
  for (unsigned i = 0; i < sizeof ops; i++) both(0, ops[i], cases);
  for (int op = 0; op <= 0x0b; op++) both(0x38, op, cases);
  for (int op = 0x1c; op <= 0x1e; op++) both(0x38, op, cases);
  /* Immediate shifts of mm1: groups 71, 72, 73. */
  static const uint8_t groups[][2] = { { 0x71, 0xd1 }, { 0x71, 0xe1 }, { 0x71, 0xf1 }, { 0x72, 0xd1 }, { 0x72, 0xe1 }, { 0x72, 0xf1 }, { 0x73, 0xd1 }, { 0x73, 0xf1 } };
  static const uint8_t counts[] = { 0, 1, 7, 15, 16, 31, 32, 63, 64, 255 };
  for (int g = 0; g < 8; g++) for (int c = 0; c < 10; c++) {
    uint8_t code[] = { 0x0f, groups[g][0], groups[g][1], counts[c] };
    capture(code, 4, 3);
  }
  for (int imm = 0; imm < 18; imm++) { /* PALIGNR */
    uint8_t reg[] = { 0x0f, 0x3a, 0x0f, 0xca, imm }, mem[] = { 0x0f, 0x3a, 0x0f, 0x0e, imm };
    capture(reg, 5, 2);
    capture(mem, 5, 2);
  }
  for (int imm = 0; imm < 256; imm += 19) { /* PSHUFW, PINSRW, PEXTRW */
    uint8_t shuffle[] = { 0x0f, 0x70, 0xca, imm }, shuffle_m[] = { 0x0f, 0x70, 0x0e, imm };
    uint8_t insert[] = { 0x0f, 0xc4, 0xc8, imm }, insert_m[] = { 0x0f, 0xc4, 0x0e, imm }, extract[] = { 0x0f, 0xc5, 0xc2, imm };
    capture(shuffle, 4, 2); capture(shuffle_m, 4, 2); capture(insert, 4, 2); capture(insert_m, 4, 2); capture(extract, 4, 2);
  }
  static const uint8_t moves[][4] = {
    { 3, 0x0f, 0x6e, 0xc8 }, { 3, 0x0f, 0x6e, 0x0e }, { 3, 0x0f, 0x7e, 0xc8 }, { 3, 0x0f, 0x7e, 0x0e },  /* MOVD */
    { 3, 0x0f, 0x7f, 0xca }, { 3, 0x0f, 0x7f, 0x0e }, { 3, 0x0f, 0xe7, 0x0e }, { 3, 0x0f, 0xd7, 0xc2 }, { 3, 0x0f, 0xf7, 0xca } };
  for (unsigned i = 0; i < sizeof moves / 4; i++) capture(moves[i] + 1, moves[i][0], cases);
  static const uint8_t wide[][4] = { { 0x48, 0x0f, 0x6e, 0xc8 }, { 0x48, 0x0f, 0x6e, 0x0e }, { 0x48, 0x0f, 0x7e, 0xc8 }, { 0x48, 0x0f, 0x7e, 0x0e } };
  for (int i = 0; i < 4; i++) capture(wide[i], 4, cases);
  return 0;
}
