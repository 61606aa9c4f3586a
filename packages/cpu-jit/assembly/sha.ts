/** PCLMULQDQ and the SHA extensions, one exported function an instruction, on whole v128 values; none touches guest state. */

/**
 * Carry-less 32 x 32 -> 64 product. Operands are split into four with every fourth bit set, so that an integer product's
 * column sums (at most 8) never reach the next kept bit, whose parity is what we want.
 */
function carrylessMultiply(x: u32, y: u32): u64 {
  const x0 = <u64>(x & 0x1111_1111), x1 = <u64>(x & 0x2222_2222), x2 = <u64>(x & 0x4444_4444), x3 = <u64>(x & 0x8888_8888);
  const y0 = <u64>(y & 0x1111_1111), y1 = <u64>(y & 0x2222_2222), y2 = <u64>(y & 0x4444_4444), y3 = <u64>(y & 0x8888_8888);
  const z0 = (x0 * y0) ^ (x1 * y3) ^ (x2 * y2) ^ (x3 * y1);
  const z1 = (x0 * y1) ^ (x1 * y0) ^ (x2 * y3) ^ (x3 * y2);
  const z2 = (x0 * y2) ^ (x1 * y1) ^ (x2 * y0) ^ (x3 * y3);
  const z3 = (x0 * y3) ^ (x1 * y2) ^ (x2 * y1) ^ (x3 * y0);
  return (z0 & 0x1111_1111_1111_1111) | (z1 & 0x2222_2222_2222_2222) | (z2 & 0x4444_4444_4444_4444) | (z3 & 0x8888_8888_8888_8888);
}

/** Quadwords imm[0] of `a` and imm[4] of `b`, by Karatsuba. */
export function pclmulqdq(a: v128, b: v128, imm: u32): v128 {
  const x = imm & 1 ? i64x2.extract_lane(a, 1) : i64x2.extract_lane(a, 0);
  const y = imm & 16 ? i64x2.extract_lane(b, 1) : i64x2.extract_lane(b, 0);
  const xl = <u32>x, xh = <u32>(<u64>x >> 32), yl = <u32>y, yh = <u32>(<u64>y >> 32);
  const low = carrylessMultiply(xl, yl);
  const high = carrylessMultiply(xh, yh);
  const middle = carrylessMultiply(xl ^ xh, yl ^ yh) ^ low ^ high;
  return i64x2.replace_lane(i64x2.splat(low ^ (middle << 32)), 1, high ^ (middle >> 32));
}

@inline
function lane0(x: v128): u32 {
  return i32x4.extract_lane(x, 0);
}
@inline
function lane1(x: v128): u32 {
  return i32x4.extract_lane(x, 1);
}
@inline
function lane2(x: v128): u32 {
  return i32x4.extract_lane(x, 2);
}
@inline
function lane3(x: v128): u32 {
  return i32x4.extract_lane(x, 3);
}
/** From the highest lane to the lowest, the order in which the manual names words. */
@inline
function pack(w3: u32, w2: u32, w1: u32, w0: u32): v128 {
  return i32x4.replace_lane(i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(w0), 1, w1), 2, w2), 3, w3);
}
@inline
function rotateLanes(x: v128, n: i32): v128 {
  return v128.or(i32x4.shl(x, n), i32x4.shr_u(x, 32 - n));
}

export function sha1rnds4(state: v128, words: v128, imm: u32): v128 {
  let a = lane3(state), b = lane2(state), c = lane1(state), d = lane0(state), e: u32 = 0;
  for (let i = 0; i < 4; i++) {
    let f: u32, k: u32;
    switch (imm & 3) {
      case 0: f = (b & c) ^ (~b & d); k = 0x5a82_7999; break;
      case 1: f = b ^ c ^ d; k = 0x6ed9_eba1; break;
      case 2: f = (b & c) ^ (b & d) ^ (c & d); k = 0x8f1b_bcdc; break;
      default: f = b ^ c ^ d; k = 0xca62_c1d6;
    }
    const w = lane3(words);
    words = i8x16.shuffle(words, words, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
    const next = f + rotl<u32>(a, 5) + w + e + k;
    e = d;
    d = c;
    c = rotl<u32>(b, 30);
    b = a;
    a = next;
  }
  return pack(a, b, c, d);
}
export function sha1nexte(state: v128, words: v128): v128 {
  return i32x4.replace_lane(words, 3, lane3(words) + rotl<u32>(lane3(state), 30));
}
export function sha1msg1(a: v128, b: v128): v128 {
  return v128.xor(a, i64x2.shuffle(b, a, 1, 2));
}
export function sha1msg2(a: v128, b: v128): v128 {
  const w16 = rotl<u32>(lane3(a) ^ lane2(b), 1);
  return pack(w16, rotl<u32>(lane2(a) ^ lane1(b), 1), rotl<u32>(lane1(a) ^ lane0(b), 1), rotl<u32>(lane0(a) ^ w16, 1));
}

@inline
function firstSum(e: u32, f: u32, g: u32): u32 {
  return (g ^ (e & (f ^ g))) + (rotr<u32>(e, 6) ^ rotr<u32>(e, 11) ^ rotr<u32>(e, 25));
}
@inline
function secondSum(a: u32, b: u32, c: u32): u32 {
  return ((a & b) | (c & (a | b))) + (rotr<u32>(a, 2) ^ rotr<u32>(a, 13) ^ rotr<u32>(a, 22));
}
export function sha256rnds2(cdgh: v128, abef: v128, wk: v128): v128 {
  const a = lane3(abef), b = lane2(abef), c = lane3(cdgh), d = lane2(cdgh);
  const e = lane1(abef), f = lane0(abef), g = lane1(cdgh), h = lane0(cdgh);
  const t = firstSum(e, f, g) + h + lane0(wk);
  const a1 = t + secondSum(a, b, c);
  const e1 = t + d;
  const u = firstSum(e1, e, f) + g + lane1(wk);
  return pack(u + secondSum(a1, a, b), a1, u + c, e1);
}
export function sha256msg1(a: v128, b: v128): v128 {
  const w = i32x4.shuffle(a, b, 1, 2, 3, 4);
  return i32x4.add(a, v128.xor(v128.xor(rotateLanes(w, 25), rotateLanes(w, 14)), i32x4.shr_u(w, 3)));
}
@inline
function sigma1(x: u32): u32 {
  return rotr<u32>(x, 17) ^ rotr<u32>(x, 19) ^ (x >> 10);
}
export function sha256msg2(a: v128, b: v128): v128 {
  const w16 = lane0(a) + sigma1(lane2(b));
  const w17 = lane1(a) + sigma1(lane3(b));
  return pack(lane3(a) + sigma1(w17), lane2(a) + sigma1(w16), w17, w16);
}
