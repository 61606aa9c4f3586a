/* What leaves a virtual machine: rounds of EXITS_OPERATIONS operations of the kind EXITS_KIND (environment). */
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "bench.h"

#define MIB 0x100000
#define PAGE 4096
/* Of our guest kernel: n rounds of one of its loops; loop 0 makes hypercalls. */
#define SYS_PVM_BENCH 510
#define BENCH_HYPERCALL 0

static const char *kind;
static uint64_t operations;

static void bench_setup(void) {
  const char *n = getenv("EXITS_OPERATIONS");
  kind = getenv("EXITS_KIND");
  operations = n ? strtoull(n, NULL, 10) : 0;
  if (kind && operations && (!strcmp(kind, "fault") || !strcmp(kind, "getpid") || !strcmp(kind, "hypercall"))) return;
  fprintf(stderr, "EXITS_KIND: fault (a page each), getpid or hypercall; EXITS_OPERATIONS: from 1\n");
  exit(2);
}

/* The paper's loop: take 1 MiB, touch each page, give it back. */
static void fault(uint64_t pages) {
  for (uint64_t n = 0; n < pages; n += MIB / PAGE) {
    volatile uint8_t *memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) exit(1);
    for (unsigned i = 0; i < MIB; i += PAGE) memory[i] = 1;
    munmap((void *)memory, MIB);
  }
}

static uint64_t bench_round(unsigned index) {
  (void)index;
  if (!strcmp(kind, "fault"))
    fault(operations);
  else if (!strcmp(kind, "getpid"))
    for (uint64_t i = 0; i < operations; i++) syscall(SYS_getpid);
  else if (syscall(SYS_PVM_BENCH, BENCH_HYPERCALL, operations, 0) < 0)
    exit(1);
  return operations;
}
