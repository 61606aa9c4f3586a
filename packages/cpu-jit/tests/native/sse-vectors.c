// Runs every form of sse-forms.S on this CPU and writes inputs and results, kept as tests/vectors/sse.bin.gz.
//   gcc -O1 -no-pie -o sse-vectors sse-vectors.c sse-forms.S && ./sse-vectors | gzip -9n > ../vectors/sse.bin.gz
//
// File: "SSEV", u32 number of pool entries, the pool (16 bytes each), u32 number of forms, then for each form:
//   u8 text length, text (AT&T), u8 code length, code, u8 what a misaligned memory operand does (0 there is none, 1 it
//   faults, 2 nothing), u16 MXCSR, u16 outputs (OUT_*), u16 cases, then for each case
//   six pool indexes (xmm0, xmm1 = mm1, xmm2 = mm2 = memory, rax, rcx, rdx) and the outputs in order of their bits: xmm0,
//   xmm1, xmm2, memory, rax, rcx, rdx, u16 flags, mm1, u16 MXCSR, u8 1 when #XM was raised (nothing else changes then).
// Everything little-endian. An output is recorded when the form changed it in any case. RFLAGS starts as 0x8d7.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

struct form {
  const uint8_t *code, *end;
  const char *text;
  uint32_t pool, mxcsr, cases, pad;
};
extern const struct form __start_form_table[], __stop_form_table[];

// Offsets are known to run_form.
struct state {
  uint8_t xmm[3][16], memory[16];
  uint64_t rax, rcx, rdx, flags;
  uint64_t offset;  // of the memory operand from `memory`
  uint8_t pad[0x18];
  uint64_t mm1, mm2;
  const void *code;
  uint32_t mxcsr;
} __attribute__((aligned(64)));
extern void run_form(struct state *);

#define POOL_SIZE 64
static uint8_t pool[4][POOL_SIZE][16];

static uint64_t seed = 0x9e3779b97f4a7c15;
static uint64_t next(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed * 0x2545f4914f6cdd1d;
}

static const uint64_t doubles[] = {
  0, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000,  // 0 -0 1 -1 inf -inf
  0x7ff8000000000000, 0xfff8000000000123, 0x7ff0000000000001, 0xfff4567800000000, 0x7fffffffffffffff,     // quiet, signalling NaN
  1, 0x800fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff, 0xffefffffffffffff,                      // denormals, limits
  0x3fe0000000000000, 0x3ff8000000000000, 0x4004000000000000, 0xbfe0000000000000, 0xc004000000000000,     // .5 1.5 2.5 -.5 -2.5
  0x41dfffffffc00000, 0x41dfffffffe00000, 0x41e0000000000000, 0xc1e0000000000000, 0xc1e0000000100000,     // around 2^31
  0xc1e0000000200000, 0x41efffffffe00000, 0x43e0000000000000, 0xc3e0000000000000, 0x43dfffffffffffff,     // around 2^63
  0xc3e0000000000001, 0x36a0000000000000, 0x47efffffefffffff, 0x47effffff0000000, 0x3810000000000000,     // limits of singles
  0x380fffffffffffff, 0x380fffffdfffffff, 0x0010000000000001, 0x801fffffffffffff, 0x0008000000000000, 0x7fd0000000000001,
};
static const uint32_t singles[] = {
  0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00123, 0x7f800001, 0xffa45678, 0x7fffffff,
  1, 0x807fffff, 0x00800000, 0x7f7fffff, 0xff7fffff, 0x3f000000, 0x3fc00000, 0x40200000, 0xbf000000, 0xc0200000,
  0x4effffff, 0x4f000000, 0xcf000000, 0xcf000001, 0x5f000000, 0xdf000000, 0x5effffff, 0x4b7fffff, 0x4affffff, 0x40490fdb, 0x7e800001,
  0x00800001, 0x80ffffff, 0x00400000, 0x7f000001,
};
static const uint64_t integers[] = {
  0, ~0ull, 0x8000000000000000, 0x7fffffffffffffff, 0x8000000080000000, 0x7fffffff7fffffff, 0x8000800080008000, 0x7fff7fff7fff7fff,
  0x8080808080808080, 0x7f7f7f7f7f7f7f7f, 0x0101010101010101, 1, 7, 8, 15, 16, 31, 32, 63, 64, 0x100000000, 0xffffffff, 0x80000000,
  0x00ff00ff00ff00ff, 0xff80007f8001ff7f, 0x8001800080017fff, 0x0706050403020100, 0x8f1e2d3c4b5a6978,
};
#define COUNT(a) (sizeof(a) / sizeof(*(a)))

