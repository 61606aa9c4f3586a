/** Bytes that wait at most. */
const CHUNK = 4096;

/**
 * Collects the bytes of a serial line into pieces: handed over when the host's event loop gets its turn, when `CHUNK` bytes
 * wait, or by `flush`.
 */
export class SerialOutput {
  private readonly deliver: (data: Uint8Array) => void;
  private readonly buffer = new Uint8Array(CHUNK);
  private length = 0;
  private scheduled = false;

  constructor(deliver: (data: Uint8Array) => void) {
    this.deliver = deliver;
  }

  put(byte: number): void {
    this.buffer[this.length++] = byte;
    if (this.length === CHUNK) this.flush();
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(() => {
      this.scheduled = false;
      this.flush();
    });
  }

  flush(): void {
    if (this.length === 0) return;
    const data = this.buffer.slice(0, this.length);
    this.length = 0;
    this.deliver(data);
  }
}
