import { createVm, type Result, type Vm, type VmOptions } from '../../packages/pvm/src/index.ts';

/** What a command typed into a guest's shell came to. */
export interface CommandResult {
  /** Exit code of the command. */
  readonly status: number;
  /** Standard output and error, without carriage returns. */
  readonly output: string;
  /** On the host's clock. */
  readonly seconds: number;
}

/** Where somebody waits for the console to say something. */
interface Waiter {
  readonly pattern: RegExp;
  readonly found: (text: string) => void;
}

const PROMPT = 'pvm-ready> ';

/** Someone who sits at the serial console of a stock kernel's machine. */
export class GuestSession {
  readonly vm: Vm;
  /** Everything that the console has said. */
  log = '';
  private readonly keyboard: Keyboard;
  private unread = 0;
  private waiter: Waiter | undefined;
  private ended: Promise<Result>;
  private readonly onText: (text: string) => void;

  /** @param onText is given the console's text as it comes */
  static async boot(options: VmOptions, onText: (text: string) => void = () => undefined): Promise<GuestSession> {
    const decoder = new TextDecoder();
    const late: { session?: GuestSession } = {};
    const keyboard = new Keyboard();
    const vm = await createVm({
      ...options,
      stdin: keyboard,
      onSerial: (chunk) => late.session?.heard(decoder.decode(chunk, { stream: true })),
    });
    const session = new GuestSession(vm, keyboard, onText);
    late.session = session;
    return session;
  }

  private constructor(vm: Vm, keyboard: Keyboard, onText: (text: string) => void) {
    this.vm = vm;
    this.keyboard = keyboard;
    this.onText = onText;
    this.ended = vm.run();
    // Who waits for it hears of a failure; until then it must not end the process.
    this.ended.catch(() => undefined);
  }

  /** Waits until the console has said what `pattern` means, after what was expected before. @returns what it said up to there */
  async expect(pattern: RegExp, timeoutMs: number): Promise<string> {
    if (this.waiter !== undefined) throw new Error('somebody else listens to this console');
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    this.waiter = { pattern, found: resolve };
    const timer = setTimeout(() => reject(new Error(`the guest did not say ${pattern} within ${timeoutMs / 1000} s; it said:\n${this.tail()}`)), timeoutMs);
    this.ended.then(
      ({ stopReason }) => reject(new Error(`the guest ended (${stopReason}) before it said ${pattern}; it said:\n${this.tail()}`)),
      (error: unknown) => reject(error),
    );
    this.look();
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.waiter = undefined;
    }
  }

  type(text: string): void {
    this.keyboard.press(text);
  }

  /** Logs in at a getty, and makes the shell fit for `run`. */
  async logIn(user: string, password: string, timeoutMs: number): Promise<void> {
    await this.expect(/login: $/, timeoutMs);
    this.type(`${user}\n`);
    await this.expect(/Password: $/, timeoutMs);
    this.type(`${password}\n`);
    await this.expect(/[#$] $/, timeoutMs);
    await this.prepareShell(timeoutMs);
  }

  /** Makes a shell that reads the console, and has prompted, fit for `run`. */
  async prepareShell(timeoutMs: number): Promise<void> {
    // The prompt is in two parts here, so that what the terminal echoes is not taken for it.
    this.type(`stty -echo; dmesg -n 1; PS2=; bind 'set enable-bracketed-paste off' 2>/dev/null; PS1='pvm-rea''dy> '\n`);
    await this.expect(new RegExp(`${PROMPT}$`), timeoutMs);
  }

  /** Has the shell run a command, which may be of several lines. @throws Error when it takes longer than `timeoutMs` */
  async run(command: string, timeoutMs = 60_000): Promise<CommandResult> {
    const start = performance.now();
    this.type(`{ ${command}\n} < /dev/null 2>&1; echo "==stat""us $?=="\n`);
    const text = await this.expect(new RegExp(`==status \\d+==\\r*\\n(.*\\n)*?${PROMPT}$`), timeoutMs);
    const [, output = '', status = ''] = /^([\s\S]*)==status (\d+)==/.exec(text.replaceAll('\r', '')) ?? [];
    return { status: Number(status), output: output.replaceAll(PROMPT, ''), seconds: (performance.now() - start) / 1000 };
  }

  /** The run's result, once the guest has ended. */
  async end(): Promise<Result> {
    return this.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.vm.abort();
    await this.ended.catch(() => undefined);
    await this.vm.dispose();
  }

  private heard(text: string): void {
    this.log += text;
    this.onText(text);
    this.look();
  }

  private look(): void {
    const { waiter } = this;
    if (waiter === undefined) return;
    const said = this.log.slice(this.unread);
    const match = waiter.pattern.exec(said);
    if (match === null) return;
    this.waiter = undefined;
    const length = match.index + match[0].length;
    this.unread += length;
    waiter.found(said.slice(0, length));
  }

  private tail(): string {
    return this.log.slice(-2000);
  }
}

/** What is typed, for as long as the machine runs. */
class Keyboard implements AsyncIterable<Uint8Array> {
  private text = '';
  private wake = Promise.withResolvers<void>();

  press(text: string): void {
    this.text += text;
    this.wake.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      await this.wake.promise;
      this.wake = Promise.withResolvers();
      const { text } = this;
      this.text = '';
      yield new TextEncoder().encode(text);
    }
  }
}
