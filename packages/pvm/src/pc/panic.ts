import type { Saveable, StateIo } from '@pvm/cpu-jit';
import type { Board } from '@pvm/machine';

/** Exit code of a machine whose kernel panicked. */
export const EXIT_PANIC = 71;

// What Linux prints (kernel/panic.c), with or without its time stamp, at the beginning of a line.
const STAMP = String.raw`(?:^|\n)(?:\[ *\d+\.\d{6}\](?:\[ *[CT]\d+\])? )?`;
const PANIC = new RegExp(`${STAMP}Kernel panic - not syncing: `);
/** The last it prints; after it, it loops for ever. */
const END = new RegExp(`${STAMP}---\\[ end Kernel panic - not syncing: [^\\n]*\\]---\\s*$`);
/** Longest line that is recognised. */
const KEPT = 4096;
/** A program may print the same words; a kernel says nothing after them. */
const SILENCE_NS = 1e9;

/** Looks for a kernel's last words in what it writes to its consoles. */
export class PanicWatch implements Saveable {
  /** The kernel said that it panicked. */
  hasPanicked = false;
  private text = '';
  private readonly silence: ReturnType<Board['timers']['timer']>;
  private readonly timers: Board['timers'];

  /** @param onEnd it panicked and nothing will follow */
  constructor(timers: Board['timers'], onEnd: () => void) {
    this.timers = timers;
    this.silence = timers.timer(onEnd);
  }

  see(data: Uint8Array): void {
    this.text = (this.text + Buffer.from(data).toString('latin1').replaceAll('\r', '')).slice(-KEPT);
    if (this.silence.deadline !== Number.POSITIVE_INFINITY) this.silence.cancel();
    this.hasPanicked ||= this.text.includes('Kernel panic') && PANIC.test(this.text);
    if (this.hasPanicked && END.test(this.text)) this.silence.arm(this.timers.now() + SILENCE_NS);
  }

  /** The timer is one of the board's. */
  state(s: StateIo): void {
    s.fields(this, ['hasPanicked', 'text']);
  }

  reset(): void {
    this.hasPanicked = false;
    this.text = '';
    this.silence.cancel();
  }
}
