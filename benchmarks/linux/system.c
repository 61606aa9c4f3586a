/*
 * /init of a stock Linux kernel for comparisons of whole machines. Its first line is "init"; then it runs the rows that its arguments name (from the kernel's command
 * line after "--") and powers the machine off. A row prints "begin NAME", and then
 *   row NAME <ns of an operation in the median of the later batches> <ns of all batches> <operations in all>
 * by the guest's clock; the host checks that against its own. "memory NAME KIB" is what the guest has in use.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20, PAGE = 4096, BATCHES = 40, DATA_MIB = 64 };

static void fail(const char *what) {
  printf("failed %s: %s\n", what, strerror(errno));
  fflush(stdout);
  sync();
  reboot(RB_POWER_OFF);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void getpid_call(void) {
  syscall(SYS_getpid);
}

static void fork_exit_wait(void) {
  pid_t child = fork();
  if (child == 0) _exit(0);
  int status;
  if (child < 0 || waitpid(child, &status, 0) != child) fail("fork");
}

/* Starts this program anew, as a shell starts a small static program. */
static void fork_exec_wait(void) {
  pid_t child = fork();
  if (child == 0) {
    execl("/init", "nothing", (char *)NULL);
    _exit(1);
  }
  int status;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) fail("exec");
}

/* Allocates 1 MiB, touches each page, releases it. */
static void map_touch_unmap(void) {
  volatile char *memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  for (int at = 0; at < MIB; at += PAGE) memory[at] = 1;
  munmap((void *)memory, MIB);
}

static int to_child[2], to_parent[2];

static void ping_pong(void) {
  char byte = 0;
  if (write(to_child[1], &byte, 1) != 1 || read(to_parent[0], &byte, 1) != 1) fail("pipe");
}

static pid_t start_echo(void) {
  if (pipe(to_child) != 0 || pipe(to_parent) != 0) fail("pipe");
  pid_t child = fork();
  if (child != 0) return child;
  close(to_child[1]);
  for (char byte; read(to_child[0], &byte, 1) == 1;)
    if (write(to_parent[1], &byte, 1) != 1) break;
  _exit(0);
}

static int by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static void report(const char *name, double steady_ns, uint64_t total_ns, uint64_t operations) {
  printf("row %s %.1f %llu %llu\n", name, steady_ns, (unsigned long long)total_ns, (unsigned long long)operations);
  fflush(stdout);
}

static void row(const char *name, void (*operation)(void), int batch, int per_operation) {
  uint64_t took[BATCHES], total = 0;
  for (int i = 0; i < BATCHES; i++) {
    uint64_t start = now_ns();
    for (int j = 0; j < batch; j++) operation();
    total += took[i] = now_ns() - start;
  }
  qsort(took + BATCHES / 2, BATCHES / 2, sizeof(took[0]), by_value);
  report(name, (double)took[BATCHES * 3 / 4] / batch / per_operation, total, (uint64_t)BATCHES * batch * per_operation);
}

/* Words of a small vocabulary: compresses about as text does. */
static void make_data(void) {
  static const char *const words[] = {"page ", "fault ", "the ", "of ", "machine ", "0x7f45 ", "exit\n", "shadow ", "a ", "guest ", "switches ", "to ", "in ", "42 ", "table, ", "interrupt "};
  FILE *out = fopen("/tmp/data", "w");
  uint64_t seed = 88172645463325252u;
  for (long written = 0; out != NULL && written < (long)DATA_MIB * MIB;) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    const char *word = words[seed & 15];
    if ((seed >> 4 & 7) == 0) written += fprintf(out, "%llx ", (unsigned long long)(seed >> 20));
    fputs(word, out), written += (long)strlen(word);
  }
  if (out == NULL || fclose(out) != 0 || truncate("/tmp/data", (long)DATA_MIB * MIB) != 0) fail("data");
}

/* An applet of BusyBox over the data, its output dropped; the whole run counts. The unit is a MiB. */
static void applet(const char *name) {
  uint64_t start = now_ns();
  pid_t child = fork();
  if (child == 0) {
    int in = open("/tmp/data", O_RDONLY), out = open("/dev/null", O_WRONLY);
    if (in < 0 || out < 0 || dup2(in, 0) != 0 || dup2(out, 1) != 1) _exit(1);
    execl("/busybox", name, (char *)NULL);
    _exit(1);
  }
  int status;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) fail(name);
  uint64_t took = now_ns() - start;
  report(name, (double)took / DATA_MIB, took, DATA_MIB);
}

