/* Insertions and lookups in a B-tree of 64-bit keys: binary search in nodes, shifts by memmove. */
#include <string.h>
#include "bench.h"

#define ORDER 32
struct node {
  int count, leaf;
  uint64_t keys[ORDER];
  struct node *children[ORDER + 1];
};
#define POOL 20000
static struct node pool[POOL], *root;
static unsigned used;

static struct node *make(int leaf) {
  struct node *n = &pool[used++];
  n->count = 0;
  n->leaf = leaf;
  return n;
}

static int lower_bound(const struct node *n, uint64_t key) {
  int low = 0, high = n->count;
  while (low < high) {
    int mid = (low + high) / 2;
    if (n->keys[mid] < key) low = mid + 1;
    else high = mid;
  }
  return low;
}

static void split(struct node *parent, int at) {
  struct node *left = parent->children[at], *right = make(left->leaf);
  int half = ORDER / 2;
  right->count = ORDER - half - 1;
  memcpy(right->keys, left->keys + half + 1, (size_t)right->count * 8);
  if (!left->leaf) memcpy(right->children, left->children + half + 1, (size_t)(right->count + 1) * 8);
  left->count = half;
  memmove(parent->keys + at + 1, parent->keys + at, (size_t)(parent->count - at) * 8);
  memmove(parent->children + at + 2, parent->children + at + 1, (size_t)(parent->count - at) * 8);
  parent->keys[at] = left->keys[half];
  parent->children[at + 1] = right;
  parent->count++;
}

static void insert(uint64_t key) {
  if (root->count == ORDER) {
    struct node *top = make(0);
    top->children[0] = root;
    root = top;
    split(top, 0);
  }
  struct node *n = root;
  for (;;) {
    int at = lower_bound(n, key);
    if (at < n->count && n->keys[at] == key) return;
    if (n->leaf) {
      memmove(n->keys + at + 1, n->keys + at, (size_t)(n->count - at) * 8);
      n->keys[at] = key;
      n->count++;
      return;
    }
    if (n->children[at]->count == ORDER) {
      split(n, at);
      if (n->keys[at] < key) at++;
      else if (n->keys[at] == key) return;
    }
    n = n->children[at];
  }
}

static int find(uint64_t key) {
  for (const struct node *n = root;;) {
    int at = lower_bound(n, key);
    if (at < n->count && n->keys[at] == key) return 1;
    if (n->leaf) return 0;
    n = n->children[at];
  }
}

static void bench_setup(void) {}

static uint64_t bench_round(unsigned index) {
  uint64_t key = index + 1, hits = 0;
  used = 0;
  root = make(1);
  for (int i = 0; i < 25000; i++) {
    key = key * 6364136223846793005u + 1442695040888963407u;
    insert(key >> 44);
  }
  for (int i = 0; i < 50000; i++) {
    key = key * 6364136223846793005u + 1442695040888963407u;
    hits += (uint64_t)find(key >> 44);
  }
  return hits * 65599 + used;
}
