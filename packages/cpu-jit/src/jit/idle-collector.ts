import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** How long nothing is to be done before garbage is collected, ms: most pauses of a compiler are shorter. */
const QUIET_MS = 1000;

/**
 * Collects the garbage of this thread when it has had nothing to do for a while. V8 itself leaves it, for it collects when more is allocated: some 20 MiB of what was compiled last,
 * for as long as the machine runs.
 */
export class IdleCollector {
  private timer: NodeJS.Timeout | undefined;
  private collect: ((options: { type: 'major' }) => void) | undefined;

  /** There is work. */
  busy(): void {
    clearTimeout(this.timer);
  }
  /** There is none for now. */
  idle(): void {
    this.busy();
    this.timer = setTimeout(() => this.run(), QUIET_MS);
    this.timer.unref();
  }
  private run(): void {
    if (this.collect === undefined) {
      // V8 has the function only in contexts made under this flag.
      setFlagsFromString('--expose-gc');
      this.collect = runInNewContext('gc');
      setFlagsFromString('--no-expose-gc');
    }
    // Memory comes free some seconds later. The collection of last resort gives it back at once, but drops the compiled code of the compiler as well.
    this.collect?.({ type: 'major' });
  }
}