static void load_module(const char *name) {
  int fd = open(name, O_RDONLY);
  if (fd < 0) fail(name);
  if (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST) fail(name);
  close(fd);
}

/* The whole disk once, in order, 1 MiB at a time. The unit is a MiB. */
static void read_disk(const char *name, int flags) {
  static const char *const modules[] = {"virtio_ring.ko", "virtio.ko", "virtio_pci_modern_dev.ko", "virtio_pci_legacy_dev.ko", "virtio_pci.ko", "virtio_blk.ko"};
  for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++) load_module(modules[i]);
  printf("begin %s\n", name);
  fflush(stdout);
  int fd = open("/dev/vda", O_RDONLY | flags);
  char *buffer = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (fd < 0 || buffer == MAP_FAILED) fail("disk");
  uint64_t start = now_ns(), mib = 0;
  ssize_t got;
  while ((got = read(fd, buffer, MIB)) > 0) mib += (uint64_t)got / MIB;
  if (got < 0 || mib == 0) fail("read");
  uint64_t took = now_ns() - start;
  /* The next reader finds nothing of it in memory. */
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
  munmap(buffer, MIB);
  report(name, (double)took / mib, took, mib);
}

/* Touches all of so much memory, and says how much the guest then has in use. */
static void fill(long mib) {
  uint64_t start = now_ns();
  char *memory = mmap(NULL, (size_t)mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("fill");
  for (long at = 0; at < mib * MIB; at += PAGE) memory[at] = (char)(at >> 12);
  for (long at = 0; at < mib * MIB; at += PAGE)
    if (memory[at] != (char)(at >> 12)) fail("what fill wrote is not there");
  uint64_t took = now_ns() - start;
  report("fill", (double)took / mib, took, (uint64_t)mib);
  munmap(memory, (size_t)mib * MIB);
}

static void run(char *word) {
  char *colon = strchr(word, ':');
  long n = colon == NULL ? 0 : atol(colon + 1);
  if (colon != NULL) *colon = 0;
  printf("begin %s\n", word);
  fflush(stdout);
  if (strcmp(word, "getpid") == 0) row(word, getpid_call, n, 1);
  else if (strcmp(word, "fork") == 0) row(word, fork_exit_wait, n, 1);
  else if (strcmp(word, "exec") == 0) row(word, fork_exec_wait, n, 1);
  else if (strcmp(word, "map") == 0) row(word, map_touch_unmap, n, MIB / PAGE);
  else if (strcmp(word, "pipe") == 0) {
    pid_t child = start_echo();
    row(word, ping_pong, n, 1);
    close(to_child[1]);
    waitpid(child, NULL, 0);
  } else if (strcmp(word, "gzip") == 0 || strcmp(word, "sha256sum") == 0) {
    if (access("/tmp/data", R_OK) != 0) make_data();
    printf("begin %s\n", word);
    fflush(stdout);
    applet(word);
  } else if (strcmp(word, "disk") == 0) read_disk(word, 0);
  else if (strcmp(word, "disk-direct") == 0) read_disk(word, O_DIRECT);
  else if (strcmp(word, "fill") == 0) fill(n);
  else fail(word);
}

int main(int argc, char **argv) {
  if (strcmp(argv[0], "nothing") == 0) return 0;
  printf("init %llu\n", (unsigned long long)now_ns());
  fflush(stdout);
  mkdir("/dev", 0755), mkdir("/tmp", 0777);
  if (mount("dev", "/dev", "devtmpfs", 0, NULL) != 0 && errno != EBUSY) fail("devtmpfs");
  if (argc > 1 && mount("tmp", "/tmp", "tmpfs", 0, NULL) != 0) fail("tmpfs");
  for (int i = 1; i < argc; i++) run(argv[i]);
  printf("done\n");
  fflush(stdout);
  reboot(RB_POWER_OFF);
  return 0;
}
