/*
 * Captures what this machine's x87 unit does: one instruction at a time, from a state set by FRSTOR to a state read by FNSAVE.
 *
 *   gcc -O1 -o x87-vectors x87-vectors.c
 *   ./x87-vectors basic 30000 1 | gzip -9n > ../vectors/x87-basic.bin.gz
 *   ./x87-vectors transcendental 8000 2 | gzip -9n > ../vectors/x87-transcendental.bin.gz
 *
 * Needs an x86-64 Linux with permission to map executable memory; nothing else. Output: records of 72 bytes, see `struct record`.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct __attribute__((packed)) { uint64_t m; uint16_t s; } f80;

struct __attribute__((packed)) record {
  uint8_t escape, modrm;      /* the instruction; memory forms address `mem` */
  uint16_t cw;
  uint8_t top, tags;          /* tags: bit n set when physical register n is in use */
  uint8_t flags;              /* SF ZF AF PF CF before, as SAHF takes them */
  uint8_t pad;
  f80 st0, st1, mem;
  uint16_t sw;                /* after; TOP included */
  uint8_t tags_after, flags_after;
  f80 st0_after, st1_after, mem_after;
};

static uint64_t seed;
static uint64_t rnd(void) {
  seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17;
  return seed * 0x2545f4914f6cdd1dULL;
}
static uint32_t below(uint32_t n) { return (uint32_t)((rnd() >> 32) % n); }

/* Significand bits with long runs and boundary patterns, top bit clear. */
static uint64_t fraction(void) {
  uint64_t m;
  switch (below(8)) {
    case 0: m = 0; break;
    case 1: m = ~0ULL; break;
    case 2: m = 1ULL << below(63); break;
    case 3: m = ~0ULL << below(63); break;
    case 4: m = (rnd() & (~0ULL << 40)) + (1ULL << 39) + below(3) - 1; break; /* near a 24-bit tie */
    case 5: m = (rnd() & (~0ULL << 11)) + (1ULL << 10) + below(3) - 1; break; /* near a 53-bit tie */
    default: m = rnd(); break;
  }
  return m & ~(1ULL << 63);
}
static f80 value(int near) {
  f80 v;
  int sign = below(2) << 15;
  uint64_t m = fraction(), one = 1ULL << 63;
  v.m = m | one;
  switch (below(20)) {
    case 0: v.m = 0; v.s = sign; break;
    case 1: v.s = sign; v.m = m >> below(63); break;                        /* denormal */
    case 2: v.s = sign | 0x7fff; v.m = one; break;                           /* infinity */
    case 3: v.s = sign | 0x7fff; v.m = m | one | (uint64_t)below(2) << 62; break; /* NaN */
    case 4: if (below(3) == 0) { v.s = sign | (below(4) ? below(0x8000) : 0); v.m = below(2) ? m : m | one; } else v.s = sign | 0x3fff; break;
    case 5: v.s = sign | below(0x7fff); break;
    case 6: v.s = sign | (1 + below(70)); break;                             /* near underflow */
    case 7: v.s = sign | (0x7ffe - below(70)); break;                        /* near overflow */
    case 8: v.s = sign | (0x3fff + below(70)); v.m = one; break;
    case 9: v.s = sign | (0x3fff - 126 - below(30) + 6); break;              /* near m32 underflow */
    case 10: v.s = sign | (0x3fff + 126 + below(4)); break;                  /* near m32 overflow */
    case 11: v.s = sign | (0x3fff - 1022 - below(60) + 6); break;
    case 12: v.s = sign | (0x3fff + 1022 + below(4)); break;
    case 13: { uint64_t k = rnd() >> below(64); int z = k ? __builtin_clzll(k) : 0; v.m = k << z; v.s = k ? sign | (0x3fff + 63 - z) : sign; break; }
    case 14: v.s = sign | (0x3fff + 13 + below(3)); break;                   /* integer limits */
    case 15: v.s = sign | (0x3fff + 29 + below(3)); break;
    case 16: v.s = sign | (0x3fff + 57 + below(8)); break;
    default: v.s = sign | (near - 34 + (int)below(68)); break;
  }
  return v;
}
static f80 memory(int format) { /* 0 m32, 1 m64, 2 integer, 3 m80, 4 BCD */
  f80 v = value(0x3fff);
  uint64_t sign = rnd() & 1, f = fraction();
  if (format == 0) {
    uint32_t e = below(4) == 0 ? 0 : below(4) == 0 ? 255 : below(3) ? 100 + below(56) : below(256);
    uint32_t frac = (uint32_t)(f >> 40) & 0x7fffff;
    if (below(5) == 0) frac = 0;
    v.m = sign << 31 | e << 23 | frac | (rnd() & 0xffffffff00000000ULL);
  } else if (format == 1) {
    uint64_t e = below(4) == 0 ? 0 : below(4) == 0 ? 2047 : below(3) ? 980 + below(86) : below(2048);
    if (below(5) == 0) f = 0;
    v.m = sign << 63 | e << 52 | (f >> 11);
  } else if (format == 2) {
    v.m = rnd() >> below(64);
    if (sign) v.m = -v.m;
    if (below(12) == 0) v.m = 0;
    if (below(20) == 0) v.m = 0x8000800080008000ULL;
  } else if (format == 4) {
    v.m = 0;
    for (int i = 0; i < 16; i++) v.m |= (uint64_t)below(10) << (4 * i);
    v.m >>= 4 * below(16);
    v.s = (uint16_t)(below(10) << 4 | below(10) | sign << 15);
    if (below(3) == 0) v.s &= 0x8000;
  }
  return v;
}

