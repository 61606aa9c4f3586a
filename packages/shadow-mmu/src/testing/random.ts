/** xorshift32: repeatable and good enough to pick operations. */
export class Random {
  private state: number;
  constructor(seed: number) {
    this.state = (seed ^ 0x9e37_79b9) | 1;
    for (let i = 0; i < 8; i++) this.below(2);
  }
  below(limit: number): number {
    this.state ^= this.state << 13;
    this.state ^= this.state >>> 17;
    this.state ^= this.state << 5;
    return (this.state >>> 0) % limit;
  }
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
}
