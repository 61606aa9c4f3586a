/** Repeatable random numbers for generated tests: splitmix64 reduced to what they need. */
export class Prng {
  private state: bigint;

  constructor(seed: number | bigint) {
    this.state = BigInt.asUintN(64, BigInt(seed));
  }
  /** 64 random bits. */
  u64(): bigint {
    this.state = BigInt.asUintN(64, this.state + 0x9e37_79b9_7f4a_7c15n);
    let z = this.state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn);
    return z ^ (z >> 31n);
  }
  /** Integer in [0, limit), limit at most 2^32. */
  below(limit: number): number {
    return Number((this.u64() >> 32n) % BigInt(limit));
  }
  /** Integer in [low, high]. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }
  /** True once in `n`. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }
  pick<T>(list: readonly T[]): T {
    const item = list[this.below(list.length)];
    if (item === undefined) throw new RangeError('nothing to pick from');
    return item;
  }
  /** A number that instructions treat specially, or any number. */
  interesting(): bigint {
    switch (this.below(4)) {
      case 0:
        return this.pick(SPECIAL);
      case 1:
        return this.u64() >> BigInt(this.below(64));
      default:
        return this.u64();
    }
  }
}

/** Values at the edges of the operand sizes. */
export const SPECIAL: readonly bigint[] = [
  0n,
  1n,
  2n,
  7n,
  8n,
  15n,
  16n,
  31n,
  32n,
  63n,
  64n,
  0x7fn,
  0x80n,
  0xffn,
  0x100n,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x1_0000n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_ffff_ffffn,
  0xffff_ffff_ffff_fffen,
  0xffff_ffff_8000_0000n,
  0xffff_ffff_ffff_ff80n,
  0x8080_8080_8080_8080n,
  0x0102_0304_0506_0708n,
  0x3ff0_0000_3f80_0000n,
  0x4008_0000_4040_0000n,
];