static uint8_t *code;
static uint32_t run(const struct record *r, void *image, void *mem, void *after) {
  uint8_t *p = code;
  const uint8_t head[] = { 0xdd, 0x27, 0x89, 0xd0, 0x9e };        /* frstor [rdi]; mov eax, edx; sahf */
  const uint8_t tail[] = { 0x9f, 0xdd, 0x31, 0xdb, 0xe3, 0xc3 };  /* lahf; fnsave [rcx]; fninit; ret */
  memcpy(p, head, sizeof head); p += sizeof head;
  *p++ = r->escape; *p++ = r->modrm;
  memcpy(p, tail, sizeof tail);
  __builtin___clear_cache((char *)code, (char *)code + 64);
  return ((uint32_t (*)(void *, void *, uint32_t, void *))code)(image, mem, r->flags << 8, after);
}
static void capture(struct record *r) {
  uint8_t image[108], after[108], mem[16] = { 0 };
  memset(image, 0, sizeof image);
  uint16_t full = 0, sw = r->top << 11;
  for (int i = 0; i < 8; i++) if (!(r->tags >> i & 1)) full |= 3 << (2 * i);
  memcpy(image, &r->cw, 2);
  memcpy(image + 4, &sw, 2);
  memcpy(image + 8, &full, 2);
  for (int i = 0; i < 8; i++) {
    f80 other = { 0x8000000000000000ULL | (uint64_t)i << 40, (uint16_t)(0x4000 + i) };
    memcpy(image + 28 + 10 * i, i == 0 ? &r->st0 : i == 1 ? &r->st1 : &other, 10);
  }
  memcpy(mem, &r->mem, 10);
  uint32_t ax = run(r, image, mem, after);
  r->flags_after = ax >> 8;
  memcpy(&r->sw, after + 4, 2);
  memcpy(&full, after + 8, 2);
  r->tags_after = 0;
  for (int i = 0; i < 8; i++) if ((full >> (2 * i) & 3) != 3) r->tags_after |= 1 << i;
  memcpy(&r->st0_after, after + 28, 10);
  memcpy(&r->st1_after, after + 38, 10);
  memcpy(&r->mem_after, mem, 10);
}

/* Register forms that exist, but for the transcendental ones, FNSTSW AX and FNINIT. */
static int basic_register(int esc, int modrm) {
  int reg = modrm >> 3 & 7, rm = modrm & 7;
  switch (esc) {
    case 0xd8: return 1;
    case 0xd9:
      if (reg <= 1) return 1;
      if (reg == 2) return rm == 0;
      if (reg == 4) return rm == 0 || rm == 1 || rm == 4 || rm == 5;
      if (reg == 5) return rm < 7;
      return modrm == 0xf4 || modrm == 0xf5 || modrm == 0xf6 || modrm == 0xf7 || modrm == 0xf8 || modrm == 0xfa || modrm == 0xfc || modrm == 0xfd;
    case 0xda: return reg < 4 || modrm == 0xe9;
    case 0xdb: return reg < 4 || modrm == 0xe2 || reg == 5 || reg == 6;
    case 0xdc: return reg != 2 && reg != 3;
    case 0xdd: return reg == 0 || (reg >= 2 && reg <= 5);
    case 0xde: return reg < 2 || reg >= 4 || modrm == 0xd9;
    default: return reg == 5 || reg == 6;
  }
}
static int memory_format(int esc, int reg) {
  static const int8_t formats[8][8] = {
    { 0, 0, 0, 0, 0, 0, 0, 0 }, { 0, -1, 0, 0, -1, 2, -1, 2 }, { 2, 2, 2, 2, 2, 2, 2, 2 }, { 2, 2, 2, 2, -1, 3, -1, 3 },
    { 1, 1, 1, 1, 1, 1, 1, 1 }, { 1, 2, 1, 1, -1, -1, -1, 2 }, { 2, 2, 2, 2, 2, 2, 2, 2 }, { 2, 2, 2, 2, 4, 2, 4, 2 },
  };
  return formats[esc - 0xd8][reg];
}

