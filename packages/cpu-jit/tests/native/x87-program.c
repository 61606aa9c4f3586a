/*
 * Long double arithmetic as a compiler makes it: a program whose result is one hash over every intermediate value.
 *
 *   F="-O2 -ffreestanding -fno-builtin -fno-pic -fcf-protection=none -mno-red-zone -fno-stack-protector -fno-asynchronous-unwind-tables"
 *   gcc $F -DNATIVE -no-pie -o x87-program x87-program.c && ./x87-program      # prints the hash that the test expects
 *   gcc $F -static -nostdlib -Wl,-Ttext=0x10000,--build-id=none -o x87-program.elf x87-program.c
 *   objcopy -O binary x87-program.elf x87-program.bin && gzip -9n < x87-program.bin > ../vectors/x87-program.bin.gz
 *
 * The flat image is loaded and entered at 0x10000; it leaves the hash in RAX and halts.
 */
typedef unsigned long long u64;
typedef long double ld;

static u64 seed = 88172645463325252ULL;
static u64 rnd(void) {
  seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17;
  return seed;
}
static u64 hash = 1469598103934665603ULL;
static void mix(const void *p, int n) {
  const unsigned char *b = p;
  for (int i = 0; i < n; i++) { hash ^= b[i]; hash *= 1099511628211ULL; }
}
static ld square_root(ld x) {
  __asm__("fsqrt" : "+t"(x));
  return x;
}
static ld remainder_of(ld x, ld y) {
  unsigned short status;
  do __asm__("fprem; fnstsw %%ax" : "+t"(x), "=a"(status) : "u"(y)); while (status & 0x400);
  return x;
}
static ld exponential(ld x) {
  ld sum = 1, term = 1;
  for (int i = 1; i < 60; i++) {
    term *= x / i;
    sum += term;
    if (__builtin_fabsl(term) < 1e-30L) break;
  }
  return sum;
}
static int compare(ld a, ld b) {
  return (a < b) + 2 * (a > b) + 4 * (a == b) + 8 * __builtin_isunordered(a, b) + 16 * (a >= b);
}
/* Decimal digits by repeated multiplication, as printf produces them. */
static void format(ld v, char *out) {
  int e = 0;
  if (v < 0) { *out++ = '-'; v = -v; }
  if (!(v < 1e4000L)) { *out++ = 'I'; *out = 0; return; }
  while (v >= 10) { v /= 10; e++; }
  while (v > 0 && v < 1) { v *= 10; e--; }
  for (int i = 0; i < 21; i++) { int d = (int)v; *out++ = '0' + d; v = (v - d) * 10; }
  *out++ = e < 0 ? '-' : '+';
  if (e < 0) e = -e;
  for (int k = 1000; k; k /= 10) *out++ = '0' + e / k % 10;
  *out = 0;
}
static ld random_number(int sign) {
  union { ld l; struct { u64 m; unsigned short s; } p; } v;
  v.l = 0;
  v.p.m = rnd() | 1ULL << 63;
  v.p.s = 0x3fff - 20 + rnd() % 40 + (sign ? (rnd() & 1) << 15 : 0);
  return v.l;
}
u64 run(int n) {
  ld total = 0;
  char text[64];
  for (int i = 0; i < n; i++) {
    ld x = random_number(1), y = random_number(0), r[10];
    r[0] = x + y; r[1] = x * y - x; r[2] = x / y; r[3] = square_root(y); r[4] = exponential(x / (1 + y));
    r[5] = __builtin_fabsl(x) * 16; r[6] = remainder_of(x, y); r[7] = (ld)(long long)x; r[8] = (ld)(int)y / 3; r[9] = (float)x + (double)y;
    for (int k = 0; k < 10; k++) mix(&r[k], 10);
    int c = compare(x, y) + compare(x / 0.0L - x / 0.0L, y) + compare(r[3], r[9]);
    mix(&c, 4);
    u64 q = (u64)y;
    mix(&q, 8);
    short s = (short)(int)x;
    mix(&s, 2);
    total += x > y ? r[0] : r[2];
    mix(&total, 10);
    if (i % 16 == 0) { format(r[4], text); for (char *p = text; *p; p++) mix(p, 1); }
  }
  return hash;
}

#ifdef NATIVE
int printf(const char *, ...);
int main(void) { printf("%llx\n", run(400)); return 0; }
#else
__asm__(".section .text.start, \"ax\"\n.globl _start\n_start: mov $0x90000, %rsp\nfninit\nmov $400, %edi\ncall run\nhlt\n");
#endif
