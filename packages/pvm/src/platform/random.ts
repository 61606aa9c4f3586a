import { randomFillSync } from 'node:crypto';
import type { Saveable, StateIo } from '@pvm/cpu-jit';

/** Source of random bytes for the guest: the host's, or with the virtual clock the same in every run (xorshift32). */
export class RandomSource implements Saveable {
  private readonly isHost: boolean;
  private word = 0x9e37_79b9;

  constructor(clock: 'host' | 'icount') {
    this.isHost = clock === 'host';
  }

  fill(buffer: Uint8Array): void {
    if (this.isHost) {
      randomFillSync(buffer);
      return;
    }
    let word = this.word;
    for (let i = 0; i < buffer.length; i++) {
      word ^= word << 13;
      word ^= word >>> 17;
      word ^= word << 5;
      buffer[i] = word & 0xff;
    }
    this.word = word;
  }

  state(s: StateIo): void {
    s.fields(this, ['word']);
  }
}
