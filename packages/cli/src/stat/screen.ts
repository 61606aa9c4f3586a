/** What the view needs of a terminal. */
export interface Terminal {
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

// ECMA-48 and xterm control sequences.
const ALTERNATE_SCREEN = '\x1b[?1049h';
const MAIN_SCREEN = '\x1b[?1049l';
const HIDE_CURSOR = '\x1b[?25l';
const SHOW_CURSOR = '\x1b[?25h';
const HOME = '\x1b[H';
const CLEAR_LINE_END = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';

/** A full-screen view on the terminal's alternate screen: what was there before comes back. */
export class Screen {
  private readonly terminal: Terminal;
  private isEntered = false;

  constructor(terminal: Terminal) {
    this.terminal = terminal;
  }

  enter(): void {
    this.isEntered = true;
    this.terminal.write(ALTERNATE_SCREEN + HIDE_CURSOR);
  }

  /** Draws `top` from the first line on and `bottom` at the end; what does not fit is left out, of `top` first. */
  draw(top: readonly string[], bottom: readonly string[]): void {
    const { columns = 80, rows = 24 } = this.terminal;
    const below = bottom.slice(-rows);
    const above = top.slice(0, Math.max(0, rows - below.length));
    const gap = Array.from({ length: Math.max(0, rows - above.length - below.length) }, () => '');
    const lines = [...above, ...gap, ...below].map((line) => line.slice(0, columns) + CLEAR_LINE_END);
    this.terminal.write(HOME + lines.join('\r\n') + CLEAR_BELOW);
  }

  /** The terminal is as it was. May be called again. */
  leave(): void {
    if (!this.isEntered) return;
    this.isEntered = false;
    this.terminal.write(SHOW_CURSOR + MAIN_SCREEN);
  }
}
