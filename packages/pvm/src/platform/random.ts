import { randomFillSync } from 'node:crypto';

/** Source of random bytes for the guest: the host's, or with the virtual clock the same in every run (xorshift32). */
export function randomSource(clock: 'host' | 'icount'): (buffer: Uint8Array) => void {
  if (clock === 'host') return (buffer) => void randomFillSync(buffer);
  let state = 0x9e37_79b9;
  return (buffer) => {
    for (let i = 0; i < buffer.length; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      buffer[i] = state & 0xff;
    }
  };
}