// Mostly about 1, sometimes so small or large that products and quotients leave the format.
static unsigned exponent(unsigned bias, unsigned range) {
  unsigned kind = next() % 8, n = next() % range;
  return kind == 0 ? n / 2 : kind == 1 ? bias / 2 + n / 2 : kind == 2 ? bias + bias / 2 + n / 2 : kind == 3 ? 2 * bias - n / 2 : bias - range / 2 + n;
}

static void fill_pools(void) {
  for (int i = 0; i < POOL_SIZE; i++) {
    for (int lane = 0; lane < 2; lane++) {
      uint64_t special = i < (int)COUNT(integers) && lane == 0 ? integers[i] : next() % 3 ? next() : integers[next() % COUNT(integers)];
      memcpy(pool[0][i] + lane * 8, &special, 8);
      uint64_t d = i < (int)COUNT(doubles) && lane == 0 ? doubles[i]
        : next() % 3 == 0 ? doubles[next() % COUNT(doubles)]
        : (next() & 0x800fffffffffffff) | (uint64_t)exponent(1023, 40) << 52;
      memcpy(pool[2][i] + lane * 8, &d, 8);
    }
    for (int lane = 0; lane < 4; lane++) {
      uint32_t s = i < (int)COUNT(singles) && lane == 0 ? singles[i]
        : next() % 3 == 0 ? singles[next() % COUNT(singles)]
        : (next() & 0x807fffff) | (uint32_t)exponent(127, 20) << 23;
      memcpy(pool[1][i] + lane * 4, &s, 4);
    }
    // Few letters, a few terminators, bytes on both sides of 0x80; the first are short integers, used as lengths.
    static const uint8_t letters[] = {0, 'a', 'b', 'c', 'a', 'b', 0x80, 0xff, 'a', 'b', 'a', 'a', 'b', 'b', 'a', 0x7f};
    for (int b = 0; b < 16; b++) pool[3][i][b] = i < 40 ? letters[(next() >> 20) % (i % 2 ? 16 : 6)] : 0;
    if (i >= 40) {
      int64_t length = i < 61 ? i - 40 : i == 61 ? -3 : i == 62 ? -100 : 0x100000003;
      memcpy(pool[3][i], &length, 8);
    }
  }
}

enum { OUT_XMM0 = 1, OUT_XMM1 = 2, OUT_XMM2 = 4, OUT_MEMORY = 8, OUT_RAX = 16, OUT_RCX = 32, OUT_RDX = 64, OUT_FLAGS = 128, OUT_MM1 = 256, OUT_MXCSR = 512, OUT_TRAP = 1024 };
#define STATUS_FLAGS 0x8d5

static void put(const void *p, size_t n) { fwrite(p, 1, n, stdout); }
static void put8(uint8_t v) { put(&v, 1); }
static void put16(uint16_t v) { put(&v, 2); }
static void put32(uint32_t v) { put(&v, 4); }

static sigjmp_buf faulted;
static uint32_t faulted_mxcsr;
static void on_fault(int signal, siginfo_t *info, void *context) {
  (void)info;
  faulted_mxcsr = ((ucontext_t *)context)->uc_mcontext.fpregs->mxcsr;
  siglongjmp(faulted, signal);
}
static int misaligned(const struct form *f) {
  if (!strstr(f->text, "(%rdi)")) return 0;
  struct state s = {.offset = 1, .flags = 2, .mxcsr = 0x1f80, .code = f->code};
  if (sigsetjmp(faulted, 1)) return 1;
  run_form(&s);
  return 2;
}

