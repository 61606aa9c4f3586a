// Runs user code natively from given states and reports the states it ends in: the oracle of the instruction tests.
//   gcc -O1 -o harness harness.c && ./harness < cases > results
//
// Code is at CODE; it ends with the first signal: HLT gives SIGSEGV with trap 13 at its address, which is how cases end. A case on
// standard input: u32 bytes of code, u32 offset at which it goes (the rest of the code pages is HLT), u32 bytes of data, u32 their offset in the
// data pages, then struct state, the code, the data. The result: u32 trap number, u32 error code, u64 fault address, u64 RIP, struct state, the data
// and, when the data fill the data pages, the stack pages and the code pages. Little-endian. Nothing but status flags and DF is kept of RFLAGS.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <asm/prctl.h>
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
#define READ_ONLY 0x118000ul
#define STACK 0x120000ul
#define STACK_BYTES 0x4000
#define FLAGS 0xcd5

struct state {
  uint64_t gpr[16], flags;
  uint32_t mxcsr, unused;
  uint8_t xmm[256];
};
struct header {
  uint32_t code, code_at, data, data_at;
};
struct result {
  uint32_t trap, error;
  uint64_t address, rip;
};

// Encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8...
static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static struct state state;
static struct result result;
static uint64_t entry;
static ucontext_t home;
static struct _libc_fpstate home_fp;

static void enter(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  ucontext_t *u = context;
  home = *u;
  home_fp = *u->uc_mcontext.fpregs;
  for (int i = 0; i < 16; i++) u->uc_mcontext.gregs[order[i]] = state.gpr[i];
  u->uc_mcontext.gregs[REG_EFL] = (u->uc_mcontext.gregs[REG_EFL] & ~FLAGS) | (state.flags & FLAGS);
  u->uc_mcontext.gregs[REG_RIP] = entry;
  memcpy(u->uc_mcontext.fpregs->_xmm, state.xmm, 256);
  u->uc_mcontext.fpregs->mxcsr = state.mxcsr;
  // XSTATE_BV: x87 and SSE are not in their initial state.
  *(uint64_t *)((char *)u->uc_mcontext.fpregs + 512) |= 3;
}

static void leave(int number, siginfo_t *info, void *context) {
  ucontext_t *u = context;
  result.trap = u->uc_mcontext.gregs[REG_TRAPNO];
  result.error = u->uc_mcontext.gregs[REG_ERR];
  result.address = result.trap == 14 ? (uint64_t)info->si_addr : 0;
  result.rip = u->uc_mcontext.gregs[REG_RIP];
  if (number == SIGVTALRM) result.trap = 255;
  for (int i = 0; i < 16; i++) state.gpr[i] = u->uc_mcontext.gregs[order[i]];
  state.flags = u->uc_mcontext.gregs[REG_EFL] & FLAGS;
  state.mxcsr = u->uc_mcontext.fpregs->mxcsr;
  memcpy(state.xmm, u->uc_mcontext.fpregs->_xmm, 256);
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

int main(void) {
  map(CODE, CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
  map(DATA, DATA_BYTES, PROT_READ | PROT_WRITE);
  map(READ_ONLY, 4096, PROT_READ);
  map(STACK, STACK_BYTES, PROT_READ | PROT_WRITE);
  // The C library uses FS only.
  if (syscall(SYS_arch_prctl, ARCH_SET_GS, GS_BASE)) return perror("arch_prctl"), 1;
  static uint8_t stack[262144];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternate, 0);
  struct sigaction action = {.sa_sigaction = leave, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  static const int faults[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS, SIGTRAP, SIGVTALRM};
  for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++) sigaction(faults[i], &action, 0);
  action.sa_sigaction = enter;
  sigaction(SIGUSR1, &action, 0);
  struct header h;
  while (get(&h, sizeof h)) {
    if (h.code_at + h.code > CODE_BYTES || h.data_at + h.data > DATA_BYTES || !get(&state, sizeof state)) return 2;
    memset((void *)CODE, 0xf4, CODE_BYTES);
    if (!get((void *)(CODE + h.code_at), h.code) || !get((void *)(DATA + h.data_at), h.data)) return 2;
    if (h.data == DATA_BYTES) memset((void *)STACK, 0, STACK_BYTES);
    entry = CODE + h.code_at;
    limit(5);
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
