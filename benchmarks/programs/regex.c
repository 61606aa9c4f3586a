/* A backtracking matcher for a small regular-expression language, over lines of text: recursion and branches on bytes. */
#include "bench.h"

static int match_here(const char *re, const char *s);

static int in_class(const char *re, char c, const char **end) {
  int negate = re[1] == '^', hit = 0;
  const char *p = re + 1 + negate;
  for (; *p && *p != ']'; p++) {
    if (p[1] == '-' && p[2] != ']') {
      hit |= c >= p[0] && c <= p[2];
      p += 2;
    } else {
      hit |= *p == c;
    }
  }
  *end = p + 1;
  return hit != negate && c != 0;
}

static int match_one(const char *re, char c, const char **end) {
  if (*re == '[') return in_class(re, c, end);
  if (*re == '\\') {
    *end = re + 2;
    if (re[1] == 'd') return c >= '0' && c <= '9';
    if (re[1] == 'w') return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    return re[1] == c;
  }
  *end = re + 1;
  return c != 0 && (*re == '.' || *re == c);
}

static int match_star(const char *re, const char *rest, const char *s, int least) {
  const char *t = s, *end;
  while (match_one(re, *t, &end)) t++;
  for (; t - s >= least; t--) {
    if (match_here(rest, t)) return 1;
    if (t == s) break;
  }
  return 0;
}

static int match_here(const char *re, const char *s) {
  const char *end;
  if (!*re) return 1;
  if (*re == '$' && !re[1]) return *s == 0;
  int one = match_one(re, *s, &end);
  if (*end == '*') return match_star(re, end + 1, s, 0);
  if (*end == '+') return match_star(re, end + 1, s, 1);
  if (*end == '?') return (one && match_here(end + 1, s + 1)) || match_here(end + 1, s);
  return one && match_here(end, s + 1);
}

static int match(const char *re, const char *s) {
  if (*re == '^') return match_here(re + 1, s);
  do
    if (match_here(re, s)) return 1;
  while (*s++);
  return 0;
}

#define LINES 700
static char lines[LINES][96];

static void bench_setup(void) {
  static const char alphabet[] = "abcdefgh ijklm.nopq@rstuv:wxyz_0123456789-/ ";
  for (int i = 0; i < LINES; i++) {
    unsigned n = 30 + (unsigned)(bench_random() % 60);
    for (unsigned j = 0; j < n; j++) lines[i][j] = alphabet[bench_random() % (sizeof alphabet - 1)];
    if (i % 7 == 0) sprintf(lines[i] + n / 2, "user%d@host%d.example", i, i * 3);
    if (i % 5 == 0) sprintf(lines[i], "2024-%02d-%02d GET /path/%d", i % 12 + 1, i % 28 + 1, i);
  }
}

static uint64_t bench_round(unsigned index) {
  static const char *const patterns[] = {
      "\\w+@\\w+\\.[a-z]+", "^\\d+-\\d+-\\d+ [A-Z]+ /", "[^a-m ]+[0-9][0-9]*:", "a.*b.*c.*d", "(x|y)?z$", "[0-9]+/?[0-9]+$", "q[a-z]?[a-z]?_",
  };
  uint64_t sum = index;
  for (int pass = 0; pass < 3; pass++)
    for (int i = 0; i < LINES; i++)
      for (int p = 0; p < 7; p++) sum = sum * 3 + (uint64_t)match(patterns[p], lines[i]);
  return sum;
}
