import { EXIT_TIMEOUT } from '../errors.ts';

/** Signals that end a run, with the exit code that shells expect: 128 + number. */
const SIGNALS = { SIGHUP: 129, SIGINT: 130, SIGQUIT: 131, SIGTERM: 143 } as const;

/** Ends a run from outside: a signal, a key, a time limit. The first of them counts. */
export class Ending {
  private readonly abort = new AbortController();
  private code: number | undefined;
  private reason: string | undefined;
  private timer: NodeJS.Timeout | undefined;
  private readonly handlers = Object.entries(SIGNALS).map(([name, code]) => [name, () => this.end(code)] as const);

  /** @param seconds time limit, undefined: none */
  constructor(seconds: number | undefined) {
    for (const [name, handler] of this.handlers) process.on(name, handler);
    if (seconds === undefined) return;
    this.timer = setTimeout(() => this.end(EXIT_TIMEOUT, `stopped after ${seconds} s (--timeout)`), seconds * 1000);
    // A limit keeps nothing alive.
    this.timer.unref();
  }

  get signal(): AbortSignal {
    return this.abort.signal;
  }

  /** What the process exits with, undefined: nothing ended the run. */
  get exitCode(): number | undefined {
    return this.code;
  }

  /** One line for stderr. */
  get message(): string | undefined {
    return this.reason;
  }

  end(code: number, message?: string): void {
    if (this.code !== undefined) return;
    this.code = code;
    this.reason = message;
    this.abort.abort();
  }

  dispose(): void {
    clearTimeout(this.timer);
    for (const [name, handler] of this.handlers) process.off(name, handler);
  }
}
