/* Objects of eight kinds behind tables of functions, called in unpredictable order, and an expression tree evaluated by them. */
#include "bench.h"

struct object;
struct class {
  uint64_t (*value)(const struct object *, uint64_t);
  void (*step)(struct object *, uint64_t);
};
struct object {
  const struct class *class;
  uint64_t state;
  const struct object *left, *right;
};

static uint64_t leaf(const struct object *o, uint64_t x) { return o->state + x; }
static uint64_t sum(const struct object *o, uint64_t x) { return o->left->class->value(o->left, x) + o->right->class->value(o->right, x + 1); }
static uint64_t product(const struct object *o, uint64_t x) { return o->left->class->value(o->left, x) * (o->right->class->value(o->right, x) | 1); }
static uint64_t mixed(const struct object *o, uint64_t x) { return o->left->class->value(o->left, x ^ o->state) ^ o->right->class->value(o->right, x >> 1); }
static uint64_t choice(const struct object *o, uint64_t x) {
  const struct object *c = (x ^ o->state) & 1 ? o->left : o->right;
  return c->class->value(c, x);
}
static void grow(struct object *o, uint64_t x) { o->state += x; }
static void turn(struct object *o, uint64_t x) { o->state = (o->state << 5 | o->state >> 59) ^ x; }
static void skip(struct object *o, uint64_t x) {
  if (x & 1) o->state++;
}

static const struct class classes[] = {{leaf, grow}, {leaf, turn}, {sum, grow}, {product, turn}, {mixed, skip}, {choice, grow}, {sum, skip}, {choice, turn}};
#define OBJECTS 2048
static struct object objects[OBJECTS];

static void bench_setup(void) {
  for (int i = OBJECTS - 1; i >= 0; i--) {
    int inner = 2 * i + 2 < OBJECTS;
    objects[i].class = &classes[inner ? 2 + bench_random() % 6 : bench_random() % 2];
    objects[i].state = bench_random();
    objects[i].left = inner ? &objects[2 * i + 1] : NULL;
    objects[i].right = inner ? &objects[2 * i + 2] : NULL;
  }
}

static uint64_t bench_round(unsigned index) {
  uint64_t total = index;
  for (unsigned pass = 0; pass < 250; pass++) {
    for (unsigned i = 0; i < OBJECTS; i++) {
      struct object *o = &objects[(i * 1021u + pass) % OBJECTS];
      o->class->step(o, total);
    }
    total = total * 31 + objects[pass & 3].class->value(&objects[pass & 3], total);
  }
  return total;
}
