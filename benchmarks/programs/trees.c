/* Binary trees built, walked and freed: the C library's allocator and pointers. */
#include "bench.h"

struct tree {
  struct tree *left, *right;
};

static struct tree *build(int depth) {
  struct tree *t = malloc(sizeof *t);
  t->left = depth > 0 ? build(depth - 1) : NULL;
  t->right = depth > 0 ? build(depth - 1) : NULL;
  return t;
}

static uint64_t check(const struct tree *t) { return 1 + (t->left ? check(t->left) + check(t->right) : 0); }

static void drop(struct tree *t) {
  if (t->left) {
    drop(t->left);
    drop(t->right);
  }
  free(t);
}

static void bench_setup(void) {}

static uint64_t bench_round(unsigned index) {
  struct tree *kept = build(14);
  uint64_t sum = index;
  for (int depth = 4; depth <= 14; depth += 2)
    for (int i = 0; i < 1 << (14 - depth); i++) {
      struct tree *t = build(depth);
      sum += check(t);
      drop(t);
    }
  sum += check(kept);
  drop(kept);
  return sum;
}
