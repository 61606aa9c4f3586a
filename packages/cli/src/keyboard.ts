/** Ctrl-A begins a command to pvm, as in other emulators. */
const ESCAPE = 0x01;
const KEYS_END = [0x78, 0x58]; // x X

/** Standard input of a machine with a serial console: a terminal passes every key on, but for Ctrl-A X, which ends the machine. */
export class Keyboard {
  private readonly stream: NodeJS.ReadStream;
  private readonly end: () => void;
  private escaped = false;

  constructor(stream: NodeJS.ReadStream, end: () => void) {
    this.stream = stream;
    this.end = end;
    if (stream.isTTY) stream.setRawMode(true);
  }

  /** The bytes for the guest. */
  async *input(): AsyncGenerator<Uint8Array, void> {
    for await (const chunk of this.stream as AsyncIterable<Uint8Array>) {
      const bytes = this.stream.isTTY ? this.filter(chunk) : chunk;
      if (bytes.length > 0) yield bytes;
    }
  }

  /** The terminal is as it was. */
  restore(): void {
    if (this.stream.isTTY) this.stream.setRawMode(false);
  }

  /** Takes the commands out. Ctrl-A twice is one Ctrl-A for the guest. */
  filter(chunk: Uint8Array): Uint8Array {
    const kept: number[] = [];
    for (const byte of chunk) {
      if (this.escaped) {
        this.escaped = false;
        if (byte === ESCAPE) kept.push(byte);
        else if (KEYS_END.includes(byte)) this.end();
      } else if (byte === ESCAPE) this.escaped = true;
      else kept.push(byte);
    }
    return Uint8Array.from(kept);
  }
}
