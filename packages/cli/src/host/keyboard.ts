/** Ctrl-A begins a command to pvm, as in QEMU. */
const ESCAPE = 0x01;

/** What a key does after Ctrl-A. */
export interface KeyCommand {
  /** For the help. */
  readonly what: string;
  run(): void;
}

/**
 * Standard input of a machine with a console on it. A terminal becomes raw and passes every key on, but for Ctrl-A and the key after it;
 * input that is no terminal passes as it is. The terminal is as it was when the process ends, however it does, and while it is stopped.
 */
export class Keyboard {
  private readonly stream: NodeJS.ReadStream;
  /** By lower-case letter. */
  private readonly commands: ReadonlyMap<string, KeyCommand>;
  private readonly onExit = () => this.restore();
  /** From another process: the keys for it go to the guest. */
  private readonly onStop = () => {
    this.stream.setRawMode(false);
    process.kill(process.pid, 'SIGSTOP');
  };
  /** A shell may have set the terminal meanwhile. `false` first: Node does nothing when it believes that the terminal is raw. */
  private readonly onContinue = () => {
    this.stream.setRawMode(false);
    this.stream.setRawMode(true);
  };
  private escaped = false;

  constructor(stream: NodeJS.ReadStream, commands: Readonly<Record<string, KeyCommand>>) {
    this.stream = stream;
    this.commands = new Map(Object.entries(commands));
    if (!stream.isTTY) return;
    process.once('exit', this.onExit);
    process.on('SIGTSTP', this.onStop);
    process.on('SIGCONT', this.onContinue);
    stream.setRawMode(true);
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
    process.off('exit', this.onExit);
    process.off('SIGTSTP', this.onStop);
    process.off('SIGCONT', this.onContinue);
    if (this.stream.isTTY) this.stream.setRawMode(false);
  }

  /** Takes the commands out. Ctrl-A twice is one Ctrl-A for the guest; keys that mean nothing are dropped. */
  filter(chunk: Uint8Array): Uint8Array {
    const kept: number[] = [];
    for (const byte of chunk) {
      if (this.escaped) {
        this.escaped = false;
        if (byte === ESCAPE) kept.push(byte);
        else this.commands.get(String.fromCharCode(byte).toLowerCase())?.run();
      } else if (byte === ESCAPE) this.escaped = true;
      else kept.push(byte);
    }
    return Uint8Array.from(kept);
  }

  /** The commands on lines of their own, for a raw terminal. */
  help(): string {
    const lines = [...this.commands].map(([key, { what }]) => `Ctrl-A ${key.toUpperCase()}      ${what}`);
    return ['', ...lines, 'Ctrl-A Ctrl-A sends Ctrl-A', ''].join('\r\n');
  }
}
