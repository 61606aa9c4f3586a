// Runs user code natively from given states and reports the states it ends in: the oracle of the instruction tests.
//   gcc -O1 -fno-stack-protector -o harness harness.c && ./harness < cases > results
//
// Code is at CODE; it ends with the first signal: HLT gives SIGSEGV with trap 13 at its address, which is how cases end. Standard input: u32 number of
// descriptors for the LDT, each a struct user_desc, then cases: struct header, struct state, the code, the data. The rest of the code pages is HLT, that
// of the data pages zero. The result: u32 trap number, u32 error code, u64 fault address, u64 RIP, u16 CS, u16 SS, u32 0, struct state, the data
// and, when the data fill the data pages, the stack pages and the code pages. Little-endian. Nothing but status flags and DF is kept of RFLAGS.
// Segment registers decide whether the code is 64-, 32- or 16-bit code.
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define CODE 0x100000ul
#define CODE_BYTES 0x4000
#define DATA 0x110000ul
#define DATA_BYTES 0x2000
#define GS_BASE (DATA + 0x800)
#define FS_BASE (DATA + 0x400)
#define READ_ONLY 0x118000ul
#define STACK 0x120000ul
#define STACK_BYTES 0x4000
#define FLAGS 0xcd5
// Of the high halves in a signal frame, which has XSAVE's standard format.
#define AVX_STATE 576

struct state {
  uint64_t gpr[16], flags;
  uint32_t mxcsr, unused;
  uint8_t xmm[256];
  // The first 160 bytes of an FXSAVE image; MXCSR in it is not looked at.
  uint8_t x87[160];
  // Of ES, DS, FS, GS, and the bases of the last two; cases start with the header's selectors, and with FS_BASE and GS_BASE where those are null.
  uint16_t selectors[4];
  uint64_t fs_base, gs_base;
  // High halves of YMM0..15.
  uint8_t high[256];
};
struct header {
  // Bytes, and offsets in the code and data pages.
  uint32_t code, code_at, data, data_at;
  // Where the code starts, relative to the base of CS.
  uint32_t rip;
  uint16_t cs, ss, selectors[4];
};
struct result {
  uint32_t trap, error;
  uint64_t address, rip;
  uint16_t cs, ss;
  uint32_t unused;
};
#define STRICT_RESTORE_SS 4 // UC_STRICT_RESTORE_SS of Linux' asm/ucontext.h

// Encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8...
static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static struct state state;
static struct result result;
static struct header h;
static ucontext_t home;
static struct _libc_fpstate home_fp;
// The C library's own, for its thread-local variables: nothing of it may be called between the setting and the restoring of FS.
static uint64_t home_fs_base;

static void set_fs_base(uint64_t base) { __asm__ volatile("wrfsbase %0" : : "r"(base)); }
static void set_gs_base(uint64_t base) { __asm__ volatile("wrgsbase %0" : : "r"(base)); }
static uint64_t get_fs_base(void) {
  uint64_t base;
  __asm__ volatile("rdfsbase %0" : "=r"(base));
  return base;
}
static uint64_t get_gs_base(void) {
  uint64_t base;
  __asm__ volatile("rdgsbase %0" : "=r"(base));
  return base;
}

// Notes the segment registers and makes them what the C library needs.
static void save_segments(void) {
  __asm__ volatile("mov %%es,%0; mov %%ds,%1; mov %%fs,%2; mov %%gs,%3"
                   : "=m"(state.selectors[0]), "=m"(state.selectors[1]), "=m"(state.selectors[2]), "=m"(state.selectors[3]));
  state.fs_base = get_fs_base();
  state.gs_base = get_gs_base();
  __asm__ volatile("mov %0,%%es; mov %0,%%ds; mov %0,%%fs; mov %0,%%gs" : : "r"(0));
  set_fs_base(home_fs_base);
  set_gs_base(GS_BASE);
}

// Everything but MXCSR, which lies between.
static void copy_x87(void *to, const void *from) {
  memcpy(to, from, 24);
  memcpy((char *)to + 32, (const char *)from + 32, 128);
}

static void enter(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  ucontext_t *u = context;
  home = *u;
  home_fp = *u->uc_mcontext.fpregs;
  for (int i = 0; i < 16; i++) u->uc_mcontext.gregs[order[i]] = state.gpr[i];
  u->uc_mcontext.gregs[REG_EFL] = (u->uc_mcontext.gregs[REG_EFL] & ~FLAGS) | (state.flags & FLAGS);
  u->uc_mcontext.gregs[REG_RIP] = h.rip;
  u->uc_mcontext.gregs[REG_CSGSFS] = h.cs | (uint64_t)h.ss << 48;
  u->uc_flags |= STRICT_RESTORE_SS;
  memcpy(u->uc_mcontext.fpregs->_xmm, state.xmm, 256);
  u->uc_mcontext.fpregs->mxcsr = state.mxcsr;
  copy_x87(u->uc_mcontext.fpregs, state.x87);
  memcpy((char *)u->uc_mcontext.fpregs + AVX_STATE, state.high, 256);
  // XSTATE_BV: x87, SSE and AVX are not in their initial state.
  *(uint64_t *)((char *)u->uc_mcontext.fpregs + 512) |= 7;
  __asm__ volatile("mov %0,%%es; mov %1,%%ds" : : "r"(h.selectors[0]), "r"(h.selectors[1]));
  if (h.selectors[3]) __asm__ volatile("mov %0,%%gs" : : "r"(h.selectors[3]));
  if (h.selectors[2]) __asm__ volatile("mov %0,%%fs" : : "r"(h.selectors[2]));
  else set_fs_base(FS_BASE);
}

