import type { TextRow, Vm } from '@pvm/pvm';

/** How often a terminal is drawn anew, ms. */
const FRAME_MS = 50;
/** VGA's colours have blue as bit 0 and red as bit 2; ANSI's the other way round. */
const ANSI = [0, 4, 2, 6, 1, 5, 3, 7];
const CLEAR = '\x1b[0m\x1b[2J';
const AFTER_LAST_ROW = '\x1b[0m\x1b[26;1H';

/** A row with its colours, for a terminal. */
function coloured({ text, attributes }: TextRow): string {
  let row = '';
  let last = -1;
  [...text].forEach((c, i) => {
    const attribute = attributes[i] ?? 7;
    if (attribute !== last) {
      const foreground = (attribute & 8 ? 90 : 30) + (ANSI[attribute & 7] ?? 7);
      row += `\x1b[${foreground};${40 + (ANSI[(attribute >> 4) & 7] ?? 0)}m`;
      last = attribute;
    }
    row += c;
  });
  return row;
}

/**
 * The text screen of a machine on standard output, its PS/2 keyboard on standard input. A terminal shows the screen all the time; output that is no terminal gets it once, as text,
 * when the machine has ended.
 */
export class Display {
  private readonly output: NodeJS.WriteStream;
  private readonly vm: Vm;
  private readonly timer: NodeJS.Timeout | undefined;
  private shown: string[] = [];
  private isClosed = false;

  constructor(vm: Vm, output: NodeJS.WriteStream, input: AsyncIterable<Uint8Array>) {
    this.vm = vm;
    this.output = output;
    if (output.isTTY) {
      output.write(CLEAR);
      this.timer = setInterval(() => this.draw(), FRAME_MS);
      this.timer.unref();
    }
    this.typing(input).catch((e: unknown) => {
      if (!this.isClosed) throw e;
    });
  }

  private async typing(input: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of input) this.vm.devices?.typeKeys(Buffer.from(chunk).toString('latin1'));
  }

  private draw(): void {
    // A terminal that is slow gets fewer pictures.
    if (this.output.writableNeedDrain) return;
    const rows = (this.vm.devices?.screen() ?? []).map(coloured);
    const changed = rows.map((row, i) => (row === this.shown[i] ? '' : `\x1b[${i + 1};1H${row}`)).join('');
    if (changed !== '') this.output.write(`\x1b[?25l${changed}${AFTER_LAST_ROW}`);
    this.shown = rows;
  }

  /** The last picture, and a cursor below it. Before the machine is disposed of. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    clearInterval(this.timer);
    if (this.output.isTTY) {
      this.draw();
      this.output.write(`${AFTER_LAST_ROW}\x1b[?25h`);
      return;
    }
    const rows = (this.vm.devices?.screen() ?? []).map(({ text }) => text.trimEnd());
    this.output.write(`${rows.join('\n').trimEnd()}\n`);
  }
}
