import type { Saveable, StateIo } from '@pvm/cpu-jit';
/** A set of interrupt vectors, laid out like IRR, ISR and TMR: eight 32-bit registers. */
export class VectorSet implements Saveable {
  readonly words = new Uint32Array(8);

  has(vector: number): boolean {
    return (((this.words[vector >> 5] ?? 0) >>> (vector & 31)) & 1) !== 0;
  }

  add(vector: number): void {
    this.words[vector >> 5] = (this.words[vector >> 5] ?? 0) | (1 << (vector & 31));
  }

  delete(vector: number): void {
    this.words[vector >> 5] = (this.words[vector >> 5] ?? 0) & ~(1 << (vector & 31));
  }

  clear(): void {
    this.words.fill(0);
  }

  /** Highest member, -1 when empty. */
  highest(): number {
    for (let i = 7; i >= 0; i--) {
      const word = this.words[i] ?? 0;
      if (word !== 0) return i * 32 + 31 - Math.clz32(word);
    }
    return -1;
  }

  state(s: StateIo): void {
    s.fields(this, ['words']);
  }
}
