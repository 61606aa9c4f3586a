/*
 * /init of a stock Linux kernel: loops of process and memory management. Prints "<row> <ns>" for the fastest of many short batches, which
 * is the one that nothing disturbed, and powers the machine off.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fork_exit_wait(void) {
  pid_t child = fork();
  if (child == 0) _exit(0);
  int status;
  if (child < 0 || waitpid(child, &status, 0) != child) exit(1);
}

/* The paper's loop: allocate 1 MiB, touch each page, release. */
static void page_faults(void) {
  enum { MIB = 1 << 20, PAGE = 4096 };
  volatile char *memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) exit(1);
  for (int at = 0; at < MIB; at += PAGE) memory[at] = 1;
  munmap((void *)memory, MIB);
}

static void getppid_call(void) {
  syscall(SYS_getppid);
}

static void row(const char *name, void (*operation)(void), int batch, int batches, int per_operation) {
  uint64_t best = UINT64_MAX;
  for (int i = 0; i < batches; i++) {
    uint64_t start = now_ns();
    for (int j = 0; j < batch; j++) operation();
    uint64_t ns = now_ns() - start;
    if (ns < best) best = ns;
  }
  printf("%s %.1f\n", name, (double)best / batch / per_operation);
  fflush(stdout);
}

int main(void) {
  row("getppid", getppid_call, 2000, 150, 1);
  row("page-fault", page_faults, 4, 250, 256);
  row("fork+exit+wait", fork_exit_wait, 4, 250, 1);
  reboot(RB_POWER_OFF);
  return 0;
}
