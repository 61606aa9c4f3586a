import { StdinReader } from '../stdin.ts';
import type { Input } from '../streams.ts';

/** A device that takes input. */
export interface InputSink {
  put(data: Uint8Array): void;
  /** Bytes that the guest has not taken yet. */
  waiting(): number;
}

/** Bytes of input that go to a device at a time. */
const CHUNK = 4096;
/** More is read when fewer bytes than this wait in the device: the host's reader is slowed down, nothing is lost. */
const LOW_WATER = 1024;

/** Carries input from its source to a device, as fast as the guest takes it. */
export class InputLine {
  private readonly reader: StdinReader;
  private readonly sink: InputSink;
  private room: (() => void) | undefined;
  private closed = false;

  constructor(source: Input | StdinReader, sink: InputSink) {
    this.reader = source instanceof StdinReader ? source : new StdinReader(source);
    this.sink = sink;
  }

  /** Until the source ends or the line is closed. Rejects with what the source throws. */
  async run(): Promise<void> {
    for (;;) {
      const bytes = await this.read();
      if (bytes.length === 0 || this.closed) return;
      this.sink.put(bytes);
      while (!this.closed && this.sink.waiting() >= LOW_WATER) await new Promise<void>((resolve) => (this.room = resolve));
    }
  }

  /** The guest has taken some. */
  taken(): void {
    if (this.room === undefined || this.sink.waiting() >= LOW_WATER) return;
    this.room();
    this.room = undefined;
  }

  async close(): Promise<void> {
    this.closed = true;
    this.room?.();
    await this.reader.close();
  }

  private async read(): Promise<Uint8Array> {
    try {
      return await this.reader.read(CHUNK);
    } catch (e) {
      // Letting go of the source may fail a read that still waits.
      if (this.closed) return new Uint8Array(0);
      throw e;
    }
  }
}
