// Runs every form of integer-forms.S on this CPU and writes inputs and results as tests/vectors/integer.bin.gz.
//   gcc -O1 -no-pie -o integer-vectors integer-vectors.c integer-forms.S && ./integer-vectors | gzip -9n > ../vectors/integer.bin.gz
//
// File: "INTV", u32 number of pool entries, the pool (u64 each), u32 number of forms, then for each form:
//   u8 text length, text (AT&T), u8 code length, code, u8 cases, then for each case:
//   five pool indexes u8 (rax, rcx, rdx, rbx, memory[0]; memory[k] is the k-th entry after it, wrapping), u16 status flags,
//   u8 exception vector + 1 (0: none), and then, unless an exception came, u32 mask of what changed and the new values:
//   bits 0..8 rax rcx rdx rbx rsp rbp rsi rdi r8, bit 9 the status flags (u64 each too), bits 10..17 the words of memory.
// Everything little-endian. Memory is 64 bytes at MEMORY; the pointers into it start as below. r8 = R8.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define MEMORY 0x10100
#define R8 0x1122334455667788
#define STATUS_FLAGS 0x8d5

struct form {
  const uint8_t *code, *end;
  const char *text;
  uint64_t cases;
};
extern const struct form __start_form_table[], __stop_form_table[];

// Offsets are known to run_form.
struct state {
  uint64_t rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, flags;
  const void *code;
};
extern void run_form(struct state *);
extern void form_done(void);

static uint64_t seed = 0x9e3779b97f4a7c15;
static uint64_t next(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed * 0x2545f4914f6cdd1d;
}

static const uint64_t special[] = {
  0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000,
  0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000, ~0ull, ~1ull, 0xffffffff80000000, 0xffffffffffffff80, 0x8080808080808080,
  0x0101010101010101, 0x1020304050607080, 0x8f1e2d3c4b5a6978, 0x00000000fffffff0, 0xffff0000ffff0000,
};
#define SPECIAL (sizeof(special) / sizeof(*special))
#define POOL_SIZE 96
static uint64_t pool[POOL_SIZE];

static volatile int fault;
static void on_fault(int number, siginfo_t *info, void *context) {
  (void)info;
  fault = number == SIGFPE ? 0 + 1 : 13 + 1;
  ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] = (greg_t)form_done;
  ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~0x400;
}

static void put(const void *p, size_t n) { fwrite(p, 1, n, stdout); }
static void put8(uint8_t v) { put(&v, 1); }
static void put16(uint16_t v) { put(&v, 2); }
static void put32(uint32_t v) { put(&v, 4); }
static void put64(uint64_t v) { put(&v, 8); }

static void record(const struct form *f) {
  uint64_t *memory = (uint64_t *)MEMORY;
  for (unsigned n = 0; n < f->cases; n++) {
    uint8_t c[5];
    for (int i = 0; i < 5; i++) c[i] = (next() >> 30) % POOL_SIZE;
    // Counts and divisors go through the special values.
    if (f->cases >= 24) c[1] = n % SPECIAL;
    uint16_t flags = next() >> 20 & STATUS_FLAGS;
    for (int i = 0; i < 8; i++) memory[i] = pool[(c[4] + i) % POOL_SIZE];
    struct state before = {pool[c[0]], pool[c[1]], pool[c[2]], pool[c[3]], MEMORY + 0x20, MEMORY + 0x30, MEMORY + 8, MEMORY + 0x20, R8, flags | 2, f->code};
    struct state after = before;
    fault = 0;
    run_form(&after);
    put(c, 5);
    put16(flags);
    put8(fault);
    if (fault) continue;
    before.flags &= STATUS_FLAGS;
    after.flags &= STATUS_FLAGS;
    uint64_t values[18], old[18];
    memcpy(values, &after, 80);
    memcpy(values + 10, memory, 64);
    memcpy(old, &before, 80);
    for (int i = 0; i < 8; i++) old[10 + i] = pool[(c[4] + i) % POOL_SIZE];
    uint32_t changed = 0;
    for (int i = 0; i < 18; i++) if (values[i] != old[i]) changed |= 1u << i;
    put32(changed);
    for (int i = 0; i < 18; i++) if (changed >> i & 1) put64(values[i]);
  }
}

int main(void) {
  for (unsigned i = 0; i < POOL_SIZE; i++) pool[i] = i < SPECIAL ? special[i] : i % 3 ? next() : next() >> (next() >> 58);
  void *page = mmap((void *)(MEMORY & ~0xfff), 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (page == MAP_FAILED) return perror("mmap"), 1;
  static uint8_t stack[65536];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternate, 0);
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  sigaction(SIGFPE, &action, 0);
  sigaction(SIGSEGV, &action, 0);
  put("INTV", 4);
  put32(POOL_SIZE);
  for (int i = 0; i < POOL_SIZE; i++) put64(pool[i]);
  put32(__stop_form_table - __start_form_table);
  for (const struct form *f = __start_form_table; f < __stop_form_table; f++) {
    size_t text = strlen(f->text), code = f->end - f->code;
    put8(text);
    put(f->text, text);
    put8(code);
    put(f->code, code);
    put8(f->cases);
    record(f);
  }
  return 0;
}
