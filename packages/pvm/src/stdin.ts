/** The program's standard input: hands out at most what is asked for and keeps the rest. */
export class StdinReader {
  private readonly source: AsyncIterator<Uint8Array> | undefined;
  private chunk: Uint8Array;
  private pending = false;

  constructor(source: string | Uint8Array | AsyncIterable<Uint8Array>) {
    if (typeof source === 'string') this.chunk = new TextEncoder().encode(source);
    else if (source instanceof Uint8Array) this.chunk = source;
    else {
      this.chunk = new Uint8Array(0);
      this.source = source[Symbol.asyncIterator]();
    }
  }

  /** Up to `max` bytes; empty at the end of the input. Waits only when nothing has arrived yet. */
  read(max: number): Uint8Array | Promise<Uint8Array> {
    if (this.chunk.length > 0 || this.source === undefined) return this.take(max);
    return this.next(this.source, max);
  }

  /** Lets go of the source: a terminal is no longer read from. Does not wait for a read that nothing may ever end. */
  async close(): Promise<void> {
    const closed = this.source?.return?.();
    if (!this.pending) await closed;
  }

  private async next(source: AsyncIterator<Uint8Array>, max: number): Promise<Uint8Array> {
    for (;;) {
      this.pending = true;
      const { done, value } = await source.next().finally(() => {
        this.pending = false;
      });
      if (done === true) return new Uint8Array(0);
      if (value.length === 0) continue;
      this.chunk = value;
      return this.take(max);
    }
  }

  private take(max: number): Uint8Array {
    const taken = this.chunk.subarray(0, max);
    this.chunk = this.chunk.subarray(taken.length);
    return taken;
  }
}