static void leave(int number, siginfo_t *info, void *context) {
  save_segments();
  ucontext_t *u = context;
  result.trap = u->uc_mcontext.gregs[REG_TRAPNO];
  result.error = u->uc_mcontext.gregs[REG_ERR];
  result.address = result.trap == 14 ? (uint64_t)info->si_addr : 0;
  result.rip = u->uc_mcontext.gregs[REG_RIP];
  result.cs = u->uc_mcontext.gregs[REG_CSGSFS];
  result.ss = (uint64_t)u->uc_mcontext.gregs[REG_CSGSFS] >> 48;
  if (number == SIGVTALRM) result.trap = 255;
  for (int i = 0; i < 16; i++) state.gpr[i] = u->uc_mcontext.gregs[order[i]];
  state.flags = u->uc_mcontext.gregs[REG_EFL] & FLAGS;
  state.mxcsr = u->uc_mcontext.fpregs->mxcsr;
  memcpy(state.xmm, u->uc_mcontext.fpregs->_xmm, 256);
  memset(state.high, 0, 256);
  if (*(uint64_t *)((char *)u->uc_mcontext.fpregs + 512) & 4) memcpy(state.high, (char *)u->uc_mcontext.fpregs + AVX_STATE, 256);
  copy_x87(state.x87, u->uc_mcontext.fpregs);
  copy_x87(u->uc_mcontext.fpregs, &home_fp);
  memcpy(u->uc_mcontext.gregs, home.uc_mcontext.gregs, sizeof home.uc_mcontext.gregs);
  u->uc_mcontext.fpregs->mxcsr = home_fp.mxcsr;
}

static int get(void *p, size_t n) { return fread(p, 1, n, stdin) == n; }
static void put(const void *p, size_t n) { fwrite(p, 1, n, stdout); }

static void map(uint64_t at, size_t n, int protection) {
  if (mmap((void *)at, n, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0) == (void *)at) return;
  perror("mmap");
  exit(1);
}

// Seconds of processor time until SIGVTALRM, 0: none. Wall time may jump.
static void limit(int seconds) {
  struct itimerval timer = {.it_value.tv_sec = seconds};
  setitimer(ITIMER_VIRTUAL, &timer, 0);
}

// 0 when the descriptors on standard input are in the LDT.
static int read_ldt(void) {
  uint32_t count;
  if (!get(&count, sizeof count)) return 2;
  for (; count > 0; count--) {
    struct user_desc d;
    if (!get(&d, sizeof d)) return 2;
    if (syscall(SYS_modify_ldt, 0x11, &d, sizeof d)) return perror("modify_ldt"), 1;
  }
  return 0;
}

int main(void) {
  int failed = read_ldt();
  if (failed) return failed;
  map(CODE, CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
  map(DATA, DATA_BYTES, PROT_READ | PROT_WRITE);
  map(READ_ONLY, 4096, PROT_READ);
  map(STACK, STACK_BYTES, PROT_READ | PROT_WRITE);
  if (!(getauxval(AT_HWCAP2) & 2)) return fputs("this kernel keeps FSGSBASE to itself\n", stderr), 1;
  home_fs_base = get_fs_base();
  set_gs_base(GS_BASE);
  static uint8_t stack[262144];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternate, 0);
  struct sigaction action = {.sa_sigaction = leave, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  static const int faults[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS, SIGTRAP, SIGVTALRM};
  for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++) sigaction(faults[i], &action, 0);
  action.sa_sigaction = enter;
  sigaction(SIGUSR1, &action, 0);
  while (get(&h, sizeof h)) {
    if (h.code_at + h.code > CODE_BYTES || h.data_at + h.data > DATA_BYTES || !get(&state, sizeof state)) return 2;
    memset((void *)CODE, 0xf4, CODE_BYTES);
    memset((void *)DATA, 0, DATA_BYTES);
    if (!get((void *)(CODE + h.code_at), h.code) || !get((void *)(DATA + h.data_at), h.data)) return 2;
    if (h.data == DATA_BYTES) memset((void *)STACK, 0, STACK_BYTES);
    limit(1);
    raise(SIGUSR1);
    limit(0);
    put(&result, sizeof result);
    put(&state, sizeof state);
    put((void *)(DATA + h.data_at), h.data);
    if (h.data != DATA_BYTES) continue;
    put((void *)STACK, STACK_BYTES);
    put((void *)CODE, CODE_BYTES);
  }
  return 0;
}
