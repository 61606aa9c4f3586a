/* Word counts in a chained hash table with string keys: byte loops, strcmp, malloc, dependent loads. */
#include <string.h>
#include "bench.h"

struct entry {
  struct entry *next;
  uint32_t hash, count;
  char key[];
};
#define BUCKETS 8192
#define KEYS 20000
static struct entry *buckets[BUCKETS];
static char keys[KEYS][16];

static void bench_setup(void) {
  for (int i = 0; i < KEYS; i++) {
    unsigned n = 3 + (unsigned)(bench_random() % 12);
    for (unsigned j = 0; j < n; j++) keys[i][j] = (char)('a' + bench_random() % 26);
  }
}

static uint32_t hash(const char *s) {
  uint32_t h = 2166136261u;
  while (*s) h = (h ^ (uint8_t)*s++) * 16777619u;
  return h;
}

static void count(const char *key) {
  uint32_t h = hash(key);
  struct entry **at = &buckets[h % BUCKETS];
  for (; *at; at = &(*at)->next)
    if ((*at)->hash == h && strcmp((*at)->key, key) == 0) {
      (*at)->count++;
      return;
    }
  size_t n = strlen(key) + 1;
  struct entry *e = malloc(sizeof *e + n);
  e->next = NULL;
  e->hash = h;
  e->count = 1;
  memcpy(e->key, key, n);
  *at = e;
}

static uint64_t bench_round(unsigned index) {
  for (unsigned i = 0; i < 200000; i++) count(keys[(i * 7919u + index + (i >> 3) * i) % KEYS]);
  uint64_t sum = 0;
  for (int b = 0; b < BUCKETS; b++) {
    for (struct entry *e = buckets[b], *next; e; e = next) {
      next = e->next;
      sum += (uint64_t)e->hash * e->count;
      free(e);
    }
    buckets[b] = NULL;
  }
  return sum;
}