int main(int argc, char **argv) {
  if (argc != 4) { fprintf(stderr, "usage: %s basic|transcendental count seed\n", argv[0]); return 1; }
  int basic = strcmp(argv[1], "basic") == 0, count = atoi(argv[2]);
  seed = 0x9e3779b97f4a7c15ULL * (uint64_t)(atoi(argv[3]) + 1);
  code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) { perror("mmap"); return 1; }
  static const uint8_t trans[] = { 0xf0, 0xf1, 0xf2, 0xf3, 0xf9, 0xfb, 0xfe, 0xff };
  for (int n = 0; n < count;) {
    struct record r;
    memset(&r, 0, sizeof r);
    r.top = below(8);
    r.tags = below(6) ? 3 : below(8) ? 7 : below(256);
    if (below(40) == 0) r.tags = below(256);
    r.tags = (uint8_t)(r.tags << r.top | r.tags >> (8 - r.top));
    r.flags = (uint8_t)(rnd() & 0xd5) | 2;
    int masks = below(4) ? 0x3f : below(64), rc = below(4), pc = below(2) ? 3 : below(4);
    if (pc == 1) pc = 3;
    r.cw = (uint16_t)(0x40 | masks | pc << 8 | rc << 10);
    r.st0 = value(0x3fff);
    r.st1 = value((r.st0.s & 0x7fff) >= 40 && (r.st0.s & 0x7fff) < 0x7fc0 ? r.st0.s & 0x7fff : 0x3fff);
    if (basic) {
      r.escape = 0xd8 + below(8);
      if (below(2)) {
        r.modrm = 0xc0 | below(64);
        int rm = r.modrm & 7;
        /* ST(i) only for i = 0, 1 where the register number is an operand. */
        if (!(r.escape == 0xd9 && r.modrm >= 0xd0) && rm > 1 && !(r.escape == 0xdb && r.modrm == 0xe2)) r.modrm = (r.modrm & ~7) | (rm == 7 ? 0 : 1);
        if (!basic_register(r.escape, r.modrm)) continue;
      } else {
        r.modrm = below(8) << 3 | 6;
        int format = memory_format(r.escape, r.modrm >> 3);
        if (format < 0) continue;
        r.mem = memory(format);
      }
      if (r.escape == 0xd9 && (r.modrm == 0xf8 || r.modrm == 0xf5) && below(2)) r.st1.s = (r.st1.s & 0x8000) | (((r.st0.s & 0x7fff) - below(200)) & 0x7fff);
      if (r.escape == 0xd9 && r.modrm == 0xfd && below(3)) r.st1.s = (r.st1.s & 0x8000) | (0x3fff + below(17));
    } else {
      r.escape = 0xd9;
      r.modrm = trans[below(8)];
      if (below(3)) {
        r.tags = (uint8_t)(3 << r.top | 3 >> (8 - r.top));
        r.cw |= 0x3f;
        int sign = r.st0.s & 0x8000;
        r.st0.m = rnd() | 1ULL << 63;
        r.st1.m = rnd() | 1ULL << 63;
        switch (r.modrm) {
          case 0xf0: r.st0.s = sign | (below(6) ? 0x3ffe - below(8) : 0x3ffe - below(80)); break;
          case 0xf1: r.st0.s = below(4) ? 0x3ffc + below(6) : 0x3fff + below(200); r.st1.s = (r.st1.s & 0x8000) | (0x3fff - 10 + below(20)); break;
          case 0xf3: r.st0.s = sign | (0x3fff - 6 + below(12)); r.st1.s = (r.st1.s & 0x8000) | (0x3fff - 6 + below(12)); break;
          case 0xf9: r.st0.s = sign | (0x3ffd - below(below(2) ? 4 : 70)); r.st1.s = (r.st1.s & 0x8000) | (0x3fff - 10 + below(20));
            if ((r.st0.s & 0x7fff) == 0x3ffd && r.st0.m > 0x95f619980c4336f7ULL) r.st0.s--;
            break;
          default: r.st0.s = sign | (below(3) ? 0x3fff + 3 - below(10) : below(2) ? 0x3fff + below(63) : 0x3fff - below(70)); break;
        }
      }
      if (r.modrm == 0xf0 && (r.st0.s & 0x7fff) >= 0x3fff && r.st0.m != 1ULL << 63) continue; /* undefined */
    }
    capture(&r);
    fwrite(&r, sizeof r, 1, stdout);
    n++;
  }
  return 0;
}
