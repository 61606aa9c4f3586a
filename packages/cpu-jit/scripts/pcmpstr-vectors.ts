/**
 * Asks this machine's processor (through gcc) what PCMPxSTRx answers, and writes src/testing/pcmpstr.vectors.txt:
 * one line an input: a, b (hex), EAX, EDX (decimal), then for PCMPISTR and PCMPESTR a string with, for each immediate 0..127,
 * index (2 hex digits), mask (32) and status flags (3).
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const directory = mkdtempSync(join(tmpdir(), 'pcmpstr-'));
const one = (kind: 'i' | 'e', imm: number): string => `{
  register __m128i mask asm("xmm0"); unsigned long flags, index;
  asm volatile("movdqa %3,%%xmm1; movdqa %4,%%xmm2; pcmp${kind}stri $${imm},%%xmm2,%%xmm1; pushfq; pop %1; pcmp${kind}strm $${imm},%%xmm2,%%xmm1"
    : "=c"(index), "=S"(flags), "=x"(mask) : "m"(va), "m"(vb), "a"(la), "d"(lb) : "xmm1", "xmm2", "cc");
  put(index, mask, flags); }`;
const all = (kind: 'i' | 'e') => Array.from({ length: 128 }, (_, imm) => one(kind, imm)).join('\n');

writeFileSync(
  join(directory, 'vectors.c'),
  `#include <stdio.h>
#include <stdint.h>
#include <nmmintrin.h>
static uint32_t x = 12345;
static uint32_t rnd(uint32_t n) { x ^= x << 13; x ^= x >> 17; x ^= x << 5; return x % n; }
static void put(unsigned long index, __m128i mask, unsigned long flags) {
  uint8_t m[16]; _mm_storeu_si128((void *)m, mask);
  printf("%02lx", index); for (int i = 0; i < 16; i++) printf("%02x", m[i]); printf("%03lx", flags & 0x8d5); }
int main(void) {
  for (int t = 0; t < 6; t++) {
    uint8_t a[16], b[16];
    int alpha = 2 + rnd(5), high = rnd(3) == 0;
    for (int i = 0; i < 16; i++) {
      a[i] = rnd(9) ? (rnd(alpha) + 1) | (high && rnd(3) == 0 ? 0x80 : 0) : 0;
      b[i] = rnd(12) ? (rnd(alpha) + 1) | (high && rnd(3) == 0 ? 0x80 : 0) : 0; }
    int la = (int)rnd(40) - 20, lb = (int)rnd(40) - 20;
    __m128i va = _mm_loadu_si128((void *)a), vb = _mm_loadu_si128((void *)b);
    for (int i = 0; i < 16; i++) printf("%02x", a[i]);
    printf(" "); for (int i = 0; i < 16; i++) printf("%02x", b[i]);
    printf(" %d %d ", la, lb);
    ${all('i')}
    printf(" ");
    ${all('e')}
    printf("\\n"); } }
`,
);
execFileSync('gcc', ['-O1', '-msse4.2', '-mno-red-zone', '-o', join(directory, 'vectors'), join(directory, 'vectors.c')]);
writeFileSync(new URL('../src/testing/pcmpstr.vectors.txt', import.meta.url), execFileSync(join(directory, 'vectors')));