#define MAX_CASES 64
static void record(const struct form *f) {
  static uint8_t chosen[MAX_CASES][6];
  static struct state results[MAX_CASES];
  static uint8_t trapped[MAX_CASES];
  volatile unsigned outputs = 0;
  for (volatile unsigned n = 0; n < f->cases; n++) {
    uint8_t *c = chosen[n];
    for (int i = 0; i < 6; i++) c[i] = f->pool * POOL_SIZE + (next() >> 30) % (f->pool == 3 ? 40 : POOL_SIZE);
    // Go through the special values on the source side.
    if (f->pool != 3) c[2] = f->pool * POOL_SIZE + (f->cases >= 32 ? n * 64 / f->cases : c[2] % POOL_SIZE);
    if (f->pool != 3) c[4] = n < 32 ? n : c[4];
    else { c[3] = 192 + 40 + (next() >> 30) % 24; c[5] = 192 + 40 + (next() >> 30) % 24; }
    static struct state before;
    struct state *s = &results[n];
    memset(&before, 0, sizeof before);
    for (int i = 0; i < 3; i++) memcpy(before.xmm[i], pool[0][0] + c[i] * 16, 16);
    memcpy(before.memory, before.xmm[2], 16);
    memcpy(&before.mm1, before.xmm[1], 8);
    memcpy(&before.mm2, before.xmm[2], 8);
    memcpy(&before.rax, pool[0][0] + c[3] * 16, 8);
    memcpy(&before.rcx, pool[0][0] + c[4] * 16, 8);
    memcpy(&before.rdx, pool[0][0] + c[5] * 16, 8);
    before.flags = STATUS_FLAGS | 2;
    before.mxcsr = f->mxcsr;
    before.code = f->code;
    *s = before;
    trapped[n] = sigsetjmp(faulted, 1) != 0;
    if (!trapped[n]) run_form(s);
    else {
      *s = before;
      s->mxcsr = faulted_mxcsr;
      outputs |= OUT_TRAP;
    }
    s->flags &= STATUS_FLAGS;
    if (s->mxcsr != f->mxcsr) outputs |= OUT_MXCSR;
    for (int i = 0; i < 3; i++) if (memcmp(s->xmm[i], before.xmm[i], 16)) outputs |= OUT_XMM0 << i;
    if (memcmp(s->memory, before.memory, 16)) outputs |= OUT_MEMORY;
    if (s->rax != before.rax) outputs |= OUT_RAX;
    if (s->rcx != before.rcx) outputs |= OUT_RCX;
    if (s->rdx != before.rdx) outputs |= OUT_RDX;
    if (s->flags != STATUS_FLAGS) outputs |= OUT_FLAGS;
    if (s->mm1 != before.mm1) outputs |= OUT_MM1;
  }
  put8(strlen(f->text));
  put(f->text, strlen(f->text));
  put8(f->end - f->code);
  put(f->code, f->end - f->code);
  put8(misaligned(f));
  put16(f->mxcsr);
  put16(outputs);
  put16(f->cases);
  for (unsigned n = 0; n < f->cases; n++) {
    const struct state *s = &results[n];
    put(chosen[n], 6);
    for (int i = 0; i < 3; i++) if (outputs & OUT_XMM0 << i) put(s->xmm[i], 16);
    if (outputs & OUT_MEMORY) put(s->memory, 16);
    if (outputs & OUT_RAX) put(&s->rax, 8);
    if (outputs & OUT_RCX) put(&s->rcx, 8);
    if (outputs & OUT_RDX) put(&s->rdx, 8);
    if (outputs & OUT_FLAGS) put16(s->flags);
    if (outputs & OUT_MM1) put(&s->mm1, 8);
    if (outputs & OUT_MXCSR) put16(s->mxcsr);
    if (outputs & OUT_TRAP) put8(trapped[n]);
  }
}

int main(void) {
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, 0);
  sigaction(SIGFPE, &action, 0);
  fill_pools();
  put("SSEV", 4);
  put32(4 * POOL_SIZE);
  put(pool, sizeof pool);
  put32(__stop_form_table - __start_form_table);
  for (const struct form *f = __start_form_table; f < __stop_form_table; f++) record(f);
  return 0;
}
