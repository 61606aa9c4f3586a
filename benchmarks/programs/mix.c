/* Linked-list work, integer matrices, a state machine over text and CRC-16, in turns: what embedded benchmarks mix. */
#include "bench.h"

struct node {
  struct node *next;
  int16_t key, value;
};

#define NODES 600
#define DIM 24
static struct node nodes[NODES];
static int16_t a[DIM][DIM], b[DIM][DIM];
static int32_t c[DIM][DIM];
static char text[1024];

static uint16_t crc16(uint16_t crc, uint32_t data) {
  for (int i = 0; i < 32; i++) {
    unsigned bit = (crc ^ data) & 1;
    data >>= 1;
    crc >>= 1;
    if (bit) crc ^= 0xa001;
  }
  return crc;
}

static void bench_setup(void) {
  static const char *const pieces[] = {"5012,", "1234,", "-874,", "+122,", "35.54400,", ".1234500,", "-110.700,", "5.500e+3,", "-.123e-2,", "T0.3e-1F,", "-T.T++Tq,"};
  unsigned at = 0;
  while (at + 16 < sizeof text) {
    const char *s = pieces[bench_random() % 11];
    while (*s) text[at++] = *s++;
  }
  for (int i = 0; i < DIM; i++)
    for (int j = 0; j < DIM; j++) {
      a[i][j] = (int16_t)(bench_random() & 0xfff);
      b[i][j] = (int16_t)(bench_random() & 0xfff);
    }
}

static struct node *build_list(unsigned seed) {
  for (int i = 0; i < NODES; i++) {
    nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : NULL;
    nodes[i].key = (int16_t)((i * 7919u + seed * 31u) % 2053);
    nodes[i].value = (int16_t)i;
  }
  return nodes;
}

static struct node *reverse(struct node *list) {
  struct node *result = NULL;
  while (list) {
    struct node *next = list->next;
    list->next = result;
    result = list;
    list = next;
  }
  return result;
}

static int by_key(const struct node *x, const struct node *y) { return x->key - y->key; }
static int by_value(const struct node *x, const struct node *y) { return x->value - y->value; }

static struct node *merge_sort(struct node *list, int (*compare)(const struct node *, const struct node *)) {
  if (!list || !list->next) return list;
  struct node *slow = list, *fast = list->next;
  while (fast && fast->next) {
    slow = slow->next;
    fast = fast->next->next;
  }
  struct node *right = slow->next;
  slow->next = NULL;
  struct node *left = merge_sort(list, compare);
  right = merge_sort(right, compare);
  struct node head = {0}, *tail = &head;
  while (left && right) {
    struct node **from = compare(left, right) <= 0 ? &left : &right;
    tail->next = *from;
    tail = *from;
    *from = (*from)->next;
  }
  tail->next = left ? left : right;
  return head.next;
}

static uint32_t list_work(unsigned seed) {
  struct node *list = reverse(build_list(seed));
  list = merge_sort(list, by_key);
  uint32_t found = 0;
  for (int k = 0; k < 50; k++) {
    struct node *n = list;
    while (n && n->key != k * 41) n = n->next;
    found += n ? (uint32_t)n->value : 1;
  }
  list = merge_sort(reverse(list), by_value);
  return found * 65599u + (uint32_t)list->key;
}

static uint32_t matrix_work(int16_t k) {
  for (int i = 0; i < DIM; i++)
    for (int j = 0; j < DIM; j++) {
      int32_t sum = 0;
      for (int n = 0; n < DIM; n++) sum += (int32_t)(int16_t)(a[i][n] + k) * b[n][j];
      c[i][j] = sum;
    }
  uint32_t total = 0;
  int32_t last = 0;
  for (int i = 0; i < DIM; i++)
    for (int j = 0; j < DIM; j++) {
      total += c[i][j] > last ? 10 : (uint32_t)(c[i][j] & 0xff) + ((uint32_t)c[i][j] >> 5 & 0x7f);
      last = c[i][j];
    }
  return total;
}

enum state { START, SIGN, INT, FRACTION, EXPONENT, EXP_SIGN, EXP_DIGITS, INVALID, STATES };

static uint32_t state_work(unsigned seed) {
  uint32_t count[STATES] = {0}, result = 0;
  enum state s = START;
  for (unsigned i = 0; i < sizeof text; i++) {
    char ch = (char)(text[i] ^ (i % 97 == seed % 97));
    if (ch == ',') {
      count[s]++;
      s = START;
      continue;
    }
    int digit = ch >= '0' && ch <= '9';
    switch (s) {
      case START: s = digit ? INT : ch == '+' || ch == '-' ? SIGN : ch == '.' ? FRACTION : INVALID; break;
      case SIGN: s = digit ? INT : ch == '.' ? FRACTION : INVALID; break;
      case INT: s = digit ? INT : ch == '.' ? FRACTION : ch == 'e' ? EXPONENT : INVALID; break;
      case FRACTION: s = digit ? FRACTION : ch == 'e' || ch == 'E' ? EXPONENT : INVALID; break;
      case EXPONENT: s = ch == '+' || ch == '-' ? EXP_SIGN : INVALID; break;
      case EXP_SIGN:
      case EXP_DIGITS: s = digit ? EXP_DIGITS : INVALID; break;
      default: break;
    }
  }
  for (int i = 0; i < STATES; i++) result = result * 131 + count[i];
  return result;
}

static uint64_t bench_round(unsigned index) {
  uint16_t crc = 0;
  for (unsigned i = 0; i < 100; i++) {
    unsigned seed = index * 100 + i;
    crc = crc16(crc, list_work(seed));
    crc = crc16(crc, matrix_work((int16_t)seed));
    crc = crc16(crc, state_work(seed));
    for (int j = 0; j < NODES; j++) crc = crc16(crc, (uint32_t)nodes[j].key);
  }
  return crc;
}
